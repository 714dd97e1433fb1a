"""D-Adaptation, DoG, DoWG and COCOB: what a method that finds its own rate must hold to."""

import math

import numpy as np
import pytest
import references
import tensorflow as tf
from cases import told
from pure import descend, last, namespace, onward, steps, train_long

import tf_decoupled as td

SHAPES = [(3, 4), (5,), (), (2, 3, 2)]
EXACT = dict(beta_1=0.875, beta_2=0.984375)  # in float32, too
LAYERWISE = dict(layerwise=True)
SUMMING = [
    (td.DAdaptAdamW, EXACT, references.dadapt_adamw),
    (td.DAdaptAdamW, dict(use_bias_correction=True, d0=1e-3, **EXACT), references.dadapt_adamw),
    (td.DAdaptAdamW, dict(growth_rate=1.0625, d0=1e-2, **EXACT), references.dadapt_adamw),
    (td.DoG, dict(reps_rel=1e-3), references.dog),
    (td.DoWG, {}, references.dowg),
]
ALL = [*((rule, options) for rule, options, _ in SUMMING), (td.DoG, LAYERWISE), (td.COCOB, {})]

summing = pytest.mark.parametrize("rule, options, reference", SUMMING, ids=told)
every = pytest.mark.parametrize("rule, options", ALL, ids=told)


def starts(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in SHAPES]


def downhill(seed=1, count=40):
    """Gradients that mostly agree, so that estimates grow."""
    rng = np.random.default_rng(seed)
    mean = [rng.normal(size=shape) for shape in SHAPES]
    return [[m + 0.5 * rng.normal(size=m.shape) for m in mean] for _ in range(count)]


def rough(seed=2, count=20):
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=shape) for shape in SHAPES] for _ in range(count)]


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


def end(rule, *args, dtype=tf.float64):
    return flat(train_long(rule, *args, dtype))


def numbers(rule, options):
    """The live ones, as float32 holds them, for a reference."""
    given = rule(**options)
    return {
        n: np.asarray(getattr(given, n)).item() for n in ("epsilon", "alpha") if hasattr(rule, n)
    }


@summing
def test_forty_steps_of_several_variables_equal_the_paper_for_all_of_them_as_one(
    rule, options, reference
):
    run, grads = dict(learning_rate=0.5, weight_decay=0.25), downhill()
    coupled = dict(coupling="independent")
    ours = end(rule(**run, **options, decay_coupling="independent"), starts(), grads)
    given = {n: v for n, v in options.items() if n != "epsilon"} | numbers(rule, options)
    theirs = reference(flat(starts()), [flat(gs) for gs in grads], **run, **given, **coupled)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@summing
def test_two_variables_are_as_good_as_one(rule, options, reference):
    grads = downhill()
    together = end(rule(**options), [flat(starts())], [[flat(gs)] for gs in grads])
    np.testing.assert_allclose(end(rule(**options), starts(), grads), together, rtol=1e-9)


def test_with_norms_of_its_own_a_variable_doesn_t_see_the_others():
    rule, grads = td.DoG(**LAYERWISE), downhill()
    together = train_long(rule, starts(), grads, tf.float64)
    for i, start in enumerate(starts()):
        alone = end(rule, [start], [[gs[i]] for gs in grads])
        np.testing.assert_allclose(np.ravel(together[i]), alone, rtol=1e-12)
    assert np.any(flat(together) != end(td.DoG(), starts(), grads))


FIRST = [
    (td.DAdaptAdamW, {}, lambda g, start: 1e-6 * 0.1 / math.sqrt(0.001) * np.sign(g)),
    (td.DAdaptAdamW, dict(use_bias_correction=True), lambda g, start: 1e-6 * np.sign(g)),
    (td.DoG, {}, lambda g, start: 1e-6 * (1 + length(start)) * g / length(g)),
    (td.DoWG, dict(epsilon=0.0), lambda g, start: 1e-2 * g / length(g)),
    (td.COCOB, {}, lambda g, start: np.sign(g) / 100),
]


def length(x):
    return np.sqrt(np.sum(x**2))


@pytest.mark.parametrize("rule, options, step", FIRST, ids=told)
def test_the_first_step_is_the_one_worked_out_by_hand(rule, options, step):
    g = downhill(count=1)
    moved = flat(last(rule(**options), starts(), g).values)
    wanted = step(flat(g[0]), flat(starts()))
    np.testing.assert_allclose(flat(starts()) - moved, wanted, rtol=1e-4)


@every
def test_the_scale_of_gradients_does_not_matter(rule, options):
    zero = dict(epsilon=1e-30 if rule is td.COCOB else 0.0)
    rule, grads = rule(**(options | zero)), downhill()
    expected = end(rule, starts(), grads)
    for c in (1e-6, 1e6):
        scaled = end(rule, starts(), [[c * g for g in gs] for gs in grads])
        np.testing.assert_allclose(scaled, expected, rtol=1e-7)


def estimates(now):
    """All that may only grow: d, r̄, and sums of squares."""
    found = [now.shared[n] for n in ("d", "distance", "squares") if n in now.shared]
    names = ("distance", "squares", "largest", "travelled")
    return flat(found + [x for s in now.slots for n, x in s.items() if n in names])


