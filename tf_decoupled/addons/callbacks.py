"""Addons' AverageModelCheckpoint."""

import contextlib
import os
from typing import Annotated, Any

import keras

from tf_decoupled.addons.wrapped import become_averages
from tf_decoupled.callbacks.of_model import check_averages, innermost
from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where, checked

Flag = Annotated[bool, kinds.flag]


def _frequency(where: Where, value: Any) -> str:
    if not isinstance(value, str) or value != "epoch":
        words = '"epoch": it saves at the end of epochs; within one, save inside of '
        words += "`with opt.evaluation_weights():`"
        where.refuse(ValueError, words, value)
    return value


def _check_ending(filepath: str, save_weights_only: bool) -> None:
    ending = ".weights.h5" if save_weights_only else ".keras"
    if not filepath.endswith(ending):
        raise ValueError(
            f"`filepath` must end in {ending!r} where save_weights_only={save_weights_only}. "
            f"Received: filepath={filepath!r}"
        )


class AverageModelCheckpoint(keras.callbacks.ModelCheckpoint):
    """Saves the averages of a model at the end of each epoch.

    Works with every optimizer that has evaluation weights: `td.addons.MovingAverage` and `SWA`,
    `use_ema=True`, `td.ScheduleFree`.

    Args:
        update_weights: whether the averages become the model's weights, from which training goes
            on; False puts the weights back once the file is written.
        filepath, monitor, verbose, save_best_only, save_weights_only, mode, kwargs: as of
            `keras.callbacks.ModelCheckpoint`, and of its kinds of files.
        save_freq: "epoch" alone.

    Raises TypeError if the model's optimizer keeps no averages.
    """

    @checked
    def __init__(
        self,
        update_weights: Flag,
        filepath: Annotated[str | os.PathLike, kinds.path],
        monitor: Annotated[str, kinds.text] = "val_loss",
        verbose: Annotated[int, kinds.whole("0 or 1", 0, 2)] = 0,
        save_best_only: Flag = False,
        save_weights_only: Flag = False,
        mode: Annotated[str, kinds.choice("auto", "min", "max")] = "auto",
        save_freq: Annotated[str, _frequency] = "epoch",
        **kwargs: Any,
    ):
        _check_ending(filepath, save_weights_only)
        super().__init__(
            filepath, monitor, verbose, save_best_only, save_weights_only, mode, save_freq, **kwargs
        )
        self.update_weights = update_weights

    def set_model(self, model: keras.Model) -> None:
        check_averages(model, "AverageModelCheckpoint")
        super().set_model(model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        optimizer = innermost(self.model)
        if self.update_weights:
            become_averages(optimizer, self.model.trainable_variables)
            averages = contextlib.nullcontext()
        else:
            averages = optimizer.evaluation_weights()
        with averages:
            super().on_epoch_end(epoch, logs)
