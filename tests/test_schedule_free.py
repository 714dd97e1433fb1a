"""ScheduleFree: what it evaluates is the weighted mean of all z, and it trains beside it."""

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from pure import assert_vectorizes, ended, last, namespace, steps

import tf_decoupled as td
from tf_decoupled.optimizers.prodigy import Prodigy
from tf_decoupled.wrappers.schedule_free import ScheduleFree

SHAPES = [(3, 4), (5,), ()]
ADAM = dict(beta_2=0.984375, epsilon=2.0**-20)  # exact in float32
INNER = {
    "SGD": (lambda rate, λ: td.SGDW(rate, λ, momentum=0.0), {}),
    "AdamW": (
        lambda rate, λ: td.AdamW(rate, λ, beta_1=0.0, **ADAM),
        dict(inner=references.adamw, beta_1=0.0, **ADAM),
    ),
}
OPTIONS = [dict(), dict(beta=0.5), dict(weight_power=1.0), dict(weight_power=0.0, r=2.0)]


# A warm-up from 0, a rate that stays, and a lower one, all exact in float32.
WARMED = td.schedules.PiecewiseConstant(
    [1, 2, 3, 4, 5, 20], [0.0, 0.0625, 0.125, 0.1875, 0.25, 0.25, 0.125]
)


def starts(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in SHAPES]


def gradients(seed=1, count=30):
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=shape) for shape in SHAPES] for _ in range(count)]


