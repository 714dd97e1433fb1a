"""Shampoo: roots by products of matrices, steps as long as another method's."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from pure import assert_vectorizes, last, steps

import tf_decoupled as td
from tf_decoupled.matrices import inverse_root
from tf_decoupled.optimizers.shampoo import from_blocks, in_blocks

GRAFTS = ["sgd", "adagrad", "rmsprop"]
random = np.random.default_rng(0)
PLAIN = dict(beta_1=0.0, nesterov=False, precondition_frequency=1)


def orthogonal(n, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=[n, n]))[0]


def directions(rule, grads):
    """u of each step, with a rate of 1."""
    values = [np.zeros(grads[0].shape)]
    values += [now.values[0].numpy() for now in steps(rule, [values[0]], [[g] for g in grads])]
    return [before - after for before, after in itertools.pairwise(values)]


@pytest.mark.parametrize("p", [2, 4])
@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6])
def test_a_root_to_its_power_is_the_inverse(p, condition):
    q, before = orthogonal(8, 1), tf.zeros([8, 8], tf.float64)
    a = 1e-9 * q @ np.diag(np.geomspace(1, 1 / condition, 8)) @ q.T
    h = inverse_root(tf.constant(a), p, tf.constant(1e-7, tf.float64), 25, before).numpy()
    ridge = 1e-7 * np.linalg.norm(a) * np.eye(8)
    np.testing.assert_allclose(np.linalg.matrix_power(h, p) @ (a + ridge), np.eye(8), atol=1e-7)


@pytest.mark.parametrize("p", [2, 4])
def test_float32_knows_three_digits_of_a_root_with_a_ridge_of_a_millionth(p):
    q = orthogonal(32, 2)
    values = np.geomspace(1, 1e-8, 32)
    a, before = q @ np.diag(values) @ q.T, tf.zeros([32, 32])
    ridge = 1e-6 * np.linalg.norm(values)
    h = inverse_root(tf.constant(a, tf.float32), p, tf.constant(1e-6), 25, before).numpy()
    exact = q @ np.diag((values + ridge) ** (-1 / p)) @ q.T
    assert np.linalg.norm(h - exact, 2) < 0.02 * np.linalg.norm(exact, 2)


def test_a_stack_of_roots_is_each_and_one_that_failed_is_left_as_it_was():
    a = random.normal(size=[3, 2, 4, 4])
    a = a @ np.swapaxes(a, -1, -2)
    a[1, 1], before = np.nan, tf.fill([3, 2, 4, 4], tf.constant(7.0, tf.float64))
    ridge = tf.constant(1e-3, tf.float64)
    together = inverse_root(tf.constant(a), 4, ridge, 20, before)
    np.testing.assert_array_equal(together[1, 1], before[1, 1])
    a[1, 1] = 0.0
    alone = inverse_root(tf.constant(a[2, 0]), 4, ridge, 20, before[2, 0])
    np.testing.assert_allclose(together[2, 0], alone, rtol=1e-12)
    too_few = inverse_root(tf.constant(a[2, 0]), 4, ridge * 1e-6, 2, before[2, 0])
    np.testing.assert_array_equal(too_few, before[2, 0])


@pytest.mark.parametrize("graft", GRAFTS)
@pytest.mark.parametrize("shape", [(5, 4), (5,), ()])
def test_steps_are_as_long_as_those_of_the_grafted_method(graft, shape):
    grads = list(random.normal(size=[4, *shape]))
    ours = directions(td.Shampoo(1.0, graft=graft, block_size=3, **PLAIN), grads)
    never = dict(PLAIN, precondition_frequency=99)
    theirs = directions(td.Shampoo(1.0, graft=graft, **never), grads)
    for u, a in zip(ours, theirs, strict=True):
        assert np.linalg.norm(u) == pytest.approx(np.linalg.norm(a), rel=1e-9)
        assert len(shape) < 1 or np.abs(u - a).max() > 1e-3 * np.abs(a).max()


def test_until_the_first_roots_it_is_the_grafted_method_with_momentum():
    grads = [[g] for g in random.normal(size=[5, 4, 3])]
    run = dict(learning_rate=0.25, weight_decay=0.5)
    ours = last(td.Shampoo(**run, precondition_frequency=6), [np.ones([4, 3])], grads)
    sgd = last(td.SGDW(**run, momentum=0.9, nesterov=True), [np.ones([4, 3])], grads)
    np.testing.assert_allclose(ours.values[0], sgd.values[0], rtol=1e-12)


def test_blocks_of_one_entry_are_adagrads_direction():
    """Both roots, −1/4, of the same number: g / √v."""
    grads = list(random.normal(size=[6, 3, 4]))
    u = directions(td.Shampoo(1.0, block_size=1, epsilon=1e-7, beta_2=0.5, **PLAIN), grads)[-1]
    v = sum(0.5 ** (6 - t) * g**2 for t, g in enumerate(grads))
    expected = grads[-1] / np.sqrt(v)
    np.testing.assert_allclose(
        u / np.linalg.norm(u), expected / np.linalg.norm(expected), rtol=1e-6
    )


def test_turned_gradients_turn_the_weights():
    rule = td.Shampoo(0.1, epsilon=1e-3, precondition_frequency=2)
    grads, (u, w) = random.normal(size=[7, 4, 3]), (orthogonal(4, 4), orthogonal(3, 5))
    p = last(rule, [np.zeros([4, 3])], [[g] for g in grads]).values[0]
    q = last(rule, [np.zeros([4, 3])], [[u @ g @ w.T] for g in grads]).values[0]
    np.testing.assert_allclose(q, u @ p @ w.T, atol=1e-9)


def test_diagonal_gradients_stay_diagonal():
    for u in directions(td.Shampoo(1.0, **PLAIN), [np.diag([1.0, -2.0, 0.5])] * 3):
        assert np.any(u) and not np.any(u - np.diag(np.diag(u)))


def test_roots_are_taken_anew_every_so_many_steps():
    rule = td.Shampoo(precondition_frequency=3)
    grads = [[g] for g in random.normal(size=[7, 4, 3])]
    roots = [now.slots[0]["p_l"].numpy() for now in steps(rule, [np.zeros([4, 3])], grads)]
    changed = [bool(np.any(a != b)) for a, b in zip([0 * roots[0], *roots], roots, strict=False)]
    assert changed == [False, False, True, False, False, True, False]


@pytest.mark.parametrize("shape", [(5, 7), (4, 4), (7,), (2, 3, 4), (1, 9), (0, 3)])
def test_blocks_hold_each_entry_once(shape):
    x = tf.constant(random.normal(size=shape))
    blocks = in_blocks(x, *td.Shampoo(block_size=3).cut(x))
    assert np.sum(np.square(blocks)) == pytest.approx(np.sum(np.square(x)))
    np.testing.assert_array_equal(from_blocks(blocks, x), x)


def test_a_gradient_of_zero_moves_nothing():
    for graft in GRAFTS:
        rule = td.Shampoo(graft=graft, precondition_frequency=1)
        values = last(rule, [np.ones([4, 3])], [[np.zeros([4, 3])]] * 3, tf.float32).values[0]
        np.testing.assert_array_equal(values, 1.0)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_vectorized_stack_is_its_variables_one_by_one(compiled):
    p, g = (tf.constant(random.normal(size=[3, 4, 6])) for _ in range(2))
    rule = td.Shampoo(precondition_frequency=1, block_size=3, epsilon=0.1, steps=12)
    assert_vectorizes(rule, p, g, compiled)
