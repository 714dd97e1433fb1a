"""GeneralizedSignSGD."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema


class GeneralizedSignSGD(Optimizer):
    """Between the sign of the momentum and Adam: the second moment is that of the momentum.

        m ← β₁ m + (1 − β₁) g
        v ← β₂ v + (1 − β₂) m²        u = m / (√v + ε)

    With β₂ = 0 it is Signum, and near 1 much like Adam. |u| ≤ 1 / √(1 − β₂), whatever the gradient
    is: it clips by itself. Use it where gradients explode now and then, as in recurrent networks;
    not without a small rate or a warm-up: the first steps have that length, 32 at the default.

    Args:
        epsilon: ε, in units of the gradient.
        use_bias_correction: m / (1 − β₁ᵗ) and v / (1 − β₂ᵗ) in u, as in Adam: the bound is for
            u without it.

    Crawshaw et al., "Robustness to Unbounded Smoothness of Generalized SignSGD", 2022, algorithm 1,
    as in the authors' code, which adds ε and the option. arXiv:2208.11195
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-8
    use_bias_correction: bool = False

    def init(self, p):
        return dict(m=zeros(p), v=zeros(p))

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        v = ema(s.v, m * m, h.beta_2)
        slots = dict(m=m, v=v)
        if self.use_bias_correction:
            m, v = m / h.correction.beta_1, v / h.correction.beta_2
        return tf.math.divide_no_nan(m, tf.sqrt(v) + h.epsilon), slots
