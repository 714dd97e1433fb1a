"""Rates that rise and fall: once, or again and again."""

import math
from fractions import Fraction
from typing import Annotated

import tensorflow as tf

from tf_decoupled.schedules.curves import between, float32, half_cosine, share_left, triangle
from tf_decoupled.schedules.kinds import Flag, Length, Positive, Rate, Variable, choice, limit
from tf_decoupled.schedules.schedule import Schedule, largest


class OneCycle(Schedule):
    """One rise to the peak, and one fall far below the first rate.

        first = peak_learning_rate / div_factor        last = first / final_div_factor
        from 0 to E = pct_start · total_steps − 1      first → peak
        to total_steps − 1                             peak → last; then constant
        with `three_phase`: to 2 E                     peak → first
                            to total_steps − 1         first → last
        a → b: b + (a − b) ½ (1 + cos πq) ("cosine") or a + (b − a) q ("linear"), q from 0 to 1

    The rates are those of `total_steps` steps: the last of them, at step total_steps − 1, is
    exactly `last`. E may lie between two steps. `pct_start` is the decimal that it prints as.

    `momentum()` is the schedule of the momentum (or of β₁) that goes the other way.

    Smith & Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
    Rates", 2017. arXiv:1708.07120. Names and phases as in PyTorch; optax is one step later.
    """

    peak_learning_rate: Rate
    total_steps: Length
    pct_start: Annotated[float, limit("in (0, 1)", lambda x: 0 < x < 1)] = 0.3
    div_factor: Positive = 25.0
    final_div_factor: Positive = 1e4
    interpolation: Annotated[str, choice("cosine", "linear")] = "cosine"
    three_phase: Flag = False

    def __post_init__(self):
        super().__post_init__()
        turn, last = self._turn(), self.total_steps - 1
        falls = 2 * turn if self.three_phase else turn
        if not 0 < turn <= falls < last:
            raise ValueError(
                "OneCycle needs steps for its rise and for each fall: more `total_steps`, or "
                f"another `pct_start`. Received: total_steps={self.total_steps}, "
                f"pct_start={self.pct_start}, three_phase={self.three_phase}"
            )

    def _turn(self):
        """The end of the rise, E."""
        return Fraction(repr(self.pct_start)) * self.total_steps - 1

    def _ends(self):
        """The first rate, the peak and the last rate."""
        top = self.peak_learning_rate
        top = float32(top) if isinstance(top, Variable) else top
        first = top / self.div_factor
        return first, top, first / self.final_div_factor

    def rate(self, n):
        turn, (first, top, last) = self._turn(), self._ends()
        weigh = half_cosine if self.interpolation == "cosine" else tf.identity
        falls, floor = (2 * turn, first) if self.three_phase else (self._end(), last)
        rise = between(weigh(share_left(turn, turn, n)), first, top)
        fall = between(weigh(share_left(falls, falls - turn, n)), top, floor)
        rate = tf.where(n <= math.floor(turn), rise, fall)
        if not self.three_phase:
            return rate
        end = between(weigh(share_left(self._end(), self._end() - falls, n)), first, last)
        return tf.where(n <= math.floor(falls), rate, end)

    def _end(self):
        return Fraction(self.total_steps - 1)

    def momentum(self, low: float = 0.85, high: float = 0.95) -> "OneCycle":
        """From `high` to `low` at the peak of the rate, back to `high`, and then constant."""
        return OneCycle(
            low, self.total_steps, self.pct_start, low / high, 1.0, self.interpolation,
            self.three_phase,
        )  # fmt: skip

    @property
    def peak(self):
        return largest(*self._ends())


class Cyclical(Schedule):
    """A rate that goes up and down between two, in triangles of 2 · step_size steps.

        rate = lo + (hi − lo) · max(0, 1 − |n / s − 2c + 1|) · f,   c = ⌊1 + n / (2s)⌋
        f = 1 ("triangular"), 2^(1 − c) ("triangular2"), γⁿ ("exp_range")

    lo is `initial_learning_rate`, hi `maximal_learning_rate`, s `step_size`. hi may be below lo, as
    for a momentum that goes the other way. `peak` is the larger of the two, which "exp_range"
    stays below.

    Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, sections 3.1 and 3.2.
    arXiv:1506.01186
    """

    initial_learning_rate: Rate
    maximal_learning_rate: Rate
    step_size: Length
    mode: Annotated[str, choice("triangular", "triangular2", "exp_range")] = "triangular"
    gamma: Annotated[float, limit("in (0, 1]", lambda x: 0 < x <= 1)] = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.gamma != 1 and self.mode != "exp_range":
            raise ValueError(
                '`gamma` of Cyclical is for mode="exp_range". '
                f"Received: gamma={self.gamma}, mode={self.mode!r}"
            )

    def rate(self, n):
        s = self.step_size
        height = triangle(n, s)
        if self.mode == "triangular2":
            height *= tf.exp(float32(n // (2 * s)) * -math.log(2))
        elif self.mode == "exp_range":
            height *= tf.exp(float32(n) * math.log(self.gamma))
        return between(height, self.maximal_learning_rate, self.initial_learning_rate)

    @property
    def peak(self):
        return largest(self.initial_learning_rate, self.maximal_learning_rate)
