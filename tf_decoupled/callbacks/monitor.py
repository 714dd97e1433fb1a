"""Monitor."""

import math
import os
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from tf_decoupled.callbacks import measuring
from tf_decoupled.callbacks.monitor_figure import draw
from tf_decoupled.callbacks.of_model import build, ours, write_scalar
from tf_decoupled.callbacks.sampling import Countdown, Look, look_at, updates_of
from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where, checked

PER = ("model", "layer", "variable")


def _some_quantities(where: Where, value: Any) -> tuple[str, ...]:
    known = measuring.QUANTITIES
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, Sequence) or not given or not all(n in known for n in given):
        where.refuse(ValueError, f"some of {', '.join(map(repr, known))}", value)
    return tuple(dict.fromkeys(given))


def _picture(where: Where, value: Any) -> str:
    path = kinds.path(where, value)
    if not Path(path).parent.is_dir():
        where.refuse(FileNotFoundError, "a file in a folder that exists", value)
    return path


Quantities = Annotated[str | Sequence[str], _some_quantities]


class Monitor(keras.callbacks.Callback):
    """Shows what training does: in logs, TensorBoard and a figure; for the model or its parts.

        monitor = td.callbacks.Monitor(["gradient_norm", "relative_update", "learning_rate"])
        model.fit(..., callbacks=[monitor, keras.callbacks.CSVLogger("log.csv")])  # in this order
        monitor.history["gradient_norm"]

    Of the model, or of each layer or variable, at update t:

        gradient_norm     ‖g_t‖, the sum over replicas or the mean of a group: not scaled or clipped
        weight_norm       ‖θ_{t−1}‖; that of the float32 master, where there is one
        update_norm       ‖θ_t − θ_{t−1}‖, decay included
        relative_update   ‖θ_t − θ_{t−1}‖ / ‖θ_{t−1}‖; NaN where θ_{t−1} is 0
        slot_norms        of each slot by its name after the update: m_norm, v_norm, inner/m_norm
        decay             κ_t of δ(θ) = κ_t θ, by mask, coupling and multipliers, 0 where nothing
                          decays; where it differs among some variables, ‖δ(θ)‖ / ‖θ‖ of them

    and of the optimizer, also at the end of each epoch: `learning_rate` and `weight_decay` (under
    a Partition "learning_rate/muon", by the name of each member), `loss_scale` (1 without one) and
    `skipped_steps`.

    The first update of `fit` is a sample, and each whose number is a multiple of `every`. What
    was sampled last stands in the logs until the next; what there is none of is NaN, as the norm
    of a variable that had no gradient. Names in the logs are "weight_norm" for the model and
    "weight_norm/hidden" or "weight_norm/hidden/kernel" for a part, from the first epoch on; frozen
    variables have none. With `steps_per_execution=k` updates are those of k steps together, and
    the gradient is that of the last one.

    Training is the same with and without it. Around a sample both values of the weights are held.
    Gradients are measured inside of the step, by a condition: the first `fit` with it traces the
    step once more. XLA may round a step otherwise that it compiles whole with that condition in it.

    Args:
        quantities: names from the two tables above, or one name.
        per: "model", "layer" or "variable".
        every: n; also the first update.
        in_logs: whether the numbers join Keras's logs, where the progress bar, History, and
            callbacks that come later in the list find them. With many parts the bar gets long.
        log_dir: a folder for TensorBoard's event files: scalars over updates, by the same names.
        png: a file for the figure, which is drawn at the end of `fit`; `draw` does so at any time.

    Raises ValueError for quantities or parts that it doesn't know, TypeError for optimizers that
    aren't this library's.
    """

    # The train functions that can keep gradient norms, by their optimizers.
    traced: ClassVar[weakref.WeakKeyDictionary] = weakref.WeakKeyDictionary()

    @checked
    def __init__(
        self,
        quantities: Quantities = ("gradient_norm", "weight_norm", "relative_update"),
        *,
        per: Annotated[str, kinds.choice(*PER)] = "model",
        every: Annotated[int, kinds.whole("a number of updates, an integer >= 1", 1)] = 100,
        in_logs: Annotated[bool, kinds.flag] = True,
        log_dir: Annotated[str | os.PathLike | None, kinds.optional(kinds.path)] = None,
        png: Annotated[str | os.PathLike | None, kinds.optional(_picture)] = None,
    ):
        super().__init__()
        self.quantities, self.per, self.every, self.in_logs = quantities, per, every, in_logs
        self.log_dir, self.png = log_dir, png
        self.columns: list[measuring.Column] = []
        self.last: dict[str, float] = {}
        self.samples: list[tuple[int, np.ndarray]] = []
        self.optimizer: Any = None
        self.writer: Any = None

    @property
    def history(self) -> dict[str, np.ndarray]:
        """All samples: the numbers of the updates as "update", and an array for each name.

        A later `fit` adds to them; one with other names, or another optimizer, starts anew.
        """
        rows = np.array([row for _, row in self.samples])
        rows = rows.reshape(len(self.samples), len(self.last))
        updates = np.array([update for update, _ in self.samples], np.int64)
        return {"update": updates} | dict(zip(self.last, rows.T, strict=True))

    def draw(self, png: str | os.PathLike) -> None:
        """Draws all samples over updates into a PNG file, a panel for each quantity.

        Raises ValueError while there are none.
        """
        if not self.samples:
            raise ValueError("There is nothing to draw: no update was sampled yet.")
        history, quantities = self.history, {c.name: c.quantity for c in self.columns}
        panels: dict[str, dict[str, np.ndarray]] = {}
        for name in self.last:
            quantity = quantities.get(name) or name.partition("/")[0]
            part = name.removeprefix(quantity).removeprefix("/")
            panels.setdefault(quantity, {})[part] = history[name]
        draw(history["update"], panels, png)

    def set_model(self, model: keras.Model) -> None:
        optimizer = ours(model, "Monitor looks at the state of this library's optimizers.")
        if self.optimizer is not optimizer:
            self.optimizer, self.last, self.samples = optimizer, {}, []
        super().set_model(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        build(self.model)
        self.countdown, self.first = Countdown(self.optimizer, self.every), True
        self.before: Look | None = None
        self._name()
        if "gradient_norm" in self.quantities:
            self._trace()
        if self.log_dir is not None:
            self.writer = tf.summary.create_file_writer(os.fspath(self.log_dir))

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        if self.first or self.countdown.may_pass_within(self.model.steps_per_execution):
            self.before = look_at(self.optimizer)
            self._ask(True)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        passed = self.countdown.passed(self.model.steps_per_execution)
        before, self.before = self.before, None
        if before is not None:
            self._ask(False)
            if not self.columns:
                self._name()  # a model that got its variables in this batch
            moved = before.parts and updates_of(self.optimizer) > before.done
            if moved and (self.first or passed):
                self.first = False
                self._sample(before, look_at(self.optimizer))
        self._join(logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.last |= self._numbers(updates_of(self.optimizer))
        self._join(logs)
        if self.writer is not None:
            self.writer.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.writer is not None:
            self.writer.close()
        if self.png is not None:
            try:
                self.draw(self.png)
            except (OSError, ValueError) as error:  # not to lose what `fit` returns
                warnings.warn(f"Monitor can't draw {self.png}: {error}", stacklevel=2)

    def _name(self) -> None:
        """Names all numbers. Samples of an earlier `fit` stay where the names are the same."""
        self.columns = measuring.columns_of(self.optimizer, self.quantities, self.per)
        names = [column.name for column in self.columns]
        names += self._numbers(updates_of(self.optimizer))
        if list(self.last) != names:
            self.last, self.samples = dict.fromkeys(names, math.nan), []

    def _numbers(self, step: int) -> dict[str, float]:
        return measuring.numbers_of(self.model, self.quantities, step)

    def _trace(self) -> None:
        """Lets Keras trace the step anew, if the present trace can't keep gradient norms."""
        model, optimizer = self.model, self.optimizer
        present = optimizer, len(optimizer.cells)  # more variables have another array of norms
        if model.train_function is not None and self.traced.get(model.train_function) == present:
            return
        train_step = model.train_step

        def keeping(data: Any) -> Any:
            with optimizer.keeping_gradient_norms():
                return train_step(data)

        own = vars(model).get("train_step")
        model.train_step = keeping
        try:
            model.make_train_function(force=True)
        finally:
            del model.train_step
            if own is not None:
                model.train_step = own
        self.traced[model.train_function] = present

    def _ask(self, asked: bool) -> None:
        if "gradient_norm" in self.quantities:
            self.optimizer.ask_for_gradient_norms(asked)

    def _sample(self, before: Look, now: Look) -> None:
        wanted = {column.quantity for column in self.columns}
        arrays = measuring.arrays_of(self.optimizer, before, now, wanted)
        self.last |= {column.name: measuring.value_of(column, arrays) for column in self.columns}
        self.last |= self._numbers(before.done)
        self.samples.append((now.done, np.array(list(self.last.values()), np.float32)))
        if self.writer is not None:
            with self.writer.as_default(now.done):
                for name, value in self.last.items():
                    write_scalar(name, value)

    def _join(self, logs: dict | None) -> None:
        if self.in_logs and logs is not None:
            logs.update(self.last)
