"""Schedules: each equals its definition in float64, at every step, however it is called."""

import math
from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_decoupled.schedules import (
    Cosine,
    CosineRestarts,
    InverseSquareRoot,
    Join,
    Linear,
    PiecewiseConstant,
    PiecewiseInterpolate,
    Warmup,
)

LATE = 2**31


# The definitions, one step at a time. n is a Python int.


def cosine(n, peak, length, alpha=0.0):
    return peak * (alpha + (1 - alpha) * 0.5 * (1 + math.cos(math.pi * min(n / length, 1))))


def line(n, a, b, length):
    return a + (b - a) * min(n / length, 1)


def warmed(n, steps, initial, target, after):
    return line(n, initial, target, steps) if n < steps else after(n - steps)


def cycle(n, first, t_mul):
    """Index, start and length of the cycle of step n, all exact."""
    if t_mul == 1:
        return n // first, Fraction(n // first * first), Fraction(first)
    index, start, length = 0, Fraction(0), Fraction(first)
    while n >= start + length:
        index, start, length = index + 1, start + length, length * t_mul
    return index, start, length


def restarts(n, peak, first, t_mul=Fraction(2), m_mul=1.0, alpha=0.0):
    i, start, length = cycle(n, first, t_mul)
    wave = 0.5 * (1 + math.cos(math.pi * float((n - start) / length)))
    return peak * (alpha + (1 - alpha) * m_mul**i * wave)


def interpolate(n, boundaries, values, weight):
    points = [0, *boundaries]
    for a, b, left, right in zip(points, points[1:], values, values[1:], strict=False):
        if n < b:
            return left + (right - left) * weight((n - a) / (b - a))
    return values[-1]


def half_cosine(x):
    return (1 - math.cos(math.pi * x)) / 2


def constant(n, boundaries, values):
    return values[sum(n > b for b in boundaries)]


