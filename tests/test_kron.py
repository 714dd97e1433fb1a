"""Kron: gradients become white, whatever their scale, and the factors stay positive."""

import numpy as np
import pytest
import tensorflow as tf
from pure import assert_vectorizes, last, started, step_all

import tf_decoupled as td
from tf_decoupled.matrices import spectral_norm
from tf_decoupled.optimizers.kron import balanced, fit

random = np.random.default_rng(0)


def orthogonal(n, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=[n, n]))[0]


def mixed(count, seed=1):
    """Gradients A Z B with white Z, [4, 4]: A and B have condition numbers of 9."""
    rng = np.random.default_rng(seed)
    a = orthogonal(4, 2) @ np.diag(np.geomspace(3, 1 / 3, 4)) @ orthogonal(4, 3)
    b = orthogonal(4, 4) @ np.diag(np.geomspace(1 / 3, 3, 4)) @ orthogonal(4, 5)
    return [a @ rng.normal(size=[4, 4]) @ b for _ in range(count)]


def slots_after(rule, grads, dtype=tf.float64):
    """From steps that are traced once: there are many."""
    p = tf.zeros(grads[0].shape, dtype)
    slots = started(rule.init(p), p, dtype)
    one = tf.function(lambda *x: step_all(rule, [p], *x)[1], autograph=False)
    for t, g in enumerate(grads):
        (slots,) = one([tf.constant(g, dtype)], [slots], {}, tf.constant(t))
    return slots


def factors(slots):
    return [slots[name].numpy() for name in ("q_0", "q_1")]


def test_gradients_become_white():
    rule = td.Kron(beta_1=0.0)
    left, right = (q @ q for q in factors(slots_after(rule, mixed(400))))
    white = [left @ g @ right for g in mixed(2000, seed=6)]
    for x in (white, np.swapaxes(white, 1, 2)):
        covariance = np.mean(x @ np.swapaxes(x, 1, 2), axis=0) / 4
        np.testing.assert_allclose(covariance, np.eye(4), atol=0.35)
    raw = np.mean([g @ g.T for g in mixed(2000, seed=6)], axis=0)
    assert np.linalg.cond(raw) > 50 and np.linalg.cond(covariance) < 2


@pytest.mark.parametrize("shape", [(4, 3), (3, 3), (5,), ()])
def test_the_scale_of_gradients_does_not_matter(shape):
    grads = list(random.normal(size=[6, *shape]))
    ours = last(td.Kron(0.1), [np.zeros(shape)], [[g] for g in grads]).values[0]
    for c in (1e-25, 1e-3, 1e15):
        scaled = last(td.Kron(0.1), [np.zeros(shape)], [[c * g] for g in grads]).values[0]
        np.testing.assert_allclose(scaled, ours, rtol=1e-9)


@pytest.mark.parametrize("rate", [0.1, 0.9])
def test_factors_stay_symmetric_and_positive(rate):
    sizes = 10.0 ** random.uniform(-3, 3, size=60)
    grads = [size * random.normal(size=[4, 4]) for size in sizes]
    for q in factors(slots_after(td.Kron(precond_lr=rate), grads, tf.float32)):
        np.testing.assert_array_equal(q, q.T)
        assert np.linalg.eigvalsh(q).min() > 0


@pytest.mark.parametrize("full", [True, False])
def test_a_factor_that_whitens_is_left_as_it_is(full):
    q = np.eye(4) if full else np.ones(4)
    white = 2.0 * orthogonal(4, 7)  # W Wᵀ = 4 I, which is N / n
    arguments = [tf.constant(x, tf.float64) for x in (q, 0.0, white, np.zeros(q.shape), 0.1)]
    np.testing.assert_allclose(fit(*arguments)[0], q, atol=1e-12)


def test_balance_changes_no_product():
    qs = [tf.constant(1e6 * random.uniform(size=[3, 3])), tf.constant(random.uniform(size=[4]))]
    first, second = balanced(qs)
    assert np.max(first) == pytest.approx(np.max(second))
    np.testing.assert_allclose(np.multiply.outer(first, second), np.multiply.outer(*qs))


def test_no_step_is_longer_than_told():
    rule = td.Kron(1.0, weight_decay=0.0, max_rms=0.5)
    (u,) = last(rule, [np.zeros([4, 3])], [[random.normal(size=[4, 3])]]).values
    assert np.sqrt(np.mean(np.square(u))) == pytest.approx(0.5)


def test_zero_gradients_move_nothing_and_the_first_other_one_sets_the_scale():
    zero, g = np.zeros([4, 3]), 1e9 * random.normal(size=[4, 3])
    rule = td.Kron(0.5, beta_1=0.0)
    now = last(rule, [np.ones([4, 3])], [[zero]] * 3)
    assert np.all(now.values[0] == 1.0) and not any(np.any(q) for q in factors(now.slots[0]))
    late, soon = (last(rule, [zero], grads) for grads in ([[zero], [zero], [g]], [[g]]))
    np.testing.assert_allclose(late.values[0], soon.values[0], rtol=1e-12)
    then = last(rule, [zero], [[g], [zero]]).slots[0]
    np.testing.assert_array_equal(then["q_0"], soon.slots[0]["q_0"])


def test_a_row_that_has_no_gradient_is_held_by_the_damping():
    g = random.normal(size=[4, 4])
    g[0] = 0.0
    rule = td.Kron(precond_lr=0.5, damping=0.1)
    left, right = (q @ q for q in factors(slots_after(rule, [g] * 300)))
    assert np.all(np.isfinite(left)) and left[0, 0] * np.max(right) < 1e3


def test_the_spectral_norm_is_bounded_from_below():
    for seed in range(5):
        x = np.random.default_rng(seed).normal(size=[6, 6])
        a = x @ x.T
        found = spectral_norm(tf.constant(a)).numpy()
        assert 0.8 * np.linalg.norm(a, 2) <= found <= np.linalg.norm(a, 2) * (1 + 1e-12)
    v = 1e30 * np.arange(4.0)
    one = spectral_norm(tf.constant(np.outer(v, v) / 1e30, tf.float32))
    assert one.numpy() == pytest.approx(v @ v / 1e30, rel=1e-6)
    assert spectral_norm(tf.zeros([3, 3])) == 0


@pytest.mark.parametrize("compiled", [False, True])
def test_a_vectorized_stack_is_its_variables_one_by_one(compiled):
    p, g = (tf.constant(random.normal(size=[3, 4, 6]), tf.float32) for _ in range(2))
    assert_vectorizes(td.Kron(), p, g, compiled)
