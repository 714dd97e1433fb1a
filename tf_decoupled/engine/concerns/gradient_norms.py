"""The norm of each variable's gradient, at the updates for which somebody asks."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_decoupled.engine import replicas
from tf_decoupled.engine.concern import Concern, public
from tf_decoupled.engine.state import tf_variable
from tf_decoupled.math import norms

ASKED, KEPT = "asked_for_norms", "kept_norms"
NONE = -1.0  # where a variable had no gradient


class GradientNorms(Concern):
    """Keeps the norms of an update that was asked for: unscaled, the mean of a group, not clipped.

    It stands in steps that are traced, or taken eagerly, in `keeping_gradient_norms()`, and in no
    others. There a condition decides, so that an update that nobody asks for computes nothing. Its
    two variables are neither saved nor part of the state.
    """

    def __init__(self, optimizer: Any):
        super().__init__(optimizer)
        self.depth = 0  # replicas enter the context one inside of the other
        self.asked_for: keras.Variable | None = None
        self.kept: keras.Variable | None = None

    @property
    def active(self) -> bool:
        return self.depth > 0

    @public
    @contextlib.contextmanager
    def keeping_gradient_norms(self) -> Iterator[None]:
        """Inside of it a step is traced, or taken eagerly, that can keep norms of its gradients."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    @public
    def ask_for_gradient_norms(self, asked: bool = True) -> None:
        """Whether updates keep the norms from now on, in steps of `keeping_gradient_norms`."""
        self._make()
        self.asked_for.assign(asked)

    @public
    def gradient_norms(self) -> dict[str, float]:
        """By path, those of the last update that was asked for, of variables with a gradient.

        Raises ValueError where no step was made in `keeping_gradient_norms()`.
        """
        if self.kept is None:
            raise ValueError(
                "No gradient norms were kept: trace the step inside of "
                "`with opt.keeping_gradient_norms():`, and call `opt.ask_for_gradient_norms()`."
            )
        cells = zip(self.optimizer.cells, self.kept.numpy(), strict=False)
        return {cell.path: float(length) for cell, length in cells if not length < 0}

    def numbers(self) -> dict[str, tf.Tensor]:
        self._make()
        return {name: tf.identity(tf_variable(v)) for name, v in self._variables().items()}

    def _variables(self) -> dict[str, keras.Variable]:
        return {ASKED: self.asked_for, KEPT: self.kept}

    def before(self, step: Any) -> None:
        kept = step.numbers[KEPT]
        measured = lambda: self._measured(step.parts, kept)  # noqa: E731
        step.results[KEPT] = tf.cond(step.numbers[ASKED], measured, lambda: kept)

    def _measured(self, parts: list, kept: tf.Tensor) -> tf.Tensor:
        """The norms by the position of each variable among the optimizer's."""
        result, cells = tf.fill(kept.shape, tf.constant(NONE, kept.dtype)), self.optimizer.cells
        for part in parts:
            lengths = tf.cast(norms(part.g, part.block.stacked), kept.dtype)
            if part.present is not None:
                lengths = tf.where(part.present, lengths, NONE)
            places = [[cells.index(cell.variable)] for cell in part.block.cells]
            result = tf.tensor_scatter_nd_update(result, places, lengths)
        return result

    def after(self, taken: tf.Tensor, results: dict[str, tf.Tensor]) -> None:
        tf_variable(self.kept).assign(results[KEPT])

    def _make(self) -> None:
        """Makes the variables, and anew where the optimizer has got more of them to measure."""
        if self.kept is None or self.kept.shape[0] != len(self.optimizer.cells):
            replicas.outside(self._make_outside)

    def _make_outside(self) -> None:
        optimizer = self.optimizer
        precise = any(cell.variable.dtype == tf.float64 for cell in optimizer.cells)
        dtype = "float64" if precise else "float32"
        of_all = replicas.strategy_of(tf_variable(optimizer.updates))
        with tf.init_scope(), of_all.scope():
            if self.asked_for is None:
                self.asked_for = keras.Variable(False, dtype="bool", trainable=False, name=ASKED)
            self.kept = keras.Variable(
                lambda shape, dtype: tf.fill(shape, tf.constant(NONE, dtype)),
                shape=(len(optimizer.cells),),
                dtype=dtype,
                trainable=False,
                name=KEPT,
            )
