"""Blocks: how values and slots are stored, and what one call of a rule steps.

A block is one variable, or a stack: n small variables of one shape, whose slots are stored as one
array [n, ...] each. A rule is written for one variable and mapped over a stack, so that thousands
of variables cost one computation. Nobody else touches storage; a saved state has one array per
variable and slot, whatever the blocks are.
"""

import copy
import functools
from collections import UserList
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_decoupled.engine import replicas
from tf_decoupled.engine.hyperparameters import namespace
from tf_decoupled.engine.pieces import Piece
from tf_decoupled.engine.state import Cell, flatten, nest, tf_variable

# So many blocks are compiled, the second only of so many numbers each: `benchmarks/step_time.py
# apart_1000` has steps of smaller ones, which are slower compiled, and take a minute to compile.
COMPILED, COMPILED_IF_LARGE, LARGE = 100, 1000, 2048
VALUE = ""  # among the names of what a block stores: the variable


class RowGradient(NamedTuple):
    """A sparse gradient with its repeated rows summed, in arrays of the shape that came.

    `sums` [n, ...]: the sum of each different row once, then zeros, so norms of it are those of
    the dense gradient. `rows` [n]: the rows, as they came. `places` [n]: where each one's sum is.
    """

    sums: tf.Tensor
    rows: tf.Tensor
    places: tf.Tensor


