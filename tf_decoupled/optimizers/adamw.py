"""AdamW."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema, shrunk


class AdamW(Optimizer):
    """Adam with decoupled weight decay.

        m ← β₁ m + (1 − β₁) g        m̂ = m / (1 − β₁ᵗ)
        v ← β₂ v + (1 − β₂) g²       v̂ = v / (1 − β₂ᵗ)        u = m̂ / (√v̂ + ε)
        θ ← θ − η u − δ(θ)

    Args:
        epsilon: ε, in units of the gradient.
        amsgrad: v̂ from the largest v so far, as Keras and PyTorch do it.
        epsilon_hat: ε / √(1 − β₂ᵗ) in place of ε: where Keras adds it, to compare with Keras.

    Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2.
    arXiv:1711.05101. `decay_coupling="schedule"` is the algorithm to the letter; the default
    multiplies λ by the learning rate, as Keras and PyTorch do.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.01
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-8
    amsgrad: bool = False
    epsilon_hat: bool = False

    def init(self, p):
        slots = dict(m=zeros(p), v=zeros(p))
        return slots | dict(v_max=zeros(p)) if self.amsgrad else slots

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        v = ema(s.v, g * g, h.beta_2)
        slots = dict(m=m, v=v)
        if self.amsgrad:
            v = slots["v_max"] = tf.maximum(s.v_max, v)
        m_hat, v_hat = m / h.correction.beta_1, v / h.correction.beta_2
        ε = h.epsilon / tf.sqrt(h.correction.beta_2) if self.epsilon_hat else h.epsilon
        return m_hat / (tf.sqrt(v_hat) + ε), slots

    def catch_up(self, p, s, h, k):
        """m ← β₁ᵏ m,  v ← β₂ᵏ v,  θ ← (1 − κ)ᵏ θ;  θ doesn't move along m̂ / (√v̂ + ε) meanwhile."""
        slots = dict(m=h.beta_1**k * s.m, v=h.beta_2**k * s.v)
        slots |= dict(v_max=s.v_max) if self.amsgrad else {}
        return shrunk(p, h.decay, k), slots
