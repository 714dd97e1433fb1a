"""One step, from gradients to variables.

pair      [(key, g)]: the gradients of each block
around    concerns may hold them back; then one all-reduce
per device, one XLA computation:
  before    concerns change all gradients
  reduce    the rule's sums over all its variables, if it has any
  blocks    read, enter, move, leave, write: one block after the other
after     counters
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tf_decoupled.engine import replicas, slices, sums
from tf_decoupled.engine.blocks import Key, Part
from tf_decoupled.engine.hyperparameters import corrected, in_precision
from tf_decoupled.engine.state import Cell
from tf_decoupled.masks import path_of


def take(optimizer: Any, grads: list, variables: list) -> None:
    """One call of `apply`: a step, or a part of one."""
    pairs, update = pair(optimizer, grads, variables), chain(optimizer)
    if pairs:
        update(pairs)


def pair(optimizer: Any, grads: list, variables: list) -> list[tuple[Key, Any]]:
    """One key and gradient per block that has a gradient, in float32, or float64 as its values."""
    cells, missing = optimizer.cells, []
    given: dict[int, Any] = {}
    for g, variable in zip(grads, variables, strict=True):
        if g is None:
            missing.append(path_of(variable))
        elif given.setdefault(cells.index(variable), g) is not g:
            raise ValueError(f"Give each variable once. Received: {path_of(variable)!r} twice")
    if grads and not given:
        raise ValueError(f"No gradients provided for any variable. Variables: {missing}")
    if missing:
        warnings.warn(f"Gradients do not exist for variables {missing}.", stacklevel=4)
    # Empty variables stay as they are. A step of nothing else steps one, and is so counted.
    filled = {i: g for i, g in given.items() if cells[i].variable.shape.num_elements()}
    given = filled or dict(list(given.items())[:1])
    pairs = []
    for number, block in enumerate(optimizer.blocks):
        own = [given.get(cells.index(cell.variable)) for cell in block.cells]
        present = tuple(g is not None for g in own)
        if any(present):
            own = zip(own, block.cells, strict=True)
            own = [_checked(g, cell) for g, cell in own if g is not None]
            pairs.append((Key(number, None if all(present) else present), block.gather(own)))
    return pairs


def _checked(g: Any, cell: Cell) -> Any:
    """The gradient of the variable's shape; dense, unless its rows are stepped singly."""
    shape = cell.variable.shape
    precision = tf.float64 if cell.variable.dtype == tf.float64 else tf.float32
    if isinstance(g, tf.IndexedSlices):
        g = slices.inside(slices.cast(g, shape, precision), shape[0], cell.path)
        if cell.by_rows:
            return g
        g = slices.dense(g, shape[0])
    g = tf.cast(g, precision)
    if not g.shape.is_compatible_with(shape):
        raise ValueError(
            f"The gradient of {cell.path!r} must have the variable's shape {tuple(shape)}. "
            f"Received: {tuple(g.shape)}"
        )
    return g if g.shape.is_fully_defined() else tf.ensure_shape(g, shape)


def chain(optimizer: Any, inside_of: Any = None) -> Callable[[list], None]:
    """What takes the pairs: an update, in all concerns around it, or in those inside of one."""
    concerns = list(optimizer.order)
    update = lambda pairs: _update(optimizer, pairs)  # noqa: E731
    for concern in reversed(concerns[concerns.index(inside_of) + 1 if inside_of else 0 :]):
        update = concern.around(update)
    return update


def _update(optimizer: Any, pairs: list[tuple[Key, Any]]) -> None:
    """One update: gradients become the same on all replicas, and each device does it."""
    keys = tuple(key for key, _ in pairs)
    own = {i for i, key in enumerate(keys) if optimizer.blocks[key.block].overwrites}
    summed = iter(replicas.all_reduce([g for i, (_, g) in enumerate(pairs) if i not in own]))
    grads = [replicas.largest(g) if i in own else next(summed) for i, (_, g) in enumerate(pairs)]
    replicas.once(lambda grads: _update_devices(optimizer, keys, grads), grads)


