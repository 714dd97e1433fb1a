"""Estimates: what is known of a variable beside its gradient, as its Hessian's diagonal."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_decoupled.engine import replicas, step
from tf_decoupled.engine.blocks import Part
from tf_decoupled.engine.concern import Concern, public
from tf_decoupled.engine.state import flatten, nest


class Estimates(Concern):
    """Hands estimates to the rules that define `observe`. It does nothing to a step."""

    def __init__(self, optimizer: Any):
        super().__init__(optimizer)
        self.observe = replicas.compiled(
            self._observe, optimizer.jit_compile, optimizer.blocks.worth_it
        )

    @classmethod
    def asked(cls, given: Mapping[str, Any]) -> bool:
        return False

    @public
    @tf.autograph.experimental.do_not_convert
    def apply_estimates(
        self, estimates: Sequence, trainable_variables: Sequence | None = None
    ) -> None:
        """Hands over one estimate per variable, None where there is none.

        `td.gradients` has estimates of the Hessian's diagonal, for Sophia. Those of replicas are
        added up, as gradients are; if one of them has a NaN or inf, none is used.

        Raises ValueError where no rule has a use for estimates.
        """
        optimizer, estimates = self.optimizer, list(estimates)
        dense = [None if e is None else tf.convert_to_tensor(e) for e in estimates]
        variables = optimizer.variables_for(dense, trainable_variables)
        blocks = optimizer.blocks
        pairs = [
            (key, e)
            for key, e in step.pair(optimizer, dense, variables)
            if blocks[key.block].rule.innermost().defines("observe")
        ]
        if not pairs:
            raise ValueError(
                "No rule of this optimizer uses estimates: td.Sophia does. "
                f"Received: {type(optimizer).__name__}"
            )
        keys = tuple(key for key, _ in pairs)
        summed = replicas.all_reduce([e for _, e in pairs])
        replicas.once(lambda estimates: self._observe_devices(keys, estimates), summed)

    def _observe_devices(self, keys: tuple, estimates: list) -> None:
        optimizer = self.optimizer
        h = optimizer.hyperparameters_at(optimizer.iterations)
        for replica in replicas.parts(optimizer.anchor):
            blocks = optimizer.blocks.of(keys, replica)
            local = [replicas.component(e, replica) for e in estimates]
            numbers = optimizer.order.numbers()
            self.observe(keys, replica, [b.values() for b in blocks], local, h, numbers)

    def _observe(
        self, keys: tuple, replica: int | None, values: list, estimates: list, h: dict, numbers
    ) -> None:
        """What XLA compiles: all blocks on one device."""
        blocks = self.optimizer.blocks.of(keys, replica)
        parts = [Part(*each) for each in zip(blocks, estimates, values, strict=True)]
        now = step.Step(self.optimizer, h, numbers, parts)
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(e)) for e in estimates])
        for part in parts:
            now.read(part)
            before = part.s
            observe = lambda p, e, s, h, rule=part.block.rule: dict(  # noqa: E731
                flatten(rule.observe(p, e, nest(s), h))
            )
            for name, new in part.map(observe, part.p, part.g, before).items():
                part.store(name, tf.where(finite, new, before[name]))
