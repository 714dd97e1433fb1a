"""Pickles, read without running what is in them: containers, numbers, arrays and known records.

A pickle is a program that calls what it names. Here each name becomes a class of its own that does
nothing but keep what it is given, made anew for each file; what that means is decided afterwards,
for the few names that are known. Nothing is imported, and no other name is taken.
"""

import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

Origin = tuple[str, str]  # module and name
ARRAYS = {
    "_reconstruct": ("numpy._core.multiarray", "numpy.core.multiarray"),
    "scalar": ("numpy._core.multiarray", "numpy.core.multiarray"),
    "_frombuffer": ("numpy._core.numeric", "numpy.core.numeric"),
    "dtype": ("numpy",),
    "ndarray": ("numpy",),
    "OrderedDict": ("collections",),
    "bfloat16": ("ml_dtypes",),
    "_reconstruct_array": ("jax._src.array",),
    "encode": ("_codecs",),
}
DTYPE = re.compile(r"[iuf][1248]|b1")


class Call:
    """What a pickle says to be made of a name: the arguments, the state, the items."""

    __slots__ = ("args", "items", "state")
    origin: Origin = ("", "")

    def __new__(cls, *args: Any, **named: Any) -> "Call":
        made = object.__new__(cls)
        made.args, made.state, made.items = args, None, []
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))


Known = Callable[[Origin], bool]
Meaning = Callable[[Origin, tuple], Any]


class _Reader(pickle.Unpickler):
    def __init__(self, file: BinaryIO, known: Known, storages: bool):
        super().__init__(file)
        self.known, self.storages = known, storages

    def find_class(self, module: str, name: str) -> type[Call]:
        if module not in ARRAYS.get(name, ()) and not self.known((module, name)):
            raise ValueError(f"it asks for {module}.{name}")
        return type("Call", (Call,), {"__slots__": (), "origin": (module, name)})

    def persistent_load(self, pid: Any) -> Any:
        if not self.storages:
            raise ValueError("it asks for objects outside of the file")
        return tuple(each.origin[1] if isinstance(each, type) else each for each in pid)


def read(file: BinaryIO, what: str, known: Known, meaning: Meaning, storages: bool = False) -> Any:
    """What a pickle holds, arrays as NumPy's.

    what: said in errors. known: which names it may have beside those of arrays. meaning: what one
    of these is, from its origin and arguments. storages: whether it may refer to others by ids.

    Raises ValueError for all other names, and for what is no pickle.
    """
    try:
        return _meant(_Reader(file, known, storages).load(), meaning)
    except RecursionError:
        raise ValueError(f"{what} is too deep, or holds itself.") from None
    except Exception as error:  # of whatever kind: the bytes are the file's
        raise ValueError(
            f"{what} can't be read. Pickles of state are read as numbers only, and run nothing: "
            "they may hold containers, arrays and states of optimizers, and no other classes. "
            f"Received: {error or type(error).__name__}"
        ) from error


def _meant(value: Any, meaning: Meaning) -> Any:
    """Containers with what is in them made."""
    if isinstance(value, Call):
        return _made(value, meaning)
    if isinstance(value, dict):
        return {key: _meant(each, meaning) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_meant(each, meaning) for each in value)
    if value is not None and not isinstance(value, (bool, int, float, str, bytes)):
        raise ValueError(f"it holds {getattr(value, 'origin', value)!r}, which is no number")
    return value


def _made(call: Call, meaning: Meaning) -> Any:
    module, name = call.origin
    if module not in ARRAYS.get(name, ()):
        return meaning(call.origin, tuple(_meant(each, meaning) for each in call.args))
    if name == "OrderedDict":
        return {key: _meant(each, meaning) for key, each in call.items}
    if name == "_reconstruct":
        return _array(call.state)
    if name == "_reconstruct_array":
        return _array(call.args[2])
    if name == "_frombuffer":
        data, dtype, shape, order = call.args
        return np.frombuffer(data, _dtype(dtype)).reshape(shape, order=order)
    if name == "scalar":
        dtype, data = call.args
        return np.frombuffer(_bytes(data), _dtype(dtype)).reshape(())
    if name == "encode":
        return _bytes(call)
    raise ValueError(f"{module}.{name} stands by itself")


def _array(state: Any) -> np.ndarray:
    """An array from what `numpy.ndarray.__setstate__` takes."""
    _, shape, dtype, by_columns, data = state
    kind = _dtype(dtype)
    values = np.frombuffer(_bytes(data), kind)
    return values.reshape(shape, order="F" if by_columns else "C")


def _dtype(call: Any) -> np.dtype:
    if isinstance(call, Call) and call.origin == ("numpy", "dtype"):
        code, order = call.args[0], (call.state or (0, "="))[1]
        if isinstance(code, str) and DTYPE.fullmatch(code) and order in ("<", ">", "=", "|"):
            return np.dtype(code).newbyteorder(order)
        if isinstance(code, type) and getattr(code, "origin", None) == ("ml_dtypes", "bfloat16"):
            return np.dtype(tf.bfloat16.as_numpy_dtype)
    raise ValueError("an array that isn't of numbers")


def _bytes(data: Any) -> bytes:
    if isinstance(data, Call) and data.origin == ("_codecs", "encode"):
        text, encoding = data.args
        data = text.encode("latin1") if encoding == "latin1" else None
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError("an array without its bytes")
    return bytes(data)


def mapping_of(args: tuple) -> Mapping:
    """The mapping that a class around one was made of."""
    (inside,) = args
    if not isinstance(inside, Mapping):
        raise ValueError("a class around a mapping, without one")
    return inside
