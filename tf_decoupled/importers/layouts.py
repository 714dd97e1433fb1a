"""How PyTorch lays out the axes of kernels, and Keras."""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.masks import path_of


def numbers(where: Where, value: Any) -> np.ndarray:
    """What `np.asarray` makes an array of numbers of."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        where.refuse(TypeError, "an array of numbers", value)
    if array.dtype.kind not in "iufV":  # "V": bfloat16, as NumPy has it
        where.refuse(TypeError, "an array of numbers", value)
    return array


_layout = kinds.function(2, "a callable (variable, array) -> array")

Layout = Annotated[Callable[[Any, np.ndarray], np.ndarray], _layout]
LayoutOrNone = Annotated[Callable[[Any, np.ndarray], np.ndarray] | None, kinds.optional(_layout)]
Variable = Annotated[Any, kinds.variable]
Array = Annotated[np.ndarray, numbers]


@checked
def torch_layout(variable: Variable, array: Array) -> np.ndarray:
    """An array of PyTorch's in the layout of the Keras variable beside it.

        Linear, and pointwise             (O, I)           → (I, O)
        Conv1d, 2d, 3d, also grouped      (O, I, *window)  → (*window, I, O)
        ConvTranspose                     (I, O, *window)  → (*window, O, I)
        depthwise: Conv with groups = I   (I·M, 1, *window) → (*window, I, M)
        rank 0 and 1, embeddings          as they are

    What a kernel is, is told by the last part of its path. Other variables of rank 2 and more, and
    GRU kernels, whose gates are ordered otherwise, raise ValueError. The kernel of a Dense layer
    after a Flatten has the same shape, but rows in another order if PyTorch flattened (C, H, W).
    Pass a `layout=` of your own for these, which may call this one.
    """
    path, shape = path_of(variable), tuple(variable.shape)
    name = path.rpartition("/")[2]
    if len(shape) < 2 or name.endswith("embeddings"):
        return array
    if not name.endswith("kernel") or "gru_cell" in path:
        raise ValueError(
            "How PyTorch lays out this variable can't be told from its path. Pass "
            "`layout=`, a callable (variable, array) -> array. "
            f"Received: {path!r} {shape}, from PyTorch's {array.shape}"
        )
    if array.ndim != len(shape):
        return array  # `set_state` lists it
    i, m = shape[-2:]
    if array.ndim > 2 and i > 1 and array.shape[:2] == (i * m, 1):
        return np.moveaxis(array.reshape(i, m, *array.shape[2:]), (0, 1), (-2, -1))
    return np.moveaxis(array, (0, 1), (-1, -2))
