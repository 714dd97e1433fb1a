"""Fromage."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.math import norm, rescaled


class Fromage(Optimizer):
    """Each variable turns by the same angle: steps relative to its norm, which can't run away.

        θ ← (θ − η (‖θ‖ / ‖g‖) g) / √(1 + η²) − δ(θ)        the ratio is 1 where a norm is 0

    A gradient at a right angle to θ turns it by arctan η and leaves its norm; any other gradient,
    zero included, shrinks what it doesn't move. Use it without tuning the rate, and where Adam's
    memory is too much: it has no state. Not for variables that start at 0, or must stay small.

    Bernstein et al., "On the distance between two neural networks and the stability of learning",
    2020, its algorithm. arXiv:2002.03432. The authors' option `p_bound`, a bound on ‖θ‖, is left
    out.
    """

    learning_rate: Scalar = 0.01
    weight_decay: Scalar = 0.0

    def init(self, p):
        return {}

    def step(self, p, g, s, h):
        moved = p - h.learning_rate * rescaled(g, norm(g), norm(p))
        # 1 − 1 / √(1 + η²): float32 would round the root itself in the same way at every step.
        shrinks = -tf.math.expm1(-0.5 * tf.math.log1p(h.learning_rate * h.learning_rate))
        return moved - shrinks * moved - h.decay * p, {}
