"""Gradient accumulation: the gradients of k calls of `apply` make one update with their mean.

Each replica adds up its own gradients; they are all-reduced once per group. The condition stands
outside of the replicas' contexts, and all replicas agree about it.
"""

from typing import Any

import tensorflow as tf

from tf_decoupled import replicas
from tf_decoupled.state import Slot, Slots, tf_variable, zeros


class Accumulating:
    """The part of an optimizer that waits for k gradients."""

    micro_steps: Any = 0

    def accumulate(self, indexes: tuple[int, ...], grads: list[tf.Tensor]) -> None:
        """Adds up gradients that aren't reduced yet; updates with their mean at the last one."""
        for replica in replicas.parts(self.anchor):
            local = [replicas.component(g, replica) for g in grads]
            self.accumulate_cells(indexes, replica, local)
        tf_variable(self.micro_steps).assign_add(1)
        k = tf.cast(self.gradient_accumulation_steps, tf.int64)
        self._flush_if(tf_variable(self.micro_steps) >= k)

    def _accumulate_cells(self, indexes: tuple[int, ...], replica: int, grads: list) -> None:
        for i, g in zip(indexes, grads, strict=True):
            self.cells[i].on(replicas.on(replica)).accumulate(g)

    def flush_accumulated(self) -> None:
        """Updates with the mean of a group that isn't full, as at the end of the data."""
        if self.built and self.gradient_accumulation_steps is not None:
            replicas.once(lambda _: self._flush_if(tf_variable(self.micro_steps) > 0), [])

    def _flush_if(self, ready: tf.Tensor) -> None:
        tf.cond(ready, self._flush, lambda: tf.constant(True))
        self.raise_inside()

    def _flush(self) -> tf.Tensor:
        filled = tuple(
            i
            for i, cell in enumerate(self.cells)
            if tf_variable(cell.variable).shape.num_elements()
        ) or (0,)  # an update of empty variables alone is one
        sums = [tf_variable(self.cells[i].stored["gradient_sum"]) for i in filled]
        self.update_with(filled, replicas.summed(sums))
        self.micro_steps.assign(0)
        return tf.constant(True)


def slots(p: tf.Variable) -> Slots:
    """What an accumulation keeps beside a variable."""
    return {
        "gradient_sum": Slot(tuple(p.shape), 0.0, summed=True),
        "gradient_count": zeros(p, ()),
    }
