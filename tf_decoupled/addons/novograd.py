"""Addons' NovoGrad."""

from typing import ClassVar

import tensorflow as tf

from tf_decoupled.addons.constructor import FromAddons
from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, zeros
from tf_decoupled.math import ema


class NovoGrad(FromAddons, Optimizer):
    """NovoGrad as TensorFlow Addons has it: the momentum holds the rate and the decay.

        v ← β₂ v + (1 − β₂) ‖g‖²        ‖g‖² at the first update
        x = η g / (√v + ε) + δ(θ)       times 1 − β₁ after the first update, if averaged
        m ← β₁ m + x,  θ ← θ − m

    Args:
        grad_averaging: whether x is averaged in place of summed.
        amsgrad: the largest v so far in place of v.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-7
    grad_averaging: bool = False
    amsgrad: bool = False

    positional: ClassVar = (
        *("learning_rate", "beta_1", "beta_2", "epsilon", "weight_decay"),
        *("grad_averaging", "amsgrad"),
    )

    def init(self, p):
        slots = dict(m=zeros(p), v=Slot((), 0.0))
        return slots | dict(v_max=Slot((), 0.0)) if self.amsgrad else slots

    def step(self, p, g, s, h):
        square = tf.reduce_sum(g * g)
        v = tf.where(h.t > 1, ema(s.v, square, h.beta_2), square)
        slots = dict(v=v)
        if self.amsgrad:
            v = slots["v_max"] = tf.maximum(s.v_max, v)
        x = h.learning_rate * g / (tf.sqrt(v) + h.epsilon) + h.decay * p
        if self.grad_averaging:
            x *= tf.where(h.t > 1, 1 - h.beta_1, 1.0)
        m = h.beta_1 * s.m + x
        return p - m, slots | dict(m=m)
