"""Where a Keras optimizer and its state are found: live, in a model, in three kinds of file."""

import os
import warnings
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import tf_variable
from tf_decoupled.masks import path_of
from tf_decoupled.optimizers.adamw import AdamW

KNOWN = (keras.optimizers.Adam, keras.optimizers.AdamW, keras.optimizers.SGD)
COUNTER = "_iterations/.ATTRIBUTES/VARIABLE_VALUE"  # its key in a checkpoint


def optimizer_of(source: Any) -> keras.optimizers.Optimizer:
    """The Keras optimizer of a model, or that is given, once its class is known here."""
    theirs = source.optimizer if isinstance(source, keras.Model) else source
    if type(theirs) in KNOWN:
        return theirs
    inside = " Import its `inner_optimizer`." if hasattr(theirs, "inner_optimizer") else ""
    raise TypeError(
        "Keras's Adam, AdamW and SGD can be imported, in person or in a compiled model or file; "
        f"of other classes and subclasses the step isn't known.{inside} Received: source={theirs!r}"
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
    arrays = {v.name: tf_variable(v).numpy() for v in theirs.variables}
    return Found(arrays, [path_of(v) for v in whose], theirs.gradient_accumulation_steps)


def _read_checkpoint(prefix: str, optimizer: Optimizer) -> Found:
    """A checkpoint's object graph holds the names of variables beside its own keys."""
    try:
        reader = tf.train.load_checkpoint(prefix)
    except (tf.errors.NotFoundError, ValueError) as error:
        raise ValueError(
            "There is no checkpoint here, nor the name of a `.keras` or `.weights.h5` file. "
            f"Received: source={prefix!r}"
        ) from error
    graph = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    names = {a.checkpoint_key: a.full_name for node in graph.nodes for a in node.attributes}
    roots = [key.removesuffix(COUNTER) for key in names if key.endswith(COUNTER)]
    if len(roots) != 1:
        raise ValueError(
            "The checkpoint must hold one Keras optimizer. Restore it into Keras's optimizer and "
            f"import that. Received: {len(roots)} optimizers in {prefix!r}: {roots}"
        )
    others = ("save_counter", f"{roots[0]}_trainable_variables/")
    own = [key for key in names if key.startswith(roots[0]) and not key.startswith(others)]
    arrays = {names[key].rpartition("/")[2]: reader.get_tensor(key) for key in own}
    return Found(arrays, [names[key] for key in names.keys() - own], _calls_per_update(optimizer))


def _read_weights(path: str, optimizer: Optimizer) -> Found:
    """A `.weights.h5` file numbers the optimizer's variables as Keras orders them."""
    with h5py.File(path) as file:
        arrays = [np.asarray(a) for a in _own_datasets(file, "optimizer", "vars")]
    names = [v.name for v in _counterpart(optimizer).variables]
    if len(arrays) == len(names) - 1:
        names.remove("learning_rate")  # which a schedule computes
    if len(arrays) != len(names):
        raise ValueError(
            f"Keras's counterpart of this {type(optimizer).__name__} keeps these {len(names)} "
            f"arrays (one less if a schedule computes the rate): {names}. "
            f"Received: {len(arrays)} in {path!r}"
        )
    paths = [path_of(cell.variable) for cell in optimizer.cells]
    return Found(dict(zip(names, arrays, strict=True)), paths, _calls_per_update(optimizer))


def _own_datasets(file: h5py.File, *groups: str) -> list[h5py.Dataset]:
    """The datasets "0", "1", ... of a group inside of groups, if there is one.

    HDF5 can have a dataset lie in any other file, as which it reads whatever is there.
    """
    group = file
    for name in groups:
        if name not in group:
            return []
        group = _own(group, name)
    datasets = [_own(group, str(i)) for i in range(len(group))]
    for dataset in datasets:
        if dataset.external or dataset.is_virtual:
            raise _from_elsewhere(group, dataset.name.rpartition("/")[2])
    return datasets


def _own(group: h5py.Group, name: str) -> Any:
    if group.get(name, h5py.HardLink, getclass=True, getlink=True) is not h5py.HardLink:
        raise _from_elsewhere(group, name)
    return group[name]


def _from_elsewhere(group: h5py.Group, name: str) -> ValueError:
    return ValueError(
        "A weights file must hold its own numbers only: a link, external storage or a virtual "
        "dataset could read any file of this machine. Save the weights anew. Received: "
        f"{group.file.filename!r}, in which {f'{group.name}/{name}'.lstrip('/')!r} is one"
    )


def _counterpart(optimizer: Optimizer) -> keras.optimizers.Optimizer:
    """A Keras optimizer that keeps what `optimizer` would keep in Keras."""
    k = _calls_per_update(optimizer)
    shared = dict(use_ema=optimizer.use_ema, gradient_accumulation_steps=k)
    if isinstance(optimizer, AdamW):
        theirs = keras.optimizers.Adam(amsgrad=optimizer.amsgrad, **shared)
    else:
        theirs = keras.optimizers.SGD(momentum=float(optimizer.momentum), **shared)
    theirs.build([cell.variable for cell in optimizer.cells])
    return theirs


def _calls_per_update(optimizer: Optimizer) -> int | None:
    k = optimizer.gradient_accumulation_steps
    return None if k is None else int(k)