def by_hand(rate, count, start, grads, **options):
    """The reference's y, and its z, x and weight of each step."""
    rates = [float(rate(t)) if callable(rate) else rate for t in range(count)]
    sequences = []
    y = references.schedule_free(
        start, grads, learning_rate=rates, weight_decay=0.125, sequences=sequences, **options
    )
    return y, *map(np.array, zip(*sequences, strict=True))


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("rate", [0.25, WARMED], ids=["constant", "warmed"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_thirty_steps_equal_the_paper(inner, rate, options):
    make, inside = INNER[inner]
    rule, grads = ScheduleFree(make(rate, 0.125), **options), gradients()
    now = ended(rule, starts(), grads, tf.float64)
    beta = options.get("beta", 0.9)
    for i, start in enumerate(starts()):
        column = [gs[i] for gs in grads]
        y, z, x, _ = by_hand(rate, 30, start, column, **inside, **(options | dict(beta=beta)))
        slots = namespace(now.slots[i])
        np.testing.assert_allclose(now.values[i], y, rtol=1e-9)
        np.testing.assert_allclose(slots.z, z[-1], rtol=1e-9)
        np.testing.assert_allclose(rule.evaluation(now.values[i], slots, now.h), x[-1], rtol=1e-9)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_is_evaluated_is_the_weighted_mean_of_all_z(options):
    rule = ScheduleFree(td.SGDW(WARMED, momentum=0.0), **options)
    path = list(steps(rule, starts(), gradients()))
    rates = np.maximum.accumulate([float(WARMED(t)) for t in range(30)])
    times = np.arange(1, 31)
    weights = times ** options.get("r", 0.0) * rates ** options.get("weight_power", 2.0)
    for i in range(len(SHAPES)):
        z = np.array([now.slots[i]["z"] for now in path])
        mean = np.average(z, axis=0, weights=weights)
        x = rule.evaluation(path[-1].values[i], namespace(path[-1].slots[i]), path[-1].h)
        np.testing.assert_allclose(x, mean, rtol=1e-9)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_a_rate_that_stays_gives_all_steps_the_same_weight(dtype):
    rule = ScheduleFree(td.SGDW(0.1, momentum=0.0))
    for t, now in enumerate(steps(rule, starts(), gradients(), dtype), 1):
        for slots in map(namespace, now.slots):
            c, _ = rule.share(slots, now.h)  # of the step after t of them
            np.testing.assert_allclose(c, 1 / (t + 1), rtol=2e-7)


def test_the_weight_of_the_millionth_step_is_right_in_float32():
    rule, w = ScheduleFree(td.SGDW(1e-3, momentum=0.0)), tf.constant(1e-3) ** 2.0
    s = namespace(dict(mean_weight=w, steps=tf.constant(1e6 - 1)))
    assert float(rule.share(s, namespace(dict(w=w)))[0]) == pytest.approx(1e-6, rel=1e-6)


def test_the_first_step_goes_all_the_way_and_steps_of_rate_0_stand_still():
    rule, grads = ScheduleFree(td.SGDW(WARMED, weight_decay=0.0, momentum=0.0)), gradients(count=3)
    path = list(steps(rule, starts(), grads))
    standing = [np.array_equal(p, start) for p, start in zip(path[0].values, starts(), strict=True)]
    assert all(standing) and float(path[0].h.w) == 0.0
    moving = next(now for now in path if float(now.h.inner.learning_rate))
    for p, slots in zip(moving.values, moving.slots, strict=True):
        np.testing.assert_allclose(p, slots["z"], rtol=1e-12)  # x = z, and so is y


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("beta", [0.1, 0.9, 0.98])
def test_evaluation_and_back_is_the_same_but_for_rounding(beta, dtype):
    rule = ScheduleFree(td.AdamW(0.1, beta_1=0.0), beta=beta)
    now = last(rule, starts(), gradients(), dtype)
    for y, slots in zip(now.values, map(namespace, now.slots), strict=True):
        x = rule.evaluation(y, slots, now.h)
        assert np.abs(x - y).max() > 1e-3
        back = rule.training(x, slots, now.h)
        np.testing.assert_allclose(back, y, atol=4 * np.finfo(dtype.name).eps)


def test_float32_is_as_good_as_its_rounding():
    rule, grads = ScheduleFree(td.SGDW(0.25, 0.125, momentum=0.0)), gradients()
    ours = last(rule, starts(), grads, tf.float32).values
    for i, start in enumerate(starts()):
        y, *_ = by_hand(0.25, 30, start, [gs[i] for gs in grads])
        np.testing.assert_allclose(ours[i], y, rtol=1e-5, atol=2e-6)


def test_a_rule_with_shared_scalars_may_be_inside():
    now = last(ScheduleFree(Prodigy()), starts(), gradients())
    alone = last(Prodigy(), starts(), gradients(count=1))
    assert float(now.shared["inner"]["d"]) >= float(alone.shared["d"])
    assert all(np.all(np.isfinite(p)) for p in now.values)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_vectorized_stack_is_its_variables_one_by_one(compiled):
    rng = np.random.default_rng(3)
    p, g = (tf.constant(rng.normal(size=[3, 4, 6]), tf.float32) for _ in range(2))
    assert_vectorizes(ScheduleFree(td.AdamW(0.1, beta_1=0.0)), p, g, compiled)


@pytest.mark.parametrize(
    "options, error, words",
    [
        (dict(beta=0), ValueError, r"`beta` must be a number in \(0, 1\).*beta=0"),
        (dict(beta=1.0), ValueError, r"`beta` must be a number in \(0, 1\)"),
        (dict(beta=WARMED), TypeError, "no schedule, callable or variable"),
        (dict(weight_power=-1), ValueError, "`weight_power` must be a finite number >= 0"),
    ],
)
def test_wrong_arguments_are_told(options, error, words):
    with pytest.raises(error, match=words):
        ScheduleFree(td.SGDW(0.1), **options)


def test_beta_cant_change_after_construction():
    with pytest.raises(AttributeError, match="fixed at construction"):
        ScheduleFree(td.SGDW(0.1)).beta = 0.5


def test_a_variable_that_comes_late_is_averaged_over_its_own_steps():
    def end(late):
        optimizer = ScheduleFree(td.SGDW(0.1, 0.0, momentum=0.0, jit_compile=False))
        other, v = (keras.Variable([0.0], name=name) for name in ("other", "v"))
        for _ in range(50 * late):
            optimizer.apply([tf.ones(1)], [other])
        optimizer.add_variables([v])
        for _ in range(20):
            optimizer.apply([tf.ones(1)], [v])
        optimizer.finalize_variable_values([v])
        return v.numpy()

    np.testing.assert_allclose(end(late=True), end(late=False), rtol=1e-5)
