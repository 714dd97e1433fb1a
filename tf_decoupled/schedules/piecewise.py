"""Rates at steps that are listed: constant between them, or joined."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import tensorflow as tf

from tf_decoupled.schedules.curves import between, float32, half_cosine, interval
from tf_decoupled.schedules.kinds import Boundaries, Rates, choice, increasing
from tf_decoupled.schedules.schedule import Schedule, largest, same_lengths


class PiecewiseConstant(Schedule):
    """A constant rate between boundaries.

        rate = values[i],  i = the number of boundaries < n

    A boundary is the last step of the interval before it: `values[i + 1]` starts at step
    `boundaries[i] + 1`, as in `keras.optimizers.schedules.PiecewiseConstantDecay`.
    """

    boundaries: Annotated[Sequence[int], partial(increasing, least=0)]
    values: Rates

    def __post_init__(self):
        super().__post_init__()
        same_lengths(self, "values")

    def rate(self, n):
        values = tf.stack([float32(value) for value in self.values])
        return tf.gather(values, interval(self.boundaries, n, "left"))

    @property
    def peak(self):
        return largest(*self.values)


class PiecewiseInterpolate(Schedule):
    """Rates at step 0 and at each boundary, joined by lines or half cosines; then constant.

    rate = v' + (v − v') w(x),   x = (b' − n) / (b' − b),   for b ≤ n < b'
    w(x) = x ("linear") or ½ (1 − cos πx) ("cosine")
    """

    boundaries: Boundaries
    values: Rates
    interpolation: Annotated[str, choice("linear", "cosine")] = "linear"

    def __post_init__(self):
        super().__post_init__()
        same_lengths(self, "values")

    def rate(self, n):
        points = (0, *self.boundaries)
        widths = tf.constant([float(b - a) for a, b in itertools.pairwise(points)])
        values = tf.stack([float32(value) for value in self.values])
        i = tf.minimum(interval(self.boundaries, n, "right"), len(self.boundaries) - 1)
        left = tf.gather(tf.constant(self.boundaries, tf.int64), i) - n
        x = float32(tf.maximum(left, 0)) / tf.gather(widths, i)
        weight = x if self.interpolation == "linear" else half_cosine(x)
        return between(weight, tf.gather(values, i), tf.gather(values, i + 1))

    @property
    def peak(self):
        return largest(*self.values)
