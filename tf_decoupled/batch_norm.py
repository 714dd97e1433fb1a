"""Batch normalization: the moving statistics that belong to the present weights."""

import contextlib
import itertools
import warnings
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.state import tf_variable

DATA = "an array, a dict or a tuple of arrays, or batches: a Dataset, a PyDataset, an iterable"
# What a model raises for data that it can't take.
UNFIT = (TypeError, ValueError, AttributeError)
UNFIT += (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)
Moments = tuple[Any, Any, Any]  # count, mean and variance of each channel


Model = Annotated[keras.Model, kinds.instance(keras.layers.Layer, "a keras.Model")]
Steps = Annotated[int | None, kinds.whole("an integer >= 1", 1)]
Size = Annotated[int, kinds.whole("an integer >= 1", 1)]


@checked
def refresh_batch_norm(
    model: Model, data: Any, steps: Steps = None, batch_size: Size = 32
) -> list[str]:
    """Re-estimates the moving statistics of batch normalizations with the weights as they are.

        μ = Σ_b n_b μ_b / Σ_b n_b        σ² = Σ_b n_b (σ_b² + (μ_b − μ)²) / Σ_b n_b

    n_b counts what a batch b averages over, its rows times its positions (masked ones left out):
    μ and σ² are those of all data at once, and don't depend on how inputs are batched. As in
    training each layer normalizes with the statistics of its batch, so those of a later one do
    depend on it, a little: use the batch size of training. Everything else runs as in inference
    (no dropout, no noise), once over the data, outside of replicas.

    Averaged weights need it: `with opt.averaged(): td.refresh_batch_norm(model, data)`.

    Args:
        model: built; layers inside of other layers count, layers with `trainable=False` don't.
        data: an array or a dict of arrays, the rows of x; a tuple of arrays (x, y[, weights]);
            a tf.data.Dataset, a PyDataset or an iterable of batches, x or (x, y[, weights]).
        steps: how many batches at most; by default all.
        batch_size: of arrays.

    Returns the paths of the refreshed layers in the order of their calls: none, and no data read,
    if the model has no such layer. One that the model doesn't call is left as it is, with a
    warning. Nothing else of the model changes, and nothing at all if an exception is raised.

    Raises ValueError for data without a batch or without an end, and for a model that isn't
    built; NotImplementedError for `renorm=True`, for subclasses with a `call` of their own, and
    for layers inside of a loop of a graph (tf.map_fn, tf.while_loop).

    Wu & Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3: precise statistics.
    arXiv:2105.07576
    """
    layers = _trainable_normalizations(model)
    if not layers:
        return []
    if not model.built:
        raise ValueError(
            "Build the model first, as by calling it on a batch: `model(x)`. "
            f"Received: {model.name!r}, not built"
        )
    pooled: dict[int, Moments] = {}
    observed: list[tuple[int, Moments]] = []
    with _observing(layers, observed), _unchanged(model):
        forward = _forward(model, observed)
        for x in itertools.islice(_inputs(data, batch_size, steps), steps):
            for i, moments in _observed(forward, x):
                arrays = tuple(np.asarray(m, np.float64) for m in moments)
                pooled[int(i)] = _pool(pooled.get(int(i)), arrays)
    return _assign(layers, pooled, data)


