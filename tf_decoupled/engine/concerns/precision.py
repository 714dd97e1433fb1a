"""Low precision: how bfloat16 and float16 variables are read as float32, and rounded back.

A float32 step of 1e-3 is lost in a bfloat16 weight of 1: the next larger one is 1.0078. Either a
float32 copy, the master, keeps what the rounding drops, or the rounding is random and unbiased.
"""

from typing import Any

import tensorflow as tf

from tf_decoupled.engine.concern import Concern
from tf_decoupled.engine.state import Slots, copy, own_seed
from tf_decoupled.math import random_bits

LOW = (tf.bfloat16, tf.float16)
MODES = ("master", "stochastic")
MASTER, SEED = "master", "rounding_seed"


class Precision(Concern):
    """Keeps what rounding drops from a variable of low precision, or rounds at random.

    Args:
        low_precision: for bfloat16 and float16 variables, "master" (a float32 copy each, 4 bytes
            per parameter) or "stochastic" (unbiased random rounding, no memory).
    """

    low_precision: str = "master"

    @classmethod
    def interpret(cls, given: dict[str, Any], optimizer: type) -> dict[str, Any]:
        mode = given["low_precision"]
        if not isinstance(mode, str) or mode not in MODES:
            raise ValueError(
                '`low_precision` must be "master" (a float32 copy) or "stochastic" (random '
                f"rounding). Received: low_precision={mode!r}"
            )
        return given

    @classmethod
    def needs_whole_arrays(cls, given: dict[str, Any]) -> dict[str, Any]:
        mode = given["low_precision"]
        return {"low_precision": mode} if mode == "stochastic" else {}

    def slots(self, cell: Any) -> Slots:
        if cell.variable.dtype not in LOW:
            return {}
        if self.optimizer.low_precision == "stochastic":
            return {SEED: own_seed()}
        return {MASTER: copy(cell.variable)}

    def enter(self, part: Any, step: Any) -> None:
        if MASTER in part.block.concern_slots:
            part.p = recall(part.raw, part.slot(MASTER))

    def leave(self, part: Any, step: Any) -> None:
        if MASTER in part.block.concern_slots:
            part.new[MASTER] = part.p
        elif SEED in part.block.concern_slots:
            now, shape = tf.cast(part.h["step"], tf.int32), part.block.shape
            seeds = part.slot(SEED)
            noise = part.block.map(lambda own: random_bits(shape, tf.stack([now, own])), seeds)
            part.p = rounded(part.p, part.block.dtype, noise)


def recall(value: tf.Tensor, master: tf.Tensor) -> tf.Tensor:
    """The master where it rounds to the variable; elsewhere the variable was assigned since."""
    same = tf.cast(master, value.dtype) == value
    return tf.where(same, master, tf.cast(value, tf.float32))


def round_stochastically(x: tf.Tensor, dtype: tf.DType, seed: tf.Tensor) -> tf.Tensor:
    """`rounded`, with bits of this seed."""
    return rounded(x, dtype, random_bits(x.shape, seed))


def rounded(x: tf.Tensor, dtype: tf.DType, noise: tf.Tensor) -> tf.Tensor:
    """One of the two neighbours of float32 `x` in `dtype`, the nearer more often: E[result] = x.

    The bits that `dtype` drops are added a random number of as many bits, and cut off. Below
    float16's normal numbers, where it drops more, the same is done in units of its smallest one.
    """
    dropped = 16 if dtype == tf.bfloat16 else 13
    bits = tf.bitcast(x, tf.uint32) + tf.bitwise.right_shift(
        noise, tf.constant(32 - dropped, tf.uint32)
    )
    cut = tf.bitwise.left_shift(tf.constant(0xFFFFFFFF, tf.uint32), tf.constant(dropped, tf.uint32))
    rounded = tf.bitcast(tf.bitwise.bitwise_and(bits, cut), tf.float32)
    if dtype == tf.float16:
        smallest, share = (
            2.0**-24,
            tf.cast(tf.bitwise.right_shift(noise, tf.constant(8, tf.uint32)), tf.float32)
            * 2.0**-24,
        )
        rounded = tf.where(tf.abs(x) < 2.0**-14, tf.floor(x / smallest + share) * smallest, rounded)
    return tf.cast(tf.where(tf.math.is_finite(x), rounded, x), dtype)
