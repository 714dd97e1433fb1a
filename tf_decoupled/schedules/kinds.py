"""What a schedule's argument may be: an annotation carries the function that checks it."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from tf_decoupled.engine.hyperparameters import fits, is_number

Variable = (tf.Variable, keras.Variable)
LAST_STEP = 2**31
MOST_STEPS = 2**62  # sums of two are still int64


def number(where, value, words="at least 0", ok=lambda x: x >= 0):
    if not is_number(value):
        raise TypeError(f"{where} must be a number. Received: {value!r}")
    if not fits(value, lambda x: math.isfinite(x) and ok(x)):
        words += ", in float32" if ok(value) and value != math.inf else ""
        raise ValueError(f"{where} must be {words}. Received: {value!r}")
    return float(value)


def whole(where, value, least):
    if not is_number(value):
        raise TypeError(f"{where} must be a number. Received: {value!r}")
    if not fits(value, lambda x: x == int(x) and least <= x < MOST_STEPS, "int64"):
        words = f"a whole number of steps, at least {least}"
        words += " and below 2**62" if MOST_STEPS <= value < math.inf else ""
        raise ValueError(f"{where} must be {words}. Received: {value!r}")
    return int(value)


def rate(where, value):
    if not isinstance(value, Variable):
        return number(where, value)
    if tuple(value.shape) or not tf.as_dtype(value.dtype).is_floating:
        raise ValueError(f"{where} must be a scalar floating-point variable. Received: {value!r}")
    return value


def rate_or_none(where, value):
    return None if value is None else rate(where, value)


def rate_or_schedule(where, value):
    return value if isinstance(value, LearningRateSchedule) else rate(where, value)


def sequence(where, values, each):
    if isinstance(values, str | dict) or not isinstance(values, Sequence | np.ndarray):
        raise TypeError(f"{where} must be a list. Received: {values!r}")
    return tuple(each(f"{where}[{i}]", value) for i, value in enumerate(values))


def increasing(where, values, least):
    values = sequence(where, values, partial(whole, least=least))
    if not values or any(b <= a for a, b in itertools.pairwise(values)):
        raise ValueError(f"{where} must be one or more increasing steps. Received: {values}")
    return values


def one_of(where, value, choices):
    if value not in choices:
        raise ValueError(f"{where} must be one of {choices}. Received: {value!r}")
    return value


def flag(where, value):
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{where} must be True or False. Received: {value!r}")
    return bool(value)


def choice(*choices: str) -> Callable:
    """The check of an argument that is one of these words."""
    return partial(one_of, choices=choices)


def limit(words: str, ok: Callable[[float], bool]) -> Callable:
    """The check of a number of which something holds, in words and as a function."""
    return partial(number, words=words, ok=ok)


Live = float | tf.Variable | keras.Variable
Rate = Annotated[Live, rate]
RateOrNone = Annotated[Live | None, rate_or_none]
RateOrSchedule = Annotated[Live | LearningRateSchedule, rate_or_schedule]
Rates = Annotated[Sequence[Live], partial(sequence, each=rate)]
Schedules = Annotated[
    Sequence[Live | LearningRateSchedule], partial(sequence, each=rate_or_schedule)
]
Boundaries = Annotated[Sequence[int], partial(increasing, least=1)]
Count = Annotated[int, partial(whole, least=0)]
Length = Annotated[int, partial(whole, least=1)]
Flag = Annotated[bool, flag]
Share = Annotated[float, limit("between 0 and 1", lambda x: 0 <= x <= 1)]
Positive = Annotated[float, limit("above 0", lambda x: x > 0)]
