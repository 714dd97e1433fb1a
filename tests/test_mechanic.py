"""Mechanic: one factor for the whole model, found while it trains."""

import functools
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from cases import gradients, run, variables
from pure import (
    descend,
    hyperparameters,
    joined,
    last,
    namespace,
    onward,
    seen,
    started,
    steps,
    train,
)

import tf_decoupled as td
from tf_decoupled.wrappers.mechanic import Mechanic

SHAPES = [(3, 4), (5,), (), (2, 3, 2)]
ADAM = dict(beta_1=0.875, beta_2=0.984375, epsilon=2.0**-20)  # exact in float32
INNER = SimpleNamespace(rule=functools.partial(references.adamw.rule, **ADAM))
OPTIONS = [dict(), dict(s_init=1e-3), dict(s_init=1e-3, s_decay=0.5), dict(epsilon=2.0**-10)]


def starts(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in SHAPES]


def downhill(seed=1, count=30):
    rng = np.random.default_rng(seed)
    mean = [rng.normal(size=shape) for shape in SHAPES]
    return [[m + 0.5 * rng.normal(size=m.shape) for m in mean] for _ in range(count)]


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


def path(rule, *args, **kwargs):
    return [flat(now.values) for now in steps(rule, *args, **kwargs)]


def as_held(rule):
    """The rule's own numbers as float32 holds them."""
    names = ("s_init", "s_decay", "epsilon")
    return {name: np.asarray(getattr(rule, name)).item() for name in names}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_thirty_steps_of_several_variables_equal_the_paper_for_all_of_them_as_one(options):
    grads, run, factors = downhill(), dict(learning_rate=0.5, weight_decay=0.25), []
    rule = Mechanic(td.AdamW(**run, **ADAM), **options)
    now = last(rule, starts(), grads)
    column = [flat(gs) for gs in grads]
    run |= dict(inner=INNER, factors=factors, **as_held(rule))
    theirs = references.mechanic(flat(starts()), column, **run)
    assert factors[-1] > 3 * rule.s_init
    np.testing.assert_allclose(flat(now.values), theirs, rtol=1e-9)
    np.testing.assert_allclose(now.shared["scale"], factors[-1], rtol=1e-9)


def test_the_first_factor_is_the_one_worked_out_by_hand():
    """M = 1e-6 β and V = 0 for each tuner: the mean of s_init M / ε."""
    grads, inner = downhill(count=1), lambda: td.AdamW(0.5)
    now = last(Mechanic(inner()), starts(), grads)
    np.testing.assert_allclose(now.shared["scale"], 9.815e-7, rtol=1e-4)
    whole = flat(last(inner(), starts(), grads).values) - flat(starts())
    moved = flat(now.values) - flat(starts())
    np.testing.assert_allclose(moved, 9.815e-7 * whole, rtol=1e-4)


def test_with_a_factor_of_1_it_is_the_inner_optimizer():
    inner, rule, one = td.AdamW(0.1, 0.25), Mechanic(td.AdamW(0.1, 0.25)), tf.ones((), tf.float64)
    values, grads = [tf.constant(p) for p in starts()], downhill(count=5)
    slots = [started(rule.init(p), p, tf.float64) | dict(scale=one) for p in values]
    for at, now in enumerate(steps(inner, starts(), grads)):
        h = seen(joined(hyperparameters(rule, at, tf.float64), dict(scale=one)))
        each = zip(values, map(tf.constant, grads[at]), map(namespace, slots), strict=True)
        values, slots = zip(*(rule.step(p, g, s, h) for p, g, s in each), strict=True)
        np.testing.assert_allclose(flat(values), flat(now.values), rtol=1e-12)


def test_two_variables_are_as_good_as_one():
    rule, grads = Mechanic(td.AdamW(0.5), s_init=1e-3), downhill()
    together = path(rule, [flat(starts())], [[flat(gs)] for gs in grads])
    np.testing.assert_allclose(path(rule, starts(), grads), together, rtol=1e-9)


