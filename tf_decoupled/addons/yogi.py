"""Addons' Yogi."""

from typing import ClassVar, Literal

import tensorflow as tf

from tf_decoupled.addons.constructor import FromAddons
from tf_decoupled.engine.hyperparameters import Beta, Constant, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, zeros
from tf_decoupled.math import ema, soft_threshold


class Yogi(FromAddons, Optimizer):
    """Yogi as TensorFlow Addons has it: ε beside the uncorrected √v, and a proximal step.

        m ← β₁ m + (1 − β₁) g
        v ← v + (1 − β₂) f(g² − v) g²           f = sign, or tanh of 10 times it
        a = η √(1 − β₂ᵗ) / (1 − β₁ᵗ) / (√v + ε)
        w = θ − a m − δ(θ)
        θ ← sign(w) max(|w| − a λ₁, 0) / (1 + a λ₂)

    Args:
        l1_regularization_strength, l2_regularization_strength: λ₁, and λ₂ of ½ λ₂ θ².
        activation: f.
    """

    learning_rate: Scalar = 0.01
    weight_decay: Scalar = 0.0
    beta1: Beta = 0.9
    beta2: Beta = 0.999
    epsilon: Scalar = 1e-3
    l1_regularization_strength: Scalar = 0.0
    l2_regularization_strength: Scalar = 0.0
    initial_accumulator_value: Constant = 1e-6
    activation: Literal["sign", "tanh"] = "sign"

    positional: ClassVar = (
        *("learning_rate", "beta1", "beta2", "epsilon", "l1_regularization_strength"),
        *("l2_regularization_strength", "initial_accumulator_value", "activation"),
    )

    def init(self, p):
        return dict(m=zeros(p), v=Slot(tuple(p.shape), self.initial_accumulator_value))

    def step(self, p, g, s, h):
        m = ema(s.m, g, h.beta1)
        change = g * g - s.v
        change = tf.sign(change) if self.activation == "sign" else tf.tanh(10 * change)
        v = s.v + (1 - h.beta2) * change * g * g
        a = h.learning_rate * tf.sqrt(h.correction.beta2) / h.correction.beta1
        a = a / (tf.sqrt(v) + h.epsilon)
        w = soft_threshold(p - a * m - h.decay * p, a * h.l1_regularization_strength)
        return w / (1 + a * h.l2_regularization_strength), dict(m=m, v=v)
