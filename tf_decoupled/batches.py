"""The batches of a short run: so many of them, whatever form the data has."""

import io
import itertools
import math
from collections.abc import Iterator
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

ENDED = "The data ended"
FORMS = (
    "a tuple of arrays (x, y[, weights]), a tf.data.Dataset, a PyDataset or an iterable of batches "
    "(x, y[, weights])"
)


def arguments_of_fit(data: Any, batches: int, batch_size: int, seed: int) -> dict[str, Any]:
    """`data`, as `fit` is to get it: so many batches, and no order of its own.

    Raises TypeError for what isn't data, ValueError for data without a batch.
    """
    if isinstance(data, (tuple, dict)) or hasattr(data, "__array__"):
        return _drawn(data, batches, batch_size, seed)
    if isinstance(data, tf.data.Dataset):
        known = int(data.cardinality()) != tf.data.UNKNOWN_CARDINALITY
        _check_begins(int(data.cardinality()) != 0 if known else list(data.take(1)), data)
        return dict(x=data.repeat().take(batches))
    if isinstance(data, tf.distribute.DistributedDataset):
        return dict(x=data, steps_per_epoch=batches)
    is_text = isinstance(data, (str, bytes, io.IOBase))
    if is_text or not (hasattr(data, "__iter__") or isinstance(data, keras.utils.PyDataset)):
        _refuse(data)
    endless = _batches(data)
    first = list(itertools.islice(endless, 1))
    _check_begins(first, data)
    if not isinstance(first[0], tuple):
        _refuse(data, f" whose first batch is {first[0]!r}")
    rest = itertools.islice(endless, batches - 1)
    return dict(x=(batch for batch in itertools.chain(first, rest)))


def _refuse(data: Any, and_more: str = "") -> NoReturn:
    raise TypeError(f"`data` must be {FORMS}. Received: data={data!r}{and_more}")


def _check_begins(first: Any, data: Any) -> None:
    if not first:
        raise ValueError(
            f"{ENDED} before the first rate: it has no batch, or was read before. "
            f"Received: data={data!r}"
        )


def _drawn(data: Any, batches: int, batch_size: int, seed: int) -> dict[str, Any]:
    """Rows of arrays, each as often as the others, in an order that `seed` decides."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    arrays = dict(x=x, y=y, sample_weight=weights)
    shapes = [_shape(a, data) for a in keras.tree.flatten(arrays) if a is not None]
    sizes = {shape[0] for shape in shapes}
    if len(sizes) != 1 or not min(sizes):
        raise ValueError(
            "`data` must be arrays of as many rows each, one or more. "
            f"Received: arrays of {sorted(sizes)} rows"
        )
    (rows,), needed = sizes, batches * batch_size
    draw = np.random.default_rng(seed).permutation
    order = np.concatenate([draw(rows) for _ in range(math.ceil(needed / rows))])[:needed]
    taken = lambda a: None if a is None else np.asarray(a)[order]  # noqa: E731
    return keras.tree.map_structure(taken, arrays) | dict(batch_size=batch_size)


def _shape(array: Any, data: Any) -> tuple[int, ...]:
    shape = tuple(getattr(array, "shape", ()))
    if not shape:
        _refuse(data)
    return shape


def _batches(data: Any) -> Iterator[Any]:
    """The batches, again and again where they can be read again."""
    while True:
        empty = True
        size = data.num_batches if isinstance(data, keras.utils.PyDataset) else None
        for batch in data if size is None else map(data.__getitem__, range(size)):
            empty = False
            yield batch
        if empty or iter(data) is data:
            return