def test_the_scale_of_gradients_does_not_matter_where_the_inner_rule_doesn_t_see_it():
    """The first M and ε are numbers, next to which gradients must be large."""
    rule, grads = Mechanic(td.AdamW(0.5, 0.0, epsilon=0.0), s_init=1e-3), downhill()
    for c in (1e3, 1e6):
        scaled = path(rule, starts(), [[c * g for g in gs] for gs in grads])
        np.testing.assert_allclose(scaled, path(rule, starts(), grads), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_gradients_of_zero_move_nothing_and_leave_no_nan(dtype):
    zero = [[np.zeros(shape) for shape in SHAPES]] * 3
    rule = Mechanic(td.AdamW(0.5, 0.0), s_init=1e-3)
    now = last(rule, starts(), zero, dtype)
    np.testing.assert_array_equal(flat(now.values), flat(starts()).astype(dtype.name))
    after = flat(last(rule, starts(), zero + downhill(), dtype).values)
    assert np.all(np.isfinite(after)) and np.all(after != flat(now.values))


def test_gradients_across_the_way_gone_win_no_reward():
    """Each goes along an axis that no step has gone along: nothing tells the tuners a thing."""
    rule, grads = Mechanic(td.SGD(1.0), s_decay=0.0), [[row] for row in np.eye(6)]
    for now in steps(rule, [np.ones(6)], grads):
        rewards = [x for name, x in now.shared.items() if name.startswith("r_")]
        assert len(rewards) == 6 and not np.any(rewards)


@pytest.mark.parametrize("rate", [1e-4, 1.0, 1e4])
def test_the_factor_makes_up_for_any_rate(rate):
    """The distance to (3, 3, 3, 3), from 0, with rates eight orders of magnitude apart."""
    toward = lambda x: (x - 3.0) / tf.norm(x - 3.0)  # noqa: E731
    (found,) = descend(Mechanic(td.AdamW(rate, 0.0)), [np.zeros(4)], toward, 300)
    assert np.linalg.norm(found - 3.0) < 0.1 * 6.0


def test_what_moves_a_variable_from_outside_is_not_undone():
    rule, grads = Mechanic(td.SGD(0.5), s_init=1e-3, s_decay=0.0), downhill(count=6)
    now = last(rule, starts(), grads[:1])
    moved = onward(rule, now, [p + 7.0 for p in now.values], grads[1:], first=1)
    stayed = onward(rule, now, now.values, grads[1:], first=1)
    np.testing.assert_allclose(flat(moved) - flat(stayed), 7.0, rtol=1e-12)


def test_a_variable_without_gradient_catches_up_with_the_factor_when_it_gets_one():
    """θ = θ₀ + (Σs) Δ holds again after its next step, whatever Σs was meanwhile."""
    optimizer = Mechanic(td.SGD(1.0), s_init=1e-2, jit_compile=False)
    trainable, grads = variables([(2, 2), (3,)]), gradients([(2, 2), (3,)], steps=6, trend=1.0)
    start = trainable[0].numpy()
    for t, gs in enumerate(grads):
        if t in (2, 3):
            with pytest.warns(UserWarning, match="Gradients do not exist"):
                optimizer.apply([None, gs[1]], trainable)
        else:
            optimizer.apply(gs, trainable)
    state = optimizer.get_state()
    wanted = start + state["scale"] * state["v0:delta"]
    assert np.abs(wanted - start).max() > 1e-3
    np.testing.assert_allclose(trainable[0].numpy(), wanted, rtol=1e-5)


def test_around_another_each_has_a_factor_of_its_own():
    def twice():
        return Mechanic(Mechanic(td.AdamW(1.0), s_init=0.5), s_init=1e-2, jit_compile=False)

    start, grads = [np.ones(3, "float32")], gradients([(3,)], steps=4, trend=1.0)
    v = keras.Variable(start[0])
    ours = run(optimizer := twice(), [v], grads)
    np.testing.assert_allclose(ours, train(twice(), start, grads)[0], rtol=1e-5)
    state = optimizer.get_state()
    assert state["scale"] != state["inner/scale"]


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(s_init=0.0), "`s_init` must be a finite number > 0, and is never changed"),
        (dict(s_decay=-1.0), "`s_decay` must be a finite number >= 0"),
    ],
)
def test_wrong_arguments_are_told(options, words):
    with pytest.raises(ValueError, match=words):
        Mechanic(td.SGD(0.1), **options)
