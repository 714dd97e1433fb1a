"""Random numbers of a step: the same on every device, and drawn anew where the seed is another."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_decoupled.math import normal, random_bits


def seeds(seed: Any, *shape: int) -> tf.Tensor:
    """Seeds for what a step draws, of shape [*shape, 2]: independent of each other.

    `seed` is an integer, or a tensor of two: as [seed, step].
    """
    seed = tf.cast(seed, tf.int32)
    pair = tf.stack([seed, tf.zeros_like(seed)]) if seed.shape.rank == 0 else seed
    return tf.bitcast(random_bits([*shape, 2], pair), tf.int32)


def probes(like: Sequence, seeds: tf.Tensor, distribution: str) -> list[tf.Tensor]:
    """One tensor of random numbers for each of some: ±1, or of N(0, 1)."""
    draw = {"rademacher": signs, "normal": normal}[distribution]
    return [draw(x, seeds[i]) for i, x in enumerate(like)]


def signs(like: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """±1, each as often, shaped as `like`."""
    bits = tf.bitwise.right_shift(random_bits(like.shape, seed), 31)
    return 1 - 2 * tf.cast(bits, like.dtype)


def sampled_classes(logits: tf.Tensor, seed: Any) -> tf.Tensor:
    """Classes drawn from softmax(logits), by Gumbel's argmax; int64, of all axes but the last."""
    # 23 bits and a half are exact in float32. More would round to 1, whose logarithm is 0.
    bits = tf.bitwise.right_shift(random_bits(tf.shape(logits), seeds(seed)), 9)
    u = (tf.cast(bits, logits.dtype) + 0.5) / 2.0**23
    return tf.argmax(logits - tf.math.log(-tf.math.log(u)), -1)
