"""AdaBelief."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema


class AdaBelief(Optimizer):
    """Adam that divides by how far gradients are from their mean, not by how large they are.

        m ← β₁ m + (1 − β₁) g                    m̂ = m / (1 − β₁ᵗ)
        s ← β₂ s + (1 − β₂) (g − m)² + ε         ŝ = s / (1 − β₂ᵗ)        u = m̂ / (√ŝ + ε)

    Use it for GANs and transformers, and with ε = 1e-8 where SGD generalizes better than Adam. Not
    where gradients hardly change for long: equal ones lead to u = 3 · 10⁶ g with the default ε.

    Args:
        epsilon: ε, at both places: added to s, in units of the squared gradient, at each step.

    Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients",
    2020, algorithm 2. arXiv:2010.07468. ε is that of the authors' later code, without its
    rectification (see RAdam); the paper's is 1e-8.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-16

    def init(self, p):
        return dict(m=zeros(p), s=zeros(p))

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        spread = ema(s.s, tf.square(g - m), h.beta_2) + h.epsilon
        m_hat, s_hat = m / h.correction.beta_1, spread / h.correction.beta_2
        return m_hat / (tf.sqrt(s_hat) + h.epsilon), dict(m=m, s=spread)
