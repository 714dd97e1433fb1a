"""A user's own model and data: functions in a module of the current folder, `module:function`."""

import functools
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_decoupled.experiments import data
from tf_decoupled.experiments.errors import InputError

CHUNK = 1024
PAIR = "a pair of arrays (x, y), or a tf.data.Dataset of single examples (x, y) that ends"


def is_own(name: str) -> bool:
    return ":" in name


def function(name: str) -> Callable[..., Any]:
    """What `module:function` names. Raises `InputError` where there is no such thing."""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{name}: the module {module!r} can't be imported from {os.getcwd()}: {error}."
        ) from error
    if not callable(found):
        raise InputError(f"{name}: the module has no function {attribute!r}. Received: {found!r}")
    return found


# Data


def load(name: str) -> data.Dataset:
    """What the function `name` returns: (train, validation, test), each as `PAIR` says.

    x: numbers, [n, ...], which are not changed. y: whole numbers from 0, [n]. What is a dataset is
    read into memory. Raises `InputError` for anything else.
    """
    returned = function(name)()
    if not isinstance(returned, (tuple, list)) or len(returned) != 3:
        raise InputError(
            f"{name} must return (train, validation, test), each {PAIR}. "
            f"Received: {type(returned).__name__}"
        )
    parts = zip(("train", "validation", "test"), returned, strict=True)
    train, validation, test = (_split(f"{part} of {name}", given) for part, given in parts)
    if len({split.images.shape[1:] for split in (train, validation, test)}) > 1:
        raise InputError(f"The x of {name} must have one shape in all three parts.")
    classes = 1 + int(max(split.labels.max() for split in (train, validation, test)))
    return data.Dataset(name, train, validation, test, max(2, classes), as_given=True)


def _split(what: str, given: Any) -> data.Split:
    if isinstance(given, tf.data.Dataset):
        given = _collected(what, given)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise InputError(f"{what} must be {PAIR}. Received: {type(given).__name__}")
    x, y = (_array(what, each) for each in given)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1 or y.dtype.kind not in "iub" or not len(y) or y.min() < 0:
        raise InputError(
            f"The y of {what} must be classes, whole numbers from 0: the map shows shares of "
            f"errors. Received: {y.dtype}, shape {list(y.shape)}"
        )
    if x.ndim < 2 or len(x) != len(y):
        raise InputError(
            f"The x of {what} must be [n, ...] with an n as of y, {len(y)}. "
            f"Received: shape {list(x.shape)}"
        )
    return data.Split(x, y.astype(np.int64))


def _array(what: str, given: Any) -> np.ndarray:
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise InputError(f"{what} must be {PAIR}: {error}") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what} must be numbers. Received: {array.dtype}")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _collected(what: str, dataset: tf.data.Dataset) -> tuple[np.ndarray, ...]:
    """The examples of a dataset as arrays."""
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2 or _is_endless(dataset):
        raise InputError(f"{what} must be {PAIR}. Received: {dataset}")
    if getattr(spec[1], "shape", None) is not None and spec[1].shape.rank == 1:
        dataset = dataset.unbatch()
    try:
        chunks = list(dataset.batch(CHUNK).as_numpy_iterator())
    except tf.errors.InvalidArgumentError as error:
        raise InputError(f"The examples of {what} must have one shape: {error.message}") from error
    if not chunks:
        raise InputError(f"{what} is empty.")
    return tuple(np.concatenate(each) for each in zip(*chunks, strict=True))


def _is_endless(dataset: tf.data.Dataset) -> bool:
    return int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY


# Model


def network(name: str, dataset: data.Dataset) -> tuple[keras.Model, Callable[[int], None]]:
    """The model that the function `name` builds, and what gives it the initial values of a seed.

    Those are the values of a model that is built anew after `keras.utils.set_random_seed`.
    """
    model = _built(name, dataset)

    @functools.lru_cache(maxsize=1)
    def values(seed: int) -> list[np.ndarray]:
        keras.utils.set_random_seed(seed)
        return [variable.numpy() for variable in _built(name, dataset).variables]

    def reinitialize(seed: int) -> None:
        for variable, value in zip(model.variables, values(seed), strict=True):
            variable.assign(value)

    return model, reinitialize


def _built(name: str, dataset: data.Dataset) -> keras.Model:
    """The model with its loss: its own where it is compiled, else cross-entropy of logits."""
    build, few = function(name), tf.constant(dataset.train.images[:8])
    asked = inspect.signature(build).parameters.values()
    needed = [p for p in asked if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
    if len(needed) not in (0, 2):
        raise InputError(f"{name} must take nothing, or the shape of an example and the classes.")
    model = build(*(tuple(few.shape[1:]), dataset.classes)[: len(needed)])
    if not isinstance(model, keras.Model):
        raise InputError(f"{name} must return a keras.Model. Received: {type(model).__name__}")
    _check_output(name, model, few, dataset.classes)
    if not model.compiled:
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def _check_output(name: str, model: keras.Model, few: tf.Tensor, classes: int) -> None:
    try:
        output = model(few, training=False)
    except ValueError as error:
        raise InputError(f"The model of {name} doesn't take the data: {error}") from error
    shape = getattr(output, "shape", None)
    if shape is None or len(shape) != 2 or shape[1] < classes:
        raise InputError(
            f"The model of {name} must return one number for each of the {classes} classes, "
            f"[n, {classes}]. Received: {shape or type(output).__name__}"
        )
    if model.compiled:
        if not model.loss:
            raise InputError(f"The model of {name} is compiled without a loss.")
    elif np.allclose(np.sum(output, -1), 1, atol=1e-3) and np.min(output) >= 0:
        raise InputError(
            f"The model of {name} returns probabilities. Leave out its softmax, or compile it "
            'with a loss of probabilities: loss="sparse_categorical_crossentropy".'
        )


def fingerprint(dataset: data.Dataset, model: keras.Model) -> str:
    """Of the data, and of what the model's variables are: another one is another experiment."""
    digest = hashlib.sha256(repr([(v.shape, v.dtype) for v in model.variables]).encode())
    for split in (dataset.train, dataset.validation, dataset.test):
        for array in split:
            digest.update(repr((array.shape, array.dtype)).encode())
            digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]
