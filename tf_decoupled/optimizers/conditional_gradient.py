"""Conditional gradient."""

import math
from typing import Literal

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Count, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.math import norm
from tf_decoupled.matrices import top_singular_direction


class ConditionalGradient(Optimizer):
    """Frank and Wolfe's method: each variable stays in a ball, without a projection.

        "fro":      s = g / (‖g‖ + ε)              ‖θ‖ ≤ λ
        "nuclear":  s = u₁ v₁ᵀ of g = U Σ Vᵀ       the sum of θ's singular values ≤ λ
        θ ← (1 − η) θ − η λ s − δ(θ)

    −λ s is the point of the ball that is farthest along the gradient; the step goes the share η
    of the way to it. Use it to constrain a layer's size or rank, with a rate that falls as
    2 / (t + 2); not as a general optimizer: a step is as long however small the gradient is.

    Args:
        learning_rate: η, from 0 to 1. TensorFlow Addons' is 1 − η, what is kept of θ.
        lambda_: λ, the radius of the ball.
        epsilon: ε, in units of the gradient's norm; for "fro".
        ord: the norm: "fro" of all entries, "nuclear" of a matrix. A kernel of more axes is taken
            as [all the others, out], a vector as one row, for which both are the same.
        power_steps: rounds of power iteration for u₁ and v₁.

    Ravi, Dinh, Lokhande & Singh, "Constrained Deep Learning using Conditional Gradient and
    Applications in Computer Vision", 2018, arXiv:1803.06453; the algorithm is Frank & Wolfe's,
    1956. Departs from TensorFlow Addons, whose rate is 1 − η, so that schedules, multipliers and
    decay mean what they mean everywhere; and u₁, v₁ are approximate: a start that is not at right
    angles to v₁ comes closer by (σ₂ / σ₁)² a round.
    """

    learning_rate: Scalar = 0.01
    weight_decay: Scalar = 0.0
    lambda_: Scalar = 0.01
    epsilon: Scalar = 1e-7
    ord: Literal["fro", "nuclear"] = "fro"
    power_steps: Count = 16

    def update(self, p, g, s, h):
        if self.ord == "fro":
            direction = tf.math.divide_no_nan(g, norm(g) + h.epsilon)
        else:
            columns = p.shape[-1] if len(p.shape) else 1
            matrix = tf.reshape(g, [math.prod(p.shape[:-1]), columns])
            direction = tf.reshape(top_singular_direction(matrix, self.power_steps), p.shape)
        return p + h.lambda_ * direction, {}
