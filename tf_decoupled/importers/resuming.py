"""The optimizer that goes on: which ones can, how they are built, and their state made whole."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.optimizers.adamw import AdamW
from tf_decoupled.optimizers.sgdw import SGDW


def check(optimizer: Any) -> None:
    """Raises TypeError for what state can't be imported into."""
    if not (isinstance(optimizer, (AdamW, SGDW)) and optimizer.built):
        raise TypeError(
            "State is imported into td.AdamW, td.Adam, td.SGDW and td.SGD, nothing around them, "
            "once built: `opt.build(model.trainable_variables)`. "
            f"Received: optimizer={optimizer!r}, built={getattr(optimizer, 'built', None)}"
        )


def build(optimizer: Optimizer, variables: Sequence, left_out: Sequence) -> None:
    """Builds, with `left_out` not decaying; without any, the mask decides."""
    if left_out:
        optimizer.exclude_from_weight_decay(var_list=left_out)
    optimizer.build(variables)
    excluded = [cell.path for cell in optimizer.cells if not cell.decays]
    if left_out and len(excluded) != len(left_out):
        raise ValueError(
            "Paths are too alike to tell those that decay from those that don't. Pass "
            f"`decay_mask=`. Received: {len(left_out)} that don't, which fit all of {excluded}"
        )


def resume(optimizer: Optimizer, state: Mapping[str, np.ndarray]) -> None:
    """Loads a state, but no hyperparameters: they were given to the constructor."""
    own = optimizer.hyperparameter_variables()
    optimizer.set_state({**state, **{name: variable.numpy() for name, variable in own.items()}})


def whole_state(
    optimizer: Optimizer, slots: Mapping[str, np.ndarray], updates: int, rate: float | None
) -> dict[str, np.ndarray]:
    """The imported slots, count and rate; all else, but for slots of the rule, as it is."""
    needed = {f"{cell.path}:{name}" for cell in optimizer.cells for name in cell.slots}
    if without_momentum(optimizer):
        needed = set()
    if updates and needed and not slots:
        raise ValueError(
            "There are no slots to import, as of SGD without momentum. "
            f"Received: {updates} updates for a {type(optimizer).__name__} that needs slots"
        )
    state = {name: a for name, a in optimizer.get_state().items() if name not in needed}
    state["iterations"] = np.int64(updates)
    if rate is not None and "learning_rate" in state:
        state["learning_rate"] = np.float32(rate)
    return state | {name: np.asarray(array, np.float32) for name, array in slots.items()}


def without_momentum(optimizer: Optimizer) -> bool:
    """Whether the optimizer is an SGD whose slots don't count."""
    return isinstance(optimizer, SGDW) and float(optimizer.momentum) == 0.0
