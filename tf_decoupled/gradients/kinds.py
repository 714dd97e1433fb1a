"""What an argument may be of functions that differentiate: numbers and seeds may be tensors."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tensorflow as tf

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Check, Where
from tf_decoupled.engine.hyperparameters import is_number, is_variable

COUNT = 2**31  # what an int32 counts to


def scalar(words: str, holds: Callable[[Any], bool]) -> Check:
    """A number, or a scalar tensor or variable: of it something holds where its value is known."""
    number = kinds.limit(words, holds, kind=f"{words}, or a scalar tensor of one")

    def check(where: Where, value: Any) -> Any:
        if is_number(value) or not (tf.is_tensor(value) or is_variable(value)):
            return number(where, value)
        dtype = tf.as_dtype(value.dtype)
        if tf.TensorShape(value.shape).rank not in (0, None) or not (
            dtype.is_floating or dtype.is_integer
        ):
            where.refuse(TypeError, f"{words}, or a scalar tensor of one", value)
        if hasattr(value, "numpy") and tf.executing_eagerly():
            known = float(value.numpy())
            if not (math.isfinite(known) and holds(known)):
                where.refuse(ValueError, words, value)
        return value

    return check


def seed(where: Where, value: Any) -> Any:
    words = "an integer, or a pair of them as [seed, step], which int32 holds"
    try:
        drawn = tf.convert_to_tensor(value)
    except (TypeError, ValueError, OverflowError):
        where.refuse(TypeError, words, value)
    if not drawn.dtype.is_integer or drawn.shape.as_list() not in ([], [2]):
        where.refuse(TypeError, words, value)
    return drawn


def tensor(where: Where, value: Any) -> tf.Tensor:
    """Numbers of any shape."""
    try:
        numbers = tf.convert_to_tensor(value)
    except (TypeError, ValueError, OverflowError):
        where.refuse(TypeError, "a tensor of numbers", value)
    if not (numbers.dtype.is_floating or numbers.dtype.is_integer):
        where.refuse(TypeError, "a tensor of numbers", value)
    return numbers


def examples(where: Where, batch: Any) -> Any:
    """Tensors, or a structure of them, of equally many rows."""
    words = "tensors with examples along the first axis, as many in each"
    try:
        tensors = tf.nest.map_structure(tf.convert_to_tensor, batch)
    except (TypeError, ValueError, OverflowError):
        where.refuse(TypeError, words, batch)
    flat = tf.nest.flatten(tensors)
    rows = {x.shape[0] if x.shape.rank else None for x in flat if x.shape.rank is not None}
    if not flat or any(x.shape.rank == 0 for x in flat) or len(rows - {None}) > 1 or 0 in rows:
        where.refuse(ValueError, f"{words}, and at least one", batch)
    return tensors


Positive = Annotated[Any, scalar("a finite number > 0", lambda x: x > 0)]
NotNegative = Annotated[Any, scalar("a finite number >= 0", lambda x: x >= 0)]
Finite = Annotated[Any, scalar("a finite number", lambda x: True)]
Count = Annotated[int, kinds.whole("an integer >= 1", 1, below=COUNT)]
Flag = Annotated[bool, kinds.flag]
Seed = Annotated[Any, seed]
Variables = Annotated[Sequence, kinds.variables]
AnyVariables = Annotated[Sequence, kinds.any_variables]
Tensors = Annotated[Sequence, kinds.sequence(tensor, "a list of tensors")]
Loss = Annotated[
    Callable[[], Any],
    kinds.function(0, "a function of no arguments that returns the loss"),
]
LossOfBatch = Annotated[
    Callable[[Any], Any],
    kinds.function(1, "a function of one argument, a batch, that returns the loss"),
]
Batch = Annotated[Any, examples]
