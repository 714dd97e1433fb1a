"""One thing after another: a warm-up, a plateau, schedules in a row."""

from typing import Annotated

import tensorflow as tf

from tf_decoupled.schedules.curves import between, float32, half_cosine, share, warmed_up
from tf_decoupled.schedules.kinds import (
    Boundaries,
    Count,
    Length,
    Rate,
    RateOrSchedule,
    Schedules,
    Share,
    choice,
)
from tf_decoupled.schedules.schedule import Schedule, largest, peak_of, rate_at, same_lengths


class Warmup(Schedule):
    """A linear warm-up from `initial_learning_rate` into any rate or schedule.

    It rises to what `learning_rate` gives at step 0, reached at step `warmup_steps`, from where
    `learning_rate` counts its own steps. `peak` needs one of this module's or Keras's schedules, or
    one with an attribute `peak`, and raises `AttributeError` otherwise.
    """

    learning_rate: RateOrSchedule
    warmup_steps: Count
    initial_learning_rate: Rate = 0.0

    def rate(self, n):
        after = rate_at(self.learning_rate, tf.maximum(n - self.warmup_steps, 0))
        return warmed_up(n, self.warmup_steps, self.initial_learning_rate, after)

    @property
    def peak(self):
        initial = [self.initial_learning_rate] if self.warmup_steps else []
        return largest(peak_of(self.learning_rate), *initial)


class Join(Schedule):
    """One rate or schedule after another: `schedules[i + 1]` takes over at step `boundaries[i]`.

    Each counts its steps from its own boundary. The peak is the largest of theirs, also where one
    is cut short before it reaches its own; `AttributeError` as in `Warmup`.
    """

    schedules: Schedules
    boundaries: Boundaries

    def __post_init__(self):
        super().__post_init__()
        same_lengths(self, "schedules")

    def rate(self, n):
        rate = rate_at(self.schedules[0], n)
        for schedule, start in zip(self.schedules[1:], self.boundaries, strict=True):
            rate = tf.where(n < start, rate, rate_at(schedule, tf.maximum(n - start, 0)))
        return rate

    @property
    def peak(self):
        return largest(*map(peak_of, self.schedules))


# Of the share of the cooldown that is past, q, and of that which is left, r: each precise at both
# ends, where one of the two is small.
COOLDOWNS = {
    "linear": lambda q, r: r,
    "1-sqrt": lambda q, r: r / (1.0 + tf.sqrt(q)),
    "1-square": lambda q, r: r * (1.0 + q),
    "cosine": lambda q, r: half_cosine(r),
}


class WarmupStableDecay(Schedule):
    """A linear warm-up, a constant rate, and a short cooldown (WSD).

        from step 0, for warmup_steps     from initial_learning_rate to the peak, on a line
        then, for stable_steps            peak_learning_rate
        then, for decay_steps             peak_learning_rate · (α + (1 − α) f(q)),   0 ≤ q ≤ 1
        f(q) = 1 − q ("linear"), 1 − √q ("1-sqrt"), 1 − q² ("1-square"), ½ (1 + cos πq) ("cosine")

    Its end need not be known at the start: go on from a checkpoint before the cooldown with more
    `stable_steps`. A cooldown of 10 to 20 % of all steps is advised.

    Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training
    Strategies", 2024, section 4. arXiv:2404.06395. Hägele et al., "Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations", 2024. arXiv:2405.18392
    """

    peak_learning_rate: Rate
    warmup_steps: Count
    stable_steps: Count
    decay_steps: Length
    cooldown: Annotated[str, choice(*COOLDOWNS)] = "1-sqrt"
    alpha: Share = 0.0
    initial_learning_rate: Rate = 0.0

    def rate(self, n):
        begin = self.warmup_steps + self.stable_steps
        past = share(n - begin, self.decay_steps)
        left = share(begin + self.decay_steps - n, self.decay_steps)
        after = between(COOLDOWNS[self.cooldown](past, left), 1.0, self.alpha)
        after *= float32(self.peak_learning_rate)
        return warmed_up(n, self.warmup_steps, self.initial_learning_rate, after)

    @property
    def peak(self):
        initial = [self.initial_learning_rate] if self.warmup_steps else []
        return largest(self.peak_learning_rate, *initial)
