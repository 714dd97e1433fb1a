"""Prodigy."""

import math

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Constant, Growth, Positive, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, copy, zeros
from tf_decoupled.math import ema


class Prodigy(Optimizer):
    """Adam that finds its own rate: d, an estimate of how far the start is from the solution.

        δ = d η c            c = 1, or √(1 − β₂ᵗ) / (1 − β₁ᵗ) with `use_bias_correction`
        q ← √β₂ q + (d / d₀) δ ⟨g, θ₀ − θ⟩        over all variables; θ₀: where each started
        s ← √β₂ s + (d / d₀) δ g                  d̂ = d_coef · q / ‖s‖₁, over all variables
        m ← β₁ m + (1 − β₁) d g        v ← β₂ v + (1 − β₂) d² g²
        d' = max(d_max, d̂), at most growth · d once d > d₀        d_max ← max(d_max, d̂)
        θ ← θ − δ m / (√v + d' ε) − d c δ(θ)      d ← d'

    The rate η is a factor, 1 unless a schedule makes it fall. d, d_max and q are one each for the
    whole model. d multiplies the decay under every `decay_coupling`: one that moves weights
    further than d does would decide the sign of q, and d might never grow.

    Args:
        d0: d₀, below any rate that could be right; d only grows.
        d_coef: a factor of d̂; 0.5 or 2 where the rate that was found is too large or small.
        growth_rate: growth: what d may be multiplied by in a step.
        use_bias_correction: Adam's, in one factor; without it the first steps are 3 times longer.
        safeguard_warmup: (d / d₀) d g in s: d doesn't depend on a warm-up's small rates.

    Mishchenko & Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", 2023,
    algorithm 4, as in the authors' code: averages with √β₂, d_max, growth. arXiv:2306.06101
    """

    learning_rate: Scalar = 1.0
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-8
    d0: Constant = 1e-6
    d_coef: Positive = 1.0
    growth_rate: Growth = math.inf
    use_bias_correction: bool = False
    safeguard_warmup: bool = False

    def init(self, p):
        return dict(m=zeros(p), v=zeros(p), s=zeros(p), start=copy(p))

    def shared(self):
        return dict(d=Slot((), self.d0), d_max=Slot((), self.d0), q=Slot((), 0.0))

    def reduce(self, p, g, s, h):
        moved = tf.reduce_sum(g * (s.start - p))
        return dict(moved=moved, length=tf.reduce_sum(tf.abs(self.direction(g, s, h, h.d))))

    def combine(self, sums, h):
        q = tf.sqrt(h.beta_2) * h.q + h.d / self.d0 * h.d * self.rate(h) * sums.moved
        found = h.d_coef * tf.math.divide_no_nan(q, sums.length)
        d_max = tf.maximum(h.d_max, found)
        at_start = h.d <= self.d0 * (1 + 1e-6)  # as float32 holds it
        d = tf.where(at_start, d_max, tf.minimum(d_max, h.d * h.growth_rate))
        return dict(d=d, d_max=d_max, q=q, d_before=h.d)

    def step(self, p, g, s, h):
        d, rate = h.d_before, self.rate(h)
        m = ema(s.m, d * g, h.beta_1)
        v = ema(s.v, tf.square(d * g), h.beta_2)
        u = m / (tf.sqrt(v) + h.d * h.epsilon)
        decay = d * self.correction(h) * h.decay
        slots = dict(m=m, v=v, s=self.direction(g, s, h, d), start=s.start)
        return p - d * rate * u - decay * p, slots

    def direction(self, g, s, h, d):
        """s, the weighted sum of gradients, with this one."""
        weight = d if self.safeguard_warmup else d * self.rate(h)
        return tf.sqrt(h.beta_2) * s.s + d / self.d0 * weight * g

    def rate(self, h):
        """η c: what d is multiplied by."""
        return h.learning_rate * self.correction(h)

    def correction(self, h):
        if not self.use_bias_correction:
            return 1.0
        return tf.sqrt(h.correction.beta_2) / h.correction.beta_1
