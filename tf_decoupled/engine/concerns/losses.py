"""Losses: what the model's loss is, for rules and schedules that depend on it."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_decoupled.engine import replicas
from tf_decoupled.engine.concern import Concern, public
from tf_decoupled.engine.state import tf_variable

LOSS = "loss"


class Losses(Concern):
    """Keeps the loss that was seen last for rules that share a scalar called "loss", and tells
    schedules that watch losses.

    `fit` tells the rules each batch's loss; `td.callbacks.ReduceOnPlateau` tells the schedules one
    per epoch. A loop of one's own calls `observe_loss`.
    """

    def __init__(self, optimizer: Any):
        super().__init__(optimizer)
        self.was_seen = False

    @property
    def active(self) -> bool:
        return bool(self._names)

    @functools.cached_property
    def _names(self) -> list[str]:
        names = [name for name, _ in self.optimizer.shared_names()]
        return [name for name in names if name.rpartition("/")[2] == LOSS]

    def see_loss(self, loss: tf.Tensor) -> None:
        if self.active:
            self.was_seen = True
            replicas.once(self._assign, replicas.all_reduce([scalar(loss)]))

    @public
    @tf.autograph.experimental.do_not_convert
    def observe_loss(self, loss: tf.Tensor, schedules: bool = True) -> None:
        """Tells rules and each `td.schedules.Plateau` a loss, a scalar; who doesn't ask ignores it.

        In a loop of your own, eager or traced, before each step; for a plateau also once an epoch.
        Losses of replicas are added up, as gradients are: where each is the mean over its own part
        of the batch, divide it by the number of replicas, as for the gradient.

        Args:
            loss: the scalar.
            schedules: False tells rules only.
        """
        loss = scalar(loss)
        self.see_loss(loss)
        told = self.optimizer.remembering().values() if schedules else ()
        for schedule in {id(s): s for s in told if hasattr(s, "observe")}.values():
            schedule.observe(loss)

    def _assign(self, losses: list) -> None:
        for name in self._names:
            tf_variable(getattr(self.optimizer, name)).assign(losses[0])

    def around(self, update: Callable[[list], None]) -> Callable[[list], None]:
        if not self.was_seen:
            raise ValueError(
                "The step of this optimizer depends on the loss, and it has not been told: call "
                "`opt.observe_loss(loss)` before `opt.apply(...)`; `fit` does so by itself. "
                f"Received: {type(self.optimizer).__name__}, no loss"
            )
        return update


def scalar(loss: tf.Tensor) -> tf.Tensor:
    """The loss in float32, without a gradient of its own."""
    loss = tf.stop_gradient(tf.cast(tf.convert_to_tensor(loss), tf.float32))
    if loss.shape.rank != 0:
        raise ValueError(f"The loss must be a scalar. Received: shape {loss.shape}")
    return loss
