"""A rate that falls where a loss has stopped to fall."""

import math
from typing import Annotated, Any

import keras
import tensorflow as tf

from tf_decoupled.engine import replicas
from tf_decoupled.schedules.curves import float32
from tf_decoupled.schedules.kinds import Count, Length, RateOrSchedule, Share, choice, limit
from tf_decoupled.schedules.schedule import Schedule, peak_of, rate_at


class Plateau(Schedule):
    """Any rate or schedule, times a scale that falls on plateaus of a loss.

        rate = scale · learning_rate(n)        scale = 1 at first

    It is told losses: by `observe(loss)` or `opt.observe_loss(loss)` in a loop of your own, traced
    or not, and by `td.callbacks.ReduceOnPlateau` after each epoch of `fit`. The mean of `window` of
    them is one value x:

        x < best − min_delta        best ← x, and the values that are no better are counted anew
        else                        the patience-th such value: scale ← max(factor · scale,
                                    min_scale), and the `cooldown` − 1 values after it don't count

    The first value is always the best. With mode="max" it is x > best + min_delta. A NaN is never
    better. Scale, best, counts and mean are saved with the optimizer that has this schedule, as
    "learning_rate/scale" and so on, also where it stands inside of another schedule; Keras's own
    optimizers save nothing of it. An argument of two optimizers is one plateau. Under replicas make
    it in the scope of the strategy; their losses are added up, as gradients are.

    The same as `keras.callbacks.ReduceLROnPlateau`, number by number, with two departures: its
    `min_lr` is here `min_scale`, in parts of the rate; and a new `fit` goes on where the last one
    was, as `reset()` begins anew. `optax.contrib.reduce_on_plateau` also takes `window` losses,
    there `accumulation_size`, and is one value earlier.
    """

    learning_rate: RateOrSchedule
    factor: Annotated[float, limit("in (0, 1)", lambda x: 0 < x < 1)] = 0.1
    patience: Count = 10
    cooldown: Count = 0
    min_delta: Annotated[float, limit("at least 0", lambda x: x >= 0)] = 1e-4
    min_scale: Share = 0.0
    mode: Annotated[str, choice("min", "max")] = "min"
    window: Length = 1

    def __post_init__(self):
        super().__post_init__()
        self.kept = tf.Module(name="plateau")
        with tf.init_scope():
            for name, start in self._starts().items():
                setattr(self.kept, name, _variable(name, start))

    def rate(self, n):
        return float32(self.kept.scale) * rate_at(self.learning_rate, n)

    @property
    def peak(self):
        return peak_of(self.learning_rate)

    def observe(self, loss: Any) -> None:
        """Takes one loss in, a scalar."""
        loss = float32(loss)
        if loss.shape.rank:
            raise ValueError(f"A plateau observes one scalar at a time. Received: {loss!r}")
        replicas.once(self._observe, replicas.all_reduce([loss]))

    def reset(self) -> None:
        """Forgets all losses; the scale is 1 again."""
        for name, start in self._starts().items():
            getattr(self.kept, name).assign(start)

    def _starts(self) -> dict[str, float | int]:
        """What is kept, and how it starts: counts are Python's integers."""
        best = math.inf if self.mode == "min" else -math.inf
        return dict(scale=1.0, best=best, bad_values=0, cooling=0, mean=0.0, losses=0)

    def _observe(self, losses: list) -> None:
        loss, kept = replicas.components(losses[0])[0], self.remembered()
        before = {name: tf.identity(tf.convert_to_tensor(v)) for name, v in kept.items()}
        losses = before["losses"] + 1
        mean = before["mean"] + (loss - before["mean"]) / float32(losses)
        full = losses >= self.window
        after = self._after(before, mean) | dict(
            mean=tf.zeros_like(mean), losses=tf.zeros_like(losses)
        )
        for name, waiting in (before | dict(mean=mean, losses=losses)).items():
            kept[name].assign(tf.where(full, after[name], waiting))

    def _after(self, before: dict[str, tf.Tensor], x: tf.Tensor) -> dict[str, tf.Tensor]:
        """What is kept after one value."""
        scale, best, sign = before["scale"], before["best"], 1.0 if self.mode == "min" else -1.0
        better = sign * x < sign * best - self.min_delta
        bad, none = before["bad_values"], tf.zeros_like(before["bad_values"])
        cooling = tf.maximum(before["cooling"] - 1, 0)
        bad = tf.where(better, none, tf.where(cooling > 0, bad, bad + 1))
        ripe = ~better & (cooling == 0) & (bad >= self.patience)
        return dict(
            scale=tf.where(ripe, tf.maximum(self.factor * scale, self.min_scale), scale),
            best=tf.where(better, x, best),
            bad_values=tf.where(ripe, none, bad),
            cooling=tf.where(ripe, none + self.cooldown, cooling),
        )


def _variable(name: str, start: float | int) -> keras.Variable:
    return keras.Variable(
        start,
        dtype="int64" if isinstance(start, int) else "float32",
        trainable=False,
        aggregation="only_first_replica",
        name=f"plateau_{name}",
    )
