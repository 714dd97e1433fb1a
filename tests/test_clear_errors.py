"""What is called wrongly raises at once an error that names the argument and what was received."""

import inspect
import io
import math
import pathlib
import random
import re
import traceback

import numpy as np
import pytest
import tensorflow as tf
from public import TABLE, public_names

import tf_decoupled as td

PACKAGE = str(pathlib.Path(td.__file__).parent)
HERE = str(pathlib.Path(__file__).parent)


class Thing:
    """What no argument means."""


def closed_file():
    file = io.StringIO()
    file.close()
    return file


WRONG = {
    "None": lambda: None,
    "no text": lambda: "",
    "text": lambda: "x",
    "bytes": lambda: b"x",
    "-1": lambda: -1,
    "0": lambda: 0,
    "2.5": lambda: 2.5,
    "NaN": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "1e39": lambda: 1e39,
    "2 ** 70": lambda: 2**70,
    "10 ** 400": lambda: 10**400,
    "True": lambda: True,
    "complex": lambda: 1j,
    "no list": lambda: [],
    "list": lambda: ["x", 1],
    "numbers": lambda: [1.0, 2.0],
    "classes": lambda: [Thing],
    "no dict": dict,
    "dict": lambda: {1: 2},
    "set": lambda: {1, 2},
    "thing": Thing,
    "class": lambda: Thing,
    "function": lambda: lambda a, b, c, d, e: a,
    "vector": lambda: tf.constant([1.0, 2.0]),
    "NaN tensor": lambda: tf.constant(math.nan),
    "text tensor": lambda: tf.constant("x"),
    "text array": lambda: np.array(["x", "y"]),
    "vector variable": lambda: tf.Variable([1.0, 2.0]),
    "generator": lambda: (i for i in range(2)),
    "file": closed_file,
    "schedule class": lambda: td.schedules.Cosine,
    "optimizer": lambda: td.SGD(jit_compile=False),
}
KINDS = (TypeError, ValueError, NotImplementedError, FileNotFoundError)
NEVER = ("NaN", "NaN tensor", "thing", "complex", "file", "bytes")  # of no argument the value
# Whether patterns and axes are right shows where there are variables.
MEETS_VARIABLES = ("decay_mask", "layers", "members", "factors", "axis")
DATA = [("importers.torch_layout", "array")]  # any numbers


def is_clear(error, argument):
    """Whether it is this package's, names the argument, and says what was received."""
    where = traceback.extract_tb(error.__traceback__)[-1].filename
    is_ours = where.startswith(PACKAGE) and isinstance(error, KINDS)
    named = re.search(rf"(?<!\w){argument}(?!\w)", str(error))
    return bool(is_ours and named and "Received" in str(error))


def is_the_caller_s(error):
    """Whether it was raised inside of a function that the package was given."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    ours = [i for i, file in enumerate(files) if file.startswith(PACKAGE)]
    return any(file.startswith(HERE) for file in files[min(ours, default=len(files)) :])


def obscure(name, argument, wrong):
    """What is wrong with how a call with one wrong argument ends; None for nothing."""
    entry, value = TABLE[name], WRONG[wrong]()
    try:
        result = entry.call(**{**entry.right(), argument: value})
    except Exception as error:
        clear = is_clear(error, argument) or is_the_caller_s(error)
        return None if clear else f"{type(error).__name__}: {error}"
    if wrong in NEVER and (name, argument) not in DATA:
        return "taken in silence"
    try:
        entry.use(result)
    except Exception as error:
        clear = argument in MEETS_VARIABLES and is_clear(error, argument)
        return None if clear else f"later, {type(error).__name__}: {error}"
    return None


def pairs(name, arguments=None):
    arguments = TABLE[name].arguments if arguments is None else arguments
    return [(argument, wrong) for argument in arguments for wrong in WRONG]


def sample(name):
    """Some of a callable's pairs of argument and wrong value, always the same."""
    of_all = pairs(name)
    return random.Random(name).sample(of_all, min(12, len(of_all)))


def own_pairs(name):
    """All pairs; what optimizers share, with some of them only."""
    cls, arguments = TABLE[name].call, TABLE[name].arguments
    shares = inspect.isclass(cls) and issubclass(cls, td.Optimizer)
    if shares and name not in ("AdamW", "Lookahead", "Partition"):
        arguments = [a for a in arguments if a not in td.Optimizer.declared and a != "name"]
    return pairs(name, arguments)


def told(name, some):
    """What is wrong, by pair, with how some calls end."""
    found = {(argument, wrong): obscure(name, argument, wrong) for argument, wrong in some}
    return {pair: words for pair, words in found.items() if words}


def test_every_public_callable_stands_in_the_table():
    assert public_names() == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_the_call_in_the_table_is_right(name):
    TABLE[name].call(**TABLE[name].right())


@pytest.mark.parametrize("name", TABLE)
def test_a_wrong_argument_is_named_at_the_call(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not told(name, sample(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_each_wrong_value_of_each_argument_is_named_at_the_call(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not told(name, own_pairs(name))


def misspelt(argument):
    return argument[:-2] + argument[-1]


# Masks take no names; `migrate` imports nothing of this package that could tell them.
NAMELESS = ("masks.exclude", "masks.only", "migrate.findings")


@pytest.mark.parametrize("name", [n for n in TABLE if n not in NAMELESS])
def test_a_misspelt_argument_is_told_the_right_name(name):
    entry = TABLE[name]
    parameters = inspect.signature(entry.call).parameters.values()
    least = 9 if any(p.kind is p.VAR_KEYWORD for p in parameters) else 4
    long = [a for a in entry.arguments if len(a) >= least]
    for argument in random.Random(name).sample(long, min(3, len(long))):
        with pytest.raises(TypeError, match=f"`{argument}`.*Received: {misspelt(argument)}="):
            entry.call(**entry.right(), **{misspelt(argument): 1})


@pytest.mark.parametrize("name", [entry.name for entry in td.list_optimizers()])
@pytest.mark.parametrize("old", ["lr", "decay", "eps"])
def test_a_name_of_other_libraries_is_told_what_it_is_called_here(name, old):
    entry = TABLE[name]
    with pytest.raises(TypeError, match=f"keyword argument '{old}'.*`\\w+.*Received: {old}=0.1"):
        entry.call(**entry.right(), **{old: 0.1})
