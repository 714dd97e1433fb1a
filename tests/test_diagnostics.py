"""Diagnostics: noise of gradients, unevenness of curvature, and rules for the batch size."""

import numpy as np
import pytest
import tensorflow as tf

import tf_decoupled as td
from tf_decoupled.diagnostics import (
    gradient_noise_scale,
    linear_scaling,
    r_med,
    sharpness,
    square_root_scaling,
)

SHAPES = [(2, 3), (4,)]


def drawn(n, b, deviation=2.0, seed=0):
    """Gradients of n batches of b examples, those of single examples around one true gradient."""
    rng = np.random.default_rng(seed)
    true = [np.random.default_rng(9).normal(size=shape) for shape in SHAPES]
    noise = [rng.normal(scale=deviation / np.sqrt(b), size=(n, *g.shape)) for g in true]
    batches = [[g + e[i] for g, e in zip(true, noise, strict=True)] for i in range(n)]
    return true, [[tf.constant(g) for g in grads] for grads in batches]


def test_the_noise_scale_is_the_papers_of_two_batch_sizes():
    _, batches = drawn(4, 8)
    flat = np.array([np.concatenate([np.ravel(g) for g in grads]) for grads in batches])
    small, large = np.mean(np.sum(flat**2, 1)), np.sum(flat.mean(0) ** 2)
    squared = (32 * large - 8 * small) / (32 - 8)
    trace = (small - large) / (1 / 8 - 1 / 32)
    found = gradient_noise_scale(batches, 8)
    np.testing.assert_allclose(found, [trace / squared, trace, squared], rtol=1e-12)
    halves = [
        [tf.add_n(pair) / 2 for pair in zip(*batches[i : i + 2], strict=True)] for i in (0, 2)
    ]
    assert gradient_noise_scale(halves, 16).trace != found.trace


def test_both_estimates_are_right_on_average():
    estimates = []
    for seed in range(300):
        true, batches = drawn(3, 5, seed=seed)
        estimates.append(gradient_noise_scale(batches, 5)[1:])
    traces, squares = np.array(estimates).T
    for found, wanted in ((traces, 10 * 2.0**2), (squares, sum(np.sum(g**2) for g in true))):
        assert abs(found.mean() - wanted) < 4 * found.std() / np.sqrt(len(found))
        assert found.std() > 0


def test_batches_that_agree_have_no_noise_and_missing_gradients_are_zero():
    g = [tf.constant([3.0, 4.0]), None]
    assert np.allclose(gradient_noise_scale([g, g, g], 7), [0, 0, 25])


def test_the_noise_scale_is_traced_and_compiled():
    _, batches = drawn(3, 5)
    traced = tf.function(lambda batches: gradient_noise_scale(batches, 5), jit_compile=True)
    np.testing.assert_allclose(traced(batches), gradient_noise_scale(batches, 5), rtol=1e-9)


def test_rates_go_with_the_batch_or_its_root():
    assert linear_scaling(256, 1024, learning_rate=0.1) == dict(learning_rate=0.4)
    assert linear_scaling(256, 64, learning_rate=0.1) == dict(learning_rate=0.025)
    given = dict(learning_rate=1e-3, beta_1=0.9, beta_2=0.999, rho=0.95, epsilon=1e-8)
    scaled = square_root_scaling(256, 1024, **given)
    wanted = dict(learning_rate=2e-3, beta_1=0.6, beta_2=0.996, rho=0.8, epsilon=5e-9)
    assert scaled == pytest.approx(wanted, rel=1e-12)
    assert square_root_scaling(1024, 256, **scaled) == pytest.approx(given, rel=1e-12)
    assert td.AdamW(**square_root_scaling(1, 4, learning_rate=0.1, beta_1=0.9)).beta_1 == 0.6


@pytest.mark.parametrize(
    "make,error,words",
    [
        (lambda: linear_scaling(0, 8, learning_rate=0.1), ValueError, "`batch_size`.*> 0"),
        (lambda: linear_scaling(8, None, learning_rate=0.1), TypeError, "`new_batch_size` must"),
        (
            lambda: square_root_scaling(8, 800, learning_rate=0.1, beta_1=0.9),
            ValueError,
            "100 times as large is too large.*`beta_1` would be -9",
        ),
        (
            lambda: square_root_scaling(8, 16, learning_rate=0.1, momentum=0.9),
            TypeError,
            "scales `learning_rate`, .*Received: momentum=0.9",
        ),
        (lambda: gradient_noise_scale([[tf.ones(2)]], 8), ValueError, "two or more batches"),
        (lambda: gradient_noise_scale([[tf.ones(2)]] * 2, 0), ValueError, "`batch_size`.*> 0"),
    ],
)
def test_wrong_arguments_are_told(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_r_med_is_the_largest_over_the_median(n):
    d = np.random.default_rng(n).normal(size=n)
    parts = [tf.constant(d[: n // 2]), tf.constant(d[n // 2 :][:, None])]
    assert float(r_med(parts)) == pytest.approx(np.max(np.abs(d)) / np.median(np.abs(d)), rel=1e-12)


def test_r_med_of_a_diagonal_that_is_mostly_zero_is_inf():
    assert np.isinf(r_med([tf.constant([0.0, 0.0, 0.0, 1.0])]))


def test_the_sharpness_is_the_largest_eigenvalue_not_the_largest_size():
    matrix = tf.constant(np.diag([3.0, -5.0, 1.0]))
    v = tf.Variable(np.ones(3))
    loss = lambda: 0.5 * tf.reduce_sum(v * tf.linalg.matvec(matrix, v))  # noqa: E731
    assert float(sharpness(loss, [v])) == pytest.approx(3.0, rel=1e-6)


def test_r_med_goes_with_the_diagonal_of_a_hessian():
    v = tf.Variable(np.ones(3))
    loss = lambda: tf.reduce_sum(tf.constant([1.0, 2.0, 8.0], tf.float64) * v**2)  # noqa: E731
    assert float(r_med(td.gradients.hessian_diagonal(loss, [v]))) == pytest.approx(4.0)


def test_a_gradient_that_only_some_batches_have_is_zero_in_the_others():
    g, zero = [np.array([1.0, 2.0]), np.array([3.0, 4.0])], np.zeros(2)
    some = gradient_noise_scale([[g[0], None], [None, g[1]]], 8)
    assert some == gradient_noise_scale([[g[0], zero], [zero, g[1]]], 8)
