"""One gradient, and what several ways to obtain one share."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from tf_decoupled.engine import replicas
from tf_decoupled.engine.state import tf_variable


def own(variables: Sequence) -> list[tf.Variable]:
    """The variables as this replica sees them."""
    return [replicas.local(tf_variable(v)) for v in variables]


def loss_of(outputs: Any) -> tf.Tensor:
    """The loss among what a loss function returned."""
    return outputs[0] if isinstance(outputs, (tuple, list)) else outputs


def gradient(loss_fn: Callable[[], Any], variables: list) -> tuple[Any, list]:
    """What the loss function returned, and one gradient per variable, None where there is none."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        outputs = loss_fn()
        loss = loss_of(outputs)
    if not (tf.is_tensor(loss) and loss.dtype.is_floating):
        raise TypeError(
            "`loss_fn` must return the loss, a floating-point tensor, or a tuple that begins with "
            f"it. Received: {loss!r}, a {type(loss).__name__}"
        )
    return outputs, tape.gradient(loss, variables)


def dense_gradient(loss_fn: Callable[[], Any], variables: list) -> tuple[Any, list]:
    """As `gradient`, of full precision, with zeros where there is none."""
    outputs, grads = gradient(loss_fn, variables)
    return outputs, all_dense(grads, variables)


def all_dense(grads: Sequence, variables: Sequence) -> list[tf.Tensor]:
    """`dense` of each gradient, with zeros where there is none."""
    pairs = zip(grads, variables, strict=True)
    return [tf.zeros_like(full(v)) if g is None else dense(g, v) for g, v in pairs]


def dense(g: Any, variable: tf.Variable) -> tf.Tensor:
    """The gradient in full precision; repeated rows of a sparse one are summed."""
    if isinstance(g, tf.IndexedSlices):
        return tf.math.unsorted_segment_sum(full(g.values), g.indices, variable.shape[0])
    return full(g)


def full(x: Any) -> tf.Tensor:
    """The tensor in float32, or in float64 where it is."""
    return tf.cast(x, tf.float64 if x.dtype == tf.float64 else tf.float32)


def dot(a: Sequence, b: Sequence) -> tf.Tensor:
    """⟨a, b⟩ of two lists of tensors, each list as one vector."""
    return tf.add_n([tf.cast(tf.reduce_sum(x * y), a[0].dtype) for x, y in zip(a, b, strict=True)])


def norm(a: Sequence) -> tf.Tensor:
    """‖a‖ of a list of tensors as one vector, by its largest entry: squares don't overflow.

    Not a number, or inf, where an entry is.
    """
    sizes = [tf.cast(tf.reduce_max(tf.abs(x)), a[0].dtype) for x in a if x.shape.num_elements()]
    largest = tf.reduce_max(tf.stack(sizes)) if sizes else tf.zeros([], a[0].dtype)
    unit = tf.where(largest > 0, largest, tf.ones_like(largest))
    scaled = [x / tf.cast(unit, x.dtype) for x in a]
    return unit * tf.sqrt(dot(scaled, scaled))


def flat(tensors: Sequence) -> tf.Tensor:
    """Tensors as one vector, in float64 if one of them is."""
    tensors = [full(x) for x in tensors]
    dtype = tf.float64 if any(x.dtype == tf.float64 for x in tensors) else tf.float32
    return tf.concat([tf.cast(tf.reshape(x, [-1]), dtype) for x in tensors], 0)


def parts(vector: tf.Tensor, like: Sequence) -> list[tf.Tensor]:
    """A vector, or a stack of vectors [k, n], as tensors of these shapes, [k, *shape]."""
    sizes, stack = [x.shape.num_elements() for x in like], vector.shape[:-1]
    pairs = zip(tf.split(vector, sizes, -1), like, strict=True)
    return [tf.reshape(part, [*stack, *x.shape]) for part, x in pairs]


def epsilon(dtype: tf.DType) -> float:
    """The distance from 1 to the next number."""
    return 2.0**-52 if dtype == tf.float64 else 2.0**-23


@contextlib.contextmanager
def unchanged(variables: Sequence) -> Iterator[None]:
    """Inside of this context variables may change; after it they are what they were."""
    before = [tf.identity(v) for v in variables]
    try:
        yield
    finally:
        assign(variables, before)


def assign(variables: Sequence, values: Sequence) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def scalar(x: Any, dtype: tf.DType) -> tf.Tensor:
    """A number or tensor in this precision; `tf.cast` takes Python's numbers through float32."""
    python = isinstance(x, (int, float))
    return tf.constant(x, dtype) if python else tf.cast(x, dtype)
