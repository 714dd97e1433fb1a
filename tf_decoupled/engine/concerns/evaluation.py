"""Evaluation weights: what the variables are where a model is judged, if not what is trained.

Averages say so, and rules that define `evaluation`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from tf_decoupled.engine.blocks import Part
from tf_decoupled.engine.concern import Concern, public
from tf_decoupled.engine.state import Cell, Slot, Slots, nest, tf_variable
from tf_decoupled.engine.step import Step

HELD, TRAINED = "held", "trained"
UNIT = {tf.float64: 2.0**-52, tf.float32: 2.0**-23, tf.float16: 2.0**-10, tf.bfloat16: 2.0**-7}


class Evaluation(Concern):
    """Puts the evaluation weights into the variables, and training weights back.

    A rule that defines `evaluation` defines `training`, its inverse. Where a variable holds its
    evaluation weights, as after `fit` and in a file that was saved then, "held" says so, and its
    next step begins with the training weights. Those may stand in a slot "trained": then values
    that were assigned meanwhile, as by `model.set_weights`, count in their place.
    """

    def slots(self, cell: Any) -> Slots:
        return {HELD: Slot((), 0, "int32")} if cell.rule.evaluates() else {}

    @public
    def has_evaluation_weights(self) -> bool:
        """Whether a model is to be judged by something else than the variables that are trained."""
        others = (concern for concern in self.optimizer.order if concern is not self)
        averaged = any(type(c).evaluation is not Concern.evaluation for c in others)
        return averaged or any(rule.evaluates() for _, rule in self.optimizer.branches())

    def enter(self, part: Any, step: Any) -> None:
        if HELD not in part.block.concern_slots:
            return
        rule, dtype = part.block.rule, part.block.dtype
        stored = any(name.rpartition("/")[2] == TRAINED for name in part.block.slots)

        def training(x: tf.Tensor, s: dict[str, tf.Tensor], h: SimpleNamespace) -> tf.Tensor:
            θ = rule.training(x, nest(s), h)
            if not stored:
                return θ
            return tf.where(is_still(x, rule.evaluation(θ, nest(s), h), dtype), θ, x)

        held = part.block.broadcast(part.slot(HELD) > 0, part.p)
        part.p = tf.where(held, part.map(training, part.p, part.s), part.p)

    def leave(self, part: Any, step: Any) -> None:
        if HELD in part.block.concern_slots:
            part.new[HELD] = tf.zeros_like(part.slot(HELD))

    @public
    @contextlib.contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Inside of this context the variables hold their evaluation weights: averages, or the x of
        ScheduleFree; after it, what they held.

        Raises ValueError for an optimizer whose variables are their own evaluation weights.
        """
        if not self.has_evaluation_weights():
            raise ValueError(
                "This optimizer has no evaluation weights but the variables: keep averages with "
                "`use_ema=True`, or wrap it as `td.ScheduleFree(optimizer)`."
            )
        cells = list(self.optimizer.cells)
        before = [(tf.identity(tf_variable(cell.variable)), holds(cell)) for cell in cells]
        self.hold(cells)
        try:
            yield
        finally:
            for cell, (value, held) in zip(cells, before, strict=True):
                cell.variable.assign(value)
                note(cell, held)

    @public
    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The same as `evaluation_weights`."""
        with self.evaluation_weights():
            yield

    @public
    def training_parts(self) -> Iterator[Part]:
        """Each block as the next step reads it: `p`, what is trained, `s`, the slots, and `h`."""
        yield from self._parts()

    @public
    def restore_training_weights(self) -> None:
        """Puts training weights back where the variables hold evaluation weights, as after `fit`.

        The next step would do so, too, with a gradient that was taken at the evaluation weights.
        """
        self._assign([cell for cell in self.optimizer.cells if holds(cell)], lambda part: part.p)
        self.say_held(False)

    @public
    def holds_evaluation_weights(self) -> bool:
        """Whether some variable holds its evaluation weights, if its rule knows of such."""
        return any(map(holds, self.optimizer.cells))

    @public
    def say_held(self, held: bool) -> None:
        """Notes whether the variables hold evaluation weights, for one who has assigned them."""
        for cell in self.optimizer.cells:
            note(cell, held)

    def hold(self, cells: Sequence[Cell]) -> None:
        """Assigns their evaluation weights to variables, all of them or none."""
        self._assign([cell for cell in cells if not holds(cell)], self._value)
        for cell in cells:
            note(cell, True)

    def _assign(self, cells: Sequence[Cell], value_of: Callable[[Part], tf.Tensor]) -> None:
        """Assigns to variables what `value_of` says of their blocks, once it is known of all."""
        wanted, found = {id(cell) for cell in cells}, []
        for part in self._parts(wanted):
            value = value_of(part)
            values = tf.unstack(value) if part.block.stacked else [value]
            found += zip(part.block.cells, values, strict=True)
        for cell, value in found:
            if id(cell) in wanted:
                cell.variable.assign(tf.cast(value, cell.variable.dtype))

    def _parts(self, wanted: set[int] | None = None) -> Iterator[Part]:
        """The blocks of these cells, each read."""
        optimizer = self.optimizer
        h = optimizer.hyperparameters_at(optimizer.iterations)
        for block in optimizer.blocks:
            if wanted is None or any(id(cell) in wanted for cell in block.cells):
                block = block.on(None)
                part = Part(block, value=block.values())
                Step(optimizer, h, {}, [part]).read(part)
                yield part

    def _value(self, part: Any) -> tf.Tensor:
        rule = part.block.rule
        if rule.evaluates():
            part.p = part.map(lambda p, s, h: rule.evaluation(p, nest(s), h), part.p, part.s)
        for concern in self.optimizer.order:
            value = concern.evaluation(part)
            part.p = part.p if value is None else value
        return part.p

    def finalize(self, variables: Sequence) -> None:
        """At the end of `fit` the variables become their evaluation weights, as in Keras."""
        optimizer = self.optimizer
        if optimizer.built and self.has_evaluation_weights():
            refs = {tf_variable(v).ref() for v in variables}
            self.hold([c for c in optimizer.cells if tf_variable(c.variable).ref() in refs])


def holds(cell: Cell) -> bool:
    """Whether a variable holds its evaluation weights."""
    return HELD in cell.stored and bool(cell.stored[HELD].numpy())


def note(cell: Cell, held: bool) -> None:
    if HELD in cell.stored and holds(cell) is not held:
        cell.stored[HELD].assign(int(held))


def is_still(x: tf.Tensor, assigned: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Whether a variable of this type holds what was assigned to it, but for rounding."""
    gap = tf.reduce_max(tf.abs(x - tf.cast(tf.cast(assigned, dtype), x.dtype)))
    return gap <= 16 * UNIT[dtype] * tf.reduce_max(tf.abs(x))
