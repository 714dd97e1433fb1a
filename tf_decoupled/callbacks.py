"""Callbacks for `fit`: averages where the model is judged or saved, TensorBoard, and plateaus."""

import os
import warnings
import weakref
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import keras
import tensorflow as tf

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.hyperparameters import fits, is_number, is_variable
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import tf_variable
from tf_decoupled.math import norm

__all__ = ["HyperparameterLogger", "ReduceOnPlateau", "SwapAveraged"]


def _frequency(where: Where, value: Any) -> int | str:
    if isinstance(value, str) and value == "epoch":
        return value
    if not is_number(value) or not fits(value, lambda x: x >= 1 and x == int(x), "int64"):
        where.refuse(ValueError, '"epoch" or a number of updates, an integer >= 1', value)
    return int(value)


Frequency = Annotated[int | str, _frequency]
Folder = Annotated[str | os.PathLike, kinds.path]


class SwapAveraged(keras.callbacks.Callback):
    """Puts the averages of `use_ema` into the model where it is judged or saved.

        model.fit(..., callbacks=[
            keras.callbacks.BackupAndRestore(folder),  # before it: the raw weights, to go on from
            td.callbacks.SwapAveraged(),
            keras.callbacks.ModelCheckpoint("averaged.keras"),  # after it: the averages
        ])

    Validation in `fit` runs on the averages, and so do `evaluate` and `predict` that get this
    callback. At the end of an epoch callbacks that stand after it in the list see the averages
    (ModelCheckpoint, EarlyStopping with restore_best_weights), those before it the raw weights.
    Training goes on with the raw weights, bit for bit as without it; at its end Keras leaves the
    averages in the model, as it does without it. A checkpoint inside of an epoch (an integer
    `save_freq`) has the raw weights.

    Every raw weight comes back, and at once where the validation of `fit` raises. Where another
    callback raises at the end of an epoch, or something inside of a separate `evaluate`, Keras
    tells no callback: the next SwapAveraged for this optimizer puts the raw weights back, or
    `SwapAveraged.restore(model)` does. Variables assigned meanwhile keep what they were assigned.

    Raises ValueError if the model's optimizer has no averages.
    """

    # By optimizer: its variables with the raw values, and with the averages put in their place.
    swapped: ClassVar[weakref.WeakKeyDictionary] = weakref.WeakKeyDictionary()

    def set_model(self, model: keras.Model) -> None:
        optimizer = innermost(model)
        if not (isinstance(optimizer, Optimizer) and optimizer.has_evaluation_weights()):
            raise ValueError(
                "SwapAveraged needs an optimizer of this library that keeps averages: compile the "
                "model with `use_ema=True`, as td.AdamW(1e-3, use_ema=True). "
                f"Received: {_described(optimizer)}"
            )
        super().set_model(model)
        self.restore(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        innermost(self.model).restore_training_weights()
        evaluate = _unguarded(self.model)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return evaluate(*args, **kwargs)
            except BaseException:
                self.restore(self.model)
                _unguarded(self.model)
                raise

        guarded.unguarded = evaluate
        self.model.evaluate = guarded

    def on_train_end(self, logs: dict | None = None) -> None:
        self.swapped.pop(innermost(self.model), None)  # Keras has made the averages the weights
        _unguarded(self.model)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.restore(self.model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.swap(self.model)

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.swap(self.model)

    def on_test_end(self, logs: dict | None = None) -> None:
        self.restore(self.model)

    def on_predict_begin(self, logs: dict | None = None) -> None:
        self.swap(self.model)

    def on_predict_end(self, logs: dict | None = None) -> None:
        self.restore(self.model)

    @classmethod
    def swap(cls, model: keras.Model) -> None:
        """Puts the averages into the model, once, and remembers the raw weights."""
        if (optimizer := innermost(model)) in cls.swapped:
            return
        variables = [cell.variable for cell in optimizer.cells]
        raw = _values(variables)
        try:
            optimizer.finalize_variable_values(variables)
            cls.swapped[optimizer] = variables, raw, _values(variables)
        except BaseException:
            for variable, value in zip(variables, raw, strict=True):
                variable.assign(value)
            raise

    @classmethod
    def restore(cls, model: keras.Model) -> None:
        """Puts the raw weights back into all variables that hold their averages still."""
        held = cls.swapped.get(innermost(model), ((), (), ()))
        for variable, raw, average in zip(*held, strict=True):
            now = tf.convert_to_tensor(tf_variable(variable))
            if tf.reduce_all((now == average) | tf.math.is_nan(now)):
                variable.assign(raw)
        if innermost(model) in cls.swapped:
            cls.swapped.pop(innermost(model))
            innermost(model).say_held(False)


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
        optimizer = innermost(model)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                "HyperparameterLogger reads the hyperparameters of this library's optimizers; for "
                "others, keras.callbacks.TensorBoard writes the learning rate. "
                f"Received: {_described(optimizer)}"
            )
        super().set_model(model)
        self.optimizer = optimizer

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.writer = tf.summary.create_file_writer(self.log_dir)
        self.done = self._updates()  # at the last look
        self.batches, self.ended, self.steps = 0, 0, self.params.get("steps")
        self.before: tuple | None = None
        self.update_norm: tf.Tensor | None = None

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.begun, self.before = batch, None
        if self._foreseen(batch):
            self.before = self._updates(), self._weights()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.batches, self.ended = self.batches + self.model.steps_per_execution, self.begun + 1
        self.update_norm = None
        if self.before is not None and self._updates() > self.before[0]:
            before, now = self.before[1], self._weights()
            moved = [norm(now[v] - before[v]) for v in now if v in before]
            self.update_norm = norm(tf.stack(moved)) if moved else None
        self.before = None
        if self.update_freq != "epoch" and self._missing() <= 0:
            last, self.done, self.batches = self.done, self._updates(), 0
            if self.done // self.update_freq > last // self.update_freq:
                self._record(self.done)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.steps = self.steps or self.ended
        if self.update_freq == "epoch":
            self._record(self._updates())
        self.writer.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        self.writer.close()

    def _updates(self) -> int:
        return int(self.optimizer.iterations.numpy())

    def _missing(self) -> int:
        """Batches that must come before a record can be due, as each makes at most one update."""
        return self.update_freq - self.done % self.update_freq - self.batches

    def _foreseen(self, batch: int) -> bool:
        """Whether a record may be due after the coming batches: only then weights are copied."""
        coming = self.model.steps_per_execution
        if self.update_freq != "epoch":
            return self._missing() <= coming
        return self.steps is not None and batch + coming >= self.steps

    def _weights(self) -> dict[Any, tf.Tensor]:
        """The values in float32 by variable; those of the model while nothing is built yet."""
        values = {tf_variable(c.variable).ref(): v for c, v in self.optimizer.training_values()}
        return values or {
            tf_variable(v).ref(): tf.cast(v, tf.float32) for v in self.model.trainable_variables
        }

    def _record(self, step: int) -> None:
        with self.writer.as_default(step):
            for name, value in self._scalars():
                _write_scalar(f"optimizer/{name}", value)

    def _scalars(self) -> Iterator[tuple[str, Any]]:
        optimizer = self.optimizer
        yield from _named(optimizer.hyperparameters_at(optimizer.iterations))
        kept = {n: getattr(optimizer, n, None) for n in ("skipped_steps", "gradient_norm")}
        kept["loss_scale"] = getattr(self.model.optimizer, "dynamic_scale", None)
        yield from ((name, value) for name, value in kept.items() if is_variable(value))
        if self.update_norm is not None:
            yield "update_norm", self.update_norm


class ReduceOnPlateau(keras.callbacks.Callback):
    """Tells each `td.schedules.Plateau` of the optimizer a metric at the end of each epoch.

        rate = td.schedules.Plateau(td.schedules.Warmup(1e-3, 500), factor=0.5, patience=3)
        model.compile(td.AdamW(rate), "mse")
        model.fit(..., callbacks=[td.callbacks.ReduceOnPlateau("val_loss")])

    The schedule says what happens then, and keeps what it needs: the optimizer saves it, and
    training goes on from a file with it. `keras.callbacks.ReduceLROnPlateau`, which assigns the
    rate, is for rates that are numbers. The rate joins the epoch's logs, as there.

    Args:
        monitor: the metric. Where more is better, the schedule needs mode="max".

    Raises ValueError if the optimizer has no such schedule.
    """

    @checked
    def __init__(self, monitor: Annotated[str, kinds.text] = "val_loss"):
        super().__init__()
        self.monitor = monitor

    def set_model(self, model: keras.Model) -> None:
        optimizer = innermost(model)
        schedules = optimizer.remembering() if isinstance(optimizer, Optimizer) else {}
        if not any(hasattr(schedule, "observe") for schedule in schedules.values()):
            raise ValueError(
                "ReduceOnPlateau needs a schedule to tell: compile the model with one, as "
                "td.AdamW(td.schedules.Plateau(1e-3)). Received: "
                f"{optimizer if isinstance(optimizer, Optimizer) else _described(optimizer)}"
            )
        super().set_model(model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs, optimizer = {} if logs is None else logs, innermost(self.model)
        if self.monitor in logs:
            optimizer.observe_loss(logs[self.monitor])
        else:
            warnings.warn(
                f"ReduceOnPlateau has nothing to tell: `{self.monitor}` is not among the metrics "
                f"of this epoch, {sorted(logs)}.",
                stacklevel=2,
            )
        logs["learning_rate"] = float(tf.convert_to_tensor(optimizer.learning_rate))


def innermost(model: keras.Model) -> Any:
    """The model's optimizer, without the LossScaleOptimizer that Keras puts around it."""
    optimizer = getattr(model, "optimizer", None)
    if isinstance(optimizer, Optimizer):
        return optimizer
    return getattr(optimizer, "inner_optimizer", optimizer)


def _values(variables: list) -> list[tf.Tensor]:
    return [tf.identity(tf_variable(v)) for v in variables]


def _described(optimizer: Any) -> str:
    """What an error says of an optimizer that won't do."""
    if optimizer is None:
        return "a model without an optimizer"
    return f"{type(optimizer).__name__}(use_ema={getattr(optimizer, 'use_ema', None)})"


def _unguarded(model: keras.Model) -> Any:
    """The model's `evaluate`, after taking away what SwapAveraged put around it."""
    if hasattr(model.evaluate, "unguarded"):
        del model.evaluate
    return model.evaluate


def _named(h: dict[str, Any], outer: dict[str, Any] | None = None) -> Iterator[tuple[str, Any]]:
    """Each hyperparameter once; one that a wrapper's own hides is named "inner/..."."""
    for name, value in h.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{n}", v) for n, v in _named(value, h))
        elif name not in ("t", "step") and not (value is None or _is_in(outer, name, value)):
            yield name, value


def _is_in(outer: dict[str, Any] | None, name: str, value: Any) -> bool:
    return outer is not None and outer.get(name) is value


def _write_scalar(tag: str, value: Any) -> None:
    """As tf.summary.scalar, which needs the package tensorboard to be installed."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    tf.summary.write(tag, tf.cast(value, tf.float32), metadata=metadata)
