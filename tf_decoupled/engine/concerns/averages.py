"""Moving averages of the variables: kept beside them, and what they are for evaluation."""

from typing import Any, ClassVar

import tensorflow as tf

from tf_decoupled.engine.concern import Concern
from tf_decoupled.engine.hyperparameters import Beta, Steps
from tf_decoupled.engine.state import Slots, copy
from tf_decoupled.math import debiased_momentum

AVERAGE = "average"


class Averages(Concern):
    """ā ← β_t ā + (1 − β_t) θ after each update.

    β_t is bias-corrected, 0 at the first update; or, with `ema_warmup`, min(β, (1 + t) / (10 + t)).

    Args:
        use_ema: keep a bias-corrected moving average of each variable, updated once per update
            with `ema_momentum`; it overwrites the variable every `ema_overwrite_frequency` updates
            (None: never) and at the end of `fit`. `evaluation_weights()` swaps it in for a while.
        ema_warmup: the momentum is min(ema_momentum, (1 + t) / (10 + t)) instead of corrected.
    """

    use_ema: bool = False
    ema_momentum: Beta = 0.99
    ema_warmup: bool = False
    ema_overwrite_frequency: Steps = None

    of_whole_arrays: ClassVar = ("use_ema",)

    @classmethod
    def asked(cls, given: dict[str, Any]) -> bool:
        return given["use_ema"]

    def slots(self, cell: Any) -> Slots:
        return {AVERAGE: copy(cell.variable)}

    def leave(self, part: Any, step: Any) -> None:
        h = part.h
        if self.optimizer.ema_warmup:
            momentum = tf.minimum(h["ema_momentum"], (1 + h["t"]) / (10 + h["t"]))
        else:
            momentum = debiased_momentum(h["ema_momentum"], h["correction"].ema_momentum)
        average, p = part.slot(AVERAGE), part.p
        average = tf.where(tf.math.is_nan(average), p, momentum * average + (1 - momentum) * p)
        if h["ema_overwrite_frequency"] is not None:
            part.p = tf.where(h["step"] % h["ema_overwrite_frequency"] == 0, average, p)
        part.new[AVERAGE] = average

    def evaluation(self, part: Any) -> tf.Tensor:
        average = part.slot(AVERAGE)
        return tf.where(tf.math.is_nan(average), part.p, average)
