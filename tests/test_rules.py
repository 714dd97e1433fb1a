"""Every rule is its paper: pure functions on tensors, without variables and without a build."""

import json

import keras
import numpy as np
import pure
import pytest
import tensorflow as tf
from cases import CASES, gradients, variables

import tf_decoupled as td

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def some(fact):
    """The rows of which a fact is true; the test remembers which fact that is."""
    rows = [case for case in CASES if fact(case)]

    def marked(test):
        test.fact = fact
        return pytest.mark.parametrize("case", rows, ids=lambda case: case.name)(test)

    return marked


def values(shapes, seed=0):
    return [v.numpy() for v in variables(shapes, seed)]


def equal(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def close(left, right, tolerance, atol=None):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance if atol is None else atol)


def equal_slots(left, right):
    for a, b in zip(left, right, strict=True):
        a, b = pure.flat(a), pure.flat(b)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# The paper.


@every
def test_a_constant_rate_equals_the_paper(case):
    grads, start = gradients(case.shapes, steps=4), values(case.shapes)
    optimizer = case.make(weight_decay=0.3)
    ours, _ = pure.train(optimizer, start, grads)
    close(ours, case.expected(optimizer, start, grads, weight_decay=0.3), 2e-6)


@every
def test_a_schedule_and_a_decay_that_follows_it_equal_their_numbers_by_hand(case):
    """The other couplings are other numbers in the same place: see `test_hypothesis`."""
    grads, start = gradients(case.shapes, steps=5), values(case.shapes)
    schedule = td.schedules.Cosine(case.learning_rate, 10, alpha=0.1)
    optimizer = case.make(learning_rate=schedule, weight_decay=0.3, decay_coupling="corrected")
    ours, _ = pure.train(optimizer, start, grads)
    options = dict(weight_decay=0.3, coupling="corrected", base=case.learning_rate)
    rates = [float(schedule(step)) for step in range(5)]
    close(ours, case.expected(optimizer, start, grads, learning_rate=rates, **options), 5e-6)


@every
def test_in_float64_it_is_the_paper_to_the_last_digits(case):
    grads, start = gradients(case.shapes, steps=7, trend=1.0), values(case.shapes)
    optimizer = case.make(weight_decay=0.3)
    ours, slots = pure.train(optimizer, start, grads, dtype="float64")
    h = pure.seen(pure.hyperparameters(optimizer, dtype="float64"))
    exact = dict(learning_rate=float(h.learning_rate), weight_decay=float(h.decay))
    expected = case.expected(optimizer, start, grads, h, coupling="independent", **exact)
    close(ours, expected, 1e-11)
    names = {array.dtype.name for each in slots for array in pure.flat(each).values()}
    assert names <= {"float64", "int32"}


@every
def test_a_thousand_steps_equal_the_paper(case):
    shapes = case.shapes if case.together else case.takes([(2, 3, 2), (5,)])
    grads, start = gradients(shapes, steps=1000), values(shapes)
    optimizer = case.make(weight_decay=0.1)
    ours = pure.train_long(optimizer, start, grads)
    theirs = case.expected(optimizer, start, grads, weight_decay=0.1)
    if not case.jumps:
        return close(ours, theirs, 2e-5)
    # Where the direction jumps, one step may go the other way: by two whole steps.
    errors = np.concatenate([np.abs(a - b).ravel() for a, b in zip(ours, theirs, strict=True)])
    assert np.mean(errors > 2e-5) < 0.05
    assert np.max(errors) < 4 * case.learning_rate


def drawn(ranges, rng):
    """One value of each argument; ratios rather than differences are even where it may."""
    given = {}
    for name, (least, *_, most) in ranges.items():
        if isinstance(least, str):
            given[name] = str(rng.choice(ranges[name]))
        elif isinstance(least, (bool, int)):
            given[name] = type(least)(rng.integers(least, most + 1))
        elif least > 0:
            given[name] = float(np.exp(rng.uniform(np.log(least), np.log(most))))
        else:
            given[name] = float(rng.uniform(least, most)) if rng.random() < 0.8 else float(least)
    return given


