"""What Keras's optimizers offer and this engine never calls: refused, with what to do instead."""

from collections.abc import Sequence
from typing import Any, NoReturn

import keras

INSTEAD = {
    "override `update` or `step`, which get one variable's value, gradient, slots and "
    "hyperparameters": (
        *("update_step", "_backend_update_step", "_distributed_tf_update_step"),
        *("_backend_apply_gradients", "_common_apply", "_tf_apply"),
        *("assign", "assign_add", "assign_sub"),
    ),
    "pass `decay_mask` and `decay_coupling`": ("_apply_weight_decay", "_use_weight_decay"),
    "pass `clipnorm`, `clipvalue` or `global_clipnorm`, or override `apply` to change gradients": (
        *("_clip_gradients", "_clip_by_norm", "_filter_empty_gradients"),
        *("_all_reduce_sum_gradients", "_overwrite_variables_directly_with_gradients"),
    ),
    "pass a schedule as `learning_rate`": ("_get_current_learning_rate",),
    "pass `gradient_accumulation_steps`": (
        *("_backend_increment_gradient_accumulators", "_backend_reset_gradient_accumulators"),
    ),
    "pass `use_ema`, `ema_momentum` and `ema_overwrite_frequency`": (
        "_update_model_variables_moving_average",
        "_overwrite_model_variables_with_average_value",
    ),
    "pass `skip_nonfinite` or `loss_scale`": (
        *("check_finite", "_stateful_handle_finite_grads", "_stateful_handle_non_finite_grads"),
    ),
}


class Refusing:
    """The part of an optimizer that speaks up where Keras's way would be ignored."""

    def __init_subclass__(cls, **kwargs: Any):
        for instead, names in INSTEAD.items():
            for name in names:
                own = getattr(cls, name, None)
                if own is not getattr(keras.optimizers.LossScaleOptimizer, name, None):
                    raise TypeError(
                        f"This engine never calls `{name}`, one of Keras's: instead, {instead}. "
                        f"Received: {cls.__name__}.{name}"
                    )
        super().__init_subclass__(**kwargs)

    def stateless_apply(
        self, optimizer_variables: Sequence, grads: Sequence, trainable_variables: Sequence
    ) -> NoReturn:
        """Raises, as Keras's optimizers do with TensorFlow."""
        raise ValueError(
            "`stateless_apply` is not supported with the TensorFlow backend. Step with `apply`; "
            "`get_state` and `set_state` read and write the state."
        )

    @property
    def _model_variables_moving_average(self) -> NoReturn:
        """Where keras.callbacks.SwapEMAWeights looks for averages."""
        raise ValueError(
            "keras.callbacks.SwapEMAWeights reads the averages of Keras's own optimizers. Use "
            "`td.callbacks.SwapAveraged()` in its place, with `use_ema=True`. "
            f"Received: {type(self).__name__}(use_ema={self.use_ema})"
        )
