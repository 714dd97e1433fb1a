"""FtrlW, and Ftrl with Keras's defaults and Keras's start."""

from typing import ClassVar

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Initial, NonPositive, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, copy, zeros
from tf_decoupled.math import soft_threshold


class FtrlW(Optimizer):
    """Follow the regularized leader: Adagrad whose l1 makes weights zero, with decoupled decay.

        n ← n + g²        a = β + nᵖ before that, a' after it
        w ← θ + (a / a') (w − θ) − (η / a') (g + 2 λ_s θ) − (1 + 2 λ₂ η / a') δ(θ)
        θ ← sign(w) max(|w| − λ₁ η / a', 0) / (1 + 2 λ₂ η / a')

    The paper's z is −a w / η. Without λ₁ and λ₂ the value w is θ, and this is Adagrad. Use it for
    large sparse linear models that are to be small; not for deep networks, where zeros spread.

    Args:
        learning_rate_power: −p: the rate falls as n to this power; −0.5 is Adagrad's.
        initial_accumulator_value: n before the first step, in units of the squared gradient.
        l1_regularization_strength: λ₁ of λ₁ |θ|.
        l2_regularization_strength: λ₂ of λ₂ θ².
        l2_shrinkage_regularization_strength: λ_s of λ_s θ², whose gradient joins g, but not n.
        beta: β of the paper: it keeps the first rates small, in units of nᵖ.

    McMahan et al., "Ad Click Prediction: a View from the Trenches", 2013, algorithm 1; McMahan, "A
    Survey of Algorithms and Analysis for Adaptive Online Learning", 2014, arXiv:1403.3465. Departs
    from the paper, whose weights start at zero: w starts as θ, so the first step moves from there.
    η in z is always the present rate: one that falls doesn't shrink the weights.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.01
    learning_rate_power: NonPositive = -0.5
    initial_accumulator_value: Initial = 0.1
    l1_regularization_strength: Scalar = 0.0
    l2_regularization_strength: Scalar = 0.0
    l2_shrinkage_regularization_strength: Scalar = 0.0
    beta: Scalar = 0.0

    def init(self, p):
        return dict(n=Slot(tuple(p.shape), self.initial_accumulator_value), w=copy(p))

    def step(self, p, g, s, h):
        n = s.n + g * g
        before, after = h.beta + self.power(s.n), h.beta + self.power(n)
        rate = tf.math.divide_no_nan(h.learning_rate, after)
        shrink = 1 + 2 * h.l2_regularization_strength * rate
        w = p + tf.math.divide_no_nan(before, after) * (s.w - p) - rate * self.shrunken(p, g, h)
        w = w - shrink * h.decay * p
        θ = soft_threshold(w, h.l1_regularization_strength * rate) / shrink
        return θ, dict(n=n, w=w)

    def power(self, n):
        """nᵖ."""
        p = -self.learning_rate_power
        return tf.sqrt(n) if p == 0.5 else n**p

    def shrunken(self, p, g, h):
        """The gradient with that of λ_s θ²."""
        return g + 2 * h.l2_shrinkage_regularization_strength * p


class Ftrl(FtrlW):
    """FTRL with the defaults of `keras.optimizers.Ftrl`, whose steps it takes.

        n' = n + g²        a = nᵖ, a' = n'ᵖ        Q = (a' + β) / η + 2 λ₂
        z ← z + g + 2 λ_s θ − (a' − a) / η · θ + Q δ(θ)
        θ ← −sign(z) max(|z| − λ₁, 0) / Q,  n ← n'

    z starts at 0, as if all weights had been 0: the first step makes them smaller, and 0 where the
    gradient is 0. A rate that falls shrinks them with it. Use it to take over a script that starts
    at 0; elsewhere FtrlW.

    Args:
        learning_rate_power: −p: the rate falls as n to this power; −0.5 is Adagrad's.
        initial_accumulator_value: n before the first step, in units of the squared gradient.
        l1_regularization_strength: λ₁ of λ₁ |θ|.
        l2_regularization_strength: λ₂ of λ₂ θ².
        l2_shrinkage_regularization_strength: λ_s of λ_s θ², whose gradient joins g, but not n.
        beta: β of the paper: it keeps the first rates small, in units of nᵖ.

    McMahan et al., "Ad Click Prediction: a View from the Trenches", 2013, algorithm 1; McMahan, "A
    Survey of Algorithms and Analysis for Adaptive Online Learning", 2014, arXiv:1403.3465. Departs
    from the paper: the present η stands for those of all steps, as in Keras; where it is 0 the
    weights only decay. δ joins z, which would undo it otherwise.
    """

    weight_decay: Scalar = 0.0

    positional: ClassVar = ("learning_rate",)  # Keras's second is another: neither is guessed

    def init(self, p):
        return dict(n=Slot(tuple(p.shape), self.initial_accumulator_value), z=zeros(p))

    def step(self, p, g, s, h):
        n, η = s.n + g * g, h.learning_rate
        before, after = self.power(s.n), self.power(n)
        Q = after + h.beta + 2 * η * h.l2_regularization_strength  # times η
        kept = after - before - h.decay * Q
        z = s.z + self.shrunken(p, g, h) - tf.math.divide_no_nan(kept, η) * p
        θ = -η * tf.math.divide_no_nan(soft_threshold(z, h.l1_regularization_strength), Q)
        return tf.where(η > 0, θ, p - h.decay * p), dict(n=n, z=z)