# id: (schedule, reference, steps to look at with their neighbours)
TABLE = {
    "constant": (
        lambda: PiecewiseConstant([10, 20], [1.0, 0.5, 0.1]),
        lambda n: constant(n, [10, 20], [1.0, 0.5, 0.1]),
        [10, 20],
    ),
    "constant late": (
        lambda: PiecewiseConstant([0, LATE - 3, LATE], [0.2, 1.0, 0.5, 0.1]),
        lambda n: constant(n, [0, LATE - 3, LATE], [0.2, 1.0, 0.5, 0.1]),
        [0, LATE - 3, LATE],
    ),
    "interpolate": (
        lambda: PiecewiseInterpolate([10, 30, 100], [0.0, 0.3, 0.2, 0.02]),
        lambda n: interpolate(n, [10, 30, 100], [0.0, 0.3, 0.2, 0.02], lambda x: x),
        [10, 30, 100],
    ),
    "interpolate cosine": (
        lambda: PiecewiseInterpolate([10, LATE], [0.1, 0.3, 0.0], interpolation="cosine"),
        lambda n: interpolate(n, [10, LATE], [0.1, 0.3, 0.0], half_cosine),
        [10, LATE // 2, LATE],
    ),
    "cosine": (lambda: Cosine(0.1, 100), lambda n: cosine(n, 0.1, 100), [100]),
    "cosine warmup": (
        lambda: Cosine(0.01, 90, 0.1, warmup_target=0.3, warmup_steps=7),
        lambda n: warmed(n, 7, 0.01, 0.3, lambda n: cosine(n, 0.3, 90, 0.1)),
        [7, 97],
    ),
    "cosine warmup target alone": (
        lambda: Cosine(0.9, 90, warmup_target=0.3),
        lambda n: cosine(n, 0.3, 90),
        [90],
    ),
    "cosine late": (lambda: Cosine(3.0, LATE), lambda n: cosine(n, 3.0, LATE), [LATE // 3, LATE]),
    "restarts late": (
        lambda: CosineRestarts(0.1, 1000, alpha=0.1),
        lambda n: restarts(n, 0.1, 1000, alpha=0.1),
        [1000 * (2**k - 1) for k in range(1, 22)],
    ),
    "restarts 1.1": (
        lambda: CosineRestarts(0.1, 10, t_mul=1.1),
        lambda n: restarts(n, 0.1, 10, Fraction(11, 10)),
        [10, 21, 34, 47, 62, 78, 95, 115],
    ),
    "restarts 1.5 falling": (
        lambda: CosineRestarts(0.1, 7, 1.5, m_mul=0.7, alpha=0.2, warmup_steps=4),
        lambda n: warmed(
            n, 4, 0.0, 0.1, lambda n: restarts(n, 0.1, 7, Fraction(3, 2), m_mul=0.7, alpha=0.2)
        ),
        [4, 11, 22, 38, 61],
    ),
    "restarts of one length": (
        lambda: CosineRestarts(0.1, 3, t_mul=1, m_mul=0.999),
        lambda n: restarts(n, 0.1, 3, 1, m_mul=0.999),
        [3, 6, 300, 3000, 30000, LATE // 3 * 3],
    ),
    "linear": (
        lambda: Linear(0.3, 50, 0.01),
        lambda n: line(n, 0.3, 0.01, 50),
        [50],
    ),
    "linear rising late": (
        lambda: Linear(0.01, LATE - 1, 0.3),
        lambda n: line(n, 0.01, 0.3, LATE - 1),
        [LATE // 2, LATE - 1],
    ),
    "warmup of a number": (
        lambda: Warmup(0.1, 12, 0.02),
        lambda n: warmed(n, 12, 0.02, 0.1, lambda n: 0.1),
        [12],
    ),
    "warmup of a schedule": (
        lambda: Warmup(Cosine(0.1, 60), 12),
        lambda n: warmed(n, 12, 0.0, 0.1, lambda n: cosine(n, 0.1, 60)),
        [12, 72],
    ),
    "warmup of nothing": (
        lambda: Warmup(Linear(0.1, 60), 0, 0.9),
        lambda n: line(n, 0.1, 0, 60),
        [60],
    ),
    "warmup of a Keras schedule": (
        lambda: Warmup(keras.optimizers.schedules.PolynomialDecay(0.1, 60, 0.01), 12),
        lambda n: warmed(n, 12, 0.0, 0.1, lambda n: line(n, 0.1, 0.01, 60)),
        [12, 72],
    ),
    "join": (
        lambda: Join([Linear(0.3, 9, 0.1), 0.2, Cosine(0.25, 40, 0.1)], [9, LATE - 20]),
        lambda n: (
            line(n, 0.3, 0.1, 9)
            if n < 9
            else 0.2
            if n < LATE - 20
            else cosine(n - LATE + 20, 0.25, 40, 0.1)
        ),
        [9, LATE - 20, LATE + 20],
    ),
    "inverse square root": (
        InverseSquareRoot,
        lambda n: min(1e-2, 1 / math.sqrt(n + 1)),
        [9999, LATE],
    ),
    "inverse square root from 1": (
        lambda: InverseSquareRoot(3.0),
        lambda n: 1 / math.sqrt(n + 1),
        [LATE],
    ),
}
every_row = pytest.mark.parametrize("row", TABLE)


def steps_of(row):
    near = [b + d for b in [*TABLE[row][2], LATE] for d in (-1, 0, 1)]
    return np.array(sorted({*range(130), *(n for n in near if n >= 0)}), np.int64)


def expected(row, steps):
    return np.array([TABLE[row][1](int(n)) for n in steps])


# Values.


@every_row
def test_every_mode_equals_the_definition_in_float64(row):
    schedule, steps = TABLE[row][0](), steps_of(row)
    wanted = expected(row, steps)
    compiled = tf.function(schedule, jit_compile=True)
    for call in (schedule, tf.function(schedule), compiled):
        np.testing.assert_allclose(
            call(tf.constant(steps)), wanted, rtol=0, atol=1e-6 * wanted.max()
        )


def test_the_peak_is_the_largest_rate():
    for row in TABLE:
        schedule, steps = TABLE[row][0](), steps_of(row)
        assert isinstance(schedule.peak, float), row
        assert schedule.peak == pytest.approx(expected(row, steps).max(), rel=1e-12), row
        assert np.max(schedule(steps)) == np.float32(schedule.peak), row


def test_the_configuration_makes_the_same_schedule():
    for row in TABLE:
        schedule, steps = TABLE[row][0](), steps_of(row)
        config = keras.saving.serialize_keras_object(schedule)
        copy = keras.saving.deserialize_keras_object(config)
        assert type(copy) is type(schedule)
        assert copy.get_config() == schedule.get_config()
        assert copy.peak == schedule.peak
        np.testing.assert_array_equal(copy(steps), schedule(steps), err_msg=row)


@pytest.mark.parametrize(
    "row",
    [
        "constant",
        "interpolate",
        "cosine warmup",
        "restarts 1.1",
        "restarts of one length",
        "linear",
        "warmup of a schedule",
        "join",
        "inverse square root",
    ],
)
def test_fit_takes_the_rate_of_each_step(row):
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1, use_bias=False)])
    schedule = TABLE[row][0]()
    model.compile(keras.optimizers.SGD(schedule), loss=lambda y, p: p, jit_compile=False)
    before = float(model.weights[0].numpy().item())
    model.fit(np.ones([12, 1]), np.ones([12, 1]), batch_size=1, verbose=0)
    after = float(model.weights[0].numpy().item())
    assert before - after == pytest.approx(expected(row, range(12)).sum(), abs=1e-5)


@every_row
def test_steps_may_have_any_shape_and_integer_type(row):
    schedule = TABLE[row][0]()
    steps = np.arange(6).reshape(2, 3)
    wanted = expected(row, range(6)).reshape(2, 3)
    for given in (steps, tf.constant(steps, tf.int32), tf.Variable(steps), np.int32(5), 5):
        rates = schedule(given)
        assert rates.dtype == tf.float32 and rates.shape == np.shape(given)
        np.testing.assert_allclose(rates, wanted if rates.shape.rank else wanted[1, 2], atol=1e-6)
    counter = keras.Variable(5, dtype="int32")
    assert float(schedule(counter)) == pytest.approx(wanted[1, 2], abs=1e-6)


def test_a_python_step_may_be_larger_than_an_int32():
    assert float(PiecewiseConstant([LATE + 5], [1.0, 0.5])(LATE + 6)) == 0.5


def test_a_step_that_is_not_an_integer_is_an_error():
    with pytest.raises(TypeError, match="Cosine counts steps in integers"):
        Cosine(0.1, 10)(tf.constant(1.5))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            PiecewiseConstant([3, 8], [1.0, 0.5, 0.1]),
            keras.optimizers.schedules.PiecewiseConstantDecay([3, 8], [1.0, 0.5, 0.1]),
        ),
        (
            Cosine(0.02, 30, 0.1, warmup_target=0.2, warmup_steps=5),
            keras.optimizers.schedules.CosineDecay(
                0.02, 30, 0.1, warmup_target=0.2, warmup_steps=5
            ),
        ),
        (
            CosineRestarts(0.1, 8, 2.0, 0.5, 0.1),
            keras.optimizers.schedules.CosineDecayRestarts(0.1, 8, 2.0, 0.5, 0.1),
        ),
        (Linear(0.1, 20, 0.01), keras.optimizers.schedules.PolynomialDecay(0.1, 20, 0.01)),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_keras_gives_the_same_rates(ours, theirs):
    wanted = [float(theirs(n)) for n in range(50)]
    np.testing.assert_allclose(ours(np.arange(50)), wanted, rtol=0, atol=1e-7)


# Restarts.


def starts_of(first, t_mul):
    """The first step of every cycle but the first, up to step 2³¹."""
    starts, start, length = [], Fraction(first), first * t_mul
    while start < LATE:
        starts.append(math.ceil(start))
        start, length = start + length, length * t_mul
    return starts


@pytest.mark.parametrize(
    ("first", "t_mul", "start"),
    [(1000, "1.1", 2100), (1000, "2", 4_095_000), (1000, "3", 3_280_000), (7, "1.3", 17)],
)
def test_a_restart_falls_on_the_exact_step(first, t_mul, start):
    schedule = CosineRestarts(1.0, first, t_mul=float(t_mul))
    starts = starts_of(first, Fraction(t_mul))
    assert start in starts
    for mode in ({}, {"jit_compile": True}):
        rate, index = tf.function(schedule, **mode), tf.function(schedule.cycle_index, **mode)
        for n in (start - 1, start):
            assert float(rate(tf.constant(n, tf.int64))) == pytest.approx(
                restarts(n, 1.0, first, Fraction(t_mul)), abs=1e-6
            )
        np.testing.assert_array_equal(index(np.array(starts)), np.arange(len(starts)) + 1)
        np.testing.assert_array_equal(index(np.array(starts) - 1), np.arange(len(starts)))


def test_many_restarts_are_exact_too():
    starts = starts_of(1, Fraction("1.01"))
    index = CosineRestarts(1.0, 1, t_mul=1.01).cycle_index
    assert len(starts) > 1500
    np.testing.assert_array_equal(index(np.array(starts)), np.arange(len(starts)) + 1)


def test_a_whole_restart_begins_exactly_at_the_peak():
    for schedule in (CosineRestarts(0.1, 1000), CosineRestarts(0.1, 1000, t_mul=1)):
        for start in (0, 1000, LATE // 1000 * 1000 if schedule.t_mul == 1 else 1000 * (2**21 - 1)):
            assert schedule(start) == np.float32(0.1)


@pytest.mark.parametrize("t_mul", [1.0, 1.1, 2.0])
@pytest.mark.parametrize("warmup_steps", [0, 5])
def test_the_cycle_of_a_step_is_known_during_training(t_mul, warmup_steps):
    schedule = CosineRestarts(0.1, 10, t_mul=t_mul, warmup_steps=warmup_steps)
    steps = np.arange(200)
    cycles = [cycle(max(n - warmup_steps, 0), 10, Fraction(str(t_mul))) for n in steps.tolist()]
    index = tf.function(schedule.cycle_index, jit_compile=True)(steps)
    length = tf.function(schedule.cycle_length, jit_compile=True)(steps)
    assert (index.dtype, length.dtype) == (tf.int64, tf.float32)
    np.testing.assert_array_equal(index, [c[0] for c in cycles])
    np.testing.assert_allclose(length, [float(c[2]) for c in cycles], rtol=1e-7)


# Variables in the place of rates.

LIVE = {
    PiecewiseConstant: lambda v: PiecewiseConstant([4], [v, 0.001]),
    PiecewiseInterpolate: lambda v: PiecewiseInterpolate([4], [v, 0.0]),
    Cosine: lambda v: Cosine(v, 8),
    "warmup target": lambda v: Cosine(0.0, 8, warmup_target=v, warmup_steps=2),
    CosineRestarts: lambda v: CosineRestarts(v, 8),
    Linear: lambda v: Linear(v, 8),
    Warmup: lambda v: Warmup(v, 2),
    Join: lambda v: Join([0.0, Cosine(v, 8)], [2]),
    InverseSquareRoot: InverseSquareRoot,
}


@pytest.mark.parametrize("kind", LIVE)
def test_a_variable_rate_acts_at_once_and_without_a_retrace(kind):
    rate = keras.Variable(0.125) if kind in (Cosine, Join) else tf.Variable(0.125)
    schedule = LIVE[kind](rate)
    traced = tf.function(schedule)
    for value in (0.125, 0.25):
        rate.assign(value)
        wanted = LIVE[kind](value)(np.arange(8))
        for call in (schedule, traced):
            np.testing.assert_allclose(call(np.arange(8)), wanted)
        assert isinstance(schedule.peak, tf.Tensor)
        assert float(schedule.peak) == LIVE[kind](value).peak == value
    assert traced.experimental_get_tracing_count() == 1
    assert schedule.get_config() == LIVE[kind](0.25).get_config()


# Peaks of foreign schedules.


KERAS_PEAKS = [
    (keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9), 0.1),
    (keras.optimizers.schedules.InverseTimeDecay(0.1, 5, 2.0), 0.1),
    (keras.optimizers.schedules.PiecewiseConstantDecay([5], [0.1, 0.3]), 0.3),
    (keras.optimizers.schedules.PolynomialDecay(0.1, 5, 0.01), 0.1),
    (keras.optimizers.schedules.CosineDecay(0.0, 5, warmup_target=0.2, warmup_steps=3), 0.2),
    (keras.optimizers.schedules.CosineDecayRestarts(0.1, 5), 0.1),
]


def test_the_peak_of_a_keras_schedule_is_known():
    for schedule, peak in KERAS_PEAKS:
        assert Warmup(schedule, 3).peak == Join([schedule, 0.0], [3]).peak == peak


class Mine(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1


@pytest.mark.parametrize(
    "schedule",
    [
        Mine(),
        keras.optimizers.schedules.ExponentialDecay(0.1, 5, 1.1),
        keras.optimizers.schedules.CosineDecayRestarts(0.1, 5, m_mul=1.1),
    ],
)
def test_a_peak_that_is_not_known_is_an_error_only_when_asked_for(schedule):
    warmup = Warmup(Join([schedule, 0.0], [50]), 3)
    assert float(warmup(3)) == pytest.approx(0.1)
    with pytest.raises(AttributeError, match=f"{type(schedule).__name__} is not known: give it"):
        _ = warmup.peak


# Errors.


WRONG = [
    (lambda: Cosine(0.1, 0), ValueError, "`decay_steps` of Cosine must be a whole .* least 1"),
    (lambda: Cosine(0.1, 1.5), ValueError, "whole number of steps.*Received: 1.5"),
    (lambda: Cosine(0.1, "9"), TypeError, "`decay_steps` of Cosine must be a number.*'9'"),
    (lambda: Cosine(-0.1, 9), ValueError, "`initial_learning_rate` of Cosine .* at least 0"),
    (lambda: Cosine(math.nan, 9), ValueError, "at least 0. Received: nan"),
    (lambda: Cosine(True, 9), TypeError, "must be a number. Received: True"),
    (lambda: Cosine(None, 9), TypeError, "must be a number. Received: None"),
    (lambda: Cosine(Linear(0.1, 9), 9), TypeError, "must be a number. Received: Linear"),
    (lambda: Cosine(0.1, 9, alpha=2), ValueError, "`alpha` of Cosine .* between 0 and 1"),
    (lambda: Cosine(0.1, 9, warmup_steps=3), ValueError, "warms up to `warmup_target`: give"),
    (lambda: Cosine(tf.Variable(1), 9), ValueError, "scalar floating-point variable"),
    (lambda: Cosine(tf.Variable([1.0]), 9), ValueError, "scalar floating-point variable"),
    (lambda: Cosine(1e39, 9), ValueError, "`initial_learning_rate` of Cosine .* in float32"),
    (lambda: Cosine(10**400, 9), ValueError, "`initial_learning_rate` of Cosine .* in float32"),
    (lambda: Cosine(0.1, 10**20), ValueError, "whole number of steps.* Received: 1000"),
    (lambda: Cosine(0.1, np.array(9)), TypeError, "`decay_steps` of Cosine must be a number"),
    (lambda: Linear(10**400, 3), ValueError, "`initial_learning_rate` of Linear .* in float32"),
    (lambda: Linear(0.1, math.inf), ValueError, "whole number of steps.*Received: inf"),
    (lambda: CosineRestarts(0.1, 9, t_mul=0.9), ValueError, "`t_mul` .* at least 1: shrink"),
    (lambda: CosineRestarts(0.1, 9, m_mul=0), ValueError, r"`m_mul` .* in \(0, 1\]"),
    (lambda: CosineRestarts(0.1, 9, m_mul=1.1), ValueError, "growing cycles have no peak"),
    (lambda: CosineRestarts(0.1, 1, 1.000001), ValueError, "too many to list. Use t_mul=1"),
    (lambda: Linear(0.1, -3), ValueError, "`decay_steps` of Linear .* Received: -3"),
    (lambda: Warmup(0.1, -1), ValueError, "`warmup_steps` of Warmup .* at least 0"),
    (lambda: Warmup("cosine", 1), TypeError, "`learning_rate` of Warmup .* 'cosine'"),
    (lambda: Join([0.1, 0.2], [3, 5]), ValueError, "2 schedules and 2 boundaries"),
    (lambda: Join([0.1, "x"], [3]), TypeError, r"`schedules\[1\]` of Join|\[1\].*'x'"),
    (lambda: Join([0.1, 0.2], [0]), ValueError, "at least 1. Received: 0"),
    (lambda: PiecewiseConstant([5], [0.1]), ValueError, "one more of `values` than"),
    (lambda: PiecewiseConstant([5, 5], [1, 2, 3]), ValueError, "increasing steps"),
    (lambda: PiecewiseConstant([5, 4], [1, 2, 3]), ValueError, "increasing steps"),
    (lambda: PiecewiseConstant([], [1]), ValueError, "one or more increasing steps"),
    (lambda: PiecewiseConstant(5, [1, 2]), TypeError, "must be a list. Received: 5"),
    (
        lambda: PiecewiseInterpolate([5], [0.1, 0.2], "cubic"),
        ValueError,
        "must be one of .'linear', 'cosine'.. Received: 'cubic'",
    ),
]


def test_a_wrong_argument_is_named():
    for make, error, words in WRONG:
        with pytest.raises(error, match=words):
            make()