SEVERAL = [[(3, 2)], [(1,), (4, 1, 2)], [(2, 2, 1, 3), (0, 3), (0,)], [(), (2, 5), (1, 0, 2)]]


@every
def test_with_any_numbers_and_shapes_it_is_the_paper(case):
    rng = np.random.default_rng(4)
    for shapes in map(case.takes, SEVERAL):
        given, start = drawn(case.ranges, rng), values(shapes, seed=len(shapes[0]))
        grads = gradients(shapes, steps=5, seed=int(rng.integers(99)), trend=1.0)
        shared = dict(learning_rate=float(rng.uniform(0.001, 0.5)), weight_decay=0.2)
        optimizer = case.make(**given, **shared)
        ours, _ = pure.train(optimizer, start, grads, dtype="float64")
        h = pure.seen(pure.hyperparameters(optimizer, dtype="float64"))
        shared = dict(learning_rate=float(h.learning_rate), weight_decay=float(h.decay))
        assert [np.shape(p) for p in ours] == shapes
        full = [i for i, p in enumerate(start) if np.size(p)]  # nothing has no mean
        start, grads = [start[i] for i in full], [[gs[i] for i in full] for gs in grads]
        expected = case.expected(optimizer, start, grads, h, coupling="independent", **shared)
        close([ours[i] for i in full], expected, 1e-9)


# Gradients of any size.

MAGNITUDES = [(-30, -15), (-15, -3), (-3, 3), (3, 10), (10, 17), (20, 30), (30, 38)]


def mixed(low, high, rng, steps=3):
    """Matrices whose entries are of very different magnitudes, some of them zero."""
    shape = (steps, 2, 3)
    sizes = 10.0 ** rng.uniform(low, high, shape) * rng.choice([-1, 1, 1, 0], shape)
    return [[g] for g in np.clip(sizes, -3e38, 3e38).astype("float32")]


@every
def test_gradients_of_any_magnitude_follow_the_paper(case):
    start, rng = values([(2, 3)]), np.random.default_rng(5)
    optimizer, (zero, *_) = case.make(weight_decay=0.1), [np.zeros((2, 3), "float32")]
    most = np.log10(case.largest_gradient)
    groups = [mixed(low, min(high, most), rng) for low, high in MAGNITUDES if low < most]
    groups += [mixed(-30, most, rng), [[zero], [zero + np.float32(case.largest_gradient)], [zero]]]
    for grads in groups:
        ours, slots = pure.train(optimizer, start, grads)
        expected = case.expected(optimizer, start, grads, weight_decay=0.1)
        # What float32 drops of a large gradient is a share of it, also where the next cancels it.
        scale = max(1, np.max(np.abs(grads)) * case.learning_rate) if case.proportional else 1
        close([p / scale for p in ours], [p / scale for p in expected], 1e-4, atol=1e-5)
        assert all(np.all(np.isfinite(x)) for x in pure.flat(slots[0]).values())


@every
def test_gradients_that_float32_can_hardly_hold_move_as_zero_or_as_themselves(case):
    start, rng, optimizer = values([(2, 3)]), np.random.default_rng(6), case.make(weight_decay=0.1)
    zero, _ = pure.train(optimizer, start, [[np.zeros((2, 3), "float32")]] * 3)
    for low, high in [(-45, -44.5), (-45, -37), (-38, -37)]:
        grads = mixed(low, high, rng)
        (ours,), _ = pure.train(optimizer, start, grads)
        assert np.all(np.isfinite(ours))
        if case.rescales:  # a direction of any length is rescaled
            continue
        assert np.all(np.abs(ours - zero[0]) <= 3 * case.learning_rate * 1.001 + 1e-5)
        (theirs,) = case.expected(optimizer, start, grads, weight_decay=0.1)
        low, high = np.minimum(zero[0], theirs) - 1e-5, np.maximum(zero[0], theirs) + 1e-5
        assert case.jumps or np.all((low <= ours) & (ours <= high))