def _update_devices(optimizer: Any, keys: tuple[Key, ...], grads: list) -> None:
    h, numbers = optimizer.hyperparameters_at(optimizer.iterations), optimizer.order.numbers()
    for replica in replicas.parts(optimizer.anchor):
        blocks = optimizer.blocks.of(keys, replica)
        local = [slices.summed(replicas.component(g, replica)) for g in grads]
        values = [block.values() for block in blocks]
        taken, results, left = optimizer.compiled_compute(keys, replica, values, local, h, numbers)
        for block, g, rest in zip(blocks, local, left, strict=True):
            block.assign_values(rest, getattr(g, "rows", None))
    for concern in optimizer.order:
        concern.after(taken, results)
    optimizer.count(taken, results)


def compute(
    optimizer: Any, keys: tuple, replica: int | None, values: list, grads: list, h: dict, numbers
) -> tuple[tf.Tensor, dict[str, tf.Tensor], list[dict[str, tf.Tensor]]]:
    """What XLA compiles: one update on one device.

    Returns whether the step was taken, what concerns want `after` it, and what is still to be
    assigned: stacks are taken apart outside, and XLA would copy a variable to change its rows.
    """
    blocks = optimizer.blocks.of(keys, replica)
    parts = [Part(*each) for each in zip(blocks, grads, values, strict=True)]
    step = Step(optimizer, h, numbers, parts)
    for concern in optimizer.order:
        concern.before(step)
    sums.reduce(step)
    left = [step.move(part) for part in parts]
    taken = tf.constant(True) if step.accept is None else step.accept
    return taken, step.results, left


class Step:
    """What one update carries through the concerns.

    h, numbers: hyperparameters, and what concerns need of counters. parts: one for each block that
    has a gradient; `all_parts`: also the variables that become their gradient. accept: whether to
    take the step, None where nothing can forbid it. results: what leaves XLA.
    """

    def __init__(self, optimizer: Any, h: dict, numbers: dict, parts: Sequence[Part]):
        self.optimizer, self.h, self.numbers, self.all_parts = optimizer, _copy(h), numbers, parts
        self.parts = [part for part in parts if not part.block.overwrites]
        self.concerns = list(optimizer.order)
        self.accept: tf.Tensor | None = None
        self.results: dict[str, tf.Tensor] = {}
        self._seen: dict[tuple, dict] = {}

    def move(self, part: Part) -> dict[str, tf.Tensor]:
        """Moves one block; returns what is to be assigned outside of XLA."""
        self.read(part)
        part.move()
        self.leave(part)
        return part.write(None if part.block.overwrites else self.accept)

    def read(self, part: Part) -> None:
        """Reads a block; then concerns change that, from the last one to the first."""
        part.h = self._hyperparameters(part)
        part.read()
        for concern in reversed(self.concerns):
            concern.enter(part, self)

    def leave(self, part: Part) -> None:
        for concern in self.concerns:
            concern.leave(part, self)

    def h_of(self, branch: str) -> dict[str, Any]:
        """The hyperparameters of the rule at this place."""
        return self.h[branch] if branch else self.h

    def join(self, h: dict[str, Any], more: dict[str, Any]) -> None:
        """Adds to the hyperparameters at one place."""
        h |= more
        self._seen.clear()

    def _hyperparameters(self, part: Part) -> dict[str, Any]:
        """Those that the block's variables see, in the precision in which they are stepped."""
        block = part.block
        key = (block.branch, block.precision)
        if key not in self._seen:
            # The entries of other members are left out.
            members = {each.block.branch for each in self.all_parts} - {""}
            h = {name: value for name, value in self.h.items() if name not in members}
            self._seen[key] = corrected(in_precision(h | self.h_of(block.branch), block.precision))
        return block.rule.hyperparameters_of(block, self._seen[key])


def _copy(h: dict[str, Any]) -> dict[str, Any]:
    return {name: _copy(v) if isinstance(v, dict) else v for name, v in h.items()}
