"""Guards: a step whose gradients are not finite is skipped and counted, and ends a hopeless run.

Float16 gradients below 6e-8 vanish. Scaling the loss lifts them; a scale that is too large shows
as an inf, for which the step is skipped and the scale lowered.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tf_decoupled import replicas
from tf_decoupled.hyperparameters import fits, is_number, is_variable, serialize
from tf_decoupled.state import Cell, tf_variable
from tf_decoupled.transforms import all_finite


@keras.saving.register_keras_serializable("tf_decoupled")
class DynamicLossScale:
    """A loss scale that adapts itself to the gradients.

        after `growth_steps` updates in a row:  scale ← growth_factor · scale
        after a NaN or inf:                     scale ← max(minimum, backoff_factor · scale)

    Args:
        initial_scale: the first scale; `optimizer.dynamic_scale` is the present one, and
            `optimizer.finite_steps` counts the updates since it changed.
        growth_steps, growth_factor: when the scale grows, and to how many times itself (> 1).
        backoff_factor: in (0, 1).
        minimum: the floor.

    Raises ValueError for numbers that these are not.

    Micikevicius et al., "Mixed Precision Training", 2018, section 3.2. arXiv:1710.03740
    """

    def __init__(
        self,
        initial_scale: float = 2.0**15,
        growth_steps: int = 2000,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        minimum: float = 1.0,
    ):
        self.initial_scale, self.growth_steps = initial_scale, growth_steps
        self.growth_factor, self.backoff_factor = growth_factor, backoff_factor
        self.minimum = minimum
        for name, value in self.get_config().items():
            if not is_number(value):
                raise TypeError(
                    f"`{name}` of DynamicLossScale must be a number. Received: {name}={value!r}"
                )
        holds = (
            fits(minimum, lambda x: 0 < x <= initial_scale)
            and fits(initial_scale, math.isfinite)
            and fits(growth_steps, lambda x: x >= 1 and x == int(x), "int64")
            and fits(growth_factor, lambda x: 1 < x < math.inf)
            and fits(backoff_factor, lambda x: 0 < x < 1)
        )
        if not holds:
            raise ValueError(
                "A DynamicLossScale needs 0 < minimum <= initial_scale, a whole growth_steps >= 1, "
                "growth_factor > 1 and 0 < backoff_factor < 1, finite and in float32. "
                f"Received: {self.get_config()}"
            )

    def after(
        self, scale: tf.Tensor, finite_steps: tf.Tensor, finite: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Scale and number of updates since it changed, after a step: scalars."""
        grown = scale * self.growth_factor
        grow = (finite_steps + 1 >= self.growth_steps) & tf.math.is_finite(grown)
        lowered = tf.maximum(self.minimum, scale * self.backoff_factor)
        scale = tf.where(finite, tf.where(grow, grown, scale), lowered)
        return scale, (finite_steps + 1) * tf.cast(finite & ~grow, finite_steps.dtype)

    def get_config(self) -> dict[str, Any]:
        names = ("initial_scale", "growth_steps", "growth_factor", "backoff_factor", "minimum")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DynamicLossScale":
        return cls(**config)


def interpret(given: dict[str, Any]) -> dict[str, Any]:
    """The constructor's arguments with the loss scale as an object or as `loss_scale_factor`."""
    scale, factor = given["loss_scale"], given["loss_scale_factor"]
    if scale is not None and factor is not None:
        raise ValueError(
            "`loss_scale_factor` is Keras's word for a `loss_scale` that is a number: set one. "
            f"Received: loss_scale={scale!r}, loss_scale_factor={factor!r}"
        )
    if isinstance(scale, str) and scale == "dynamic":
        scale = DynamicLossScale()
    elif isinstance(scale, str) or (callable(scale) and not is_variable(scale)):
        raise ValueError(
            '`loss_scale` must be "dynamic", a DynamicLossScale, a number > 0 or None. '
            f"Received: loss_scale={scale!r}"
        )
    elif not isinstance(scale, DynamicLossScale):
        scale, factor = None, factor if scale is None else scale
    guarded = given["max_consecutive_skips"] is not None or scale is not None
    return given | dict(
        loss_scale=scale,
        loss_scale_factor=factor,
        skip_nonfinite=given["skip_nonfinite"] or guarded,
    )


