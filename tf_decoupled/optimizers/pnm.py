"""PNM and AdaPNM."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema


class PNM(Optimizer):
    """Positive-negative momentum: the difference of two averages, for more noise in the gradient.

        mₜ = β₁² mₜ₋₂ + (1 − β₁²) g        one average of the odd steps, one of the even steps
        u = ((1 + β₀) mₜ − β₀ mₜ₋₁) / √((1 + β₀)² + β₀²)

    The root keeps the variance of u, whatever β₀ is. Use it in place of SGD with momentum where
    that generalizes badly; not where gradients are noisy already. A constant gradient is divided
    by the root: by √5 at the default, so the rate may be about twice that of SGD.

    Args:
        beta_0: β₀, how much of the older average is taken away; with 0 it is momentum of every
            other gradient.

    Xie et al., "Positive-Negative Momentum: Manipulating Stochastic Gradient Noise to Improve
    Generalization", 2021, the algorithm PNM, as in the authors' code. arXiv:2103.17182
    """

    learning_rate: Scalar = 0.01
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_0: Scalar = 1.0

    def init(self, p):
        return dict(m=zeros(p), older=zeros(p))

    def update(self, p, g, s, h):
        m = ema(s.older, g, h.beta_1 * h.beta_1)
        return positive_negative(m, s.m, h.beta_0), dict(m=m, older=s.m)


class AdaPNM(Optimizer):
    """Adam with positive-negative momentum.

        mₜ = β₁² mₜ₋₂ + (1 − β₁²) g        v ← β₂ v + (1 − β₂) g²        v̂ = max v / (1 − β₂ᵗ)
        u = ((1 + β₀) mₜ − β₀ mₜ₋₁) / √((1 + β₀)² + β₀²) / (1 − β₁ᵗ) / (√v̂ + ε)

    Use it in place of AdamW where that generalizes badly; not where gradients are noisy already.
    It has twice the state.

    Args:
        beta_0: β₀, how much of the older average is taken away.
        epsilon: ε, in units of the gradient.
        amsgrad: v̂ from the largest v so far, as Keras and PyTorch do it; else from v.

    Xie et al., "Positive-Negative Momentum: Manipulating Stochastic Gradient Noise to Improve
    Generalization", 2021, the algorithm AdaPNM, as in the authors' code. arXiv:2103.17182
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    beta_0: Scalar = 1.0
    epsilon: Scalar = 1e-8
    amsgrad: bool = True

    def init(self, p):
        slots = dict(m=zeros(p), older=zeros(p), v=zeros(p))
        return slots | dict(v_max=zeros(p)) if self.amsgrad else slots

    def update(self, p, g, s, h):
        m = ema(s.older, g, h.beta_1 * h.beta_1)
        v = ema(s.v, g * g, h.beta_2)
        slots = dict(m=m, older=s.m, v=v)
        if self.amsgrad:
            v = slots["v_max"] = tf.maximum(s.v_max, v)
        m_hat = positive_negative(m, s.m, h.beta_0) / h.correction.beta_1
        return m_hat / (tf.sqrt(v / h.correction.beta_2) + h.epsilon), slots


def positive_negative(m: tf.Tensor, older: tf.Tensor, beta_0: tf.Tensor) -> tf.Tensor:
    """((1 + β₀) m − β₀ older) / √((1 + β₀)² + β₀²)."""
    root = tf.sqrt(tf.square(1 + beta_0) + tf.square(beta_0))
    return (1 + beta_0) / root * m - beta_0 / root * older
