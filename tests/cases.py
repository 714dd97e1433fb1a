"""The table, variables and gradients for its rows, and how they are run."""

import keras
import numpy as np
import tensorflow as tf
from rows import CASES
from rows.row import SHAPES, Case, around, like

import tf_decoupled as td
from tf_decoupled.experiments import strategies

__all__ = ["CASES", "SHAPES", "Case", "around", "like"]


def variables(shapes=SHAPES, seed=0):
    """Model variables with random values, named v0, v1, ..."""
    rng = np.random.default_rng(seed)
    return [
        keras.Variable(rng.normal(size=shape).astype("float32"), name=f"v{i}")
        for i, shape in enumerate(shapes)
    ]


def gradients(shapes=SHAPES, steps=10, seed=1, trend=0.0):
    """One list of float32 gradients per step; `trend`: the mean of all, in which they agree."""
    rng = np.random.default_rng(seed)
    draw = lambda shape: rng.normal(trend, size=shape).astype("float32")  # noqa: E731
    return [[draw(shape) for shape in shapes] for _ in range(steps)]


def told(value):
    """What a parameter is called in the name of a test; functions have no two names."""
    return getattr(value, "__name__", str(value)[:40])


def asks_for_loss(optimizer):
    """Whether the step depends on the loss, as that of none of Keras's optimizers does."""
    rules = optimizer.rules() if isinstance(optimizer, td.Optimizer) else ()
    return any("loss" in rule.shared() for _, rule in rules)


def tell_loss(optimizer, loss):
    """Tells the loss to a rule that asks for it."""
    if asks_for_loss(optimizer):
        optimizer.observe_loss(loss)


def run(optimizer, trainable, grads, graph=False, **function):
    """Applies each step's gradients, eagerly or in a traced step; returns the values at the end."""
    optimizer.build(trainable)

    def step(*gs):
        tell_loss(optimizer, 1.0)
        optimizer.apply([None if g is None else tf.convert_to_tensor(g) for g in gs], trainable)

    step = tf.function(step, **function) if graph else step
    for gs in grads:
        step(*(tf.constant(g) for g in gs))
    return [v.numpy() for v in trainable]


def mirrored():
    """Two replicas on two logical CPUs; one strategy for all tests of a process."""
    return strategies.make("mirrored", 2)


def run_mirrored(make, grads, shapes=SHAPES):
    """As `run` in a traced step on two replicas, each with half of every gradient.

    Returns the model variables and the optimizer.
    """
    strategy = mirrored()
    with strategy.scope():
        trainable, optimizer = variables(shapes), make()
        optimizer.build(trainable)

    def half(gs):
        tell_loss(optimizer, 0.5)
        optimizer.apply([g / 2 for g in gs], trainable)

    @tf.function
    def step(gs):
        strategy.run(half, (gs,))

    for gs in grads:
        step([tf.constant(g) for g in gs])
    return trainable, optimizer


def state_of(optimizer):
    """The slots, without hyperparameters."""
    return {name: v for name, v in optimizer.get_state().items() if ":" in name}


def small_model(inputs=4, matrices_only=False):
    """Two dense layers and a normalization, with fixed layer names; or matrices only."""
    first = keras.layers.Dense(8, "relu", use_bias=not matrices_only, name="hidden")
    norm = keras.layers.BatchNormalization(name="norm", center=False, scale=False)
    norm = norm if matrices_only else keras.layers.BatchNormalization(name="norm")
    head = keras.layers.Dense(1, use_bias=not matrices_only, name="head")
    return keras.Sequential([keras.layers.Input((inputs,)), first, norm, head])


def small_data(rows=64, inputs=4):
    x = np.random.default_rng(2).normal(size=(rows, inputs)).astype("float32")
    return x, x.sum(1, keepdims=True)


def events_of(folder):
    """{tag, without "optimizer/": {step: value}} of all scalars in TensorBoard's event files."""
    values = {}
    for file in sorted(folder.glob("events*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                name = value.tag.removeprefix("optimizer/")
                values.setdefault(name, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return values
