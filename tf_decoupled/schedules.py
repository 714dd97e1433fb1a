"""Learning rates, and anything else that changes with the step, as Keras schedules.

`schedule(step)` is a float32 tensor of the shape of `step`, which is an integer or any tensor of
integers: the updates already done, 0 at the first. Steps are subtracted as int64 before anything is
rounded to float32, so that a boundary is exact, also near step 2³¹.
A rate is a number or a scalar variable. A variable is read at every call: assigning to it acts at
the next step, without a retrace; the configuration keeps the value that it has when it is saved.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import partial
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers.schedules import ExponentialDecay, LearningRateSchedule
from typing_extensions import dataclass_transform

from tf_decoupled.engine import registry
from tf_decoupled.engine.hyperparameters import fits, is_number

Variable = (tf.Variable, keras.Variable)
LAST_STEP = 2**31
MOST_STEPS = 2**62  # sums of two are still int64
MOST_CYCLES = 2**14


# What an argument may be: an annotation carries the function that checks and converts it.


def _number(where, value, words="at least 0", ok=lambda x: x >= 0):
    if not is_number(value):
        raise TypeError(f"{where} must be a number. Received: {value!r}")
    if not fits(value, lambda x: math.isfinite(x) and ok(x)):
        words += ", in float32" if ok(value) and value != math.inf else ""
        raise ValueError(f"{where} must be {words}. Received: {value!r}")
    return float(value)


def _whole(where, value, least):
    if not is_number(value):
        raise TypeError(f"{where} must be a number. Received: {value!r}")
    if not fits(value, lambda x: x == int(x) and least <= x < MOST_STEPS, "int64"):
        words = f"a whole number of steps, at least {least}"
        words += " and below 2**62" if MOST_STEPS <= value < math.inf else ""
        raise ValueError(f"{where} must be {words}. Received: {value!r}")
    return int(value)


def _rate(where, value):
    if not isinstance(value, Variable):
        return _number(where, value)
    if tuple(value.shape) or not tf.as_dtype(value.dtype).is_floating:
        raise ValueError(f"{where} must be a scalar floating-point variable. Received: {value!r}")
    return value


def _rate_or_none(where, value):
    return None if value is None else _rate(where, value)


def _rate_or_schedule(where, value):
    return value if isinstance(value, LearningRateSchedule) else _rate(where, value)


def _sequence(where, values, each):
    if isinstance(values, str | dict) or not isinstance(values, Sequence | np.ndarray):
        raise TypeError(f"{where} must be a list. Received: {values!r}")
    return tuple(each(f"{where}[{i}]", value) for i, value in enumerate(values))


def _boundaries(where, values, least):
    values = _sequence(where, values, partial(_whole, least=least))
    if not values or any(b <= a for a, b in itertools.pairwise(values)):
        raise ValueError(f"{where} must be one or more increasing steps. Received: {values}")
    return values


def _one_of(where, value, choices):
    if value not in choices:
        raise ValueError(f"{where} must be one of {choices}. Received: {value!r}")
    return value


Live = float | tf.Variable | keras.Variable
Rate = Annotated[Live, _rate]
RateOrNone = Annotated[Live | None, _rate_or_none]
RateOrSchedule = Annotated[Live | LearningRateSchedule, _rate_or_schedule]
Rates = Annotated[Sequence[Live], partial(_sequence, each=_rate)]
Schedules = Annotated[
    Sequence[Live | LearningRateSchedule], partial(_sequence, each=_rate_or_schedule)
]
Boundaries = Annotated[Sequence[int], partial(_boundaries, least=1)]
Count = Annotated[int, partial(_whole, least=0)]
Length = Annotated[int, partial(_whole, least=1)]
Share = Annotated[float, partial(_number, words="between 0 and 1", ok=lambda x: 0 <= x <= 1)]


# What the formulas share.


def _float32(rate):
    return tf.cast(tf.convert_to_tensor(rate), tf.float32)


def _share(n, length):
    """`n / length`, clipped to [0, 1]; both count steps."""
    return _float32(tf.clip_by_value(n, 0, length)) / float(length)


def _between(x, one, zero):
    """The line through `zero` at x = 0 and `one` at x = 1, both exactly."""
    return x * _float32(one) + (1.0 - x) * _float32(zero)


def _half_cosine(remaining):
    """½ (1 + cos π(1 − x)), as sin²(½ π x): exactly 0 at 0 and 1 at 1, and precise between."""
    return tf.square(tf.sin(0.5 * math.pi * remaining))


def _interval(boundaries, n, side):
    """How many boundaries are < n (side "left") or <= n (side "right")."""
    index = tf.searchsorted(tf.constant(boundaries, tf.int64), tf.reshape(n, [-1]), side=side)
    return tf.reshape(index, tf.shape(n))


def _rate_at(rate_or_schedule, n):
    return _float32(rate_or_schedule(n) if callable(rate_or_schedule) else rate_or_schedule)


def _largest(*rates):
    """A float; a tensor if any of the rates is a variable or a tensor."""
    if any(tf.is_tensor(rate) or isinstance(rate, Variable) for rate in rates):
        return tf.reduce_max(tf.stack([_float32(rate) for rate in rates]))
    return max(rates)


def _plain(value):
    if isinstance(value, LearningRateSchedule):
        return keras.saving.serialize_keras_object(value)
    if isinstance(value, Variable):
        return float(tf.convert_to_tensor(value))
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _warmed_up(n, warmup_steps, initial, after):
    return _between(_share(n, warmup_steps), after, initial) if warmup_steps else after


def peak_of(rate_or_schedule):
    """The largest rate of anything that may stand in the place of a learning rate."""
    if not isinstance(rate_or_schedule, LearningRateSchedule):
        return rate_or_schedule
    if isinstance(rate_or_schedule, Schedule) or hasattr(rate_or_schedule, "peak"):
        return rate_or_schedule.peak
    if not _is_keras_and_falls(rate_or_schedule):
        raise AttributeError(
            f"The largest rate of a {type(rate_or_schedule).__name__} is not known: "
            f"give it an attribute `peak`. Received: {rate_or_schedule!r}"
        )
    config = rate_or_schedule.get_config()
    names = ("initial_learning_rate", "warmup_target", "end_learning_rate")
    rates = [config[name] for name in names if config.get(name) is not None]
    return _largest(*rates, *config.get("values", ()))


def _is_keras_and_falls(schedule):
    growth = "decay_rate" if isinstance(schedule, ExponentialDecay) else "m_mul"
    is_keras = type(schedule).__module__.startswith("keras.")
    return is_keras and schedule.get_config().get(growth, 1) <= 1


@dataclass_transform(eq_default=False)
@dataclass(eq=False)
class Schedule(LearningRateSchedule):
    """A schedule whose annotated attributes are its arguments, its configuration and their checks.

    A subclass declares them as a dataclass does and defines `rate` and `peak`. `TypeError` and
    `ValueError` at construction name the argument that is not what its annotation says.
    """

    name: str | None = field(default=None, kw_only=True)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        registry.register(dataclass(eq=False)(cls), "tf_decoupled")

    def __post_init__(self):
        self.name = self.name or type(self).__name__
        for each in fields(self):
            for check in getattr(each.type, "__metadata__", ()):
                where = f"`{each.name}` of {type(self).__name__}"
                setattr(self, each.name, check(where, getattr(self, each.name)))

    def __call__(self, step) -> tf.Tensor:
        with tf.name_scope(self.name):
            n = self._count(step)
            return tf.broadcast_to(self.rate(n), tf.shape(n))

    def rate(self, n: tf.Tensor) -> tf.Tensor:
        """The float32 rate at step `n`, an int64 tensor of any shape."""
        raise NotImplementedError(f"{type(self).__name__} must define `rate`.")

    @property
    def peak(self) -> float | tf.Tensor:
        """The largest rate that the schedule can give; a tensor where a variable decides it."""
        raise NotImplementedError(f"{type(self).__name__} must define `peak`.")

    def get_config(self) -> dict:
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def from_config(cls, config: dict) -> "Schedule":
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})

    def _count(self, step):
        n = tf.constant(step, tf.int64) if isinstance(step, int) else tf.convert_to_tensor(step)
        if not n.dtype.is_integer:
            raise TypeError(f"{self.name} counts steps in integers. Received: step={step!r}")
        return tf.cast(n, tf.int64)


def _same_lengths(schedule, name):
    values, boundaries = getattr(schedule, name), schedule.boundaries
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            f"{type(schedule).__name__} needs one more of `{name}` than of `boundaries`. "
            f"Received: {len(values)} {name} and {len(boundaries)} boundaries"
        )


class PiecewiseConstant(Schedule):
    """A constant rate between boundaries.

        rate = values[i],  i = the number of boundaries < n

    A boundary is the last step of the interval before it: `values[i + 1]` starts at step
    `boundaries[i] + 1`, as in `keras.optimizers.schedules.PiecewiseConstantDecay`.
    """

    boundaries: Annotated[Sequence[int], partial(_boundaries, least=0)]
    values: Rates

    def __post_init__(self):
        super().__post_init__()
        _same_lengths(self, "values")

    def rate(self, n):
        values = tf.stack([_float32(value) for value in self.values])
        return tf.gather(values, _interval(self.boundaries, n, "left"))

    @property
    def peak(self):
        return _largest(*self.values)


class PiecewiseInterpolate(Schedule):
    """Rates at step 0 and at each boundary, joined by lines or half cosines; then constant.

    rate = v' + (v − v') w(x),   x = (b' − n) / (b' − b),   for b ≤ n < b'
    w(x) = x ("linear") or ½ (1 − cos πx) ("cosine")
    """

    boundaries: Boundaries
    values: Rates
    interpolation: Annotated[str, partial(_one_of, choices=("linear", "cosine"))] = "linear"

    def __post_init__(self):
        super().__post_init__()
        _same_lengths(self, "values")

    def rate(self, n):
        points = (0, *self.boundaries)
        widths = tf.constant([float(b - a) for a, b in itertools.pairwise(points)])
        values = tf.stack([_float32(value) for value in self.values])
        i = tf.minimum(_interval(self.boundaries, n, "right"), len(self.boundaries) - 1)
        left = tf.gather(tf.constant(self.boundaries, tf.int64), i) - n
        x = _float32(tf.maximum(left, 0)) / tf.gather(widths, i)
        weight = x if self.interpolation == "linear" else _half_cosine(x)
        return _between(weight, tf.gather(values, i), tf.gather(values, i + 1))

    @property
    def peak(self):
        return _largest(*self.values)


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
        decayed = _between(_half_cosine(_share(left, self.decay_steps)), 1.0, self.alpha)
        after = _float32(top) * decayed
        return _warmed_up(n, self.warmup_steps, self.initial_learning_rate, after)

    @property
    def peak(self):
        if self.warmup_target is None:
            return _largest(self.initial_learning_rate)
        if not self.warmup_steps:
            return _largest(self.warmup_target)
        return _largest(self.initial_learning_rate, self.warmup_target)


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
        partial(_number, words="at least 1: shrinking cycles would end", ok=lambda x: x >= 1),
    ] = 2.0
    m_mul: Annotated[
        float,
        partial(_number, words="in (0, 1]: growing cycles have no peak", ok=lambda x: 0 < x <= 1),
    ] = 1.0
    alpha: Share = 0.0
    warmup_steps: Count = 0

    def __post_init__(self):
        super().__post_init__()
        rows = [] if self.t_mul == 1 else _cycles(self.first_decay_steps, self.t_mul)
        self._table = tuple(zip(*rows, strict=True))

    def rate(self, n):
        index, remaining, _ = self._cycle(n)
        height = tf.exp(_float32(index) * math.log(self.m_mul)) * _half_cosine(remaining)
        after = _float32(self.initial_learning_rate) * _between(height, 1.0, self.alpha)
        return _warmed_up(n, self.warmup_steps, 0.0, after)

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
            return n // first, _share(first - n % first, first), tf.fill(tf.shape(n), float(first))
        ends, excess, lengths = self._table
        i = tf.minimum(_interval(ends, n, "right"), len(ends) - 1)
        left = _float32(tf.gather(tf.constant(ends, tf.int64), i) - n) - tf.gather(excess, i)
        length = tf.gather(lengths, i)
        return tf.cast(i, tf.int64), tf.clip_by_value(left / length, 0.0, 1.0), length

    @property
    def peak(self):
        return _largest(self.initial_learning_rate)


class Linear(Schedule):
    """A line from `initial_learning_rate` to `end_learning_rate`, constant after `decay_steps`."""

    initial_learning_rate: Rate
    decay_steps: Length
    end_learning_rate: Rate = 0.0

    def rate(self, n):
        remaining = _share(self.decay_steps - n, self.decay_steps)
        return _between(remaining, self.initial_learning_rate, self.end_learning_rate)

    @property
    def peak(self):
        return _largest(self.initial_learning_rate, self.end_learning_rate)


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
        after = _rate_at(self.learning_rate, tf.maximum(n - self.warmup_steps, 0))
        return _warmed_up(n, self.warmup_steps, self.initial_learning_rate, after)

    @property
    def peak(self):
        initial = [self.initial_learning_rate] if self.warmup_steps else []
        return _largest(peak_of(self.learning_rate), *initial)


class Join(Schedule):
    """One rate or schedule after another: `schedules[i + 1]` takes over at step `boundaries[i]`.

    Each counts its steps from its own boundary. The peak is the largest of theirs, also where one
    is cut short before it reaches its own; `AttributeError` as in `Warmup`.
    """

    schedules: Schedules
    boundaries: Boundaries

    def __post_init__(self):
        super().__post_init__()
        _same_lengths(self, "schedules")

    def rate(self, n):
        rate = _rate_at(self.schedules[0], n)
        for schedule, start in zip(self.schedules[1:], self.boundaries, strict=True):
            rate = tf.where(n < start, rate, _rate_at(schedule, tf.maximum(n - start, 0)))
        return rate

    @property
    def peak(self):
        return _largest(*map(peak_of, self.schedules))


class InverseSquareRoot(Schedule):
    """Adafactor's relative step size.

        rate = min(peak_learning_rate, 1 / √(n + 1))

    Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018,
    algorithms 4 and 5. arXiv:1804.04235
    """

    peak_learning_rate: Rate = 1e-2

    def rate(self, n):
        return tf.minimum(_float32(self.peak_learning_rate), 1.0 / tf.sqrt(_float32(n + 1)))

    @property
    def peak(self):
        if isinstance(self.peak_learning_rate, Variable):
            return tf.minimum(_float32(self.peak_learning_rate), 1.0)
        return min(self.peak_learning_rate, 1.0)
