"""IterateAverage."""

from typing import Any

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Steps, fits
from tf_decoupled.engine.state import Slot, copy, zeros
from tf_decoupled.wrappers.wrapper import Wrapper


class IterateAverage(Wrapper):
    """The plain mean of the values along the way, to be evaluated in place of the last one.

        θ ← inner step of θ
        after updates a, a + k, a + 2 k, ...:  n ← n + 1,  x ← x + (θ − x) / n

    Training goes on at θ as if there were no mean; x is evaluated and kept, `evaluation` and
    `training` turn one into the other. Before update a, x is θ. Around SGD with a constant or
    cyclical rate it is SWA, around AdamW Gadam, and with a late a tail averaging. With `window` x
    is the mean of the latest so many of these values.

    Use it with rates that stay high and in place of a schedule's fall; not after rates that have
    fallen to 0, where all values are alike. Batch normalization needs the statistics of x: refresh
    them before evaluation (`td.refresh_batch_norm`).

    It takes two more copies of the variables: x, and θ to train on from. A window takes
    `window` + 1: its values are kept in one array [window, ...], of which each new one replaces the
    oldest, so that the mean is exact; take few, far apart.

    Args:
        inner: the rule that steps; rate, decay, mask and clips are its own.
        start_averaging: a, the first update whose value counts; for cycles of k updates, k.
        average_period: k, in updates.
        window: how many of the latest values count; None: all.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018,
    algorithm 1. arXiv:1803.05407; Granziol et al., "Iterate Averaging Helps: An Alternative
    Perspective in Deep Learning", 2020. arXiv:2003.01247; windows: Kaddour, "Stop Wasting My Time!
    Saving Days of ImageNet and BERT Training with Latest Weight Averaging", 2022. arXiv:2209.14981.
    TensorFlow Addons counts `start_averaging` from 0, and has 10 for `average_period`.
    """

    start_averaging: Steps = 1
    average_period: Steps = 1
    window: Any = None

    @classmethod
    def interpret_rule(cls, given: dict[str, Any]) -> dict[str, Any]:
        window = given["window"]
        is_one = type(window) is int and fits(window, lambda x: x >= 1, "int64")
        if window is not None and not is_one:
            raise ValueError(
                "`window` must be an integer >= 1, and is never changed; None takes all values "
                f"into the mean. Received: {cls.__name__}(window={window!r})"
            )
        return super().interpret_rule(given)

    def init(self, p):
        if self.window is None:
            kept = dict(mean=zeros(p))
        else:
            kept = dict(latest=zeros(p, (self.window, *p.shape)))
        return dict(trained=copy(p), count=Slot((), 0.0), inner=self.inner.init(p)) | kept

    def step(self, p, g, s, h):
        p, inner = self.inner.step(p, g, s.inner, h.inner)
        due = self.due(h)
        kept = self.meant(p, s, due) if self.window is None else self.noted(p, s, due)
        return p, dict(trained=p, inner=inner) | kept

    def due(self, h):
        """Whether the value of this update counts."""
        since = h.step - h.start_averaging
        return (since >= 0) & (since % h.average_period == 0)

    def meant(self, p, s, due):
        """The mean of all values, with this one if it is due."""
        mean = s.mean + (p - s.mean) / (s.count + 1)
        mean = tf.where(due, mean, s.mean)
        return dict(mean=mean, count=tf.where(due, s.count + 1, s.count))

    def noted(self, p, s, due):
        """The latest values, with this one in place of the oldest if it is due."""
        places = [float(i) for i in range(self.window)]
        here = tf.equal(tf.math.floormod(s.count, self.window), places)
        here = tf.reshape(here & due, [-1] + [1] * len(p.shape))
        # Once the window is full the count goes round in it: float32 can't count on for ever.
        count = tf.where(s.count + 1 < 2 * self.window, s.count + 1, s.count + 1 - self.window)
        latest = tf.where(here, p, s.latest)
        return dict(latest=latest, count=tf.where(due, count, s.count))

    def evaluation(self, p, s, h):
        if self.window is None:
            mean = s.mean
        else:
            n = tf.minimum(tf.maximum(s.count, 1.0), self.window)
            mean = tf.reduce_sum(s.latest, 0) / n
        return tf.where(s.count > 0, mean, p)

    def training(self, x, s, h):
        return s.trained
