"""DAdaptAdamW."""

import math

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Constant, Growth, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, zeros
from tf_decoupled.math import ema


class DAdaptAdamW(Optimizer):
    """Adam that finds its own rate: d, a lower bound on how far the start is from the solution.

        δ = d η c            c = 1, or √(1 − β₂ᵗ) / (1 − β₁ᵗ) with `use_bias_correction`
        r ← √β₂ r + (1 − √β₂) δ ⟨g, s / (√v + ε)⟩        over all variables; s and v before the step
        s ← √β₂ s + (1 − √β₂) δ g        d̂ = r / ((1 − √β₂) ‖s‖₁), over all variables
        m ← β₁ m + (1 − β₁) δ g          v ← β₂ v + (1 − β₂) g²
        θ ← θ − m / (√v + ε) − d c δ(θ)
        d ← max(d, min(d̂, growth · d)),  from the next step on

    The rate η is a factor, 1 unless a schedule makes it fall. d and r are one each for the whole
    model. d multiplies the decay under every `decay_coupling`, as the authors' code does it.

    Use it where Adam's rate is unknown; not where a good rate is known: Adam with that is as good,
    with less state. `Prodigy` is its successor, and grows faster.

    Args:
        epsilon: ε, in units of the gradient.
        d0: the first d, below any rate that could be right; d only grows.
        growth_rate: growth: what d may be multiplied by in a step; 1.02 is a warm-up.
        use_bias_correction: Adam's, in one factor; without it the first steps are 3 times longer.

    Defazio & Mishchenko, "Learning-Rate-Free Learning by D-Adaptation", 2023, the Adam form of the
    algorithm, as in the authors' code. arXiv:2301.07733
    """

    learning_rate: Scalar = 1.0
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-8
    d0: Constant = 1e-6
    growth_rate: Growth = math.inf
    use_bias_correction: bool = False

    def init(self, p):
        return dict(m=zeros(p), v=zeros(p), s=zeros(p))

    def shared(self):
        return dict(d=Slot((), self.d0), r=Slot((), 0.0))

    def reduce(self, p, g, s, h):
        along = tf.math.divide_no_nan(s.s, tf.sqrt(s.v) + h.epsilon)
        length = tf.reduce_sum(tf.abs(self.direction(g, s, h, h.d)))
        return dict(along=tf.reduce_sum(g * along), length=length)

    def combine(self, sums, h):
        part = self.part(h)
        r = (1 - part) * h.r + part * h.d * self.rate(h) * sums.along
        found = tf.math.divide_no_nan(r / part, sums.length)
        d = tf.maximum(h.d, tf.minimum(found, h.d * h.growth_rate))
        return dict(d=d, r=r, d_before=h.d)

    def step(self, p, g, s, h):
        d = h.d_before
        m = ema(s.m, d * self.rate(h) * g, h.beta_1)
        v = ema(s.v, g * g, h.beta_2)
        u = tf.math.divide_no_nan(m, tf.sqrt(v) + h.epsilon)
        decay = d * self.correction(h) * h.decay
        return p - u - decay * p, dict(m=m, v=v, s=self.direction(g, s, h, d))

    def direction(self, g, s, h, d):
        """s, the weighted mean of gradients, with this one."""
        part = self.part(h)
        return (1 - part) * s.s + part * d * self.rate(h) * g

    def part(self, h):
        """1 − √β₂, with the digits that the difference would lose in float32."""
        return (1 - h.beta_2) / (1 + tf.sqrt(h.beta_2))

    def rate(self, h):
        """η c: what d is multiplied by."""
        return h.learning_rate * self.correction(h)

    def correction(self, h):
        if not self.use_bias_correction:
            return 1.0
        return tf.sqrt(h.correction.beta_2) / h.correction.beta_1
