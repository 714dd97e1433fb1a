"""States of optax in files: pickled, or in MessagePack as flax writes them. Nothing is run."""

import collections
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_decoupled.importers import pickles
from tf_decoupled.importers.optax_states import FIELDS

FROZEN = ("flax.core.frozen_dict", "FrozenDict")
ARRAY, SCALAR = 1, 3  # flax's types of extension
CHUNKED = "__msgpack_chunked_array__"  # of arrays above a gigabyte
STATE = "opt_state"  # its name in a train state


def state_of(source: Any) -> Any:
    """The state: as given, or from a file, where it may stand beside others as "opt_state"."""
    if not isinstance(source, (str, os.PathLike)):
        return source
    path = os.fspath(source)
    if path.endswith((".pkl", ".pickle")):
        with open(path, "rb") as file:
            state = pickles.read(file, repr(path), _is_known, _record)
    elif path.endswith(".msgpack"):
        state = _unpacked(path)
    else:
        raise ValueError(
            "Files of optax's state are pickles, `.pkl` or `.pickle`, or flax's `.msgpack`. "
            f"Received: {path!r}"
        )
    inside = isinstance(state, Mapping) and STATE in state
    return state[STATE] if inside else state


def _is_known(origin: pickles.Origin) -> bool:
    module, name = origin
    return origin == FROZEN or (module.split(".")[0] == "optax" and name in FIELDS)


def _record(origin: pickles.Origin, args: tuple) -> Any:
    """A state as a named tuple, which is what optax has."""
    if origin == FROZEN:
        return pickles.mapping_of(args)
    name = origin[1]
    if len(args) != len(FIELDS[name]):
        raise ValueError(f"{name} with {len(args)} fields in place of {FIELDS[name]}")
    return collections.namedtuple(name, FIELDS[name])(*args)


def _unpacked(path: str) -> Any:
    try:
        import msgpack
    except ImportError:
        raise ImportError(
            "Files of flax need the package msgpack: pip install 'tf_decoupled[importers]'. Or "
            f"pickle the state. Received: {path!r}"
        ) from None
    with open(path, "rb") as file:
        content = file.read()

    def extension(code: int, data: bytes) -> Any:
        if code not in (ARRAY, SCALAR):
            raise ValueError(f"values of type {code}, which are no real numbers")
        shape, dtype, values = msgpack.unpackb(data, raw=True)
        return _array([int(n) for n in shape], dtype.decode(), values)

    try:
        return _joined(msgpack.unpackb(content, ext_hook=extension, raw=False))
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        words = f"This is no state that flax has written: {error}. Received: {path!r}"
        raise ValueError(words) from error


def _array(shape: list[int], dtype: str, values: bytes) -> np.ndarray:
    found = np.dtype(tf.bfloat16.as_numpy_dtype if dtype == "bfloat16" else dtype)
    if found.kind not in "biuf" and dtype != "bfloat16":
        raise ValueError(f"an array of {dtype}")
    return np.frombuffer(values, found).reshape(shape)


def _joined(tree: Any) -> Any:
    """The tree with the arrays in one piece that flax had cut."""
    if not isinstance(tree, dict):
        return tree
    if CHUNKED not in tree:
        return {key: _joined(each) for key, each in tree.items()}
    chunks, shape = tree["chunks"], tree["shape"]
    parts = [np.ravel(chunks[str(i)]) for i in range(len(chunks))]
    return np.concatenate(parts).reshape([int(shape[str(i)]) for i in range(len(shape))])