@some(lambda case: case.scale_free is not None)
def test_a_rule_that_divides_by_the_gradient_s_size_doesn_t_see_its_scale(case):
    grads, start = gradients(case.shapes, steps=3), values(case.shapes)
    optimizer = case.make(**case.scale_free)
    ours, _ = pure.train(optimizer, start, grads)
    for exponent in (-20, 20):
        scaled = [[g * np.float32(2.0**exponent) for g in gs] for gs in grads]
        close(pure.train(optimizer, start, scaled)[0], ours, 1e-5, atol=1e-6)


@some(lambda case: case.entries_apart)
@pytest.mark.parametrize("size", [1.0, 1e5, 1e18])
def test_entries_without_gradient_stay_beside_large_ones(case, size):
    start, g = values([(4, 2)]), np.zeros((4, 2), "float32")
    g[0] = size
    (ours,), _ = pure.train(case.make(weight_decay=0.0), start, [[g]] * 3)
    np.testing.assert_array_equal(ours[1:], start[0][1:])
    assert np.all(np.isfinite(ours)) and np.any(ours[0] != start[0][0])


@some(lambda case: case.decays_apart)
def test_a_zero_gradient_leaves_the_decay_alone(case):
    start, zero = values(case.shapes), [[np.zeros(s, "float32") for s in case.shapes]] * 3
    ours, _ = pure.train(case.make(weight_decay=0.3), start, zero)
    close(ours, [p * (1 - case.learning_rate * 0.3) ** 3 for p in start], 1e-6, atol=0)


# Decay.


@every
def test_decay_never_enters_the_state(case):
    grads, start = gradients(case.shapes, steps=1), values(case.shapes)
    plain, without = pure.train(case.make(weight_decay=0.0), start, grads)
    decayed, with_decay = pure.train(case.make(weight_decay=0.3), start, grads)
    others = lambda slots: {n: x for n, x in pure.flat(slots).items() if n not in case.values}  # noqa: E731
    equal_slots(map(others, without), map(others, with_decay))
    for p, a, b in zip(start, plain, decayed, strict=True):
        assert p.ndim == 0 or np.any(a != b), "the decay moves nothing, so the test shows nothing"


@every
def test_what_the_mask_leaves_out_moves_as_without_decay_bit_for_bit(case):
    grads, start = gradients(case.shapes, steps=4), values(case.shapes)
    optimizer, regular = case.make(weight_decay=0.3), case.all_options().keys() & {"l2"}
    without = case.make(weight_decay=0.0, **dict.fromkeys(regular, 0.0))
    left_out, slots = pure.train(optimizer, start, grads, keep=0.0)
    expected, others = pure.train(without, start, grads)
    equal(left_out, expected)
    equal_slots(slots, others)


# Slots.


@every
def test_slots_are_those_that_the_row_declares_before_and_after_a_step(case):
    optimizer = case.make()
    for shape in case.shapes:
        start = values([shape])
        begun = pure.started(optimizer.init(start[0]), tf.constant(start[0]), tf.float32)
        _, (after,) = pure.train(optimizer, start, gradients([shape], steps=1))
        for each in (begun, after):
            found = {name: tuple(array.shape) for name, array in pure.flat(each).items()}
            assert found == case.slots(shape)


@some(lambda case: case.lazy is not None)
@pytest.mark.parametrize("λ", [0.0, 0.5])
def test_rows_catch_up_to_where_steps_without_gradient_lead(case, λ):
    shape, missed = (4, 3), np.array([0, 1, 2, 9])
    optimizer = case.make(weight_decay=λ, sparse="lazy", **case.lazy)
    begun, slots = pure.train(optimizer, values([shape]), gradients([shape], steps=3))
    h = pure.seen(pure.hyperparameters(optimizer, step=3))
    p, s, zero = tf.constant(begun[0]), slots[0], tf.zeros(shape)
    k = tf.constant(missed[:, None], tf.float32)
    ours, after = optimizer.catch_up(p, pure.namespace(s), h, k)
    path = [(p, s)]
    for _ in range(max(missed)):
        path.append(pure.step(optimizer, *path[-1][:1], zero, path[-1][1], h))
    for row, k in enumerate(missed):
        np.testing.assert_allclose(ours[row], path[k][0][row], rtol=1e-5, atol=1e-6)
        for name, array in after.items():
            np.testing.assert_allclose(array[row], path[k][1][name][row], rtol=1e-5, atol=1e-7)


