"""Signum."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema, shrunk, shrunk_series


class Signum(Optimizer):
    """The sign of the momentum: every weight moves by the learning rate, up or down.

        m ← β m + (1 − β) g        u = sign(m)

    Without momentum it is signSGD. Use it where gradients have outliers, or memory is short; not
    with a constant rate to the end: weights never come to rest, but jump by ± η.

    Args:
        momentum: β.

    Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", 2018, the
    algorithm Signum. arXiv:1802.04434
    """

    learning_rate: Scalar = 1e-4
    weight_decay: Scalar = 0.0
    momentum: Beta = 0.9

    def init(self, p):
        return dict(m=zeros(p))

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.momentum)
        return tf.sign(m), dict(m=m)

    def catch_up(self, p, s, h, k):
        """θ ← (1 − κ)ᵏ θ − η sign(β m) Σⱼ (1 − κ)ᵏ⁻ʲ,  m ← βᵏ m: exact."""
        moved = h.learning_rate * tf.sign(h.momentum * s.m) * shrunk_series(1.0, h.decay, k)
        return shrunk(p, h.decay, k) - moved, dict(m=h.momentum**k * s.m)