class Block:
    """What is read and written for one call of a rule: one cell, or a stack of cells alike."""

    def __init__(self, cells: Sequence[Cell]):
        self.cells, self.stacked = tuple(cells), len(cells) > 1
        first = self.cells[0]
        self.rule, self.branch, self.constraint = first.rule, first.branch, first.constraint
        self.slots, self.concern_slots = first.slots, first.concern_slots
        self.all_slots = first.all_slots
        self.overwrites = first.overwrites
        self.shape, self.dtype = first.variable.shape, tf.as_dtype(first.variable.dtype)
        self.precision = tf.float64 if self.dtype == tf.float64 else tf.float32
        self.variables = [tf_variable(cell.variable) for cell in self.cells]
        self.stored: dict[str, Any] = {}
        self.index: np.ndarray | None = None

    def store(self) -> None:
        """Makes the variables behind the slots, beside those of the model."""
        with replicas.beside(self.variables[0]):
            self.stored = {name: self._made(name) for name in self.all_slots}
        for i, cell in enumerate(self.cells):
            for name, variable in self.stored.items():
                alone = slot_name(cell.path, name)
                cell.stored[name] = Piece(variable, i, alone) if self.stacked else variable

    def _made(self, name: str) -> keras.Variable:
        slots = [cell.all_slots[name] for cell in self.cells]
        slot, n = slots[0], len(slots)
        each = (n, *[1] * len(slot.shape)) if self.stacked else ()
        start = np.reshape([slot.initial for slot in slots], each)
        path = self.cells[0].path if n == 1 else f"{self.cells[0].path}_and_{n - 1}_more"
        return keras.Variable(
            lambda shape, dtype: tf.broadcast_to(tf.constant(start, dtype), shape),
            shape=(n, *slot.shape) if self.stacked else slot.shape,
            dtype=slot.dtype or self.precision.name,
            trainable=False,
            **(dict(synchronization="on_read", aggregation="sum") if slot.summed else {}),
            name=slot_name(path, name),
        )

    def on(self, replica: int | None, present: Sequence[bool] | None = None) -> "Block":
        """The same block with the components of its variables on one device.

        `present`: of a stack only these. `index` says where their slots are in its arrays.
        """
        block, here = copy.copy(self), replicas.on(replica)
        block.stored = {name: here(tf_variable(v)) for name, v in self.stored.items()}
        if present is not None:
            block.index = np.flatnonzero(present).astype("int32")
            block.cells = tuple(self.cells[i] for i in block.index)
        block.variables = [here(tf_variable(cell.variable)) for cell in block.cells]
        return block

    def gather(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """One tensor per variable as one array."""
        return tf.stack(tensors) if self.stacked else tensors[0]

    def values(self) -> tf.Tensor | None:
        """The values of a stack. Those of a single variable are read inside of XLA."""
        return tf.stack(self.variables) if self.stacked else None

    def assign_values(self, left: Mapping[str, tf.Tensor], rows: Any = None) -> None:
        """Stores what XLA has left to be stored: the values of a stack, or rows of a variable."""
        if self.stacked:
            for variable, value in zip(self.variables, tf.unstack(left[VALUE]), strict=True):
                variable.assign(value)
            return
        for name, value in left.items():
            variable = self.stored[name] if name else self.variables[0]
            if value.shape.rank:
                variable.scatter_update(tf.IndexedSlices(value, rows))
            else:
                variable.assign(value)

    def map(self, function: Callable, *trees: Any) -> Any:
        """Calls a function of one variable's arrays on them, or on each of the stack's."""
        if not self.stacked:
            return function(*trees)
        if tf.executing_eagerly():  # as a debugger wants it, under `run_functions_eagerly`
            places = range(len(self.cells))
            each = [function(*tf.nest.map_structure(lambda x: x[i], trees)) for i in places]  # noqa: B023
            return tf.nest.map_structure(lambda *x: tf.stack(x), *each)
        return tf.vectorized_map(lambda each: function(*each), trees, fallback_to_while_loop=False)

    def broadcast(self, each: tf.Tensor, array: tf.Tensor) -> tf.Tensor:
        """A number of each variable, [n], in a shape to go with the stack's `array`, [n, ...]."""
        if not each.shape.rank:
            return each
        return tf.reshape(each, [-1] + [1] * (array.shape.rank - 1))


def slot_name(path: str, slot: str) -> str:
    """The name of a slot's variable, as scope names may be."""
    return f"{path}_{slot}".replace("/", "_").replace("~", "_")


class Blocks(UserList[Block]):
    """The blocks of an optimizer, in the order in which they were made."""

    def worth_it(self) -> bool:
        """Whether XLA makes a step of them faster, and compiles it in a bearable time."""
        numbers = sum(len(block.cells) * block.shape.num_elements() for block in self)
        few = COMPILED_IF_LARGE if numbers >= LARGE * len(self) else COMPILED
        return len(self) <= few

    def of(self, keys: Sequence["Key"], replica: int | None) -> list[Block]:
        """The blocks of these keys on one device."""
        return [self[key.block].on(replica, key.present) for key in keys]


class Key(NamedTuple):
    """Which block a part is of, by number; of a stack, which have a gradient, None for all."""

    block: int
    present: tuple[bool, ...] | None = None


class Part:
    """One block during one step.

    g: the gradient, [n, ...] for a stack. present: which variables of it have one, where only the
    step knows; None for all.
    p: the value, in the precision in which it is stepped; raw: as it is stored. s: the slots by
    name. h: the hyperparameters that these variables see. new: what concerns keep, for `write`.
    """

    def __init__(self, block: Block, g: Any = None, value: tf.Tensor | None = None):
        self.block, self.value = block, value
        self.rows = g if isinstance(g, RowGradient) else None
        self.g = g.sums if self.rows else g
        self.present: tf.Tensor | None = None
        self.h: Any = None
        self.new: dict[str, tf.Tensor] = {}

    def read(self) -> None:
        """Reads the variable anew."""
        variable = self.block.variables[0]
        self.raw = self.value if self.block.stacked else self._read(variable)
        self.p = tf.cast(self.raw, self.block.precision)
        vars(self).pop("s", None)  # those read before

    @functools.cached_property
    def s(self) -> dict[str, tf.Tensor]:
        """The rule's slots by name. A copy that is still NaN reads as the present p."""
        values = {name: self.slot(name) for name in self.block.slots}
        for name, slot in self.block.slots.items():
            if np.isnan(slot.initial):
                values[name] = tf.where(tf.math.is_nan(values[name]), self.p, values[name])
        return values

    def slot(self, name: str) -> tf.Tensor:
        """The value of a slot, as it is stored."""
        return self._read(self.block.stored[name])

    def store(self, name: str, value: tf.Tensor) -> None:
        """Assigns a slot, at once and whether the step is taken or not."""
        variable, index = self.block.stored[name], self.block.index
        if index is None:
            variable.assign(value)
        else:
            variable.scatter_update(tf.IndexedSlices(value, index))

    def add(self, name: str, value: tf.Tensor) -> None:
        """Adds to a slot, at once: another worker may do so at the same time."""
        variable, index = self.block.stored[name], self.block.index
        if index is None:
            variable.assign_add(value)
        else:
            variable.scatter_add(tf.IndexedSlices(value, index))

    def _read(self, variable: tf.Variable) -> tf.Tensor:
        index = self.block.index if self.rows is None else self.rows.rows
        if index is None or not variable.shape.rank:
            return tf.convert_to_tensor(variable)
        return tf.gather(variable, index)

    def map(self, function: Callable, *arrays: Any) -> Any:
        """Calls `function(*arrays, h)` on one variable's arrays, or on each of the stack's."""
        flat = dict(flatten(self.h))
        each = {name: x for name, x in flat.items() if getattr(x, "shape", None) and x.shape.rank}
        if not each:
            h = namespace(self.h)
            return self.block.map(lambda *own: function(*own, h), *arrays)
        return self.block.map(
            lambda numbers, *own: function(*own, nest(flat | numbers)), each, *arrays
        )

    def move(self) -> None:
        """Calls the rule: p and s become those after the step."""
        rule = self.block.rule.step

        def one(p: tf.Tensor, g: tf.Tensor, s: dict, h: SimpleNamespace) -> tuple:
            p, slots = rule(p, g, nest(s), h)
            return p, self._checked(dict(flatten(slots)))

        self.p, self.s = self.map(one, self.p, self.g, self.s)

    def _checked(self, slots: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        if slots.keys() != self.block.slots.keys():
            raise ValueError(
                "A rule must return the slots that its `init` declares, all of them and no others. "
                f"Declared: {sorted(self.block.slots)}. Received: {sorted(slots)}"
            )
        return slots

    def write(self, accept: tf.Tensor | None) -> dict[str, tf.Tensor]:
        """Stores p, s and `new`; returns what is to be stored outside of XLA.

        Where `accept` is false, or a variable has no gradient, all stays what it is.
        """
        left, block = {}, self.block
        accepts = [each for each in (accept, self.present) if each is not None]
        for name, value in {VALUE: self.p, **self.s, **self.new}.items():
            variable = block.stored[name] if name else block.variables[0]
            value = tf.cast(value, variable.dtype)
            for each in accepts:
                before = self.slot(name) if name else self.raw
                value = tf.where(block.broadcast(each, value), value, before)
            if self.rows is not None or (block.stacked and not name):
                left[name] = value
            else:
                self.store(name, value) if name else variable.assign(value)
        return left
