"""Evaluation weights: what the variables are where a model is judged, if not what is trained.

Averages say so, and rules that define `evaluation`.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from tf_decoupled.engine.blocks import Part
from tf_decoupled.engine.concern import Concern, Counter, public
from tf_decoupled.engine.state import Cell, nest, tf_variable
from tf_decoupled.engine.step import Step


class Evaluation(Concern):
    """Puts the evaluation weights into the variables, and training weights back.

    A rule that defines `evaluation` defines `training`, its inverse. Where the variables hold
    evaluation weights, as after `fit` and in a file that was saved then, a counter says so, and the
    next step begins with the training weights.
    """

    counters: ClassVar = {"holds_evaluation_weights": Counter()}

    def wanted(self) -> Mapping[str, Counter]:
        return self.counters if self._rule_says() else {}

    def _rule_says(self) -> bool:
        return any(rule.evaluates() for _, rule in self.optimizer.branches())

    @public
    def has_evaluation_weights(self) -> bool:
        """Whether a model is to be judged by something else than the variables that are trained."""
        others = (concern for concern in self.optimizer.order if concern is not self)
        averaged = any(type(c).evaluation is not Concern.evaluation for c in others)
        return averaged or self._rule_says()

    def numbers(self) -> dict[str, tf.Tensor]:
        held = self.optimizer.holds_evaluation_weights
        return {} if held is None else {"held": tf_variable(held) > 0}

    def enter(self, part: Any, step: Any) -> None:
        if "held" in step.numbers and part.block.rule.evaluates():
            training = part.map(
                lambda x, s, h: part.block.rule.training(x, nest(s), h), part.p, part.s
            )
            part.p = tf.where(step.numbers["held"], training, part.p)

    def after(self, taken: tf.Tensor, results: dict[str, tf.Tensor]) -> None:
        held = self.optimizer.holds_evaluation_weights
        if held is not None:
            held = tf_variable(held)
            held.assign(tf.where(taken, tf.zeros_like(held), held))

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
        cells, held = list(self.optimizer.cells), self.optimizer.holds_evaluation_weights
        before = [tf.identity(tf_variable(cell.variable)) for cell in cells]
        held_before = 0 if held is None else held.numpy()
        self.hold(cells)
        try:
            yield
        finally:
            for cell, value in zip(cells, before, strict=True):
                cell.variable.assign(value)
            if held is not None:
                held.assign(held_before)

    @public
    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The same as `evaluation_weights`."""
        with self.evaluation_weights():
            yield

    @public
    def training_parts(self) -> Iterator[Part]:
        """Each block as the next step reads it: `p`, what is trained, `s`, the slots, and `h`."""
        yield from self._parts(self.numbers())

    @public
    def restore_training_weights(self) -> None:
        """Puts training weights back where the variables hold evaluation weights, as after `fit`.

        The next step would do so, too, with a gradient that was taken at the evaluation weights.
        """
        held = self.optimizer.holds_evaluation_weights
        if held is not None and held.numpy():
            for cell, value in list(self._values(None, {"held": True}, evaluation=False)):
                cell.variable.assign(tf.cast(value, cell.variable.dtype))
            held.assign(0)

    @public
    def say_held(self, held: bool) -> None:
        """Notes whether the variables hold evaluation weights, for one who has assigned them."""
        if self.optimizer.holds_evaluation_weights is not None:
            self.optimizer.holds_evaluation_weights.assign(int(held))

    def hold(self, cells: Sequence[Cell]) -> None:
        """Assigns their evaluation weights to variables, all of them or none."""
        held = self.optimizer.holds_evaluation_weights
        if held is None or not held.numpy():
            for cell, value in list(self._values({id(cell) for cell in cells}, {})):
                cell.variable.assign(tf.cast(value, cell.variable.dtype))
        if held is not None:
            held.assign(1)

    def _values(
        self, wanted: set[int] | None, numbers: dict, evaluation: bool = True
    ) -> Iterator[tuple[Cell, tf.Tensor]]:
        """Each of these cells with its value for evaluation, or with that which is trained."""
        for part in self._parts(numbers, wanted):
            value = self._value(part) if evaluation else part.p
            values = tf.unstack(value) if part.block.stacked else [value]
            values = zip(part.block.cells, values, strict=True)
            yield from ((c, v) for c, v in values if wanted is None or id(c) in wanted)

    def _parts(self, numbers: dict, wanted: set[int] | None = None) -> Iterator[Part]:
        """The blocks of these cells, each read."""
        optimizer = self.optimizer
        h = optimizer.hyperparameters_at(optimizer.iterations)
        for block in optimizer.blocks:
            if wanted is None or any(id(cell) in wanted for cell in block.cells):
                block = block.on(None)
                part = Part(block, value=block.values())
                Step(optimizer, h, numbers, [part]).read(part)
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
