"""Clipping of gradients, once they are those of all replicas and not scaled any more."""

from typing import Any, ClassVar

import tensorflow as tf

from tf_decoupled.engine.concern import Concern, Counter
from tf_decoupled.engine.hyperparameters import Positive
from tf_decoupled.math import clip_factor, norm

KINDS = ("clipnorm", "clipvalue", "global_clipnorm")


class GradientNorm(Concern):
    """Keeps the norm of all gradients of the last step.

    Args:
        track_gradient_norm: keep the norm of all gradients of the last step, unscaled and not yet
            clipped, in `gradient_norm`.
    """

    track_gradient_norm: bool = False

    counters: ClassVar = {"gradient_norm": Counter(0, "float32")}

    @classmethod
    def asked(cls, given: dict[str, Any]) -> bool:
        return given["track_gradient_norm"]

    def before(self, step: Any) -> None:
        step.results["gradient_norm"] = tf.cast(global_norm(step.parts), tf.float32)

    def after(self, taken: tf.Tensor, results: dict[str, tf.Tensor]) -> None:
        self.optimizer.gradient_norm.assign(results["gradient_norm"])


class Clipping(Concern):
    """Clips by value, by each variable's norm, or by the norm of all gradients together.

    clipvalue c:         g ← min(max(g, −c), c)
    clipnorm c:          g ← g · min(1, c / ‖g‖)
    global_clipnorm c:   g ← g · min(1, c / √Σ‖gᵢ‖²)      a NaN or inf makes every gradient NaN

    Args:
        clipnorm, clipvalue, global_clipnorm: at most one: by each variable's norm, by value, or by
            the norm of all gradients together.
    """

    clipnorm: Positive = None
    clipvalue: Positive = None
    global_clipnorm: Positive = None

    @classmethod
    def interpret(cls, given: dict[str, Any], optimizer: type) -> dict[str, Any]:
        _check_one(given)
        return given

    def check_assigned(self, name: str, value: Any, replaced: bool) -> None:
        if name in KINDS and replaced:
            _check_one(vars(self.optimizer.given) | {name: value})

    @classmethod
    def asked(cls, given: dict[str, Any]) -> bool:
        return any(given[name] is not None for name in KINDS)

    def before(self, step: Any) -> None:
        given, scale = self.optimizer.given, None
        if given.global_clipnorm is not None:
            limit = tf.cast(step.h["global_clipnorm"], tf.float32)
            scale = clip_factor(global_norm(step.parts), limit)
        for part in step.parts:
            if given.clipvalue is not None:
                limit = tf.cast(step.h["clipvalue"], part.g.dtype)
                part.g = tf.clip_by_value(part.g, -limit, limit)
            elif given.clipnorm is not None:
                limit = tf.cast(step.h["clipnorm"], part.g.dtype)
                part.g = part.block.map(lambda g, c=limit: g * clip_factor(norm(g), c), part.g)
            else:
                part.g = part.g * tf.cast(scale, part.g.dtype)


def global_norm(parts: list) -> tf.Tensor:
    """The norm of the gradients of all parts together, in float32; 0 of none."""
    if not parts:
        return tf.constant(0.0)
    return norm(tf.stack([tf.cast(norm(part.g), tf.float32) for part in parts]))


def _check_one(given: dict[str, Any]) -> None:
    """Raises if more than one kind of clipping is asked for."""
    clips = {name: given[name] for name in KINDS}
    if sum(limit is not None for limit in clips.values()) > 1:
        raise ValueError(
            f"Only one of {', '.join(f'`{name}`' for name in clips)} can be set. Received: {clips}"
        )
