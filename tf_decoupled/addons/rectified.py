"""Addons' RectifiedAdam and AdaBelief: rectified steps, and a warm-up of their own."""

from typing import ClassVar

import tensorflow as tf

from tf_decoupled.addons.constructor import FromAddons
from tf_decoupled.engine.hyperparameters import Beta, Scalar, Whole
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema, rectification

FIRST = ("learning_rate", "beta_1", "beta_2", "epsilon", "weight_decay", "amsgrad")
LAST = ("sma_threshold", "total_steps", "warmup_proportion", "min_lr")


class Rectified(FromAddons, Optimizer):
    """What the two share.

        u = r m̂ / (√v̂ + ε) where ρ ≥ sma_threshold, m̂ before;  r, ρ as in td.RAdam
        θ ← θ − η (u + λ θ)

    With `total_steps` the rate rises and falls on lines by itself:

        w = total_steps · warmup_proportion
        t ≤ w:  η t / w        after it:  from η to min_lr, which it has at total_steps

    Args:
        amsgrad: v̂ from the largest v so far.
        sma_threshold: the least ρ with which steps are divided by √v̂ + ε.
        total_steps: 0 leaves the rate as it is.
        warmup_proportion: the share of them in which the rate rises.
        min_lr: the last rate.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-7
    amsgrad: bool = False
    sma_threshold: Scalar = 5.0
    total_steps: Whole = 0
    warmup_proportion: Scalar = 0.1
    min_lr: Scalar = 0.0

    rectify = True  # an argument of AdaBelief alone

    def second_moment(self, v, g, m, h):
        """The new v, with m the new mean of gradients."""
        raise NotImplementedError

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        v = self.second_moment(s.v, g, m, h)
        slots = dict(m=m, v=v)
        if self.amsgrad:
            v = slots["v_max"] = tf.maximum(s.v_max, v)
        m_hat, v_hat = m / h.correction.beta_1, v / h.correction.beta_2
        u = m_hat / (tf.sqrt(v_hat) + h.epsilon)
        if self.rectify:
            ρ, r = rectification(h.beta_2, h.correction.beta_2, h.t)
            u = tf.where(ρ >= h.sma_threshold, r * u, m_hat)
        return u, slots

    def moments(self, p):
        slots = dict(m=zeros(p), v=zeros(p))
        return slots | dict(v_max=zeros(p)) if self.amsgrad else slots

    def resolved(self, own, step):
        h = super().resolved(own, step)
        if self.total_steps and "learning_rate" in h:
            h["learning_rate"] = self.warmed_up(h, tf.cast(step + 1, tf.float32))
        return h

    def warmed_up(self, h, t):
        """The rate of update t, counted from 1."""
        rate, rising = h["learning_rate"], self.total_steps * h["warmup_proportion"]
        falling = tf.maximum(self.total_steps - rising, 1.0)
        fallen = rate + (h["min_lr"] - rate) * tf.minimum(t - rising, falling) / falling
        return tf.where(t <= rising, rate * tf.math.divide_no_nan(t, rising), fallen)


class RectifiedAdam(Rectified):
    """RAdam as TensorFlow Addons has it: it rectifies from ρ ≥ 5 on, and knows AMSGrad."""

    epsilon: Scalar = 1e-7

    positional: ClassVar = (*FIRST, *LAST)

    def init(self, p):
        return self.moments(p)

    def second_moment(self, v, g, m, h):
        return ema(v, g * g, h.beta_2)


class AdaBelief(Rectified):
    """AdaBelief as TensorFlow Addons has it: rectified, unless told not to be.

    Args:
        rectify: False leaves r out.
    """

    epsilon: Scalar = 1e-14
    rectify: bool = True

    positional: ClassVar = (*FIRST, "rectify", *LAST)

    def init(self, p):
        return self.moments(p)

    def second_moment(self, v, g, m, h):
        return ema(v, tf.square(g - m), h.beta_2) + h.epsilon
