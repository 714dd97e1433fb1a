"""HyperparameterLogger."""

import os
from collections.abc import Iterator
from typing import Annotated, Any

import keras
import tensorflow as tf

from tf_decoupled.callbacks.of_model import build, ours, write_scalar
from tf_decoupled.callbacks.sampling import Countdown, Look, look_at, updates_of
from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.hyperparameters import fits, is_number, is_variable
from tf_decoupled.math import norm


def _frequency(where: Where, value: Any) -> int | str:
    if isinstance(value, str) and value == "epoch":
        return value
    if not is_number(value) or not fits(value, lambda x: x >= 1 and x == int(x), "int64"):
        where.refuse(ValueError, '"epoch" or a number of updates, an integer >= 1', value)
    return int(value)


Frequency = Annotated[int | str, _frequency]
Folder = Annotated[str | os.PathLike, kinds.path]


class HyperparameterLogger(keras.callbacks.Callback):
    """Writes what the optimizer does to TensorBoard: scalars "optimizer/...", over updates done.

        learning_rate, decay (κ_t of δ(θ) = κ_t θ), and every other live hyperparameter, each as
            the next update will use it; "inner/..." where a wrapper's own has the same name
        loss_scale (one that adapts itself), skipped_steps   where there are such
        update_norm = ‖θ_t − θ_{t−1}‖   of all variables that the optimizer steps, decay included;
            with `steps_per_execution=k` ‖θ_t − θ_{t−k}‖, Keras calls no callback in between
        gradient_norm   with `track_gradient_norm`

    The norm is measured around the last update before a record, and nothing is copied at the
    others. It is left out where there was no update (a micro-step of an accumulation, a skipped
    step), and at the end of the first epoch over data of unknown size. θ is float32 where there
    are masters.

    Args:
        log_dir: the folder for event files, as `tensorboard --logdir` takes it.
        update_freq: "epoch", or n: after every n updates (accumulated micro-steps don't count).

    Raises TypeError for optimizers that aren't this library's.
    """

    @checked
    def __init__(self, log_dir: Folder, update_freq: Frequency = "epoch"):
        super().__init__()
        self.log_dir, self.update_freq = log_dir, update_freq

    def set_model(self, model: keras.Model) -> None:
        self.optimizer = ours(
            model,
            "HyperparameterLogger reads the hyperparameters of this library's optimizers; for "
            "others, keras.callbacks.TensorBoard writes the learning rate.",
        )
        super().set_model(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.writer = tf.summary.create_file_writer(self.log_dir)
        build(self.model)
        counts = self.update_freq != "epoch"
        self.countdown = Countdown(self.optimizer, self.update_freq) if counts else None
        self.ended, self.steps = 0, self.params.get("steps")
        self.before: Look | None = None
        self.update_norm: tf.Tensor | None = None

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.begun = batch
        self.before = look_at(self.optimizer) if self._foreseen(batch) else None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.ended, self.update_norm = self.begun + 1, None
        if self.before is not None and updates_of(self.optimizer) > self.before.done:
            pairs = zip(self.before.parts, look_at(self.optimizer).parts, strict=False)
            moved = [tf.cast(norm(now.p - before.p), tf.float64) for before, now in pairs]
            self.update_norm = norm(tf.stack(moved)) if moved else None
        self.before = None
        if self.countdown is not None and self.countdown.passed(self.model.steps_per_execution):
            self._record(self.countdown.done)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.steps = self.steps or self.ended
        if self.update_freq == "epoch":
            self._record(updates_of(self.optimizer))
        self.writer.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        self.writer.close()

    def _foreseen(self, batch: int) -> bool:
        """Whether a record may be due after the coming batches: only then weights are looked at."""
        coming = self.model.steps_per_execution
        if self.countdown is not None:
            return self.countdown.may_pass_within(coming)
        return self.steps is not None and batch + coming >= self.steps

    def _record(self, step: int) -> None:
        with self.writer.as_default(step):
            for name, value in self._scalars():
                write_scalar(f"optimizer/{name}", value)

    def _scalars(self) -> Iterator[tuple[str, Any]]:
        optimizer = self.optimizer
        yield from _named(optimizer.hyperparameters_at(optimizer.iterations))
        kept = {n: getattr(optimizer, n, None) for n in ("skipped_steps", "gradient_norm")}
        kept["loss_scale"] = getattr(self.model.optimizer, "dynamic_scale", None)
        yield from ((name, value) for name, value in kept.items() if is_variable(value))
        if self.update_norm is not None:
            yield "update_norm", self.update_norm


def _named(h: dict[str, Any], outer: dict[str, Any] | None = None) -> Iterator[tuple[str, Any]]:
    """Each hyperparameter once; one that a wrapper's own hides is named "inner/..."."""
    for name, value in h.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{n}", v) for n, v in _named(value, h))
        elif name not in ("t", "step") and not (value is None or _is_in(outer, name, value)):
            yield name, value


def _is_in(outer: dict[str, Any] | None, name: str, value: Any) -> bool:
    return outer is not None and outer.get(name) is value