def _trainable_normalizations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    found = [
        layer
        for layer in _layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    for layer in found:
        own_call = type(layer).call is not keras.layers.BatchNormalization.call
        if own_call or getattr(layer, "renorm", False):
            raise NotImplementedError(
                "Only batch normalization as Keras defines it can be refreshed, without "
                "`renorm=True` and without a `call` of a subclass. Set `trainable=False` to leave "
                f"a layer as it is. Received: {layer.path!r}, a {type(layer).__name__}"
            )
    return found


def _layers(root: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer and all layers inside of it, also those that `Model.layers` doesn't list."""
    found, waiting = {}, [root]
    while waiting:
        layer = waiting.pop()
        if id(layer) in found:
            continue
        found[id(layer)] = layer
        for value in vars(layer).values():
            values = value.values() if isinstance(value, dict) else value
            values = values if isinstance(value, (list, tuple, dict)) else [value]
            waiting.extend(v for v in values if isinstance(v, keras.layers.Layer))
    return list(found.values())


@contextlib.contextmanager
def _observing(layers: list, observed: list) -> Iterator[None]:
    """Inside of this context each layer notes, and normalizes with, its batch's statistics."""
    try:
        for i, layer in enumerate(layers):
            layer.call = _observed_call(i, layer, observed)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("call", None)


def _observed_call(i: int, layer: keras.layers.BatchNormalization, observed: list) -> Any:
    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        x = tf.cast(inputs, tf.float64 if inputs.dtype == tf.float64 else tf.float32)
        count, mean, variance = _moments(x, layer.axis, mask)
        if tf.is_symbolic_tensor(count) and count.graph is not observed[0]:
            raise NotImplementedError(
                "A batch normalization inside of a loop or map can't be refreshed in a graph: "
                "compile the model with `run_eagerly=True`, or set `trainable=False` to leave the "
                f"layer as it is. Received: {layer.path!r}"
            )
        observed.append((i, (count, mean, variance)))
        return _normalized(layer, x, mean, variance)

    return call


def _moments(x: tf.Tensor, axis: int, mask: Any) -> Moments:
    """Count, mean and population variance of each channel; zeros where there is nothing."""
    axes = [a for a in range(x.shape.rank) if a != axis % x.shape.rank]
    there = tf.ones_like(x, tf.bool)
    if mask is not None:
        there = tf.broadcast_to(tf.expand_dims(tf.cast(mask, tf.bool), -1), tf.shape(x))
    count = tf.math.count_nonzero(there, axes)
    n = tf.cast(tf.reshape(count, _beside(x, axis)), x.dtype)
    mean = tf.math.divide_no_nan(tf.reduce_sum(tf.where(there, x, 0), axes, True), n)
    squares = tf.where(there, tf.square(x - mean), 0)
    variance = tf.math.divide_no_nan(tf.reduce_sum(squares, axes, True), n)
    return count, tf.reshape(mean, [-1]), tf.reshape(variance, [-1])


def _beside(x: tf.Tensor, axis: int) -> list[int]:
    """The shape in which one number per channel stands beside x."""
    shape = [1] * x.shape.rank
    shape[axis] = -1
    return shape


def _normalized(layer: Any, x: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
    """γ (x − μ) / √(σ² + ε) + β, in the layer's precision."""
    result = keras.ops.batch_normalization(
        x,
        mean,
        variance,
        axis=layer.axis,
        offset=None if layer.beta is None else tf.cast(tf_variable(layer.beta), x.dtype),
        scale=None if layer.gamma is None else tf.cast(tf_variable(layer.gamma), x.dtype),
        epsilon=layer.epsilon,
    )
    return tf.cast(result, layer.compute_dtype)


def _forward(model: keras.Model, observed: list) -> Any:
    """A function of x to what the layers observe, traced unless the model is to run eagerly."""

    def forward(x: Any) -> list[tuple[int, Moments]]:
        observed[:] = [tf.compat.v1.get_default_graph()]
        model(x, training=False)
        return observed[1:]

    if getattr(model, "run_eagerly", False):
        return forward
    return tf.function(forward, autograph=False, reduce_retracing=True)


def _observed(forward: Any, x: Any) -> list[tuple[int, Moments]]:
    """What the layers observe of one batch."""
    try:
        tensors = keras.tree.map_structure(
            lambda v: v if tf.is_tensor(v) else tf.convert_to_tensor(v), x
        )
        return forward(tensors)
    except UNFIT as error:
        raise ValueError(
            "The model can't be called on what `data` has: batches of x, or of (x, y[, weights]). "
            f"Received: {x!r}\n{error}"
        ) from error


@contextlib.contextmanager
def _unchanged(model: keras.Model) -> Iterator[None]:
    """Puts back, in the end, what a forward pass may change: seeds, states of recurrent layers."""
    variables = [tf_variable(v) for v in model.variables if not v.trainable]
    before = [tf.identity(v) for v in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


def _inputs(data: Any, batch_size: int, steps: int | None) -> Iterator[Any]:
    """The x of each batch."""
    for batch in _batches(data, batch_size, steps):
        yield keras.utils.unpack_x_y_sample_weight(batch)[0]


def _batches(data: Any, batch_size: int, steps: int | None) -> Iterable[Any]:
    if isinstance(data, (dict, tuple)) or hasattr(data, "__array__"):
        return _sliced(_rows(data), batch_size)
    if isinstance(data, keras.utils.PyDataset):
        size = data.num_batches
        batches = map(data.__getitem__, itertools.count() if size is None else range(size))
    else:
        kinds.iterable(DATA)(Where("data"), data)
        endless = isinstance(data, tf.data.Dataset) and (
            int(data.cardinality()) == tf.data.INFINITE_CARDINALITY
        )
        size, batches = None if endless else 0, data
    if size is None and steps is None:
        raise ValueError(
            "The data has no end: say how many batches to read, as steps=100. Received: steps=None"
        )
    return batches


def _rows(data: Any) -> Any:
    """The x of arrays."""
    arrays = keras.tree.flatten(data)
    shapes = [getattr(a, "shape", None) for a in arrays]
    if not arrays or any(shape is None or len(shape) == 0 for shape in shapes):
        Where("data").refuse(TypeError, DATA, data)
    return keras.utils.unpack_x_y_sample_weight(data)[0]


def _sliced(x: Any, batch_size: int) -> Iterator[Any]:
    rows = keras.tree.flatten(x)[0].shape[0]
    for start in range(0, rows, batch_size):
        yield keras.tree.map_structure(lambda a, i=start: a[i : i + batch_size], x)


def _pool(left: Moments | None, right: Moments) -> Moments:
    """The moments of two sets together, where one of them may be empty."""
    if left is None:
        return right
    (n, mean, variance), (m, other_mean, other_variance) = left, right
    share = np.divide(m, n + m, out=np.zeros_like(m), where=n + m > 0)
    apart = other_mean - mean
    spread = variance * (1 - share) + other_variance * share + apart**2 * share * (1 - share)
    return n + m, mean + apart * share, spread


def _assign(layers: list, pooled: dict[int, Moments], data: Any) -> list[str]:
    """Makes the pooled moments the moving statistics, all or none."""
    if not any(count.any() for count, _, _ in pooled.values()):
        raise ValueError(
            "The data has no batch with a row to take statistics of. A generator may have been "
            f"used up before: pass a fresh one. Received: data={data!r}"
        )
    filled = {i: m for i, m in pooled.items() if m[0].any()}
    if idle := [layer.path for i, layer in enumerate(layers) if i not in filled]:
        warnings.warn(
            f"Batch normalizations that got no input stay as they are: {idle}.", stacklevel=5
        )
    for i, (_, mean, variance) in filled.items():
        layers[i].moving_mean.assign(mean)
        layers[i].moving_variance.assign(variance)
    return [layers[i].path for i in filled]