@some(lambda case: case.lazy is None)
def test_a_rule_that_can_not_step_single_rows_says_so(case):
    with pytest.raises(ValueError, match=r"single rows|whole variables"):
        case.make(sparse="lazy")


# How the engine may call it.


@every
def test_mapped_over_a_stack_it_steps_each_variable_as_alone(case):
    optimizer, keep = case.make(weight_decay=0.3), tf.constant([1.0, 0.0, 1.0])
    for shape in case.shapes[:2]:
        start, grads = values([shape] * 3), gradients([shape] * 3, steps=2)
        now = pure.last(optimizer, start, grads[:1], tf.float32)
        each = list(zip(now.values, map(tf.constant, grads[1]), now.slots, keep, strict=True))
        variables = [(p, g, pure.namespace(s)) for p, g, s, _ in each]
        h, _ = pure.combined(optimizer, pure.hyperparameters(optimizer, 1), now.shared, variables)
        one = lambda x: pure.step(optimizer, *x[:3], pure.seen(pure.masked(optimizer, h, x[3])))  # noqa: B023, E731
        mapped = lambda x: tf.vectorized_map(one, x, fallback_to_while_loop=False)  # noqa: B023, E731
        stack = tf.nest.map_structure(lambda *x: tf.stack(x), *each)
        p, s = tf.function(mapped, autograph=False)(stack)
        for i, (expected, after) in enumerate(map(one, each)):
            close([p[i]], [expected], 1e-6, atol=1e-7)
            for name, array in pure.flat(after).items():
                np.testing.assert_allclose(pure.flat(s)[name][i], array, rtol=1e-6, atol=1e-7)


@every
def test_it_is_pure(case):
    optimizer, start = case.make(weight_decay=0.3), values(case.shapes)
    config, noted = optimizer.get_config(), {n: id(x) for n, x in vars(optimizer).items()}
    first, slots = pure.train(optimizer, start, gradients(case.shapes, steps=2))
    again, others = pure.train(optimizer, start, gradients(case.shapes, steps=2))
    equal(first, again)
    equal_slots(slots, others)
    assert optimizer.get_config() == config and not optimizer.built
    assert {n: id(x) for n, x in vars(optimizer).items()} == noted


def judged(optimizer, start, grads):
    """What a model is judged by after these steps."""
    now = pure.last(optimizer, start, grads, tf.float32)
    slots = map(pure.namespace, now.slots)
    return [optimizer.evaluation(p, s, now.h) for p, s in zip(now.values, slots, strict=True)]


@every
def test_every_number_of_its_own_counts(case):
    # A rate that rises, gradients that agree, and a small one at last: each counts for some number.
    shapes, η = case.shapes[:1], case.learning_rate
    rising = td.schedules.PiecewiseConstant([2], [η / 2, η])
    start, grads = values(shapes), gradients(shapes, steps=10, trend=1.0)
    grads[-1] = [g / 100 for g in grads[-1]]
    usual = judged(case.make(learning_rate=rising), start, grads)
    for name, ends in case.ranges.items():
        changed = (case.make(learning_rate=rising, **{name: end}) for end in ends)
        others = (judged(optimizer, start, grads) for optimizer in changed)
        assert any(np.any(a != b) for ours in others for a, b in zip(ours, usual, strict=True)), (
            name
        )


@every
def test_its_configuration_makes_the_same_rule_again(case):
    original = case.make(weight_decay=0.2, decay_mask=td.masks.matrices | td.masks.only("v1"))
    config = keras.optimizers.serialize(original)
    again = keras.optimizers.deserialize(json.loads(json.dumps(config)))
    assert type(again) is type(original)
    assert json.dumps(again.get_config()) == json.dumps(original.get_config())
    assert again.decay_mask == original.decay_mask
    start, grads = values(case.shapes), gradients(case.shapes, steps=3)
    equal(pure.train(original, start, grads)[0], pure.train(again, start, grads)[0])
