"""Rates that fall from their first value: one formula each."""

import math
from typing import Annotated

import tensorflow as tf

from tf_decoupled.schedules.curves import between, float32, quotient, share
from tf_decoupled.schedules.kinds import Flag, Length, Positive, Rate, Variable, limit
from tf_decoupled.schedules.schedule import Schedule, largest


class Linear(Schedule):
    """A line from `initial_learning_rate` to `end_learning_rate`, constant after `decay_steps`."""

    initial_learning_rate: Rate
    decay_steps: Length
    end_learning_rate: Rate = 0.0

    def rate(self, n):
        remaining = share(self.decay_steps - n, self.decay_steps)
        return between(remaining, self.initial_learning_rate, self.end_learning_rate)

    @property
    def peak(self):
        return largest(self.initial_learning_rate, self.end_learning_rate)


class Polynomial(Schedule):
    """A power of the time that is left, from `initial_learning_rate` to `end_learning_rate`.

        rate = b + (a − b) (1 − n / T)ᵖ,   a first, b at the end, T = decay_steps; then constant

    With `cycle` T is instead the first multiple of `decay_steps` that isn't below n: at each
    multiple the rate is b, one step later it is high again, and it falls ever more slowly.

    Departs from `keras.optimizers.schedules.PolynomialDecay` in a default: b is 0, not 1e-4.
    """

    initial_learning_rate: Rate
    decay_steps: Length
    end_learning_rate: Rate = 0.0
    power: Positive = 1.0
    cycle: Flag = False

    def rate(self, n):
        T = tf.constant(self.decay_steps, tf.int64)
        if self.cycle:
            T *= tf.maximum(-(-n // T), 1)
        left = float32(tf.maximum(T - n, 0)) / float32(T)
        weight = left if self.power == 1 else tf.pow(left, self.power)
        return between(weight, self.initial_learning_rate, self.end_learning_rate)

    @property
    def peak(self):
        return largest(self.initial_learning_rate, self.end_learning_rate)


class Exponential(Schedule):
    """The rate times `decay_rate` every `decay_steps`; with `staircase` at once, in steps.

        rate = initial_learning_rate · decay_rate^q,   q = n / decay_steps, or ⌊n / decay_steps⌋

    As `keras.optimizers.schedules.ExponentialDecay`, for a `decay_rate` up to 1.
    """

    initial_learning_rate: Rate
    decay_steps: Length
    decay_rate: Annotated[
        float, limit("in (0, 1]: a growing rate has no peak", lambda x: 0 < x <= 1)
    ]
    staircase: Flag = False

    def rate(self, n):
        q = float32(n // self.decay_steps) if self.staircase else quotient(n, self.decay_steps)
        return float32(self.initial_learning_rate) * tf.exp(q * math.log(self.decay_rate))

    @property
    def peak(self):
        return largest(self.initial_learning_rate)


class InverseTime(Schedule):
    """The rate over a number that grows linearly; with `staircase` in steps.

        rate = initial_learning_rate / (1 + decay_rate · q),   q as in `Exponential`

    As `keras.optimizers.schedules.InverseTimeDecay`. `InverseTime(rate, 1, d)` is what `decay=d`
    was in old optimizers of Keras.
    """

    initial_learning_rate: Rate
    decay_steps: Length
    decay_rate: Annotated[float, limit("at least 0", lambda x: x >= 0)]
    staircase: Flag = False

    def rate(self, n):
        q = float32(n // self.decay_steps) if self.staircase else quotient(n, self.decay_steps)
        return float32(self.initial_learning_rate) / (1.0 + self.decay_rate * q)

    @property
    def peak(self):
        return largest(self.initial_learning_rate)


class REX(Schedule):
    """A reflected exponential: slower than a line at first, and faster at the end.

        rate = b + (a − b) (1 − z) / (½ + ½ (1 − z)),   z = n / decay_steps; then constant

    a is `initial_learning_rate`, b `end_learning_rate`. Half-way ⅔ of a − b is left.

    Chen, Wolfe & Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", 2021.
    arXiv:2107.04197
    """

    initial_learning_rate: Rate
    decay_steps: Length
    end_learning_rate: Rate = 0.0

    def rate(self, n):
        left = share(self.decay_steps - n, self.decay_steps)
        weight = 2.0 * left / (1.0 + left)
        return between(weight, self.initial_learning_rate, self.end_learning_rate)

    @property
    def peak(self):
        return largest(self.initial_learning_rate, self.end_learning_rate)


class InverseSquareRoot(Schedule):
    """Adafactor's relative step size.

        rate = min(peak_learning_rate, 1 / √(n + 1))

    Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018,
    algorithms 4 and 5. arXiv:1804.04235
    """

    peak_learning_rate: Rate = 1e-2

    def rate(self, n):
        return tf.minimum(float32(self.peak_learning_rate), 1.0 / tf.sqrt(float32(n + 1)))

    @property
    def peak(self):
        if isinstance(self.peak_learning_rate, Variable):
            return tf.minimum(float32(self.peak_learning_rate), 1.0)
        return min(self.peak_learning_rate, 1.0)
