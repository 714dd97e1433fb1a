"""Gradient accumulation: the gradients of k calls of `apply` make one update with their mean.

Each replica adds up its own gradients; they are all-reduced once per group. The condition stands
outside of the replicas' contexts, and all replicas agree about it.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import tensorflow as tf

from tf_decoupled.engine import replicas, step
from tf_decoupled.engine.blocks import Key, Part
from tf_decoupled.engine.concern import Concern, Counter, public, refuse_replacing
from tf_decoupled.engine.hyperparameters import Steps
from tf_decoupled.engine.state import Slot, Slots, tf_variable, zeros

SUM, COUNT = "gradient_sum", "gradient_count"


class Accumulation(Concern):
    """Waits for k gradients.

    Args:
        gradient_accumulation_steps: k; gradients are averaged over k calls of `apply`, then there
            is one update. `flush_accumulated` updates with a group that isn't full.
    """

    gradient_accumulation_steps: Steps = None

    counters: ClassVar = {"micro_steps": Counter(absent=0)}
    of_whole_arrays: ClassVar = ("gradient_accumulation_steps",)

    def __init__(self, optimizer: Any):
        super().__init__(optimizer)
        self.add = replicas.compiled(self._add, optimizer.jit_compile)

    @classmethod
    def asked(cls, given: dict[str, Any]) -> bool:
        return given["gradient_accumulation_steps"] is not None

    def check_assigned(self, name: str, value: Any, replaced: bool) -> None:
        if name == "gradient_accumulation_steps" and replaced:
            refuse_replacing(self.optimizer, name, value)

    def slots(self, cell: Any) -> Slots:
        variable = cell.variable
        replicated = replicas.strategy_of(tf_variable(variable)).num_replicas_in_sync > 1
        if replicated and cell.overwrites:
            raise NotImplementedError(
                "Variables that become their gradient (float8 quantization) can't be accumulated "
                "on several replicas: leave `gradient_accumulation_steps` out. "
                f"Received: {cell.path!r}"
            )
        return {SUM: Slot(tuple(variable.shape), 0.0, summed=True), COUNT: zeros(variable, ())}

    def numbers(self) -> dict[str, tf.Tensor]:
        # 0 only where workers of parameter servers end a group at the same time.
        micro_steps = tf.cast(tf_variable(self.optimizer.micro_steps), tf.float32)
        return {"micro_steps": tf.maximum(micro_steps, 1.0)}

    def around(self, update: Callable[[list], None]) -> Callable[[list], None]:
        def accumulate(pairs: list) -> None:
            keys = tuple(key for key, _ in pairs)
            grads = replicas.shares([g for _, g in pairs])
            replicas.once(lambda grads: self._accumulate(keys, grads, update), grads)

        return accumulate

    def _accumulate(self, keys: tuple, grads: list, update: Callable[[list], None]) -> None:
        """Adds up gradients that aren't reduced yet; updates with their mean at the last one."""
        for replica in replicas.parts(self.optimizer.anchor):
            self.add(keys, replica, [replicas.component(g, replica) for g in grads])
        micro_steps = tf_variable(self.optimizer.micro_steps)
        micro_steps.assign_add(1)
        k = tf.cast(self.optimizer.gradient_accumulation_steps, tf.int64)
        self._flush_if(micro_steps >= k, update)

    def _add(self, keys: tuple, replica: int | None, grads: list) -> None:
        for block, g in zip(self.optimizer.blocks.of(keys, replica), grads, strict=True):
            part = Part(block)
            if block.overwrites:
                part.store(SUM, tf.maximum(part.slot(SUM), g))
            else:
                part.add(SUM, g)
            part.add(COUNT, tf.ones_like(part.slot(COUNT)))

    @public
    def flush_accumulated(self) -> None:
        """Updates with the mean of a group that isn't full, as at the end of the data."""
        if self.optimizer.built and self.active:
            update = step.chain(self.optimizer, inside_of=self)
            ready = lambda: tf_variable(self.optimizer.micro_steps) > 0  # noqa: E731
            replicas.once(lambda _: self._flush_if(ready(), update), [])

    def _flush_if(self, ready: tf.Tensor, update: Callable[[list], None]) -> None:
        tf.cond(ready, lambda: self._flush(update), lambda: tf.constant(True))

    def _flush(self, update: Callable[[list], None]) -> tf.Tensor:
        blocks = self.optimizer.blocks
        filled = [i for i, block in enumerate(blocks) if block.shape.num_elements()]
        filled = filled or [0]  # an update of empty variables alone is one
        update([(Key(i), tf_variable(blocks[i].stored[SUM])) for i in filled])
        self.optimizer.micro_steps.assign(0)
        return tf.constant(True)

    def before(self, step: Any) -> None:
        for part in step.all_parts:
            part.present = part.slot(COUNT) > 0.0
            if not part.block.overwrites:
                part.g = part.g / tf.cast(step.numbers["micro_steps"], part.g.dtype)
            with tf.control_dependencies([part.present]):
                for name in (SUM, COUNT):
                    part.store(name, tf.zeros_like(part.slot(name)))
