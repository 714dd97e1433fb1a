"""Lion."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema, shrunk, shrunk_series


class Lion(Optimizer):
    """Evolved sign momentum: every weight moves by the learning rate, up or down.

        u = sign(β₁ m + (1 − β₁) g)
        m ← β₂ m + (1 − β₂) g

    Compared with AdamW, take a 3 to 10 times smaller rate and a 3 to 10 times larger decay.

    Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, program 1 and algorithm 2.
    arXiv:2302.06675
    """

    learning_rate: Scalar = 1e-4
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.99

    def init(self, p):
        return dict(m=zeros(p))

    def update(self, p, g, s, h):
        return tf.sign(ema(s.m, g, h.beta_1)), dict(m=ema(s.m, g, h.beta_2))

    def catch_up(self, p, s, h, k):
        """θ ← (1 − κ)ᵏ θ − η sign(β₁ m) Σⱼ (1 − κ)ᵏ⁻ʲ,  m ← β₂ᵏ m: exact."""
        moved = h.learning_rate * tf.sign(h.beta_1 * s.m) * shrunk_series(1.0, h.decay, k)
        return shrunk(p, h.decay, k) - moved, dict(m=h.beta_2**k * s.m)
