"""Schedules: each equals its definition in float64, at every step, however it is called."""

import itertools
import math
from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_decoupled.schedules import (
    REX,
    SGDR,
    Cosine,
    CosineRestarts,
    Cyclical,
    Exponential,
    InverseSquareRoot,
    InverseTime,
    Join,
    Linear,
    OneCycle,
    PiecewiseConstant,
    PiecewiseInterpolate,
    Plateau,
    Polynomial,
    Warmup,
    WarmupStableDecay,
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


def power(n, a, b, length, p, cycle=False):
    length *= max(1, math.ceil(Fraction(n, length))) if cycle else 1
    return b + (a - b) * (1 - min(n, length) / length) ** p


def quotient(n, length, staircase):
    return n // length if staircase else n / length


def exponential(n, a, length, rate, staircase=False):
    return a * rate ** quotient(n, length, staircase)


def inverse_time(n, a, length, rate, staircase=False):
    return a / (1 + rate * quotient(n, length, staircase))


def rex(n, a, b, length):
    z = min(n / length, 1)
    return b + (a - b) * (1 - z) / (0.5 + 0.5 * (1 - z))


def one_cycle(n, peak, total, pct="0.3", div=25, final_div=1e4, linear=False, three_phase=False):
    """As in PyTorch: from one point to the next, in float64."""
    first, turn, end = peak / div, float(Fraction(pct) * total - 1), total - 1
    points = [(0, first), (turn, peak)]
    points += [(2 * turn, first)] * three_phase + [(end, first / final_div)]
    for (a, left), (b, right) in itertools.pairwise(points):
        if n <= b:
            q = (n - a) / (b - a)
            line = left + (right - left) * q
            return line if linear else right + (left - right) / 2 * (1 + math.cos(math.pi * q))
    return first / final_div


COOLDOWNS = {
    "linear": lambda q: 1 - q,
    "1-sqrt": lambda q: 1 - math.sqrt(q),
    "1-square": lambda q: 1 - q**2,
    "cosine": lambda q: (1 + math.cos(math.pi * q)) / 2,
}


def stable(n, peak, warmup, steps, length, cooldown, alpha=0.0, initial=0.0):
    if n < warmup:
        return line(n, initial, peak, warmup)
    q = min(max(n - warmup - steps, 0) / length, 1)
    return peak * (alpha + (1 - alpha) * COOLDOWNS[cooldown](q))


def cyclical(n, low, high, size, scale=lambda c, n: 1):
    cycle = 1 + n // (2 * size)
    x = abs(Fraction(n, size) - 2 * cycle + 1)
    return low + (high - low) * float(max(0, 1 - x)) * scale(cycle, n)


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
    "polynomial": (
        lambda: Polynomial(0.3, 50, 0.01, power=2.5),
        lambda n: power(n, 0.3, 0.01, 50, 2.5),
        [50],
    ),
    "polynomial of a root, late": (
        lambda: Polynomial(0.3, LATE - 1, power=0.5),
        lambda n: power(n, 0.3, 0.0, LATE - 1, 0.5),
        [LATE // 2, LATE - 1],
    ),
    "polynomial in cycles": (
        lambda: Polynomial(0.3, 40, 0.01, cycle=True),
        lambda n: power(n, 0.3, 0.01, 40, 1, cycle=True),
        [40, 80, 4000, LATE // 40 * 40],
    ),
    "exponential": (
        lambda: Exponential(0.3, 30, 0.5),
        lambda n: exponential(n, 0.3, 30, 0.5),
        [30, 60, 600],
    ),
    "exponential late": (
        lambda: Exponential(0.3, LATE // 2, 0.1),
        lambda n: exponential(n, 0.3, LATE // 2, 0.1),
        [LATE // 2, LATE],
    ),
    "exponential staircase": (
        lambda: Exponential(0.3, LATE // 2 - 5, 0.5, staircase=True),
        lambda n: exponential(n, 0.3, LATE // 2 - 5, 0.5, staircase=True),
        [LATE // 2 - 5, LATE - 10],
    ),
    "inverse time": (
        lambda: InverseTime(0.3, 30, 2.0),
        lambda n: inverse_time(n, 0.3, 30, 2.0),
        [30, 3000],
    ),
    "inverse time staircase": (
        lambda: InverseTime(0.3, 7, 0.5, staircase=True),
        lambda n: inverse_time(n, 0.3, 7, 0.5, staircase=True),
        [7, 70, 700, LATE // 7 * 7],
    ),
    "rex": (lambda: REX(0.3, 50, 0.01), lambda n: rex(n, 0.3, 0.01, 50), [25, 50]),
    "rex late": (lambda: REX(0.3, LATE), lambda n: rex(n, 0.3, 0.0, LATE), [LATE // 2]),
    "one cycle": (lambda: OneCycle(0.3, 100), lambda n: one_cycle(n, 0.3, 100), [29, 99]),
    "one cycle that turns between steps": (
        lambda: OneCycle(0.3, 55, 0.31, 10.0, 100.0),
        lambda n: one_cycle(n, 0.3, 55, "0.31", 10, 100),
        [16, 54],
    ),
    "one cycle linear, late": (
        lambda: OneCycle(0.3, LATE - 8, 0.25, interpolation="linear"),
        lambda n: one_cycle(n, 0.3, LATE - 8, "0.25", linear=True),
        [LATE // 4 - 3, LATE - 9],
    ),
    "one cycle of three phases": (
        lambda: OneCycle(0.3, 110, 0.33, 5.0, 10.0, three_phase=True),
        lambda n: one_cycle(n, 0.3, 110, "0.33", 5, 10, three_phase=True),
        [35, 36, 70, 71, 109],
    ),
    "one cycle of three phases, linear, late": (
        lambda: OneCycle(0.3, LATE, 0.375, 4.0, 8.0, "linear", True),
        lambda n: one_cycle(n, 0.3, LATE, "0.375", 4, 8, linear=True, three_phase=True),
        [3 * LATE // 8 - 1, 6 * LATE // 8 - 2, LATE - 1],
    ),
    "momentum of one cycle": (
        lambda: OneCycle(0.3, 100).momentum(0.8, 0.9),
        lambda n: one_cycle(n, 0.8, 100, "0.3", 0.8 / 0.9, 1),
        [29, 99],
    ),
    "warm-up, stable, decay": (
        lambda: WarmupStableDecay(0.3, 10, 40, 20),
        lambda n: stable(n, 0.3, 10, 40, 20, "1-sqrt"),
        [10, 50, 70],
    ),
    "linear cooldown": (
        lambda: WarmupStableDecay(0.3, 10, 40, 20, "linear", 0.1, 0.05),
        lambda n: stable(n, 0.3, 10, 40, 20, "linear", 0.1, 0.05),
        [10, 50, 70],
    ),
    "square cooldown": (
        lambda: WarmupStableDecay(0.3, 0, 40, 20, "1-square", 0.1),
        lambda n: stable(n, 0.3, 0, 40, 20, "1-square", 0.1),
        [40, 60],
    ),
    "cosine cooldown": (
        lambda: WarmupStableDecay(0.3, 5, 0, 20, "cosine", 0.1),
        lambda n: stable(n, 0.3, 5, 0, 20, "cosine", 0.1),
        [5, 25],
    ),
    "long cooldown": (
        lambda: WarmupStableDecay(0.3, 5, 2, LATE - 7),
        lambda n: stable(n, 0.3, 5, 2, LATE - 7, "1-sqrt"),
        [5, 7, LATE // 2],
    ),
    "plateau that is not reached": (
        lambda: Plateau(Linear(0.3, 50, 0.01), patience=3),
        lambda n: line(n, 0.3, 0.01, 50),
        [50],
    ),
    "triangular": (
        lambda: Cyclical(0.01, 0.3, 12),
        lambda n: cyclical(n, 0.01, 0.3, 12),
        [12, 24, 36, LATE // 24 * 24],
    ),
    "triangular, high first, late": (
        lambda: Cyclical(0.95, 0.85, LATE // 2 - 3),
        lambda n: cyclical(n, 0.95, 0.85, LATE // 2 - 3),
        [LATE // 2 - 3, LATE - 6],
    ),
    "triangular2": (
        lambda: Cyclical(0.01, 0.3, 5, "triangular2"),
        lambda n: cyclical(n, 0.01, 0.3, 5, lambda c, n: 2.0 ** (1 - c)),
        [5, 15, 25],
    ),
    "exp_range": (
        lambda: Cyclical(0.01, 0.3, 12, "exp_range", 0.99),
        lambda n: cyclical(n, 0.01, 0.3, 12, lambda c, n: 0.99**n),
        [12, 24, 36],
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


# Whose peak lies between two steps, or is only approached.
UNREACHED = ("one cycle that turns between steps", "one cycle of three phases", "exp_range")


def test_the_peak_is_the_largest_rate():
    for row in TABLE:
        schedule, steps = TABLE[row][0](), steps_of(row)
        assert isinstance(schedule.peak, float), row
        if row in UNREACHED:
            assert 0.85 * schedule.peak < expected(row, steps).max() < schedule.peak, row
            continue
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
        (
            Polynomial(0.1, 9, 0.01, 2.0, cycle=True),
            keras.optimizers.schedules.PolynomialDecay(0.1, 9, 0.01, 2.0, cycle=True),
        ),
        (Exponential(0.1, 7, 0.9), keras.optimizers.schedules.ExponentialDecay(0.1, 7, 0.9)),
        (
            Exponential(0.1, 7, 0.9, staircase=True),
            keras.optimizers.schedules.ExponentialDecay(0.1, 7, 0.9, staircase=True),
        ),
        (InverseTime(0.1, 7, 0.5), keras.optimizers.schedules.InverseTimeDecay(0.1, 7, 0.5)),
        (
            InverseTime(0.1, 7, 0.5, staircase=True),
            keras.optimizers.schedules.InverseTimeDecay(0.1, 7, 0.5, staircase=True),
        ),
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


# Cycles.


def test_sgdr_is_the_papers_name():
    assert SGDR is CosineRestarts


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("interpolation", ["cosine", "linear"])
def test_one_cycle_begins_turns_and_ends_exactly(interpolation, three_phase):
    schedule = OneCycle(0.3, 100, interpolation=interpolation, three_phase=three_phase)
    first, last = np.float32(0.3 / 25), np.float32(0.3 / 25 / 1e4)
    assert schedule(0) == first and schedule(29) == np.float32(0.3)
    assert schedule(98) > last and schedule(99) == schedule(100) == schedule(LATE) == last
    assert three_phase == (schedule(58) == first)
    momentum = schedule.momentum(0.5, 0.75)
    rates = momentum([0, 29, 58 if three_phase else 99, 99, LATE])
    np.testing.assert_array_equal(rates, [0.75, 0.5, 0.75, 0.75, 0.75])


def test_a_cycle_begins_exactly_at_its_lowest_rate():
    for schedule in (Cyclical(0.25, 0.5, 7), Cyclical(0.25, 0.5, 7, "triangular2")):
        assert schedule(LATE // 14 * 14) == 0.25 and schedule(7) == 0.5


def test_a_cooldown_begins_after_its_last_stable_step_and_ends_exactly():
    for cooldown in COOLDOWNS:
        schedule = WarmupStableDecay(0.3, 10, 40, 20, cooldown, alpha=0.5)
        np.testing.assert_array_equal(schedule([10, 49, 50]), np.float32([0.3] * 3))
        assert schedule(51) < np.float32(0.3) and schedule(69) > np.float32(0.15)
        assert schedule(70) == schedule(LATE) == np.float32(0.3) * np.float32(0.5)


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
    Plateau: lambda v: Plateau(Join([0.0, v], [2])),
    Polynomial: lambda v: Polynomial(v, 8, power=2),
    Exponential: lambda v: Exponential(v, 8, 0.5),
    InverseTime: lambda v: InverseTime(v, 8, 0.5),
    REX: lambda v: REX(v, 8),
    OneCycle: lambda v: OneCycle(v, 10),
    WarmupStableDecay: lambda v: WarmupStableDecay(v, 2, 2, 4),
    Cyclical: lambda v: Cyclical(0.001, v, 4),
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
            np.testing.assert_allclose(call(np.arange(8)), wanted, rtol=3e-7)
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
    (lambda: Exponential(0.1, 9, 1.1), ValueError, "a growing rate has no peak"),
    (lambda: Exponential(0.1, 9, 0), ValueError, "`decay_rate` of Exponential"),
    (lambda: Exponential(0.1, 9, 0.5, staircase=1), TypeError, "must be True or False"),
    (lambda: InverseTime(0.1, 9, -1), ValueError, "`decay_rate` of InverseTime"),
    (lambda: Polynomial(0.1, 9, power=0), ValueError, "`power` of Polynomial must be above 0"),
    (lambda: OneCycle(0.1, 3), ValueError, "more `total_steps`.*total_steps=3"),
    (lambda: OneCycle(0.1, 30, 0.6, three_phase=True), ValueError, "three_phase=True"),
    (lambda: OneCycle(0.1, 30, 1.0), ValueError, r"`pct_start` of OneCycle must be in \(0, 1\)"),
    (lambda: OneCycle(0.1, 30, interpolation="cos"), ValueError, "must be one of .'cosine'"),
    (lambda: WarmupStableDecay(0.1, 3, 3, 3, "sqrt"), ValueError, "'1-sqrt'.*Received: 'sqrt'"),
    (lambda: Cyclical(0.1, 0.2, 5, gamma=0.9), ValueError, "`gamma` of Cyclical is for mode="),
    (lambda: Cyclical(0.1, 0.2, 0), ValueError, "`step_size` of Cyclical"),
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
