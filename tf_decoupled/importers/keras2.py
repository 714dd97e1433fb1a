"""From Keras 2's `OptimizerV2`: an optimizer that goes on where one stands, or its state alone."""

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.importers.keras2_files import CACHE, ITER, Found, optimizer_config, read
from tf_decoupled.importers.keras2_rules import SLOTS, counterpart
from tf_decoupled.importers.naming import Names, NamesOrNone, aligned, check_told, names_there
from tf_decoupled.importers.resuming import (
    build,
    for_each_cell,
    resume,
    rule_of,
    whole_state,
    with_variance,
)
from tf_decoupled.optimizers.nadamw import NAdamW
from tf_decoupled.optimizers.sgdw import SGDW


def _file(where: Where, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        words = "the path of a whole-model `.h5` file, or the prefix of a checkpoint"
        where.refuse(TypeError, words, value)
    return kinds.path(where, value)


Path = Annotated[str | os.PathLike, _file]
Variables = Annotated[Sequence, kinds.variables]


@checked
def from_keras2(
    path: Path, variables: Variables, names: NamesOrNone = None, **changed: Any
) -> Optimizer:
    """The optimizer that goes on where one of `keras.optimizers.legacy` or Addons stands, built.

        model.load_weights("begun.h5")
        opt = td.importers.from_keras2("begun.h5", model.trainable_variables)

        Keras 2, legacy                   here               what is converted
        Adam, with amsgrad                td.Adam            ε stands where Keras adds it
        SGD, Adadelta, Adamax, Ftrl       the same names
        RMSprop                           td.RMSprop         without momentum: pass `epsilon=`
        Adagrad                           td.AdagradW        ε is outside of the root there
        Nadam                             td.Nadam           its `decay` is `momentum_decay`
        Addons' AdamW, SGDW               td.AdamW, td.SGDW  the decay is "independent" of the rate
        Addons' LAMB                      td.LAMB

    All hyperparameters are taken over: rates that fall by `decay` or a schedule of Keras's, clips,
    and Addons' `exclude_from_weight_decay`; not `decay_var_list`, which no file says.

    Args:
        path: a whole-model `.h5` file that Keras 2 (`tf.keras` up to TensorFlow 2.15, `tf_keras`)
            has written. Its values are not loaded: the variables have them already.
        variables: those that the optimizer is for.
        names: Keras 2's name of each variable, as "dense/kernel", by path; a callable path -> name,
            too. By default names are the same, but for their start and Keras's numbers.
        changed: arguments of the optimizer in place of Keras's.

    Raises ValueError for other classes, for what can't go on exactly unless an argument says what
    it is to be, and for state that doesn't fit, listed.
    """
    optimizer = counterpart(*optimizer_config(path), changed)
    build(optimizer, variables, [])
    resume(optimizer, keras2_state(path, optimizer, names))
    return optimizer


@checked
def keras2_state(path: Path, optimizer: Optimizer, names: NamesOrNone = None) -> dict:
    """The state of an `OptimizerV2` under the names of `optimizer`: for `set_state`.

    Slots, `iterations` and, from a checkpoint, the rate, where it is a number on both sides, are
    the source's; all else stays as it is in `optimizer`: other hyperparameters are not imported.
    Which classes belong together, and what differs, says `from_keras2`.

    Args:
        path: a whole-model `.h5` file; or the prefix of a checkpoint of TensorFlow with one such
            optimizer, as `save_weights` of a compiled model or `tf.train.Checkpoint` writes it.
        optimizer: a built one of ours, of the classes that `from_keras2` makes, or of the same rule
            with other defaults.
        names: see `from_keras2`.

    Raises ValueError for files without the state of an `OptimizerV2`; state that doesn't fit is
    left to `set_state`.
    """
    rule = rule_of(optimizer, SLOTS)
    found = read(path)
    slots = _ours(_renamed(found, optimizer, names), SLOTS[rule])
    if isinstance(optimizer, SGDW):
        slots = {name: -a if name.endswith(":m") else a for name, a in slots.items()}
    if isinstance(optimizer, NAdamW) and CACHE in found.numbers:
        slots |= for_each_cell(optimizer, "product", found.numbers[CACHE])
    updates, rate = int(found.numbers[ITER]), found.numbers.get("learning_rate")
    return whole_state(optimizer, with_variance(optimizer, slots), updates, rate)


def _renamed(found: Found, optimizer: Optimizer, names: Names | None) -> Mapping[str, np.ndarray]:
    """Slots of Keras 2 under the paths here."""
    paths = [cell.path for cell in optimizer.cells]
    if names is None:
        return aligned(found.slots, paths)
    here = {there: path for path, there in names_there(paths, names, "Keras 2").items()}
    split = {name: name.rpartition(":") for name in found.slots}
    check_told(here, {path for path, *_ in split.values()}, "the file")
    return {
        f"{here.get(path, path)}:{slot}": found.slots[name]
        for name, (path, _, slot) in split.items()
    }


def _ours(slots: Mapping[str, np.ndarray], own: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Slots by the rule's own names; those that it hasn't keep theirs, and are listed."""
    split = {name: name.rpartition(":") for name in slots}
    return {f"{path}:{own.get(slot, slot)}": slots[n] for n, (path, _, slot) in split.items()}
