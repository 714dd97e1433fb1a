"""Loss scaling: float16 gradients below 6e-8 vanish, unless the loss is multiplied beforehand.

A scale that is too large shows as an inf, for which the step is skipped and the scale lowered.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tf_decoupled.engine import replicas
from tf_decoupled.engine.checking import checked
from tf_decoupled.engine.concern import Concern, Counter, public
from tf_decoupled.engine.hyperparameters import Positive, fits, is_number, is_variable, serialize
from tf_decoupled.engine.state import tf_variable


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

    @checked
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


class LossScale(Concern):
    """Scales losses, divides gradients by the same, and adapts the scale.

    Whether losses are scaled can still be found out until the first step.

    Args:
        loss_scale: `scale_loss` multiplies the loss by it, the step divides gradients by it. A
            number (`loss_scale_factor`, Keras's word, is the same; 1 turns it off), "dynamic" or
            a `td.DynamicLossScale`. None is "dynamic" if at the first step Keras's global policy
            is "mixed_float16", or the loss is traced in a graph that computes in float16.
    """

    loss_scale_factor: Positive = None
    loss_scale: Any = None

    counters: ClassVar = {
        "dynamic_scale": Counter(dtype="float32"),
        "finite_steps": Counter(),
    }

    def __init__(self, optimizer: Any):
        super().__init__(optimizer)
        self.loss_was_scaled, self.is_open = False, True

    @classmethod
    def interpret(cls, given: dict[str, Any], optimizer: type) -> dict[str, Any]:
        """The loss scale as an object or as `loss_scale_factor`."""
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
        elif scale is not None and not isinstance(scale, DynamicLossScale):
            scale, factor = None, _factor(scale, optimizer)
        return given | dict(loss_scale=scale, loss_scale_factor=factor)

    def check_assigned(self, name: str, value: Any, replaced: bool) -> None:
        if name == "loss_scale_factor" and replaced:
            self.is_open = False  # Keras's LossScaleOptimizer around this one takes it away

    def wanted(self) -> Mapping[str, Counter]:
        scale = self.optimizer.given.loss_scale
        if scale is None:
            return {}
        first = self.counters["dynamic_scale"]._replace(start=scale.initial_scale)
        return {**self.counters, "dynamic_scale": first}

    @property
    def needs_finite_gradients(self) -> bool:
        return self.optimizer.given.loss_scale is not None

    def building(self) -> None:
        if not self.optimizer.state_may_follow:
            self._scale_where(_policy_is_mixed())

    def restored(self, numbers: Mapping[str, Any]) -> None:
        """What has stepped without a loss scale goes on without one, and with one where it had."""
        if self.optimizer.state_may_follow and "dynamic_scale" not in numbers:
            self.is_open = not numbers.get("iterations", 0) > 0
        else:
            self._scale_where("dynamic_scale" in numbers or _policy_is_mixed())

    def _scale_where(self, wanted: bool) -> None:
        """Scales losses dynamically from now on, if the user left that open and it is wanted."""
        if wanted and self.is_open and self._is_unsaid():
            replicas.outside(self._scale_dynamically)

    def _is_unsaid(self) -> bool:
        given = self.optimizer.given
        return given.loss_scale is None and given.loss_scale_factor is None

    def _scale_dynamically(self) -> None:
        self.optimizer.given.loss_scale = DynamicLossScale()
        of_all = replicas.strategy_of(tf_variable(self.optimizer.updates))
        with tf.init_scope(), of_all.scope():
            self.optimizer.add_counters()

    def _scale(self) -> Any:
        """The present scale, or None."""
        dynamic = self.optimizer.dynamic_scale
        return self.optimizer.loss_scale_factor if dynamic is None else dynamic

    @public
    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss times the loss scale, in float32 where there is one.

        Before the first step this finds out whether to scale: under Keras's global policy
        "mixed_float16", and where the graph that the loss comes from computes in float16. Eager
        code has no graph: there a model with a policy of its own needs `loss_scale="dynamic"`.
        """
        self.loss_was_scaled = True
        for concern in self.optimizer.order:
            concern.see_loss(loss)
        if self._is_unsaid():
            seen = _computes_in_float16(loss)
            self._scale_where(seen or _policy_is_mixed())
            if seen and not self.is_open:
                warnings.warn(_UNSCALED, stacklevel=3)
        scale = self._scale()
        if scale is None:
            return loss
        dtype = loss.dtype if getattr(loss, "dtype", None) == tf.float64 else tf.float32
        return tf.cast(loss, dtype) * tf.cast(tf.convert_to_tensor(scale), dtype)

    def around(self, update: Callable[[list], None]) -> Callable[[list], None]:
        """Raises before gradients are divided by a scale that the loss was never multiplied by."""
        self._scale_where(_policy_is_mixed())
        self.is_open = False
        given = self.optimizer.given
        scale = given.loss_scale_factor if given.loss_scale is None else given.loss_scale
        if not (self.loss_was_scaled or scale is None or _now(scale) == 1):
            raise ValueError(
                "The gradients will be divided by the loss scale, and no loss was multiplied by "
                "it: differentiate `opt.scale_loss(loss)`, or turn scaling off with `loss_scale=1`."
                f" Received: loss_scale={_now(scale)}"
            )
        return update

    def numbers(self) -> dict[str, tf.Tensor]:
        scale = self._scale()
        return {} if scale is None else {"loss_scale": tf.cast(scale, tf.float32)}

    def before(self, step: Any) -> None:
        scale = step.numbers.get("loss_scale")
        for part in () if scale is None else step.parts:
            part.g = part.g / tf.cast(scale, part.g.dtype)

    def after(self, taken: tf.Tensor, results: dict[str, tf.Tensor]) -> None:
        optimizer = self.optimizer
        if optimizer.dynamic_scale is None:
            return
        before = tf_variable(optimizer.dynamic_scale), tf_variable(optimizer.finite_steps)
        scale, finite_steps = optimizer.loss_scale.after(*map(tf.identity, before), taken)
        optimizer.dynamic_scale.assign(scale)
        optimizer.finite_steps.assign(finite_steps)


def _factor(scale: Any, optimizer: type) -> Any:
    """A loss scale that is a number or a variable, checked as `loss_scale_factor`."""
    try:
        return optimizer.declared["loss_scale_factor"].check(scale, optimizer)
    except (TypeError, ValueError) as error:
        raise type(error)(f"A `loss_scale` that is a number is Keras's factor: {error}") from None


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
