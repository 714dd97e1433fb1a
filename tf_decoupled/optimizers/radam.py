"""RAdam."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema, rectification


class RAdam(Optimizer):
    """Adam that rectifies its rate while the second moment rests on few gradients.

        m, v, m̂, v̂ as in Adam        ρ∞ = 2 / (1 − β₂) − 1        ρ = ρ∞ − 2 t β₂ᵗ / (1 − β₂ᵗ)
        r = √((ρ − 4) (ρ − 2) ρ∞ / ((ρ∞ − 4) (ρ∞ − 2) ρ))
        u = r m̂ / (√v̂ + ε) where ρ > 4, and m̂ before: SGD with momentum

    Use it for Adam without a warm-up of the rate. Not where gradients are much larger than 1: the
    first four steps are as long as these. With β₂ below 0.6 it is SGD with momentum for ever.

    Args:
        epsilon: ε, in units of the gradient.

    Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020, algorithm 2.
    arXiv:1908.03265. Departs from the paper, which has no ε. The authors' code, PyTorch and optax
    wait for ρ ≥ 5: one step longer with β₂ = 0.999.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-8

    def init(self, p):
        return dict(m=zeros(p), v=zeros(p))

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        v = ema(s.v, g * g, h.beta_2)
        m_hat, v_hat = m / h.correction.beta_1, v / h.correction.beta_2
        ρ, r = rectification(h.beta_2, h.correction.beta_2, h.t)
        u = tf.where(ρ > 4, r * m_hat / (tf.sqrt(v_hat) + h.epsilon), m_hat)
        return u, dict(m=m, v=v)