@every
def test_estimates_never_fall(rule, options):
    grads = downhill(count=20) + rough(count=10)
    path = [estimates(now) for now in steps(rule(**options), starts(), grads)]
    assert np.min(np.diff(path, axis=0)) >= 0 and np.any(path[-1] > 2 * path[0])


def test_d_grows_no_faster_than_allowed():
    rule = td.DAdaptAdamW(growth_rate=1.0625)
    found = [float(now.shared["d"]) for now in steps(rule, starts(), downhill())]
    ratios = np.divide(found[1:], found[:-1])
    assert 1.06 < ratios.max() <= 1.0625 * (1 + 1e-9)


@every
@pytest.mark.parametrize("epsilon", ["usual", "none"])
def test_gradients_of_zero_move_nothing_and_leave_no_nan(rule, options, epsilon):
    if epsilon == "none":
        options = options | dict(epsilon=1e-30 if rule is td.COCOB else 0.0)
    zero = [[np.zeros(shape, "float32") for shape in SHAPES]] * 3
    grads = [[g.astype("float32") for g in gs] for gs in downhill()]
    stayed = end(rule(**options), starts(), zero, dtype=tf.float32)
    np.testing.assert_array_equal(stayed, flat(starts()).astype("float32"))
    after = end(rule(**options), starts(), zero + grads, dtype=tf.float32)
    assert np.all(np.isfinite(after)) and np.all(after != stayed)


WITHOUT_RATE = [
    (td.COCOB, {}),
    (td.DAdaptAdamW, dict(learning_rate=td.schedules.Cosine(1.0, 500))),
    (td.DoG, dict(averaging=True)),
    (td.DoG, dict(averaging=True, **LAYERWISE)),
    (td.DoWG, {}),
]


@pytest.mark.parametrize("rule, options", WITHOUT_RATE, ids=told)
def test_without_a_rate_it_finds_the_minimum_of_a_distance(rule, options):
    """Of |x − 10| from 0, for a number and for three more that count as one."""
    found = descend(rule(**options), [0.0, np.zeros(3)], lambda x: tf.sign(x - 10.0), 500)
    np.testing.assert_allclose(flat(found), 10.0, atol=0.5)


def test_what_moves_a_variable_from_outside_is_not_undone():
    rule, grads = td.COCOB(), downhill(count=5)
    now = last(rule, starts(), grads[:1])
    moved = onward(rule, now, [p + 7.0 for p in now.values], grads[1:], first=1)
    stayed = onward(rule, now, now.values, grads[1:], first=1)
    np.testing.assert_allclose(flat(moved) - flat(stayed), 7.0, rtol=1e-12)


def test_decay_is_not_undone_either():
    zero = [[np.zeros(shape) for shape in SHAPES]] * 3
    grads = downhill(count=3)
    rule = td.COCOB(weight_decay=0.25)
    decayed = last(rule, starts(), [*grads, *zero]).values
    before = last(rule, starts(), grads).values
    np.testing.assert_allclose(flat(decayed), 0.75**3 * flat(before), rtol=1e-12)


# DoG's average.


@pytest.mark.parametrize("gamma", [0.0, 8.0])
@pytest.mark.parametrize("layerwise", [False, True])
def test_what_is_evaluated_is_the_polynomial_average_of_all_values(gamma, layerwise):
    rule = td.DoG(averaging=True, gamma=gamma, layerwise=layerwise)
    path = list(steps(rule, starts(), downhill(count=10)))
    plain = td.DoG(layerwise=layerwise)
    np.testing.assert_array_equal(
        flat(path[-1].values), flat(last(plain, starts(), downhill(count=10)).values)
    )
    for i in range(len(SHAPES)):
        now, slots = path[-1].values[i], namespace(path[-1].slots[i])
        x = rule.evaluation(now, slots, path[-1].h)
        wanted = references.polynomial_average([each.values[i] for each in path], gamma)
        np.testing.assert_allclose(x, wanted, rtol=1e-12)
        np.testing.assert_array_equal(rule.training(x, slots, path[-1].h), now)
    assert rule.evaluates() and not plain.evaluates()


@pytest.mark.parametrize(
    "rule, options, error, words",
    [
        (td.DAdaptAdamW, dict(d0=0.0), ValueError, "`d0` must be a finite number > 0"),
        (td.DAdaptAdamW, dict(growth_rate=0.5), ValueError, "`growth_rate` must be a number >= 1"),
        (td.DoG, dict(reps_rel=0), ValueError, "`reps_rel` must be a finite number > 0"),
        (td.DoG, dict(layerwise=1), TypeError, "must be True or False"),
        (td.DoWG, dict(init_estim_sq_dist=0), ValueError, "must be a finite number > 0"),
        (td.COCOB, dict(alpha=0), ValueError, "`alpha` must be a number > 0"),
    ],
)
def test_wrong_arguments_are_told(rule, options, error, words):
    with pytest.raises(error, match=words):
        rule(**options)
