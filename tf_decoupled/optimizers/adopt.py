"""ADOPT."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, zeros
from tf_decoupled.math import ema


class ADOPT(Optimizer):
    """Adam that divides by the second moment of the gradients before, and then takes momentum.

        a variable's first gradient:  v ← g²,  u = 0
        its k-th after that:          ĝ = g / max(√v, ε), each entry clipped to ± k^¼
                                      m ← β₁ m + (1 − β₁) ĝ        u = m
                                      v ← β₂ v + (1 − β₂) g²

    There is no bias correction: the first steps are short, as in a warm-up of 1 / (1 − β₁) steps.

    Use it where Adam's result depends on β₂: it converges with any. Not for sparse gradients:
    an entry whose first gradient was 0 moves by ± k^¼ at its next, whatever the size of that.

    Args:
        epsilon: ε, the least divisor, in units of the gradient.

    Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any β₂ with the Optimal Rate", 2024,
    the algorithm with clipping of its later versions. arXiv:2411.02853. Departs from the authors'
    code in that the decay, δ, acts at the first gradient, too.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.9999
    epsilon: Scalar = 1e-6

    def init(self, p):
        return dict(m=zeros(p), v=zeros(p), k=Slot((), 0.0))

    def update(self, p, g, s, h):
        most = tf.sqrt(tf.sqrt(s.k))  # 0 at the first gradient, so that m stays 0
        ĝ = tf.math.divide_no_nan(g, tf.maximum(tf.sqrt(s.v), h.epsilon))
        m = ema(s.m, tf.maximum(tf.minimum(ĝ, most), -most), h.beta_1)
        v = tf.where(s.k > 0, ema(s.v, g * g, h.beta_2), g * g)
        return m, dict(m=m, v=v, k=s.k + 1)
