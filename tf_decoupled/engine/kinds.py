"""What an argument may be: the checks of numbers, words, functions, variables and lists of them."""

import inspect
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import numpy as np
import tensorflow as tf

from tf_decoupled.engine import arguments
from tf_decoupled.engine.checking import Check, Where
from tf_decoupled.engine.hyperparameters import fits, is_number, is_variable

LARGEST = 2**62  # of whole numbers: sums of two are still int64


def limit(words: str, holds: Callable[[Any], bool], kind: str = "a number") -> Check:
    """A finite number of which something holds, in words and as a function."""

    def check(where: Where, value: Any) -> int | float:
        if not is_number(value):
            where.refuse(TypeError, kind, value)
        if not fits(value, lambda x: math.isfinite(x) and holds(x)):
            overflows = value == value and abs(value) != math.inf and holds(value)
            where.refuse(ValueError, words + ", in float32" * overflows, value)
        return value if isinstance(value, (int, float)) else float(value)

    return check


def real(words: str, holds: Callable[[Any], bool]) -> Check:
    """As `limit`, and in floating point."""
    check = limit(words, holds)
    return lambda where, value: float(check(where, value))


def whole(words: str, least: int, below: int = LARGEST, kind: str = "a number") -> Check:
    """A whole number, also one that is written as 3.0."""

    def check(where: Where, value: Any) -> int:
        if not is_number(value):
            where.refuse(TypeError, kind, value)
        if not fits(value, lambda x: x == int(x) and least <= x < below, "int64"):
            too_large = below == LARGEST <= value < math.inf
            where.refuse(ValueError, words + " and below 2**62" * too_large, value)
        return int(value)

    return check


def flag(where: Where, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        where.refuse(TypeError, "True or False", value)
    return bool(value)


def text(where: Where, value: Any) -> str:
    if not isinstance(value, str):
        where.refuse(TypeError, "a string", value)
    return value


def path(where: Where, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        where.refuse(TypeError, "a path, a string or os.PathLike", value)
    return os.fspath(value)


def file(where: Where, value: Any) -> str:
    """The path of a file that exists."""
    found = path(where, value)
    if not os.path.isfile(found):
        where.refuse(FileNotFoundError, "the path of a file that exists", value)
    return found


def choice(*words: str, listed: str = "") -> Check:
    """One of these words. listed: how an error lists them."""

    def check(where: Where, value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            where.refuse(ValueError, f"one of {listed or ', '.join(map(repr, words))}", value)
        return value

    return check


def optional(check: Check) -> Check:
    return lambda where, value: None if value is None else check(where, value)


name = optional(text)


def instance(of: type | tuple[type, ...], words: str) -> Check:
    """An object of this class."""

    def check(where: Where, value: Any) -> Any:
        if not isinstance(value, of):
            where.refuse(TypeError, words, value)
        return value

    return check


def function(of: int, words: str) -> Check:
    """What can be called with so many arguments; no class, whose objects are rarely meant."""

    def check(where: Where, value: Any) -> Callable:
        if not callable(value) or inspect.isclass(value) or not arguments.takes(value, of):
            where.refuse(TypeError, words, value)
        return value

    return check


def iterable(words: str) -> Check:
    """What can be gone through, but text, files and what has no axis."""

    def check(where: Where, value: Any) -> Iterable:
        is_one = isinstance(value, Iterable) and getattr(value, "shape", None) != ()
        if not is_one or isinstance(value, (str, bytes, io.IOBase)):
            where.refuse(TypeError, words, value)
        return value

    return check


def sequence(each: Check, words: str = "a list") -> Check:
    """A list of what another check lets through; also what can be listed once, as a generator."""
    listed = iterable(words)

    def check(where: Where, value: Any) -> list:
        no_list = isinstance(value, (Mapping, Set)) or tf.is_tensor(value) or is_variable(value)
        if no_list:
            where.refuse(TypeError, words, value)
        return [each(where.at(i), one) for i, one in enumerate(listed(where, value))]

    return check


def variable(where: Where, value: Any) -> Any:
    if not is_variable(value):
        where.refuse(TypeError, "a variable", value)
    return value


any_variables = sequence(variable, "a list of variables")


def variables(where: Where, value: Any) -> list:
    found = any_variables(where, value)
    if not found:
        where.refuse(ValueError, "a list of at least one variable", value)
    return found