class Guarded:
    """The part of an optimizer that scales losses, counts skipped steps, and gives up."""

    skipped_steps: Any = 0
    consecutive_skips: Any = 0
    dynamic_scale: Any = None
    finite_steps: Any = None
    loss_was_scaled = False
    scale_is_open = True  # until the first step, whether losses are scaled can still be found out
    state_may_follow = False  # of one that was made from a configuration

    def add_guards(self) -> None:
        """Makes the counters that the arguments ask for."""
        if self.skip_nonfinite:
            self.add_counter("skipped_steps")
        if self.max_consecutive_skips is not None:
            self.add_counter("consecutive_skips")
        if self.loss_scale is not None:
            self.add_counter("dynamic_scale", self.loss_scale.initial_scale, "float32")
            self.add_counter("finite_steps")

    def settle_scale(self) -> None:
        """Finds out at the build whether losses are scaled, unless a saved state may say it."""
        if not self.state_may_follow:
            self.scale_where(_policy_is_mixed())

    def scale_as_saved(self, state: Mapping[str, Any]) -> None:
        """What has stepped without a loss scale goes on without one, and with one where it had."""
        if self.state_may_follow and "dynamic_scale" not in state:
            self.scale_is_open = not state.get("iterations", 0) > 0
        else:
            self.scale_where("dynamic_scale" in state or _policy_is_mixed())

    def scale_where(self, wanted: bool) -> None:
        """Scales losses dynamically from now on, if the user left that open and it is wanted."""
        if wanted and self.scale_is_open and self._scale_is_unsaid():
            replicas.outside(self._scale_dynamically)

    def _scale_is_unsaid(self) -> bool:
        given = self.innermost().given
        return given.loss_scale is None and given.loss_scale_factor is None

    def _scale_dynamically(self) -> None:
        given = self.innermost().given
        given.loss_scale, given.skip_nonfinite = DynamicLossScale(), True
        with tf.init_scope(), replicas.strategy_of(tf_variable(self.updates)).scope():
            self.add_guards()

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss times the loss scale, in float32 where there is one.

        Before the first step this finds out whether to scale: under Keras's global policy
        "mixed_float16", and where the graph that the loss comes from computes in float16. Eager
        code has no graph: there a model with a policy of its own needs `loss_scale="dynamic"`.
        """
        self.loss_was_scaled = True
        if self._scale_is_unsaid():
            seen = _computes_in_float16(loss)
            self.scale_where(seen or _policy_is_mixed())
            if seen and not self.scale_is_open:
                warnings.warn(_UNSCALED, stacklevel=2)
        scale = self.loss_scale_factor if self.dynamic_scale is None else self.dynamic_scale
        if scale is None:
            return loss
        return tf.cast(loss, tf.float32) * tf.cast(tf.convert_to_tensor(scale), tf.float32)

    def inspect(self, cells: list[Cell], grads: list[tf.Tensor]) -> tf.Tensor:
        """Whether all gradients are finite; notes the variables for which they are not."""
        finite = [all_finite(g) for g in grads]
        if self.max_consecutive_skips is not None:
            for cell, ok in zip(cells, finite, strict=True):
                steps = cell.variable_of("nonfinite_steps")
                steps.assign(tf.where(ok, 0, steps + 1))
        return tf.reduce_all(finite)

    def check_scaled(self) -> None:
        """Raises before gradients are divided by a scale that the loss was never multiplied by."""
        self.scale_where(_policy_is_mixed())
        self.scale_is_open = False
        given = self.innermost().given
        scale = given.loss_scale_factor if given.loss_scale is None else given.loss_scale
        if not (self.loss_was_scaled or scale is None or _now(scale) == 1):
            raise ValueError(
                "The gradients will be divided by the loss scale, and no loss was multiplied by "
                "it: differentiate `opt.scale_loss(loss)`, or turn scaling off with `loss_scale=1`."
                f" Received: loss_scale={_now(scale)}"
            )

    def count(self, accept: tf.Tensor) -> None:
        """Counts a step that was taken, or skipped."""
        taken = tf.cast(accept, tf.int64)
        # TensorFlow's `assign_add`: Keras's reads and assigns, between which another worker may.
        tf_variable(self.iterations).assign_add(taken)
        if self.skip_nonfinite:
            tf_variable(self.skipped_steps).assign_add(1 - taken)
        if self.dynamic_scale is not None:
            before = tf_variable(self.dynamic_scale), tf_variable(self.finite_steps)
            scale, finite_steps = self.loss_scale.after(*map(tf.identity, before), accept)
            self.dynamic_scale.assign(scale)
            self.finite_steps.assign(finite_steps)
        if self.max_consecutive_skips is not None:
            so_far = tf.identity(tf_variable(self.consecutive_skips))
            self.consecutive_skips.assign((so_far + 1) * (1 - taken))
            for cell in self.cells:  # also of variables that had no gradient this time
                steps = cell.variable_of("nonfinite_steps")
                steps.assign(steps * tf.cast(1 - taken, tf.int32))

    def check_skips(self) -> None:
        """Raises FloatingPointError after `max_consecutive_skips` skipped steps in a row.

        It names the variables whose gradients were not finite. A step that is neither compiled as
        a whole nor on a TPU does so by itself; XLA has no errors, so call this there, on the host.
        """
        limit = self.max_consecutive_skips
        if limit is None or self.consecutive_skips.numpy() < tf.convert_to_tensor(limit).numpy():
            return
        steps = {c.path: int(c.stored["nonfinite_steps"].numpy()) for c in self.cells}
        steps = {path: n for path, n in steps.items() if n}
        raise FloatingPointError(f"{_GAVE_UP} Variables, and for how many steps: {steps}")

    def raise_inside(self) -> None:
        """`check_skips` as a part of the step: an operation, where one is traced."""
        if self.max_consecutive_skips is None or not replicas.host_is_reachable():
            return
        if tf.executing_eagerly():
            self.check_skips()
            return
        limit = tf.cast(self.max_consecutive_skips, tf.int64)
        tf.cond(
            tf_variable(self.consecutive_skips) < limit, lambda: tf.constant(True), self._give_up
        )

    def _give_up(self) -> tf.Tensor:
        data = [f"{_GAVE_UP} Each variable, and for how many steps:"]
        for cell in self.cells:  # whole, as XLA leaves the assertion out but compiles its data
            data += [cell.path, tf_variable(cell.stored["nonfinite_steps"])]
        with tf.control_dependencies([tf.debugging.Assert(False, data, len(data))]):
            return tf.constant(False)


def _policy_is_mixed() -> bool:
    """Whether Keras would wrap an optimizer because of its global policy."""
    return keras.config.dtype_policy().name == "mixed_float16"


def _computes_in_float16(loss: Any) -> bool:
    """Whether the graph in which a loss is traced does more with float16 than move it around."""
    if tf.executing_eagerly() or not tf.is_tensor(loss):
        return False
    graph, half = loss.graph.as_graph_def(), tf.float16.as_datatype_enum
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    return any(node.attr["T"].type == half and node.op not in _MOVES for node in nodes)


def _now(value: Any) -> Any:
    """What is to be shown of a hyperparameter: its number, also while a step is traced."""
    with tf.init_scope():
        shown = serialize(value)
    return shown["config"] if isinstance(shown, dict) else shown


_MOVES = {"Identity", "ExpandDims", "Squeeze", "Reshape", "Shape", "StridedSlice", "Transpose"}
_UNSCALED = (
    "The loss is computed in float16, and this optimizer goes on without a loss scale, as it began:"
    ' small gradients become 0. Make another one, with `loss_scale="dynamic"`; `loss_scale=1` says '
    "that none is wanted."
)
_GAVE_UP = (
    "`max_consecutive_skips` steps in a row had gradients with a NaN or inf, and were skipped."
)
