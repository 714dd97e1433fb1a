"""The build: what is decided about each variable, and what is made beside it."""

import warnings
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_decoupled import masks
from tf_decoupled.engine import replicas, stacking
from tf_decoupled.engine.concerns.precision import LOW
from tf_decoupled.engine.overwriting import Overwrite
from tf_decoupled.engine.state import Cell, flatten, tf_variable

OVERWRITE = Overwrite()


def add(optimizer: Any, variables: Sequence) -> list[Cell]:
    """The cells of these variables, which are new, with their slots made."""
    cells = [_cell(optimizer, v, i) for i, v in enumerate(variables)]
    try:
        optimizer.assign_rules([cell for cell in cells if not cell.overwrites])
        _check_rules(cells)
        for cell in cells:
            _declare_slots(optimizer, cell)
        blocks = stacking.lay_out(optimizer, cells)
        for block in blocks:
            block.store()
    except BaseException:
        optimizer.cells.forget(cells)
        raise
    for block in blocks:
        optimizer.blocks.append(block)
    for cell in cells:
        setattr(optimizer.slots, f"of {cell.path}", cell.stored)  # tf.Module has names of its own
    return cells


def _cell(optimizer: Any, variable: Any, position: int) -> Cell:
    replicas.check_same(tf_variable(optimizer.updates), tf_variable(variable))
    cell = Cell(variable, masks.path_of(variable))
    cell.position = None if optimizer.built else position
    if cell.overwrites:
        cell.rule, cell.decays, cell.reason = OVERWRITE, False, "becomes its gradient"
    optimizer.cells.add(cell)
    return cell


def decide(optimizer: Any, rule: Any, branch: str, cells: Sequence[Cell]) -> None:
    """Notes which rule steps these cells, whether they decay, and what it measures of them."""
    mask = rule.innermost().decay_mask
    everything = [cell.variable for cell in optimizer.cells if not cell.overwrites]
    if not optimizer.built:
        masks.settle(mask, everything)  # members of a Partition may have one mask
    for cell in cells:
        cell.rule, cell.branch = rule, branch
        cell.decays, cell.reason = masks.decide(mask, cell.variable)
    own = [cell for cell in optimizer.cells if cell.rule is rule]
    for _, inner in rule.tree():
        numbers = inner.measure([cell.variable for cell in own], everything)
        for cell, number in zip(own, numbers or (), strict=numbers is not None):
            cell.numbers.setdefault(id(inner), number)


def _check_rules(cells: Sequence[Cell]) -> None:
    """Raises, naming them, for variables that their rule can't step."""
    refused: dict[str, list[str]] = {}
    for cell in cells:
        reason = None if cell.overwrites else cell.rule.refuses(tf_variable(cell.variable))
        if reason:
            refused.setdefault(reason, []).append(f"{cell.path} {tuple(cell.variable.shape)}")
    if refused:
        told = " ".join(f"{why}. Received: {', '.join(v)}." for why, v in refused.items())
        raise ValueError(
            f"{told} td.Partition gives them another optimizer: "
            "td.Partition([(td.masks.matrices, ...), (None, td.AdamW())])."
        )


def _declare_slots(optimizer: Any, cell: Cell) -> None:
    """Asks the rule and all concerns what they keep beside the variable."""
    variable = tf_variable(cell.variable)
    slots = flatten(cell.rule.init(variable))
    cell.slots = {name: slot.beside(cell.path) for name, slot in slots}
    for concern in optimizer.order:
        kept = concern.slots(cell)
        kept = {name: slot.beside(cell.path) for name, slot in kept.items()}
        if taken := cell.all_slots.keys() & kept.keys():
            raise ValueError(
                f"{type(concern).__name__} keeps {sorted(taken)} beside {cell.path!r}, and so does "
                "another concern or the rule: give it another name."
            )
        cell.concern_slots |= kept
        cell.by_rows |= bool(kept) and concern.keeps_rows


def check(optimizer: Any, variables: Sequence, added: bool) -> None:
    """Raises for what can't be built; warns of variables that may be another model's."""
    if optimizer.is_inside:
        raise ValueError(
            f"This {type(optimizer).__name__} is inside of another optimizer, which steps the "
            f"variables: take that one, or make a fresh one. Received: {optimizer!r}"
        )
    for variable in variables:
        _check_variable(variable)
    strange = optimizer.built and not added and not any(v in optimizer.cells for v in variables)
    if strange and (done := int(optimizer.iterations.numpy())):
        warnings.warn(
            f"{type(optimizer).__name__} has made {done} updates, and knows none of these "
            f"{len(variables)} variables: they begin at update {done} of its schedules. For a new "
            "model make a new optimizer, or call `reset_state()`. If it is meant, call "
            "`add_variables(variables)` before.",
            stacklevel=4,
        )


def _check_variable(variable: Any) -> None:
    """Raises for a variable that the engine can't update rightly."""
    if not hasattr(variable, "dtype") or not hasattr(variable, "assign"):
        raise TypeError(
            "An optimizer is built on variables, as `opt.build(model.trainable_variables)`. "
            f"Received: {variable!r} among them"
        )
    dtype, path = tf.as_dtype(variable.dtype), masks.path_of(variable)
    if not isinstance(tf_variable(variable), tf.Variable):
        raise NotImplementedError(
            "Variables in pieces are not supported: make the strategy without "
            f"`variable_partitioner`. Received: {path!r}, a {type(tf_variable(variable)).__name__}"
        )
    if dtype not in (tf.float32, tf.float64, *LOW):
        raise TypeError(
            "Variables must be float32 or float64, in which the mathematics is done then, or "
            f"bfloat16 or float16. Received: {path!r} in {dtype.name}"
        )
