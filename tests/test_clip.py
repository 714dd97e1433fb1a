"""Clipping: by value, by each norm, by the norm of all."""

import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run, variables

import tf_decoupled as td

SHAPES = [(3, 4), (5,)]


def clipped(grads, optimizer=None, **clip):
    """What is left of the gradients: plain SGD at rate 1 from zero, negated."""
    zeros = variables(SHAPES)
    for v in zeros:
        v.assign(tf.zeros_like(v))
    optimizer = optimizer or td.SGD(1.0, **clip)
    return [-p for p in run(optimizer, zeros, [grads], graph=True)]


def norm(*arrays):
    return np.sqrt(sum(np.sum(np.square(a, dtype=np.float64)) for a in arrays))


@pytest.mark.parametrize("limit", [0.5, 2.0, 1e6, float("inf")])
def test_each_clip_is_its_formula(limit):
    (grads,) = gradients(SHAPES, steps=1)
    whole = norm(*grads)
    expected = {
        "clipvalue": [np.clip(g, -limit, limit) for g in grads],
        "clipnorm": [g * min(1, limit / norm(g)) for g in grads],
        "global_clipnorm": [g * min(1, limit / whole) for g in grads],
    }
    for clip, values in expected.items():
        for a, b in zip(clipped(grads, **{clip: limit}), values, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=clip)


def test_norms_of_huge_and_tiny_gradients_are_right_where_squares_are_not():
    (grads,) = gradients(SHAPES, steps=1)
    for scale in (1e25, 1e-25):
        for clip in ("clipnorm", "global_clipnorm"):
            big = clipped([g * np.float32(scale) for g in grads], **{clip: 0.5 * scale})
            for a, b in zip(big, clipped(grads, **{clip: 0.5}), strict=True):
                np.testing.assert_allclose(a / scale, b, rtol=1e-5)


def test_a_nan_anywhere_shows_in_every_gradient_of_a_global_clip():
    (grads,) = gradients(SHAPES, steps=1)
    grads[0][0, 0] = np.inf
    assert all(np.all(np.isnan(g)) for g in clipped(grads, global_clipnorm=1.0))


def test_a_zero_gradient_stays_zero():
    zero = [np.zeros(shape, "float32") for shape in SHAPES]
    for clip in ("clipvalue", "clipnorm", "global_clipnorm"):
        assert not any(np.any(g) for g in clipped(zero, **{clip: 1.0}))


def test_the_loss_scale_is_taken_out_before_the_clip():
    (grads,) = gradients(SHAPES, steps=1)
    optimizer = td.SGD(1.0, loss_scale_factor=1024.0, global_clipnorm=1.0)
    scaled = clipped([float(optimizer.scale_loss(tf.constant(1.0))) * g for g in grads], optimizer)
    for a, b in zip(scaled, clipped(grads, global_clipnorm=1.0), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert float(td.SGD(loss_scale_factor=8.0).scale_loss(tf.constant(2.0))) == 16.0


def test_the_l2_gradient_and_the_decay_are_not_clipped():
    (v,), zero = variables([(4,)]), [[np.zeros(4, "float32")]]
    start = v.numpy()
    run(td.SGD(1.0, l2=0.25, weight_decay=0.5, global_clipnorm=1e-6), [v], zero)
    np.testing.assert_allclose(v, start * 0.25, rtol=1e-6)
