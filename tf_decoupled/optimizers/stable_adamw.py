"""StableAdamW."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import debiased_momentum, ema, rms


class StableAdamW(Optimizer):
    """AdamW whose steps are shortened where the gradients outgrow their second moment.

        β̂ = β (1 − βᵗ⁻¹) / (1 − βᵗ)        of β₁ and of β₂: m and v are Adam's m̂ and v̂
        m ← β̂₁ m + (1 − β̂₁) g
        v ← β̂₂ v + (1 − β̂₂) g²             r = RMS(g / max(√v, ε)), over a variable
        θ ← θ − (η m / (√v + ε) + δ(θ)) / max(1, r)

    The decay is shortened with the step, under every `decay_coupling`.

    Use it in place of clipped gradients where the loss has spikes: large transformers, low
    precision. Not for its own sake: where r ≤ 1 it is AdamW.

    Args:
        epsilon: ε, in units of the gradient.

    Wortsman et al., "Stable and low-precision training for large-scale vision-language models",
    2023, the algorithm "StableAdamW". arXiv:2304.13013
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.01
    beta_1: Beta = 0.9
    beta_2: Beta = 0.99
    epsilon: Scalar = 1e-8

    def init(self, p):
        return dict(m=zeros(p), v=zeros(p))

    def step(self, p, g, s, h):
        m = ema(s.m, g, debiased_momentum(h.beta_1, h.correction.beta_1))
        v = ema(s.v, g * g, debiased_momentum(h.beta_2, h.correction.beta_2))
        r = rms(tf.math.divide_no_nan(g, tf.maximum(tf.sqrt(v), h.epsilon)))
        u = m / (tf.sqrt(v) + h.epsilon)
        return p - (h.learning_rate * u + h.decay * p) / tf.maximum(r, 1.0), dict(m=m, v=v)
