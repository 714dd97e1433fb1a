"""Moving averages of the variables: kept beside them, swapped in for a while or for good."""

import contextlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import tensorflow as tf

from tf_decoupled.math import debiased_momentum
from tf_decoupled.state import Cell, Slots, tf_variable


class Averaged:
    """The part of an optimizer that averages what it writes."""

    def average(self, cell: Cell, p: tf.Tensor, h: SimpleNamespace) -> tuple[tf.Tensor, Slots]:
        """The value to go on with, and the moving average if there is to be one.

            ā ← β_t ā + (1 − β_t) θ

        β_t is bias-corrected, 0 at the first update; or, with `ema_warmup`,
        min(β, (1 + t) / (10 + t)).
        """
        if not self.use_ema:
            return p, {}
        if self.ema_warmup:
            momentum = tf.minimum(h.ema_momentum, (1 + h.t) / (10 + h.t))
        else:
            momentum = debiased_momentum(h.ema_momentum, h.correction.ema_momentum)
        average = cell.average(p, momentum)
        if h.ema_overwrite_frequency is not None:
            p = tf.where(h.step % h.ema_overwrite_frequency == 0, average, p)
        return p, {"average": average}

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside of this context the variables hold their averages; after it what they held."""
        if not self.use_ema:
            raise ValueError("There are averages with `use_ema=True` only.")
        before = [tf.identity(tf_variable(cell.variable)) for cell in self.cells]
        self.overwrite_with_averages([cell.variable for cell in self.cells])
        try:
            yield
        finally:
            for cell, value in zip(self.cells, before, strict=True):
                cell.variable.assign(value)

    def overwrite_with_averages(self, variables: Sequence) -> None:
        """Assigns to each variable its average, if it has one yet."""
        for variable in variables if self.use_ema and self.built else ():
            if variable in self.cells:
                average = self.cells[self.cells.index(variable)].stored["average"]
                started = tf.reduce_all(~tf.math.is_nan(average))
                variable.assign(
                    tf.cast(
                        tf.where(started, average, tf.cast(variable, average.dtype)), variable.dtype
                    )
                )
