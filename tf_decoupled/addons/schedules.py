"""Addons' cyclical rates."""

from collections.abc import Callable
from typing import Annotated, Any

import tensorflow as tf

from tf_decoupled.engine import kinds, registry
from tf_decoupled.schedules.curves import between, float32, triangle
from tf_decoupled.schedules.kinds import Length, Rate, choice, limit
from tf_decoupled.schedules.schedule import Schedule, largest

Mode = Annotated[str, choice("cycle", "iterations")]


class Cycles(Schedule):
    """A rate that goes up and down between two, and what that is scaled by.

        rate = lo + (hi − lo) · max(0, 1 − |n / s − 2c + 1|) · f(x),   c = ⌊1 + n / (2s)⌋
        x = c with scale_mode="cycle", n with "iterations"

    lo is `initial_learning_rate`, hi `maximal_learning_rate`, s `step_size`.
    """

    initial_learning_rate: Rate
    maximal_learning_rate: Rate
    step_size: Length

    scale_mode = "cycle"

    def rate(self, n):
        s = self.step_size
        x = float32(1 + n // (2 * s) if self.scale_mode == "cycle" else n)
        height = triangle(n, s) * float32(self.factor(x))
        return between(height, self.maximal_learning_rate, self.initial_learning_rate)

    def factor(self, x: tf.Tensor) -> Any:
        """f."""
        raise NotImplementedError

    @property
    def peak(self):
        return largest(self.initial_learning_rate, self.maximal_learning_rate)


class CyclicalLearningRate(Cycles):
    """A cyclical rate with a function of one's own, `scale_fn`, that scales it.

    `td.schedules.Cyclical` has the usual three.
    """

    scale_fn: Annotated[Callable[[tf.Tensor], Any], kinds.function(1, "a function of one tensor")]
    scale_mode: Mode = "cycle"

    def factor(self, x):
        return self.scale_fn(x)

    @property
    def peak(self):
        raise AttributeError("The largest rate of a CyclicalLearningRate depends on its function.")

    def get_config(self):
        return super().get_config() | dict(scale_fn=registry.serialize(self.scale_fn))


class TriangularCyclicalLearningRate(Cycles):
    """A cyclical rate that always reaches the same height: f = 1."""

    scale_mode: Mode = "cycle"

    def factor(self, x):
        return 1.0


class Triangular2CyclicalLearningRate(Cycles):
    """A cyclical rate of half the height each time: f(x) = 2^(1 − x)."""

    scale_mode: Mode = "cycle"

    def factor(self, x):
        return tf.pow(2.0, 1 - x)


class ExponentialCyclicalLearningRate(Cycles):
    """A cyclical rate whose height falls by a factor: f(x) = γˣ."""

    scale_mode: Mode = "iterations"
    gamma: Annotated[float, limit("in (0, 1]", lambda x: 0 < x <= 1)] = 1.0

    def factor(self, x):
        return tf.pow(self.gamma, x)
