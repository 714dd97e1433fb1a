"""Where a Keras optimizer and its state are found: live, in a model, in three kinds of file."""

import os
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np

from tf_decoupled.engine.checking import Where
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import tf_variable
from tf_decoupled.importers import checkpoints
from tf_decoupled.importers.h5 import own_datasets
from tf_decoupled.importers.keras_rules import CLASSES, KEEPERS, PRODUCT
from tf_decoupled.importers.resuming import rule_of
from tf_decoupled.masks import path_of

UNNAMED = re.compile(r"variable(_\d+)?")  # what Keras calls a variable that was given no name


def optimizer_of(source: Any) -> keras.optimizers.Optimizer:
    """The Keras optimizer of a model, or that is given, once its class is known here."""
    theirs = source.optimizer if isinstance(source, keras.Model) else source
    if type(theirs) in CLASSES:
        return theirs
    names = ", ".join(sorted(cls.__name__ for cls in CLASSES))
    inside = " Import its `inner_optimizer`." if hasattr(theirs, "inner_optimizer") else ""
    raise TypeError(
        f"Keras's {names} can be imported, in person or in a compiled model or file; of other "
        f"classes and subclasses the step isn't known here.{inside} Received: source={theirs!r}"
    )


def load(path: Any) -> keras.Model:
    """The model of a `.keras` file, with its optimizer."""
    if not os.fspath(path).endswith(".keras"):
        raise ValueError(
            "Hyperparameters stand in `.keras` files only. For checkpoints and weights, make the "
            "optimizer, `td.importers.from_keras(keras.optimizers.AdamW(...), variables)`, then "
            f"`opt.set_state(td.importers.keras_state(path, opt))`. "
            f"Received: source={os.fspath(path)!r}"
        )
    with warnings.catch_warnings():  # Keras would warn, and start anew
        warnings.filterwarnings("error", "Skipping variable loading")
        return keras.models.load_model(path)


class Found(NamedTuple):
    """What a Keras optimizer keeps, by Keras's names; the paths of model variables; its k.

    How many calls make an update, only a live optimizer says; of a file it is what ours says.
    """

    arrays: dict[str, np.ndarray]
    paths: list[str]
    calls_per_update: int | None


def read(source: Any, optimizer: Optimizer) -> Found:
    """What the source, as `keras_state` takes it, keeps for the variables of `optimizer`."""
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if not path.endswith(".keras"):
            h5 = path.endswith(".h5")
            return _read_weights(path, optimizer) if h5 else _read_checkpoint(path, optimizer)
        source = load(path)
    theirs = optimizer_of(source)
    whose = source.weights if theirs is not source else [c.variable for c in optimizer.cells]
    arrays = _named([(v.name, tf_variable(v).numpy()) for v in theirs.variables])
    return Found(arrays, [path_of(v) for v in whose], theirs.gradient_accumulation_steps)


def _read_checkpoint(prefix: str, optimizer: Optimizer) -> Found:
    """A checkpoint's object graph holds the names of variables beside its own keys."""
    arrays, names, root = checkpoints.read(Where("source"), prefix, "_iterations", "Keras")
    others = ("save_counter", f"{root}_trainable_variables/")
    own = [key for key in names if key.startswith(root) and not key.startswith(others)]
    own.sort(key=_position)
    pairs = [(names[key].rpartition("/")[2], arrays[key]) for key in own]
    paths = [names[key] for key in names.keys() - own]
    return Found(_named(pairs), paths, _calls_per_update(optimizer))


def _position(key: str) -> int:
    """Where a checkpoint's key stands among the optimizer's variables; 0 if it doesn't say."""
    number = key.removesuffix(checkpoints.VALUE).rpartition("/")[2]
    return int(number) if number.isdecimal() else 0


def _named(pairs: Sequence[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays in Keras's order by name, with names of their own where Keras has none.

    Adafactor's rows and columns are both called as the variable, and its velocity comes next.
    Nadam's product is "variable", which Keras may number.
    """
    names = [PRODUCT if UNNAMED.fullmatch(name) else name for name, _ in pairs]
    for i in range(2, len(names)):
        stem = names[i].removesuffix("_velocity")
        if names[i - 2] == names[i - 1] and stem != names[i]:
            names[i - 2 : i] = f"{stem}_rows", f"{stem}_columns"
    return {name: array for name, (_, array) in zip(names, pairs, strict=True)}


def _read_weights(path: str, optimizer: Optimizer) -> Found:
    """A `.weights.h5` file numbers the optimizer's variables as Keras orders them."""
    with h5py.File(path) as file:
        arrays = [np.asarray(a) for a in own_datasets(file, "optimizer", "vars")]
    names = [v.name for v in _counterpart(optimizer).variables]
    if len(arrays) == len(names) - 1:
        names.remove("learning_rate")  # which a schedule computes
    if len(arrays) != len(names):
        raise ValueError(
            f"Keras's counterpart of this {type(optimizer).__name__} keeps these {len(names)} "
            f"arrays (one less if a schedule computes the rate): {names}. Whole-model `.h5` files "
            f"of Keras 2 are for `keras2_state`. Received: {len(arrays)} in {path!r}"
        )
    paths = [path_of(cell.variable) for cell in optimizer.cells]
    return Found(_named(list(zip(names, arrays, strict=True))), paths, _calls_per_update(optimizer))


def _counterpart(optimizer: Optimizer) -> keras.optimizers.Optimizer:
    """A Keras optimizer that keeps what `optimizer` would keep in Keras."""
    theirs, options = KEEPERS[rule_of(optimizer, KEEPERS)]
    given = {name: getattr(optimizer, name) for name in options}
    given = {name: v if isinstance(v, bool) else float(v) for name, v in given.items()}
    k = _calls_per_update(optimizer)
    made = theirs(use_ema=optimizer.use_ema, gradient_accumulation_steps=k, **given)
    made.build([cell.variable for cell in optimizer.cells])
    return made


def _calls_per_update(optimizer: Optimizer) -> int | None:
    k = optimizer.gradient_accumulation_steps
    return None if k is None else int(k)
