"""Prodigy: one estimate for the whole model, free of the gradients' scale."""

import math

import numpy as np
import pytest
import references
import tensorflow as tf
from pure import as_float32, assert_vectorizes, ended, last, steps

from tf_decoupled.optimizers.prodigy import Prodigy

SHAPES = [(3, 4), (5,), (), (2, 3, 2)]
FLOAT32 = {name: as_float32(getattr(Prodigy, name)) for name in ("beta_1", "beta_2", "epsilon")}
EXACT = dict(beta_1=0.875, beta_2=0.984375, epsilon=2.0**-20)  # in float32, too
VARIANTS = [
    dict(),
    dict(d0=1e-3, d_coef=2.0),
    dict(growth_rate=1.0625, d0=1e-2),
    dict(use_bias_correction=True),
    dict(safeguard_warmup=True),
]


def starts(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in SHAPES]


def downhill(seed=1, count=40):
    """Gradients that mostly agree, so that d grows."""
    rng = np.random.default_rng(seed)
    mean = [rng.normal(size=shape) for shape in SHAPES]
    return [[m + 0.5 * rng.normal(size=m.shape) for m in mean] for _ in range(count)]


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


def path(rule, *args, **kwargs):
    return [flat(now.values) for now in steps(rule, *args, **kwargs)]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("coupling", ["learning_rate", "schedule", "independent", "corrected"])
def test_forty_steps_of_several_variables_equal_the_paper_for_all_of_them_as_one(options, coupling):
    grads, found = downhill(), []
    run = dict(learning_rate=0.5, weight_decay=0.25)
    rule = Prodigy(**run, decay_coupling=coupling, **EXACT, **options)
    now = ended(rule, starts(), grads, tf.float64)
    theirs = references.prodigy(
        flat(starts()),
        [flat(gs) for gs in grads],
        **(run | EXACT | options),
        coupling=coupling,
        found=found,
    )
    assert found[-1] > 2 * found[0]
    np.testing.assert_allclose(flat(now.values), theirs, rtol=1e-10)
    np.testing.assert_allclose(now.shared["d"], found[-1], rtol=1e-10)


def test_float32_follows_the_paper():
    """A d0 of 1e-6 moves weights by a few of float32's steps only: they tell d to 1 %."""
    grads, run = downhill(count=20), dict(learning_rate=0.5, d0=0.01)
    ours = last(Prodigy(**run), starts(), grads, tf.float32)
    theirs = references.prodigy(flat(starts()), [flat(gs) for gs in grads], **run, **FLOAT32)
    np.testing.assert_allclose(flat(ours.values), theirs, rtol=1e-4, atol=1e-5)
    assert np.abs(flat(starts()) - theirs).min() > 0.1


def test_the_first_step_has_the_length_of_the_start():
    gs = downhill(count=1)
    for use, length in ((True, 1.0), (False, 0.1 / math.sqrt(0.001))):
        (moved,) = path(Prodigy(use_bias_correction=use), starts(), gs)
        wanted = -length * 1e-6 * np.sign(flat(gs[0]))
        np.testing.assert_allclose(moved - flat(starts()), wanted, rtol=1e-4)


def test_two_variables_are_as_good_as_one():
    grads = downhill()
    together = path(Prodigy(), [flat(starts())], [[flat(gs)] for gs in grads])
    np.testing.assert_allclose(path(Prodigy(), starts(), grads), together, rtol=1e-9)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_the_scale_of_gradients_does_not_matter(options):
    rule, grads = Prodigy(**(options | dict(epsilon=0.0))), downhill()
    as_is = ended(rule, starts(), grads, tf.float64)
    for c in (1e-6, 1e6):
        scaled = ended(rule, starts(), [[c * g for g in gs] for gs in grads], tf.float64)
        np.testing.assert_allclose(flat(scaled.values), flat(as_is.values), rtol=1e-7)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_the_estimate_never_falls_and_grows_no_faster_than_allowed(options):
    rng = np.random.default_rng(2)
    rough = [[rng.normal(size=shape) for shape in SHAPES] for _ in range(20)]
    rule = Prodigy(**options)
    found = [float(now.shared["d"]) for now in steps(rule, starts(), downhill() + rough)]
    ratios = np.divide(found[1:], found[:-1])
    assert ratios.min() >= 1 and ratios.max() > 1
    limited = np.array(found[:-1]) > 1.5 * rule.d0
    assert ratios[limited].max() <= options.get("growth_rate", math.inf) * (1 + 1e-9)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_the_first_growth_is_free_whatever_the_growth_rate(dtype):
    rule = Prodigy(growth_rate=1.0)
    found = [float(now.shared["d"]) for now in steps(rule, starts(), downhill(), dtype)]
    assert found[0] == pytest.approx(1e-6) and found[-1] > 1.05e-6
    assert len(set(found)) == 2


def test_gradients_of_zero_move_nothing_and_leave_no_nan():
    zero = [[np.zeros(shape) for shape in SHAPES]] * 3
    for dtype in (tf.float32, tf.float64):
        now = last(Prodigy(), starts(), zero, dtype)
        np.testing.assert_array_equal(flat(now.values), flat(starts()).astype(dtype.name))
        assert float(now.shared["d"]) == as_float32(1e-6) or dtype == tf.float64
        after = last(Prodigy(), starts(), zero + downhill(), dtype)
        assert np.all(np.isfinite(flat(after.values)))


def test_a_rate_of_zero_stands_still():
    now = last(Prodigy(learning_rate=0.0), starts(), downhill(count=5))
    np.testing.assert_array_equal(flat(now.values), flat(starts()))
    assert float(now.shared["d"]) == 1e-6


def test_where_each_variable_started_is_kept():
    now = last(Prodigy(), starts(), downhill())
    for slots, start in zip(now.slots, starts(), strict=True):
        np.testing.assert_array_equal(slots["start"], start)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_vectorized_stack_is_its_variables_one_by_one(compiled):
    rng = np.random.default_rng(3)
    p, g = (tf.constant(rng.normal(size=[3, 4, 6]), tf.float32) for _ in range(2))
    assert_vectorizes(Prodigy(use_bias_correction=True), p, g, compiled)


@pytest.mark.parametrize(
    "options, error, words",
    [
        (dict(d0=0.0), ValueError, "`d0` must be a finite number > 0, and is never changed"),
        (dict(d0="small"), TypeError, "no schedule, callable or variable"),
        (dict(growth_rate=0.5), ValueError, "`growth_rate` must be a number >= 1"),
        (dict(d_coef=0), ValueError, "`d_coef` must be a number > 0"),
        (dict(safeguard_warmup=1), TypeError, "must be True or False"),
    ],
)
def test_wrong_arguments_are_told(options, error, words):
    with pytest.raises(error, match=words):
        Prodigy(**options)
