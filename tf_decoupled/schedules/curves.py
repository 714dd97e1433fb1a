"""What the formulas of schedules share: pure functions of steps, which are int64, and of rates."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import tensorflow as tf


def float32(rate: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(rate), tf.float32)


def share(n: tf.Tensor, length: int) -> tf.Tensor:
    """`n / length`, clipped to [0, 1]; both count steps."""
    return float32(tf.clip_by_value(n, 0, length)) / float(length)


def share_left(end: Fraction, length: Fraction, n: tf.Tensor) -> tf.Tensor:
    """`(end − n) / length`, clipped to [0, 1], where the end lies between two steps."""
    after = math.ceil(end)
    left = float32(after - n) - float(after - end)
    return tf.clip_by_value(left / float(length), 0.0, 1.0)


def between(x: tf.Tensor, one: Any, zero: Any) -> tf.Tensor:
    """The line through `zero` at x = 0 and `one` at x = 1, both exactly."""
    return x * float32(one) + (1.0 - x) * float32(zero)


def half_cosine(remaining: tf.Tensor) -> tf.Tensor:
    """½ (1 + cos π(1 − x)), as sin²(½ π x): exactly 0 at 0 and 1 at 1, and precise between."""
    return tf.square(tf.sin(0.5 * math.pi * remaining))


def quotient(n: tf.Tensor, length: int) -> tf.Tensor:
    """`n / length`: the whole part is counted in integers, so that it is exact at each multiple."""
    return float32(n // length) + share(n % length, length)


def triangle(n: tf.Tensor, half: int) -> tf.Tensor:
    """From 0 up to 1 and down again, in `half` steps each, exactly."""
    place = n % (2 * half)
    return share(tf.minimum(place, 2 * half - place), half)


def interval(boundaries: Sequence[int], n: tf.Tensor, side: str) -> tf.Tensor:
    """How many boundaries are < n (side "left") or <= n (side "right")."""
    index = tf.searchsorted(tf.constant(boundaries, tf.int64), tf.reshape(n, [-1]), side=side)
    return tf.reshape(index, tf.shape(n))


def warmed_up(n: tf.Tensor, warmup_steps: int, initial: Any, after: Any) -> Any:
    return between(share(n, warmup_steps), after, initial) if warmup_steps else after
