"""ReduceOnPlateau."""

import warnings
from typing import Annotated

import keras
import tensorflow as tf

from tf_decoupled.callbacks.of_model import described, innermost
from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import checked
from tf_decoupled.engine.optimizer import Optimizer


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
                f"{repr(optimizer) if isinstance(optimizer, Optimizer) else described(optimizer)}"
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
