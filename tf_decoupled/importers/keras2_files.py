"""What Keras 2's `OptimizerV2` writes: whole-model `.h5` files, and checkpoints."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import h5py
import numpy as np

from tf_decoupled.engine.checking import Where
from tf_decoupled.importers import checkpoints
from tf_decoupled.importers.h5 import own

WEIGHTS = "optimizer_weights"
ITER, CACHE = "iter", "momentum_cache"  # of OptimizerV2, and of its Nadam


class Found(NamedTuple):
    """slots: arrays by "path:slot" of Keras 2. numbers: the scalars, `iter` among them."""

    slots: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]


def read(path: str) -> Found:
    """Slots and scalars of a whole-model `.h5` file, or of the prefix of a checkpoint."""
    if not path.endswith((".h5", ".hdf5", ".keras")):
        return _read_checkpoint(path)
    with _opened(path) as file:
        arrays = _arrays(file, path)
    iters = [name for name in arrays if name.rpartition("/")[2] == ITER]
    if len(iters) != 1:
        raise ValueError(
            "The file must hold the weights of one `OptimizerV2`, with its counter `iter`; the "
            "newer optimizers of Keras 2.11 and later have none. Save with one of "
            f"`keras.optimizers.legacy`. Received: path={path!r} with {list(arrays)[:4]}"
        )
    whose = iters[0].removesuffix(ITER)  # "Adam/"
    arrays = {name.removeprefix(whose): array for name, array in arrays.items()}
    numbers = {name: arrays.pop(name) for name in (ITER, CACHE) if name in arrays}
    slots = {":".join(name.rpartition("/")[::2]): array for name, array in arrays.items()}
    return Found(slots, numbers)


def optimizer_config(path: str) -> tuple[str, dict[str, Any]]:
    """The class and the hyperparameters of the optimizer, as a whole-model `.h5` file says them."""
    if not path.endswith((".h5", ".hdf5")):
        raise ValueError(
            "Hyperparameters stand in whole-model `.h5` files only. For a checkpoint, make the "
            "optimizer, build it, and load `opt.set_state(td.importers.keras2_state(path, opt))`. "
            f"Received: path={path!r}"
        )
    with _opened(path) as file:
        text = file.attrs.get("training_config")
    said = json.loads(text) if text is not None else {}
    config = said.get("optimizer_config") if isinstance(said, Mapping) else None
    if not isinstance(config, Mapping) or not config.keys() >= {"class_name", "config"}:
        raise ValueError(
            "The file says no optimizer: it is one of weights, or of a model that wasn't compiled. "
            f"Received: path={path!r}, whose training_config is {text!r}"
        )
    return config["class_name"], dict(config["config"])


def _opened(path: str) -> h5py.File:
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no such file. Received: path={path!r}")
    if not h5py.is_hdf5(path):
        raise ValueError(
            "A whole-model file of Keras 2 is in HDF5. Files `.keras` are read by `from_keras`. "
            f"Received: path={path!r}, which isn't"
        )
    return h5py.File(path)


def _arrays(file: h5py.File, path: str) -> dict[str, np.ndarray]:
    """The optimizer's weights by name, without the ":0" that ends each."""
    if WEIGHTS not in file:
        raise ValueError(
            "The file has no state of an optimizer: `model.save(path)` of a compiled model that "
            f"has been trained writes it. Received: path={path!r} with {list(file)}"
        )
    group = own(file, WEIGHTS)
    found = {}
    for name in _weight_names(group):
        inside, parts = group, name.split("/")
        for part in parts:
            inside = own(inside, part)
        found[name.removesuffix(":0")] = np.asarray(inside)
    return found


def _weight_names(group: h5py.Group) -> list[str]:
    """In Keras's order; a long list is cut into "weight_names0", "weight_names1", ..."""
    attributes = group.attrs
    if "weight_names" in attributes:
        chunks = [attributes["weight_names"]]
    else:
        chunks = []
        while f"weight_names{len(chunks)}" in attributes:
            chunks.append(attributes[f"weight_names{len(chunks)}"])
    names = [name for chunk in chunks for name in chunk]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _read_checkpoint(prefix: str) -> Found:
    """Slots stand beside their variables: "kernel/.OPTIMIZER_SLOT/optimizer/m"."""
    arrays, names, root = checkpoints.read(Where("path"), prefix, ITER, "Keras 2")
    beside = f"/.OPTIMIZER_SLOT/{root}"
    slots, numbers = {}, {}
    for key, array in arrays.items():
        variable, found, slot = key.removesuffix(checkpoints.VALUE).partition(beside)
        if found:
            slots[f"{names[variable + checkpoints.VALUE]}:{slot}"] = array
        elif key.startswith(root) and not array.shape:
            numbers[variable.removeprefix(root)] = array
    return Found(slots, numbers)
