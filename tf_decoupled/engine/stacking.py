"""Which variables share a block: small ones that are alike, if the rule can be mapped over them."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from tf_decoupled.engine import replicas, sums
from tf_decoupled.engine.blocks import Block, Part
from tf_decoupled.engine.state import Cell, tf_variable
from tf_decoupled.engine.step import Step

LARGEST = 16_384  # elements of a variable in a stack: to stack larger ones costs more than it saves
MAPPED: dict[tuple, bool] = {}  # by the rule's form, as a trial takes a tenth of a second


def lay_out(optimizer: Any, cells: Iterable[Cell]) -> list[Block]:
    """Blocks of these cells: those that may share one, where they are alike."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        key = _likeness(cell) if may_stack(cell) else (id(cell),)
        groups.setdefault(key, []).append(cell)
    laid_out: list[Block] = []
    for group in groups.values():
        stack = len(group) > 1 and can_be_mapped(optimizer, group[0])
        laid_out += [Block(group)] if stack else [Block([cell]) for cell in group]
    return laid_out


def _likeness(cell: Cell) -> tuple:
    """What is the same among the cells of a stack."""
    variable = tf_variable(cell.variable)
    slots = tuple((name, slot._replace(initial=0)) for name, slot in cell.all_slots.items())
    return (id(cell.rule), tuple(variable.shape), variable.dtype, variable.device, slots)


def may_stack(cell: Cell) -> bool:
    """Whether the variable is worth stacking, and nothing reads or changes it by itself."""
    variable = tf_variable(cell.variable)
    inline = isinstance(replicas.strategy_of(variable), replicas.INLINE)
    small = 0 < (variable.shape.num_elements() or 0) <= LARGEST
    return small and not (inline or cell.by_rows or cell.constraint is not None)


class Trial(Part):
    """A part of a step that is only traced: all that it reads is zero."""

    def read(self) -> None:
        self.p = self.raw = tf.zeros_like(self.g)
        vars(self).pop("s", None)

    def slot(self, name: str) -> tf.Tensor:
        slot = self.block.all_slots[name]
        return tf.zeros((2, *slot.shape), slot.dtype or self.block.precision)


def can_be_mapped(optimizer: Any, cell: Cell) -> bool:
    """Whether TensorFlow can map the cell's rule over a stack: it can't map every operation."""
    forms = [concern.mapped() for concern in optimizer.order]
    forms += [_form(rule) for _, rule in cell.rule.tree()]
    key = (len(cell.variable.shape) > 1, *forms)
    if key not in MAPPED:
        MAPPED[key] = _is_mapped(optimizer, cell)
    return MAPPED[key]


def _form(rule: Any) -> tuple:
    """What decides which operations a rule has: its class, and arguments that aren't live."""
    arguments = {
        name: vars(rule.given)[name] for name, a in rule.own_arguments().items() if not a.live
    }
    return type(rule), *((n, v) for n, v in arguments.items() if isinstance(v, (str, bool, int)))


def _is_mapped(optimizer: Any, cell: Cell) -> bool:
    block = Block([cell, cell])

    def trial(zeros: tf.Tensor) -> tf.Tensor:
        part = Trial(block, zeros)
        h = optimizer.hyperparameters_at(optimizer.iterations)
        step = Step(optimizer, h, optimizer.order.numbers(), [part])
        for concern in optimizer.order:
            if concern.mapped() is not None:
                concern.before(step)
        sums.reduce(step)
        step.read(part)
        part.move()
        return part.p

    array = tf.TensorSpec((2, *block.shape), block.precision)
    try:
        tf.function(trial, autograph=False).get_concrete_function(array)
    except ValueError as error:
        if "pfor" not in str(error):
            raise
        return False
    return True
