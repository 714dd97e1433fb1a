"""Gradients that are not finite: the step is skipped and counted, and a hopeless run is ended."""

from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow as tf

from tf_decoupled.engine import replicas
from tf_decoupled.engine.concern import Concern, Counter, public, refuse_replacing
from tf_decoupled.engine.hyperparameters import Steps
from tf_decoupled.engine.state import Slot, Slots, tf_variable

STEPS = "nonfinite_steps"
GAVE_UP = (
    "`max_consecutive_skips` steps in a row had gradients with a NaN or inf, and were skipped."
)


class Nonfinite(Concern):
    """Skips a step with a NaN or inf in any gradient, on any replica.

    Args:
        skip_nonfinite: a step with a NaN or inf in any gradient, on any replica, changes nothing
            and is counted in `skipped_steps`.
        max_consecutive_skips: after so many in a row, the step raises; see `check_skips`.
    """

    skip_nonfinite: bool = False
    max_consecutive_skips: Steps = None

    counters: ClassVar = {
        "skipped_steps": Counter(absent=0),
        "consecutive_skips": Counter(absent=0),
    }

    @classmethod
    def interpret(cls, given: dict[str, Any], optimizer: type) -> dict[str, Any]:
        skips = given["skip_nonfinite"] or given["max_consecutive_skips"] is not None
        return given | dict(skip_nonfinite=skips)

    def check_assigned(self, name: str, value: Any, replaced: bool) -> None:
        if name == "max_consecutive_skips" and replaced:
            refuse_replacing(self.optimizer, name, value)

    @property
    def active(self) -> bool:
        others = self.optimizer.order.all
        return self.optimizer.given.skip_nonfinite or any(c.needs_finite_gradients for c in others)

    @property
    def limited(self) -> bool:
        return self.optimizer.given.max_consecutive_skips is not None

    def wanted(self) -> Mapping[str, Counter]:
        names = ("skipped_steps",) * self.active + ("consecutive_skips",) * self.limited
        return {name: self.counters[name] for name in names}

    def slots(self, cell: Any) -> Slots:
        return {STEPS: Slot((), 0, "int32")} if self.limited else {}

    def before(self, step: Any) -> None:
        """Notes the variables whose gradients are not finite, and accepts the step if none is."""
        finite = [part.block.map(all_finite, part.g) for part in step.parts]
        if self.limited:
            for part, ok in zip(step.parts, finite, strict=True):
                part.store(STEPS, tf.where(ok, 0, part.slot(STEPS) + 1))
        if finite:
            step.accept = tf.reduce_all([tf.reduce_all(ok) for ok in finite])

    def after(self, taken: tf.Tensor, results: dict[str, tf.Tensor]) -> None:
        """Counts a step that was skipped."""
        skipped = 1 - tf.cast(taken, tf.int64)
        # TensorFlow's `assign_add`: Keras's reads and assigns, between which another worker may.
        tf_variable(self.optimizer.skipped_steps).assign_add(skipped)
        if self.limited:
            in_a_row = tf_variable(self.optimizer.consecutive_skips)
            in_a_row.assign((tf.identity(in_a_row) + 1) * skipped)
            for block in self.optimizer.blocks:  # also of variables that had no gradient this time
                steps = tf_variable(block.stored[STEPS])
                steps.assign(steps * tf.cast(skipped, tf.int32))
            self._raise_inside()

    @public
    def check_skips(self) -> None:
        """Raises FloatingPointError after `max_consecutive_skips` skipped steps in a row.

        It names the variables whose gradients were not finite. A step that is neither compiled as
        a whole nor on a TPU does so by itself; XLA has no errors, so call this there, on the host.
        """
        limit = self.optimizer.max_consecutive_skips
        if limit is None:
            return
        in_a_row = self.optimizer.consecutive_skips.numpy()
        if in_a_row < tf.convert_to_tensor(limit).numpy():
            return
        steps = {c.path: int(c.stored[STEPS].numpy()) for c in self.optimizer.cells}
        steps = {path: n for path, n in steps.items() if n}
        raise FloatingPointError(f"{GAVE_UP} Variables, and for how many steps: {steps}")

    def _raise_inside(self) -> None:
        """`check_skips` as a part of the step: an operation, where one is traced."""
        if not replicas.host_is_reachable():
            return
        if tf.executing_eagerly():
            self.check_skips()
            return
        limit = tf.cast(self.optimizer.max_consecutive_skips, tf.int64)
        in_a_row = tf_variable(self.optimizer.consecutive_skips)
        tf.cond(in_a_row < limit, lambda: tf.constant(True), self._give_up)

    def _give_up(self) -> tf.Tensor:
        data = [f"{GAVE_UP} Each variable, and for how many steps:"]
        for block in self.optimizer.blocks:  # whole: XLA drops the assertion, but compiles its data
            data += [cell.path for cell in block.cells] + [tf_variable(block.stored[STEPS])]
        with tf.control_dependencies([tf.debugging.Assert(False, data, len(data))]):
            return tf.constant(False)


def all_finite(g: tf.Tensor) -> tf.Tensor:
    """Whether there is no NaN or inf anywhere: a boolean scalar."""
    return tf.reduce_all(tf.math.is_finite(g))
