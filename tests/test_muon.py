"""Muon: its direction is nearly orthogonal, whatever the scale and the place of the matrix."""

import itertools

import numpy as np
import pytest
import references
import tensorflow as tf
from pure import as_float32, assert_vectorizes, last

from tf_decoupled.matrices import full_product, newton_schulz, thirds
from tf_decoupled.optimizers.muon import COEFFICIENTS, Muon

random = np.random.default_rng(0)
NAMES = list(COEFFICIENTS)
RANGES = {"original": (0.68, 1.21), "quintic": (0.97, 1.16), "polar_express": (0.86, 1.14)}


def orthonormal(rows, columns, seed=0):
    matrix = np.random.default_rng(seed).normal(size=[rows, columns])
    return np.linalg.svd(matrix, full_matrices=False)[0]


def with_singular_values(values, rows, columns):
    values = np.asarray(values)
    left, right = orthonormal(rows, len(values), 1), orthonormal(columns, len(values), 2)
    return left @ np.diag(values) @ right.T, left, right


def direction(d, dtype=tf.float64, **options):
    """u of a first step with gradient d; the momentum changes nothing but its scale."""
    return -last(Muon(1.0, **options), [np.zeros(d.shape)], [[d]], dtype).values[0].numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_singular_values_are_brought_near_to_one_and_their_directions_stay(name, shape):
    values = np.geomspace(3e-3, 1, 12)
    values[-1] = np.sqrt(1 - np.sum(values[:-1] ** 2))  # a norm of 1, so that none is below 3e-3
    d, left, right = with_singular_values(values, *shape)
    u = direction(d, coefficients=name)
    inside = left.T @ u @ right / max(1, shape[1] / shape[0]) ** 0.5
    np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-9)
    low, high = RANGES[name]
    assert low < np.diag(inside).min() and np.diag(inside).max() < high


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rounds", [1, 5])
@pytest.mark.parametrize("scale", ["original", "match_rms_adamw", "rms_to_rms"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_ten_steps_equal_the_singular_values_by_hand(name, rounds, scale, nesterov):
    rng = np.random.default_rng(3)
    start, grads = rng.normal(size=[3, 2, 5]), 1e-4 * rng.normal(size=[10, 3, 2, 5])
    options = dict(coefficients=name, scale=scale, nesterov=nesterov)
    rule = Muon(0.5, weight_decay=0.25, momentum=0.75, steps=rounds, **options)
    ours = last(rule, [start], [[g] for g in grads]).values[0]
    run = dict(learning_rate=0.5, weight_decay=0.25, momentum=0.75, rounds=rounds)
    np.testing.assert_allclose(ours, references.muon(start, grads, **run, **options), atol=1e-10)


def test_float32_is_as_good_as_its_products():
    rng = np.random.default_rng(4)
    start, grads = rng.normal(size=[8, 16]), rng.normal(size=[10, 8, 16])
    ours = last(Muon(), [start], [[g] for g in grads], tf.float32).values[0]
    theirs = references.muon(start, grads, learning_rate=0.02, momentum=as_float32(0.95))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_the_scale_of_gradients_does_not_matter():
    d = np.random.default_rng(5).normal(size=[6, 9])
    for c in (1e-2, 1e2, 1e6):
        np.testing.assert_allclose(direction(c * d), direction(d), atol=3e-5)


def test_rotations_on_either_side_go_through():
    d = np.random.default_rng(6).normal(size=[6, 9])
    left, right = orthonormal(6, 6, 7), orthonormal(9, 9, 8)
    np.testing.assert_allclose(
        direction(left @ d @ right.T), left @ direction(d) @ right.T, atol=1e-10
    )


@pytest.mark.parametrize("shape", [(64, 64), (32, 128), (128, 32), (3, 3, 8, 64)])
def test_steps_that_match_adamws_have_its_root_mean_square(shape):
    d = np.random.default_rng(9).normal(size=shape)
    for name in NAMES:
        rms = np.sqrt(np.mean(direction(d, scale="match_rms_adamw", coefficients=name) ** 2))
        assert 0.14 <= rms <= 0.24


def test_a_kernel_is_a_matrix_whose_columns_are_its_outputs():
    d = np.random.default_rng(10).normal(size=[3, 3, 4, 5])
    for scale in ("original", "match_rms_adamw", "rms_to_rms"):
        flat = direction(d.reshape(36, 5), scale=scale)
        np.testing.assert_array_equal(direction(d, scale=scale).reshape(36, 5), flat)


def test_the_directed_scales_read_inputs_from_rows_and_outputs_from_columns():
    wide = np.random.default_rng(11).normal(size=[4, 16])
    for scale, ratio in dict(original=2, match_rms_adamw=1, rms_to_rms=4).items():
        lengths = [np.linalg.norm(direction(d, scale=scale)) for d in (wide, wide.T)]
        assert lengths[0] / lengths[1] == pytest.approx(ratio)


def test_a_stack_is_its_matrices_one_by_one():
    stack = tf.constant(np.random.default_rng(12).normal(size=[2, 3, 7, 4]))
    for precise, name in itertools.product([False, True], NAMES):
        rounds, margin = COEFFICIENTS[name]
        together = newton_schulz(stack, rounds, margin, precise)
        for i, j in itertools.product(range(2), range(3)):
            alone = newton_schulz(stack[i, j], rounds, margin, precise)
            np.testing.assert_allclose(together[i, j], alone, atol=1e-12)


def test_further_rounds_of_polar_express_converge_to_the_polar_factor():
    d = np.random.default_rng(13).normal(size=[5, 8])
    left, _, right = np.linalg.svd(d, full_matrices=False)
    u = direction(d, coefficients="polar_express", steps=9) / 1.6**0.5
    np.testing.assert_allclose(u, left @ right, atol=1e-9)


def test_a_gradient_of_zero_moves_nothing():
    for precise in (False, True):
        assert not np.any(direction(np.zeros([3, 4]), tf.float32, precise=precise))


@pytest.mark.parametrize("scale", ["original", "match_rms_adamw", "rms_to_rms"])
def test_a_matrix_without_rows_is_stepped(scale):
    assert direction(np.zeros([0, 3]), scale=scale).shape == (0, 3)


@pytest.mark.parametrize("compiled", [False, True])
def test_parts_add_up_and_bfloat16_holds_them(compiled):
    x = tf.constant(random.uniform(-1, 1, [10_000]), tf.float32)
    parts = (tf.function(thirds, jit_compile=True) if compiled else thirds)(x)
    for part, lost in zip(parts, (0.0, 0.0, 2.0**-27), strict=True):
        assert np.abs(rounded(part) - part).max() <= lost
    np.testing.assert_array_equal(tf.add_n([tf.cast(part, tf.float64) for part in parts]), x)


def rounded(x):
    """What a TPU makes of the factors of a product."""
    return tf.cast(tf.cast(x, tf.bfloat16), tf.float32)


@pytest.mark.parametrize("transpose", [False, True])
def test_products_have_all_digits_where_a_device_rounds_the_factors(monkeypatch, transpose):
    a, b = random.normal(size=[2, 30, 200]), random.normal(size=[2, 200, 20])
    a, b = tf.constant(a, tf.float32), tf.constant(b, tf.float32)
    exact = tf.matmul(tf.cast(a, tf.float64), tf.cast(b, tf.float64))
    exact, size = exact.numpy(), np.abs(a) @ np.abs(b)  # the size of what was added up
    matmul, b = tf.matmul, tf.linalg.matrix_transpose(b) if transpose else b
    error = {"float32": np.abs(matmul(a, b, transpose_b=transpose) - exact) / size}

    def on_a_tpu(x, y, **options):
        return matmul(rounded(x), rounded(y), **options)

    monkeypatch.setattr(tf, "matmul", on_a_tpu)
    error["rounded"] = np.abs(on_a_tpu(a, b, transpose_b=transpose) - exact) / size
    error["ours"] = np.abs(full_product(a, b, transpose_b=transpose) - exact) / size
    assert error["rounded"].max() > 1e-4
    assert error["ours"].max() < 2 * error["float32"].max() < 1e-6


def test_precise_steps_are_those_of_float32_where_a_device_rounds_the_factors(monkeypatch):
    rng, matmul = np.random.default_rng(14), tf.matmul
    start, grads = rng.normal(size=[8, 16]), rng.normal(size=[3, 8, 16])

    def run(**options):
        return last(Muon(1.0, **options), [start], [[g] for g in grads], tf.float32).values[0]

    exact = references.muon(start, grads, learning_rate=1.0, momentum=as_float32(0.95))
    monkeypatch.setattr(tf, "matmul", lambda x, y, **o: matmul(rounded(x), rounded(y), **o))
    assert np.abs(run() - exact).max() > 1e-2
    np.testing.assert_allclose(run(precise=True), exact, atol=2e-4)


def test_vectors_are_refused_in_words():
    rule = Muon()
    assert "vector" in rule.refuses(tf.zeros([3])) and "matrices" in rule.refuses(tf.zeros([]))
    assert rule.refuses(tf.zeros([3, 4])) is None


@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_vectorized_stack_is_its_variables_one_by_one(precise, compiled):
    rng = np.random.default_rng(15)
    p, g = (tf.constant(rng.normal(size=[3, 4, 6]), tf.float32) for _ in range(2))
    assert_vectorizes(Muon(precise=precise), p, g, compiled)


@pytest.mark.parametrize(
    "options, error, words",
    [
        (dict(coefficients="cubic"), ValueError, "must be one of 'original', 'quintic'"),
        (dict(scale=0.2), ValueError, "must be one of 'original', 'match_rms_adamw'"),
        (dict(steps=0), ValueError, "must be an integer >= 1.*steps=0"),
        (dict(steps=2.5), ValueError, "must be an integer >= 1"),
        (dict(steps=lambda: 5), TypeError, "no schedule, callable or variable"),
        (dict(precise=1), TypeError, "must be True or False"),
    ],
)
def test_wrong_arguments_are_told(options, error, words):
    with pytest.raises(error, match=words):
        Muon(**options)


def test_the_rounds_cant_change_after_construction():
    with pytest.raises(AttributeError, match="fixed at construction"):
        Muon().steps = 4
