"""What is measured of the variables at one update, and of the optimizer.

An array has one number per variable, in the optimizer's order; a norm of -1 stands for none.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_decoupled.callbacks.of_model import innermost, loss_scale_of
from tf_decoupled.callbacks.sampling import Look
from tf_decoupled.engine.blocks import Part
from tf_decoupled.engine.state import Cell
from tf_decoupled.math import norms

NONE = -1.0
OF_VARIABLES = (
    *("gradient_norm", "weight_norm", "update_norm", "relative_update"),
    *("slot_norms", "decay"),
)
OF_OPTIMIZER = ("learning_rate", "weight_decay", "loss_scale", "skipped_steps")
QUANTITIES = OF_VARIABLES + OF_OPTIMIZER


class Column(NamedTuple):
    """One number of a sample: its name, what it is, and of which variables, by position."""

    name: str
    quantity: str
    cells: list[int]


def columns_of(optimizer: Any, quantities: Sequence[str], per: str) -> list[Column]:
    """The columns that these quantities come to."""
    cells, groups = list(optimizer.cells), _groups(optimizer.cells, per)
    columns = []
    for quantity in (each for each in quantities if each in OF_VARIABLES):
        slots = dict.fromkeys(name for cell in cells for name in _slots(cell))
        for own in [f"{slot}_norm" for slot in slots] if quantity == "slot_norms" else [quantity]:
            for group, places in groups.items():
                if quantity == "slot_norms":
                    slot = own.removesuffix("_norm")
                    places = [place for place in places if slot in _slots(cells[place])]
                if places:
                    columns.append(Column(own + "/" * bool(group) + group, own, places))
    return columns


def _groups(cells: Iterable[Cell], per: str) -> dict[str, list[int]]:
    """The positions of the variables of each group; those of frozen ones are left out."""
    groups: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):
        if cell.variable.trainable and not cell.overwrites:
            layer, _, name = cell.path.rpartition("/")
            _, again, number = name.partition("~")  # of a second layer of this name
            names = {"model": "", "variable": cell.path, "layer": (layer or name) + again + number}
            groups.setdefault(names[per], []).append(place)
    return groups


def _slots(cell: Cell) -> list[str]:
    """The names of the slots that are real numbers."""
    return [name for name, slot in cell.slots.items() if not (slot.dtype or "float").count("int")]


def arrays_of(optimizer: Any, before: Look, now: Look, wanted: set[str]) -> dict[str, np.ndarray]:
    """What is measured of each variable, by quantity; slots as they are after the update."""
    size, cells = len(optimizer.cells), optimizer.cells

    def spread(parts: list[Part], vectors: list[tf.Tensor]) -> np.ndarray:
        array = np.full(size, NONE)
        if parts:
            vectors = [tf.cast(vector, tf.float64) for vector in vectors]
            places = [cells.index(cell.variable) for part in parts for cell in part.block.cells]
            array[places] = tf.concat(vectors, 0).numpy()
        return array

    pairs = [(b, n) for b, n in zip(before.parts, now.parts, strict=False) if not _overwrites(b)]
    first, second = [b for b, _ in pairs], [n for _, n in pairs]
    arrays: dict[str, np.ndarray] = {}
    if wanted & {"weight_norm", "relative_update", "decay"}:
        arrays["weight_norm"] = spread(first, [_norms(b, b.p) for b in first])
    if wanted & {"update_norm", "relative_update"}:
        arrays["update_norm"] = spread(first, [_norms(b, n.p - b.p) for b, n in pairs])
    if "decay" in wanted:
        decays = [tf.broadcast_to(b.h["decay"], [len(b.block.cells)]) for b in first]
        arrays["decay"] = spread(first, decays)
    if "gradient_norm" in wanted:
        kept = optimizer.gradient_norms()
        arrays["gradient_norm"] = np.array([kept.get(cell.path, NONE) for cell in cells])
    for slot in [name.removesuffix("_norm") for name in wanted - set(OF_VARIABLES)]:
        having = [part for part in second if slot in part.block.slots]
        arrays[f"{slot}_norm"] = spread(having, [_norms(part, part.s[slot]) for part in having])
    return arrays


def _overwrites(part: Part) -> bool:
    return part.block.overwrites


def _norms(part: Part, array: tf.Tensor) -> tf.Tensor:
    return norms(array, part.block.stacked)


def value_of(column: Column, arrays: Mapping[str, np.ndarray]) -> float:
    """The column's number; NaN where there is none."""

    def of(quantity: str) -> np.ndarray:
        return arrays[quantity][column.cells]

    if column.quantity == "relative_update":
        return total(of("update_norm")) / (total(of("weight_norm")) or math.nan)
    if column.quantity == "decay":
        decays, lengths = of("decay"), of("weight_norm")
        alike = (decays == decays[0]).all()
        return float(decays[0]) if alike else total(decays * lengths) / (total(lengths) or math.nan)
    return total(of(column.quantity))


def total(lengths: np.ndarray) -> float:
    """The norm of arrays of these norms together; NaN of none."""
    known = lengths[~(lengths < 0)]
    return math.hypot(*known) if len(known) else math.nan


def numbers_of(model: keras.Model, quantities: Sequence[str], step: int) -> dict[str, float]:
    """The optimizer's own numbers, as the update after `step` others uses them."""
    optimizer, numbers = innermost(model), {}
    own_quantities = [name for name in quantities if name in OF_OPTIMIZER]
    h = optimizer.hyperparameters_at(step) if own_quantities else {}
    for name in own_quantities:
        if name == "loss_scale":
            scale = loss_scale_of(model)
            numbers[name] = 1.0 if scale is None else float(tf.convert_to_tensor(scale))
        elif name == "skipped_steps":
            numbers[name] = float(tf.convert_to_tensor(optimizer.skipped_steps))
        else:
            for branch, label in _members(optimizer):
                own = h[branch] if branch else h
                numbers[name + label] = float(own[name])
    return numbers


def _members(optimizer: Any) -> list[tuple[str, str]]:
    """The place of each rule that has a rate, and what its rate is called behind "/"."""
    branches = optimizer.branches()
    names = [member.name for _, member in branches]
    return [
        (branch, branch and f"/{name}" + f"_{i}" * (names.count(name) > 1))
        for i, ((branch, _), name) in enumerate(zip(branches, names, strict=True))
    ]
