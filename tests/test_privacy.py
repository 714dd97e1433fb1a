"""DPSGD: what the noise is."""

import numpy as np
import pure
import pytest
import tensorflow as tf

import tf_decoupled as td

ZERO = [np.zeros([100, 100])]


def noise(steps=1, **options):
    """What a rate of 1 adds to the weights in each of some steps, without a gradient."""
    rule = td.DPSGD(1.0, **options)
    path = [ZERO[0], *(now.values[0].numpy() for now in pure.steps(rule, ZERO, [ZERO] * steps))]
    return -np.diff(path, axis=0)


@pytest.mark.parametrize("clip_norm,noise_multiplier,lot_size", [(1, 1, 1), (0.5, 3, 8)])
def test_the_noise_is_normal_with_the_deviation_of_the_paper(clip_norm, noise_multiplier, lot_size):
    options = dict(clip_norm=clip_norm, noise_multiplier=noise_multiplier, lot_size=lot_size)
    x = noise(**options)[0] / (noise_multiplier * clip_norm / lot_size)
    moments = [np.mean(x), np.mean(x**2), np.mean(x**3), np.mean(x**4)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.15)  # 10,000 numbers


def test_every_step_and_seed_has_its_own_noise():
    first, second = noise(2)
    (other,) = noise(1, seed=2)
    for a, b in [(first, second), (first, other)]:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.05


def test_every_variable_has_its_own_noise():
    trainable = [tf.Variable(tf.zeros([50, 50]), name=name) for name in ("a", "b")]
    td.DPSGD(1.0).apply([tf.zeros([50, 50])] * 2, trainable)
    a, b = (v.numpy().ravel() for v in trainable)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.1 and np.std(a) > 0.9


def test_without_noise_it_is_sgd_bit_for_bit():
    rng = np.random.default_rng(0)
    start, grads = [rng.normal(size=[3, 4])], [[rng.normal(size=[3, 4])] for _ in range(3)]
    options = dict(momentum=0.5, weight_decay=0.1)
    ours, _ = pure.train(td.DPSGD(0.1, noise_multiplier=0.0, **options), start, grads)
    theirs, _ = pure.train(td.SGDW(0.1, **options), start, grads)
    np.testing.assert_array_equal(ours[0], theirs[0])


def test_it_is_sgd_on_the_noisy_gradient_of_per_example():
    x = tf.constant(np.random.default_rng(0).normal(size=[64, 200]), tf.float32)
    v = tf.Variable(tf.zeros([200]), name="v")
    loss_fn = lambda x: tf.reduce_sum(x * v)  # noqa: E731
    options = dict(noise_multiplier=2.0)
    clipped = td.gradients.per_example(loss_fn, [v], x, 0.5).gradients[0]
    noisy = td.gradients.per_example(loss_fn, [v], x, 0.5, seed=[1, 1], **options).gradients[0]
    td.DPSGD(1.0, clip_norm=0.5, lot_size=64.0, **options).apply([clipped], [v])
    ours, theirs = -v.numpy() - clipped.numpy(), noisy.numpy() - clipped.numpy()
    for noise in (ours, theirs):
        np.testing.assert_allclose(np.std(noise), 2.0 * 0.5 / 64, rtol=0.15)
