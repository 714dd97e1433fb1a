"""Gradient transforms: pure functions of all gradients of a step."""

from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from tf_decoupled.math import global_norm, norm


def clip(grads: list[tf.Tensor], h: SimpleNamespace) -> list[tf.Tensor]:
    """Clips by value, by each variable's norm, or by the norm of all gradients together.

    clipvalue c:         g ← min(max(g, −c), c)
    clipnorm c:          g ← g · min(1, c / ‖g‖)
    global_clipnorm c:   g ← g · min(1, c / √Σ‖gᵢ‖²)      a NaN or inf makes every gradient NaN
    """
    if h.clipvalue is not None:
        return [tf.clip_by_value(g, -h.clipvalue, h.clipvalue) for g in grads]
    if h.clipnorm is not None:
        return [g * shrink(norm(g), h.clipnorm) for g in grads]
    if h.global_clipnorm is not None:
        scale = shrink(global_norm(grads), h.global_clipnorm)
        return [g * scale for g in grads]
    return grads


def all_finite(g: tf.Tensor) -> tf.Tensor:
    """Whether there is no NaN or inf anywhere: a boolean scalar."""
    return tf.reduce_all(tf.math.is_finite(g))


def shrink(length: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
    """min(1, limit / length), and NaN where the length isn't finite."""
    return tf.where(length > limit, limit / length, 1.0) + 0 * length


def check_clip(given: dict[str, Any]) -> None:
    """Raises if more than one kind of clipping is asked for."""
    clips = {name: given[name] for name in ("clipnorm", "clipvalue", "global_clipnorm")}
    if sum(limit is not None for limit in clips.values()) > 1:
        raise ValueError(
            f"Only one of {', '.join(f'`{name}`' for name in clips)} can be set. Received: {clips}"
        )
