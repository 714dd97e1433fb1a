"""Scion: steps of one length in the norm that was chosen, and weights inside of its ball."""

import numpy as np
import pytest
import tensorflow as tf
from pure import assert_vectorizes, last

import tf_decoupled as td

NORMS = ["spectral", "sign", "column", "row"]
SHAPE = (6, 4)  # Keras's [in, out]
random = np.random.default_rng(0)


def length(norm, θ):
    """The norm whose unit ball lmo's steps end on, of a kernel [in, out]."""
    inputs, outputs = θ.shape
    return {
        "spectral": np.linalg.norm(θ, 2) * (inputs / outputs) ** 0.5,
        "sign": np.max(np.abs(θ)) * inputs,
        "column": np.max(np.sqrt(np.mean(θ**2, axis=1))),
        "row": np.max(np.linalg.norm(θ, axis=0)) * inputs**0.5,
    }[norm]


def direction(d, **options):
    """ρ lmo(d), from a first step without decay."""
    rule = td.Scion(1.0, weight_decay=0.0, **options)
    return -last(rule, [np.zeros(np.shape(d))], [[d]]).values[0].numpy()


@pytest.mark.parametrize("norm", NORMS)
def test_a_step_has_the_length_of_the_radius_in_its_norm(norm):
    most = 1.21 if norm == "spectral" else 1.0  # Newton–Schulz brings singular values near to 1
    found = length(norm, direction(random.normal(size=SHAPE), norm=norm, scale=3.0)) / 3.0
    assert 0.68 <= found <= most + 1e-9
    assert norm == "spectral" or found >= 1 - 1e-6


@pytest.mark.parametrize("norm", NORMS)
def test_weights_stay_inside_of_the_ball(norm):
    grads, ρ = random.normal(size=[6, *SHAPE]) + 0.5, 2.0
    start, most = 0.01 * random.normal(size=SHAPE), 1.21 if norm == "spectral" else 1.0
    for t in (1, 2, 3, 6):
        θ = last(td.Scion(0.3, norm=norm, scale=ρ), [start], [[g] for g in grads[:t]]).values[0]
        assert length(norm, θ.numpy()) <= most * ρ
    assert length(norm, θ.numpy()) > 0.5 * ρ


@pytest.mark.parametrize("norm", NORMS)
def test_a_rate_of_one_forgets_where_the_weights_were(norm):
    d, start = random.normal(size=SHAPE), 9.0 * random.normal(size=SHAPE)
    after = last(td.Scion(1.0, norm=norm, scale=2.0), [start], [[d]]).values[0]
    np.testing.assert_allclose(after, -direction(d, norm=norm, scale=2.0), atol=1e-12)


@pytest.mark.parametrize("shape", [SHAPE, (5,), ()])
@pytest.mark.parametrize("norm", NORMS)
def test_the_scale_of_gradients_does_not_matter(norm, shape):
    d = random.normal(size=shape)
    for c in (1e-2, 1e2, 1e6):
        np.testing.assert_allclose(direction(c * d, norm=norm), direction(d, norm=norm), atol=1e-4)


def test_the_norms_take_rows_as_inputs_and_columns_as_outputs():
    d = random.normal(size=SHAPE)
    column, row = direction(d, norm="column"), direction(d, norm="row")
    np.testing.assert_allclose(np.mean(column**2, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(np.sum(row**2, axis=0), 1 / 6, rtol=1e-6)
    np.testing.assert_array_equal(direction(d, norm="sign"), np.sign(d) / 6)


def test_spectral_steps_of_kernels_are_divided_by_their_area():
    d = random.normal(size=[3, 2, 4, 5])
    flat = direction(d.reshape(24, 5)) / (5 / 24) ** 0.5
    expected = (5 / 4) ** 0.5 / 6 * flat
    np.testing.assert_allclose(direction(d).reshape(24, 5), expected, atol=1e-12)
    np.testing.assert_allclose(  # a kernel of one place is a matrix
        direction(d[:1, :1]).reshape(4, 5), direction(d[0, 0]), atol=1e-12
    )


def test_vectors_and_scalars_step_by_a_root_mean_square_of_one_whatever_the_norm():
    for norm in NORMS:
        d = random.normal(size=[7])
        np.testing.assert_allclose(direction(d, norm=norm), d / np.sqrt(np.mean(d**2)), rtol=1e-6)
        assert direction(np.float64(-3.0), norm=norm) == pytest.approx(-1.0)


@pytest.mark.parametrize("norm", NORMS)
def test_a_gradient_of_zero_moves_nothing(norm):
    for shape in (SHAPE, (3,), (), (0, 3)):
        assert not np.any(direction(np.zeros(shape), norm=norm))


@pytest.mark.parametrize("norm", NORMS)
def test_a_vectorized_stack_is_its_variables_one_by_one(norm):
    p, g = (tf.constant(random.normal(size=[3, 4, 6]), tf.float32) for _ in range(2))
    assert_vectorizes(td.Scion(norm=norm), p, g)
