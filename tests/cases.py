"""The table: one row per optimizer and wrapper. Every property runs on every row."""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import keras
import numpy as np
import references
import tensorflow as tf

import tf_decoupled as td


class Case(NamedTuple):
    """How to make an optimizer, and the float64 reference of the same."""

    name: str
    make: Callable[..., td.Optimizer]  # takes the shared arguments
    reference: Callable[..., np.ndarray]
    options: dict = {}  # noqa: RUF012 (never changed)
    learning_rate: float = 0.01


def case(name, optimizer, reference, learning_rate=0.01, **options):
    def make(**shared):
        return optimizer(**{"learning_rate": learning_rate, **options, **shared})

    return Case(name, make, reference, options, learning_rate)


def lookahead(**shared):
    return td.Lookahead(td.AdamW(**{"learning_rate": 0.01, **shared}), sync_period=3)


def nested_lookahead(**shared):
    inner = td.Lookahead(td.SGDW(**{"learning_rate": 0.01, **shared}), sync_period=2)
    return td.Lookahead(inner, sync_period=3, slow_step_size=0.8)


def partial_rule(reference, **options):
    """A reference with some of its options fixed, to be wrapped by another."""
    return SimpleNamespace(rule=functools.partial(reference.rule, **options))


CASES = [
    case("AdamW", td.AdamW, references.adamw),
    case("AdamW-amsgrad", td.AdamW, references.adamw, amsgrad=True),
    case("AdamW-epsilon_hat", td.AdamW, references.adamw, epsilon_hat=True, epsilon=1e-7),
    case("Adam-l2", td.Adam, references.adam, l2=0.05),
    case("SGDW", td.SGDW, references.sgdw),
    case("SGDW-nesterov", td.SGDW, references.sgdw, nesterov=True, momentum=0.7),
    case("SGD-l2", td.SGD, references.sgd, l2=0.05, momentum=0.5),
    case("Lion", td.Lion, references.lion),
    case("LAMB", td.LAMB, references.lamb),
    case("Adafactor", td.Adafactor, references.adafactor),
    Case("Lookahead-AdamW", lookahead, references.lookahead, dict(inner=references.adamw, k=3)),
    Case(
        "Lookahead-Lookahead-SGDW",
        nested_lookahead,
        references.lookahead,
        dict(inner=partial_rule(references.lookahead, inner=references.sgdw, k=2), k=3, alpha=0.8),
    ),
]

SHAPES = [(3, 4), (5,), (), (2, 3, 2)]


def variables(shapes=SHAPES, seed=0):
    """Model variables with random values, named v0, v1, ..."""
    rng = np.random.default_rng(seed)
    return [
        keras.Variable(rng.normal(size=shape).astype("float32"), name=f"v{i}")
        for i, shape in enumerate(shapes)
    ]


def gradients(shapes=SHAPES, steps=10, seed=1):
    """One list of float32 gradients per step."""
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=shape).astype("float32") for shape in shapes] for _ in range(steps)]


def run(optimizer, trainable, grads, graph=False, **function):
    """Applies each step's gradients, eagerly or in a traced step; returns the values at the end."""
    optimizer.build(trainable)

    def step(*gs):
        optimizer.apply([None if g is None else tf.convert_to_tensor(g) for g in gs], trainable)

    step = tf.function(step, **function) if graph else step
    for gs in grads:
        step(*(tf.constant(g) for g in gs))
    return [v.numpy() for v in trainable]


@functools.cache
def mirrored():
    """Two replicas on two logical CPUs; one strategy for all tests of a process.

    TensorFlow tells the collectives of two such strategies apart badly.
    """
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def run_mirrored(make, grads):
    """As `run` in a traced step on two replicas, each with half of every gradient.

    Returns the model variables and the optimizer.
    """
    strategy = mirrored()
    with strategy.scope():
        trainable, optimizer = variables(), make()
        optimizer.build(trainable)

    @tf.function
    def step(gs):
        strategy.run(lambda gs: optimizer.apply([g / 2 for g in gs], trainable), (gs,))

    for gs in grads:
        step([tf.constant(g) for g in gs])
    return trainable, optimizer


def state_of(optimizer):
    """The slots, without hyperparameters."""
    return {name: v for name, v in optimizer.get_state().items() if ":" in name}


def small_model(inputs=4):
    """Two dense layers and a normalization, with fixed layer names."""
    return keras.Sequential(
        [
            keras.layers.Input((inputs,)),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(1, name="head"),
        ]
    )


def small_data(rows=64, inputs=4):
    x = np.random.default_rng(2).normal(size=(rows, inputs)).astype("float32")
    return x, x.sum(1, keepdims=True)
