"""Half cosines: one, or with warm restarts."""

import math
from fractions import Fraction
from typing import Annotated

import tensorflow as tf

from tf_decoupled.schedules.curves import between, float32, half_cosine, interval, share, warmed_up
from tf_decoupled.schedules.kinds import LAST_STEP, Count, Length, Rate, RateOrNone, Share, limit
from tf_decoupled.schedules.schedule import Schedule, largest

MOST_CYCLES = 2**14


class Cosine(Schedule):
    """A half cosine from the peak to `alpha` times the peak, after an optional linear warm-up.

        rate = peak · (α + (1 − α) · ½ (1 + cos(π n / decay_steps))),   constant after decay_steps

    With `warmup_target` the rate rises from `initial_learning_rate` to it over `warmup_steps`, then
    n counts from the end of the warm-up and the peak is `warmup_target`.

    Follows `keras.optimizers.schedules.CosineDecay`, and departs from it in one thing:
    `warmup_steps` without `warmup_target` raises `ValueError`; Keras ignores it.
    """

    initial_learning_rate: Rate
    decay_steps: Length
    alpha: Share = 0.0
    warmup_target: RateOrNone = None
    warmup_steps: Count = 0

    def __post_init__(self):
        super().__post_init__()
        if self.warmup_steps and self.warmup_target is None:
            raise ValueError(
                "Cosine warms up to `warmup_target`: give one, or leave `warmup_steps` at 0. "
                f"Received: warmup_steps={self.warmup_steps}, warmup_target=None"
            )

    def rate(self, n):
        top = self.initial_learning_rate if self.warmup_target is None else self.warmup_target
        left = self.decay_steps + self.warmup_steps - n
        decayed = between(half_cosine(share(left, self.decay_steps)), 1.0, self.alpha)
        after = float32(top) * decayed
        return warmed_up(n, self.warmup_steps, self.initial_learning_rate, after)

    @property
    def peak(self):
        if self.warmup_target is None:
            return largest(self.initial_learning_rate)
        if not self.warmup_steps:
            return largest(self.warmup_target)
        return largest(self.initial_learning_rate, self.warmup_target)


def _cycles(first, t_mul):
    """Rows (end rounded up, end rounded up − end, length), one a cycle, of exact cycle ends."""
    if math.log1p(LAST_STEP * (t_mul - 1) / first) / math.log(t_mul) > MOST_CYCLES:
        raise ValueError(
            f"CosineRestarts with t_mul={t_mul} and first_decay_steps={first} restarts more than "
            f"{MOST_CYCLES} times before step 2**31, too many to list. Use t_mul=1 or longer cycles"
        )
    p, q = Fraction(repr(t_mul)).as_integer_ratio()
    end, length, unit, rows = 0, first, 1, []
    while end <= LAST_STEP * unit:
        end += length
        rows.append((-(-end // unit), -end % unit / unit, length / unit))
        end, length, unit = end * q, length * p, unit * q
    return rows


class CosineRestarts(Schedule):
    """SGDR: half cosines, each `t_mul` times as long and `m_mul` times as high as the one before.

        T_i = first_decay_steps · t_mulⁱ        S_i = T_0 + … + T_{i−1}        S_i ≤ n < S_{i+1}
        rate = initial_learning_rate · (α + (1 − α) · m_mulⁱ · ½ (1 + cos(π (n − S_i) / T_i)))

    Cycle i begins at the first step n ≥ S_i. S_i is an exact fraction, in which `t_mul` is the
    decimal that it prints as: 1.1 is 11/10. With t_mul > 1 there are no more restarts after the
    cycle that holds step 2³¹; the rate then rests at its floor.
    With `warmup_steps` the rate first rises linearly from 0, and n counts from the end of that.

    `ValueError` for a `t_mul` so close to 1 that there are over 16384 restarts before step 2³¹.

    Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
    arXiv:1608.03983
    """

    initial_learning_rate: Rate
    first_decay_steps: Length
    t_mul: Annotated[
        float,
        limit("at least 1: shrinking cycles would end; and below 2**31", lambda x: 1 <= x < 2**31),
    ] = 2.0
    m_mul: Annotated[
        float, limit("in (0, 1]: growing cycles have no peak", lambda x: 0 < x <= 1)
    ] = 1.0
    alpha: Share = 0.0
    warmup_steps: Count = 0

    def __post_init__(self):
        super().__post_init__()
        rows = [] if self.t_mul == 1 else _cycles(self.first_decay_steps, self.t_mul)
        self._table = tuple(zip(*rows, strict=True))

    def rate(self, n):
        index, remaining, _ = self._cycle(n)
        height = tf.exp(float32(index) * math.log(self.m_mul)) * half_cosine(remaining)
        after = float32(self.initial_learning_rate) * between(height, 1.0, self.alpha)
        return warmed_up(n, self.warmup_steps, 0.0, after)

    def cycle_index(self, step) -> tf.Tensor:
        """The number of restarts up to `step`, int64; 0 during the warm-up."""
        return self._cycle(self._count(step))[0]

    def cycle_length(self, step) -> tf.Tensor:
        """The length T_i, in steps, of the cycle that `step` is in, float32; T_0 in the warm-up."""
        return self._cycle(self._count(step))[2]

    def _cycle(self, n):
        """The index of the cycle, the share of it that is left, and its length."""
        n, first = tf.maximum(n - self.warmup_steps, 0), self.first_decay_steps
        if self.t_mul == 1:
            return n // first, share(first - n % first, first), tf.fill(tf.shape(n), float(first))
        ends, excess, lengths = self._table
        i = tf.minimum(interval(ends, n, "right"), len(ends) - 1)
        left = float32(tf.gather(tf.constant(ends, tf.int64), i) - n) - tf.gather(excess, i)
        length = tf.gather(lengths, i)
        return tf.cast(i, tf.int64), tf.clip_by_value(left / length, 0.0, 1.0), length

    @property
    def peak(self):
        return largest(self.initial_learning_rate)
