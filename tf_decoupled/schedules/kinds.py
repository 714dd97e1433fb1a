"""What a schedule's argument may be: an annotation carries the function that checks it."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Check, Where

Variable = (tf.Variable, keras.Variable)
LAST_STEP = 2**31


limit = kinds.real
number = limit("at least 0", lambda x: x >= 0)


def rate(where: Where, value: Any) -> Any:
    if not isinstance(value, Variable):
        return number(where, value)
    if tuple(value.shape) or not tf.as_dtype(value.dtype).is_floating:
        where.refuse(ValueError, "a scalar floating-point variable", value)
    return value


def rate_or_schedule(where: Where, value: Any) -> Any:
    return value if isinstance(value, LearningRateSchedule) else rate(where, value)


def sequence(where: Where, values: Any, each: Check) -> tuple:
    return tuple(kinds.sequence(each)(where, values))


def steps(least: int) -> Check:
    """The check of a count of steps."""
    return kinds.whole(f"a whole number of steps, at least {least}", least)


def increasing(where: Where, values: Any, least: int) -> tuple:
    values = sequence(where, values, steps(least))
    if not values or any(b <= a for a, b in itertools.pairwise(values)):
        where.refuse(ValueError, "one or more increasing steps", values)
    return values


def choice(*choices: str) -> Check:
    """The check of an argument that is one of these words."""
    return kinds.choice(*choices, listed=str(choices))


Live = float | tf.Variable | keras.Variable
Rate = Annotated[Live, rate]
RateOrNone = Annotated[Live | None, kinds.optional(rate)]
RateOrSchedule = Annotated[Live | LearningRateSchedule, rate_or_schedule]
Rates = Annotated[Sequence[Live], partial(sequence, each=rate)]
Schedules = Annotated[
    Sequence[Live | LearningRateSchedule], partial(sequence, each=rate_or_schedule)
]
Boundaries = Annotated[Sequence[int], partial(increasing, least=1)]
Count = Annotated[int, steps(0)]
Length = Annotated[int, steps(1)]
Flag = Annotated[bool, kinds.flag]
Name = Annotated[str | None, kinds.name]
Share = Annotated[float, limit("between 0 and 1", lambda x: 0 <= x <= 1)]
Positive = Annotated[float, limit("above 0", lambda x: x > 0)]
