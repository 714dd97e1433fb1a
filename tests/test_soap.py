"""SOAP: Adam in a basis that turns with the gradients, and is orthogonal whatever they are."""

import numpy as np
import pytest
import references.matrices
import tensorflow as tf
from pure import as_float32, assert_vectorizes, hyperparameters, last, seen, step

import tf_decoupled as td
from tf_decoupled.engine import stacking
from tf_decoupled.matrices import orthogonal_factor
from tf_decoupled.optimizers import soap

random = np.random.default_rng(0)


def skewed(count, shape=(4, 3), seed=1):
    """Gradients A Z B: their rows and columns have eigenvalues far apart."""
    rng = np.random.default_rng(seed)
    left, right = orthogonal(shape[0], 2), orthogonal(shape[1], 3)
    sizes = np.geomspace(4, 0.25, shape[0])[:, None] * np.geomspace(2, 0.5, shape[1])
    return [left @ (sizes * rng.normal(size=shape)) @ right.T for _ in range(count)]


def orthogonal(n, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=[n, n]))[0]


@pytest.mark.parametrize("options", [dict(max_precond_dim=1), dict(precondition_frequency=99)])
def test_without_a_basis_it_is_adam(options):
    run = dict(learning_rate=0.1, weight_decay=0.5, beta_1=0.95, beta_2=0.95)
    start, grads = random.normal(size=[4, 3]), [[g] for g in skewed(12)]
    ours = last(td.SOAP(**run, **options), [start], grads).values[0]
    np.testing.assert_allclose(ours, last(td.AdamW(**run), [start], grads).values[0], rtol=1e-12)


def test_turned_gradients_turn_the_weights():
    """From a basis that is turned alike; I, where it begins, is that of the axes."""
    rule = td.SOAP(0.1, precondition_frequency=2, epsilon=1e-3)
    now = last(rule, [random.normal(size=[4, 3])], [[g] for g in skewed(7)])
    p, slots, (u, w) = now.values[0], dict(now.slots[0]), (orthogonal(4, 4), orthogonal(3, 5))
    q, turned = u @ p @ w.T, slots | dict(m=u @ slots["m"] @ w.T)
    for i, x in enumerate((u, w)):
        turned[f"gram_{i}"] = x @ slots[f"gram_{i}"] @ x.T
        turned[f"basis_{i}"] = x @ slots[f"basis_{i}"]
    for t, g in enumerate(skewed(8, seed=6), 7):
        h = seen(hyperparameters(rule, t, "float64"))
        p, slots = step(rule, p, tf.constant(g), slots, h)
        q, turned = step(rule, q, tf.constant(u @ g @ w.T), turned, h)
        np.testing.assert_allclose(q, u @ p @ w.T, atol=1e-9)


def test_bases_stay_orthogonal_and_come_to_diagonalize_the_statistics():
    rule = td.SOAP(precondition_frequency=1, shampoo_beta=0.99)
    slots = last(rule, [np.zeros([4, 3])], [[g] for g in skewed(80)], tf.float32).slots[0]
    for i in range(2):
        q, gram = (slots[f"{name}_{i}"].numpy() for name in ("basis", "gram"))
        np.testing.assert_allclose(q.T @ q, np.eye(len(q)), atol=2e-6)
        inside = q.T @ gram @ q
        assert np.all(np.diff(np.diag(inside)) < 0), "the largest first"
        rest = inside - np.diag(np.diag(inside))
        assert np.abs(rest).max() < 0.02 * np.abs(gram - np.diag(np.diag(gram))).max()


def test_vectors_are_turned_if_told_so():
    start, grads = random.normal(size=[5]), random.normal(size=[13, 5])
    for vectors in (False, True):
        run = dict(learning_rate=0.25, precondition_frequency=2, precondition_1d=vectors)
        now = last(td.SOAP(**run), [start], [[g] for g in grads])
        assert ("basis_0" in now.slots[0]) is vectors
        names = ("beta_1", "beta_2", "shampoo_beta", "epsilon", "weight_decay")
        exact = {name: as_float32(getattr(td.SOAP, name)) for name in names}
        options = dict(learning_rate=0.25, frequency=2, vectors=vectors, **exact)
        expected = references.matrices.soap(start, grads, **options)
        np.testing.assert_allclose(now.values[0], expected, rtol=1e-7)


def test_a_variable_that_comes_later_begins_with_adam():
    run, g = dict(learning_rate=0.1, beta_1=0.95, beta_2=0.95, weight_decay=0.0), skewed(1)
    late = dict(first=6)  # its first gradient is at the seventh step
    ours = last(td.SOAP(**run, precondition_frequency=7), [np.zeros([4, 3])], [g], **late)
    adam = last(td.AdamW(**run), [np.zeros([4, 3])], [g], **late)
    np.testing.assert_allclose(ours.values[0], adam.values[0], rtol=1e-12)
    assert np.abs(ours.slots[0]["basis_0"] - np.eye(4)).max() > 0.1


def test_a_gradient_of_zero_moves_nothing_and_keeps_the_basis():
    now = last(td.SOAP(precondition_frequency=1), [np.ones([4, 3])], [[np.zeros([4, 3])]] * 3)
    np.testing.assert_allclose(now.values[0], (1 - as_float32(3e-3) * as_float32(0.01)) ** 3)
    np.testing.assert_allclose(np.abs(now.slots[0]["basis_0"]), np.eye(4), atol=1e-12)


def test_variables_that_are_never_stacked_take_tensorflows_factor(monkeypatch):
    assert soap.STACKED >= stacking.LARGEST
    rule, start, grads = td.SOAP(0.1, precondition_frequency=2), np.ones([4, 3]), skewed(7)
    small = last(rule, [start], [[g] for g in grads]).values[0]
    monkeypatch.setattr(soap, "STACKED", 0)
    monkeypatch.setattr(soap, "orthogonal_factor", None)
    large = last(rule, [start], [[g] for g in grads]).values[0]
    np.testing.assert_allclose(large, small, rtol=1e-9)


@pytest.mark.parametrize("rank", [0, 1, 3, 5])
@pytest.mark.parametrize("scale", [1e-17, 1e-12, 1.0, 1e12, 1e17])
def test_the_orthogonal_factor_is_that_of_any_matrix(rank, scale):
    for _ in range(20):
        x = scale * random.normal(size=[5, rank]) @ random.normal(size=[rank, 5])
        for dtype, tolerance in ((tf.float64, 1e-13), (tf.float32, 2e-6)):
            q = orthogonal_factor(tf.constant(x, dtype)).numpy()
            np.testing.assert_allclose(q.T @ q, np.eye(5), atol=tolerance)
            np.testing.assert_allclose(np.tril(q.T @ x, -1) / scale, 0, atol=9 * tolerance)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_vectorized_stack_is_its_variables_one_by_one(compiled):
    p, g = (tf.constant(random.normal(size=[3, 4, 1]), tf.float32) for _ in range(2))
    assert_vectorizes(td.SOAP(precondition_frequency=2, epsilon=0.1), p, g, compiled)
