"""The optimizer that a callback finds in a model, and what TensorBoard is told of it."""

from typing import Any

import keras
import tensorflow as tf

from tf_decoupled.engine.optimizer import Optimizer


def innermost(model: keras.Model) -> Any:
    """The model's optimizer, without the LossScaleOptimizer that Keras puts around it."""
    optimizer = getattr(model, "optimizer", None)
    if isinstance(optimizer, Optimizer):
        return optimizer
    return getattr(optimizer, "inner_optimizer", optimizer)


def ours(model: keras.Model, refusal: str) -> Optimizer:
    """The model's optimizer; raises TypeError with these words if it isn't this library's."""
    optimizer = innermost(model)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{refusal} Received: {described(optimizer)}")
    return optimizer


def check_averages(model: keras.Model, whose: str) -> None:
    """Raises TypeError, in the name of a callback, if the model's optimizer keeps no averages."""
    optimizer = innermost(model)
    if not (isinstance(optimizer, Optimizer) and optimizer.has_evaluation_weights()):
        raise TypeError(
            f"{whose} needs an optimizer of this library that keeps averages, as "
            f"td.AdamW(1e-3, use_ema=True). Received: {described(optimizer)}"
        )


def described(optimizer: Any) -> str:
    """What an error says of an optimizer that won't do."""
    if optimizer is None:
        return "a model without an optimizer"
    return f"{type(optimizer).__name__}(use_ema={getattr(optimizer, 'use_ema', None)})"


def loss_scale_of(model: keras.Model) -> Any:
    """What the losses are multiplied by: a number that adapts, or one that was given, or None."""
    dynamic = getattr(model.optimizer, "dynamic_scale", None)
    return innermost(model).loss_scale_factor if dynamic is None else dynamic


def build(model: keras.Model) -> None:
    """Builds the optimizer, as the first step would, where the model has its variables already."""
    optimizer = innermost(model)
    if model.built and not optimizer.built:
        with model.distribute_strategy.scope():
            optimizer.build(model.trainable_variables)


def write_scalar(tag: str, value: Any) -> None:
    """As tf.summary.scalar, which needs the package tensorboard to be installed."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    tf.summary.write(tag, tf.cast(value, tf.float32), metadata=metadata)
