"""Sparse gradients, of some rows of a variable: summed where a row repeats."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_decoupled.engine import replicas
from tf_decoupled.engine.blocks import RowGradient

# Numbers of slices that steps are compiled for: 0, 16, 24, 32, 48, 64, ...
SIZES = np.array([0, *(m << k for k in range(3, 29) for m in (2, 3))], np.int32)


def dense(g: tf.IndexedSlices, rows: int) -> tf.Tensor:
    """The gradient as an array of all rows; repeated ones are summed."""
    return tf.math.unsorted_segment_sum(g.values, g.indices, rows)


def cast(g: tf.IndexedSlices, shape: Sequence[int], dtype: tf.DType) -> tf.IndexedSlices:
    """The same slices in this precision."""
    values, indices = tf.cast(g.values, dtype), tf.convert_to_tensor(g.indices)
    return tf.IndexedSlices(values, indices, tf.constant(tuple(shape)))


def inside(g: tf.IndexedSlices, rows: int, path: str) -> tf.IndexedSlices:
    """The same slices; an error where one is of a row outside of the variable.

    Not on a TPU, and XLA leaves the assertion out. What has no row is dropped there.
    """
    if not replicas.host_is_reachable():
        return g
    least, most = tf.reduce_min(g.indices), tf.reduce_max(g.indices)
    told = f"The gradient of `{path}` is of rows outside of its {rows}, counted from 0. "
    told += "Look at the ids that are looked up in it. Received rows from, to:"
    right = (least >= 0) & (most < rows)
    with tf.control_dependencies([tf.debugging.Assert(right, [told, least, most])]):
        return tf.IndexedSlices(g.values, tf.identity(g.indices), g.dense_shape)


def summed(g: Any) -> Any:
    """Dense gradients as they are; sparse ones with their repeated rows summed."""
    if not isinstance(g, tf.IndexedSlices):
        return g
    g = padded(g)
    where = places(g.indices)
    sums = tf.math.unsorted_segment_sum(g.values, where, tf.shape(where)[0])
    return RowGradient(sums, g.indices, where)


def padded(g: tf.IndexedSlices) -> tf.IndexedSlices:
    """The same gradient, with zeros for its last row added, up to the next of a few sizes.

    XLA compiles a step anew for each number of slices, and TensorFlow traces one anew that runs
    eagerly. Where a trace knows the number, nothing is added.
    """
    n = g.indices.shape[0]
    if n is not None and not tf.executing_eagerly():
        return g
    if n is None:
        n = tf.shape(g.indices)[0]
        size = tf.gather(SIZES, tf.searchsorted(SIZES, [n])[0])
    else:
        size = int(SIZES[np.searchsorted(SIZES, n)])
    indices = tf.gather(g.indices, tf.minimum(tf.range(size), n - 1))
    values = tf.pad(g.values, [[0, size - n]] + [[0, 0]] * (len(g.values.shape) - 1))
    return tf.IndexedSlices(values, indices, g.dense_shape)


def places(indices: tf.Tensor) -> tf.Tensor:
    """0, 1, ... for the different indices in their order, at each of them: [n] to [n].

    `tf.unique` would do, but that its result has a shape unknown to XLA; and `tf.searchsorted`,
    which XLA does in n² steps.
    """
    order = tf.argsort(indices)
    ascending = tf.gather(indices, order)
    new = tf.cast(ascending[1:] != ascending[:-1], tf.int32)
    ranks = tf.pad(tf.cumsum(new), [[1, 0]])[: tf.shape(indices)[0]]
    return tf.scatter_nd(order[:, None], ranks, tf.shape(indices))
