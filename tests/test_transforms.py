"""Gradient transforms, each of one variable's gradient."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from pure import namespace

from tf_decoupled.transforms import AdaptiveClip, Centralize, Noise, Transform

SHAPES = [(), (5,), (3, 4), (2, 3, 2), (2, 2, 3, 4)]
EVERY = [AdaptiveClip(), AdaptiveClip(0.5, epsilon=0.25), Centralize(), Noise(0.5, seed=3)]
every = pytest.mark.parametrize("transform", EVERY, ids=repr)
of_each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def at(step=1, seed=7, dtype=tf.float64):
    step = tf.constant(step, tf.int64)
    return namespace(
        dict(t=tf.cast(step, dtype), step=step, seed=tf.convert_to_tensor(seed, tf.int32))
    )


def random(shape, seed=0, dtype=tf.float64):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def units(array):
    """Each output's weights as a row; a vector or scalar is one row."""
    array = np.asarray(array)
    return array.reshape(-1, array.shape[-1]).T if array.ndim >= 2 else array.reshape(1, -1)


@every
@of_each_shape
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_shape_and_precision_stay(transform, shape, dtype):
    g = transform(random(shape, dtype=dtype), random(shape, 1, dtype), at(dtype=dtype))
    assert g.shape == shape and g.dtype == dtype


@of_each_shape
def test_each_unit_is_clipped_to_a_part_of_its_norm(shape):
    p, g = random(shape), random(shape, 1) * 0.3
    clipped = units(AdaptiveClip(0.25, epsilon=0.5)(p, g, at()))
    for weights, before, after in zip(units(p), units(g), clipped, strict=True):
        allowed = 0.25 * max(np.linalg.norm(weights), 0.5)
        factor = min(1, allowed / np.linalg.norm(before))
        np.testing.assert_allclose(after, before * factor, rtol=1e-12)


@of_each_shape
def test_units_inside_the_bound_stay_bit_for_bit(shape):
    p, g = random(shape, dtype=tf.float32), random(shape, 1, tf.float32)
    np.testing.assert_array_equal(AdaptiveClip(1e4)(p, g, at()), g)


def test_a_unit_of_zeros_may_move_and_a_gradient_of_zeros_stays():
    zero, g = tf.zeros([3, 2], tf.float64), random([3, 2])
    moved = AdaptiveClip(0.01, epsilon=0.5)(zero, g, at())
    np.testing.assert_allclose(np.linalg.norm(moved, axis=0), 0.005)
    assert not np.any(AdaptiveClip()(g, zero, at()))
    assert not np.any(AdaptiveClip()(zero, zero, at()))


def test_clips_of_huge_gradients_dont_overflow_and_nan_stays_nan():
    p, g = random([3, 2], dtype=tf.float32), random([3, 2], 1, tf.float32)
    huge = AdaptiveClip()(p, 1e30 * g, at())
    np.testing.assert_allclose(huge, AdaptiveClip()(p, 1e3 * g, at()), rtol=1e-5)
    spoiled = tf.tensor_scatter_nd_update(g, [[0, 0]], [np.nan])
    clipped = AdaptiveClip()(p, spoiled, at()).numpy()
    assert np.isnan(clipped[0, 0]) and np.all(np.isfinite(clipped[:, 1]))


@of_each_shape
def test_the_gradients_of_each_unit_sum_to_zero(shape):
    g = random(shape, 1)
    centred = Centralize()(random(shape), g, at())
    if len(shape) < 2:
        np.testing.assert_array_equal(centred, g)
        return
    np.testing.assert_allclose(units(centred).sum(1), 0, atol=1e-14)
    shifts = units(g) - units(centred)
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1], shifts.shape), atol=1e-14)
    assert np.ptp(shifts[:, 0]) > 1e-3  # each unit has a mean of its own


@pytest.mark.parametrize("step", [1, 2, 1000])
def test_noise_has_the_variance_of_its_step(step):
    zero = tf.zeros([200, 500], tf.float64)
    noise = Noise(0.5, gamma=0.75)(zero, zero, at(step)).numpy() / math.sqrt(0.5 / step**0.75)
    assert abs(noise.mean()) < 4 / math.sqrt(noise.size)
    assert noise.var() == pytest.approx(1, abs=4 * math.sqrt(2 / noise.size))
    assert np.mean(np.abs(noise) > 1.959964) == pytest.approx(0.05, abs=0.003)


def test_variables_steps_and_seeds_have_noise_of_their_own_and_it_repeats():
    zero = tf.zeros([100, 100])

    def noise(seed=0, step=1, own=7):
        made = Noise(1.0, gamma=0.0, seed=seed)(zero, zero, at(step, own, tf.float32))
        return np.ravel(made)

    np.testing.assert_array_equal(noise(), noise())
    all_of_them = [noise(), noise(seed=1), noise(seed=7, own=0), noise(step=7, own=1)]
    all_of_them += [noise(step=2), noise(step=3), noise(own=8), noise(own=2**31 - 1)]
    correlations = np.corrcoef([*all_of_them, noise()[::-1], np.roll(noise(), 1)])
    assert np.abs(correlations - np.eye(10)).max() < 0.05


def test_no_noise_at_all_leaves_the_gradient():
    g = random([4])
    np.testing.assert_array_equal(Noise(0)(g, g, at()), g)


@every
@of_each_shape
@pytest.mark.parametrize("compiled", [False, True])
def test_a_stack_is_its_variables_one_by_one_compiled_or_not(transform, shape, compiled):
    p, g = random((3, *shape), dtype=tf.float32), random((3, *shape), 1, tf.float32)
    seeds = tf.constant([5, 6, 7])

    def one(arguments):
        p, g, seed = arguments
        return transform(p, g, at(seed=seed, dtype=tf.float32))

    def stacked(*arguments):
        return tf.vectorized_map(one, arguments, fallback_to_while_loop=False)

    together = tf.function(stacked, jit_compile=compiled, autograph=False)(p, g, seeds)
    for i in range(3):
        alone = one((p[i], g[i], seeds[i]))
        np.testing.assert_allclose(together[i], alone, rtol=1e-5, atol=1e-6)


@every
def test_a_transform_is_written_as_it_is_made_and_comes_back_from_its_configuration(transform):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(transform))
    assert again == transform and hash(again) == hash(transform)
    names = {cls.__name__: cls for cls in (AdaptiveClip, Centralize, Noise)}
    assert eval(repr(transform), names) == transform
    assert transform != Noise(0.25) and transform != 3


def test_reprs_are_as_one_writes_them():
    assert repr(Centralize()) == "Centralize()"
    assert repr(AdaptiveClip(0.02)) == "AdaptiveClip(limit=0.02, epsilon=0.001)"
    assert repr(Noise(1, seed=np.int64(4))) == "Noise(eta=1, gamma=0.55, seed=4)"


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: AdaptiveClip(0), ValueError, "`limit` of AdaptiveClip must be a finite.*limit=0$"),
        (lambda: AdaptiveClip(epsilon=-1.0), ValueError, "`epsilon` of AdaptiveClip.*> 0"),
        (lambda: AdaptiveClip("0.1"), TypeError, "`limit` of AdaptiveClip.*Received: limit='0.1'"),
        (lambda: AdaptiveClip(math.inf), ValueError, "finite"),
        (lambda: AdaptiveClip(1e39), ValueError, "finite"),
        (lambda: Noise(math.nan), ValueError, "`eta` of Noise must be a finite number >= 0"),
        (lambda: Noise(0.1, gamma=None), TypeError, "`gamma` of Noise"),
        (lambda: Noise(0.1, seed=1.5), ValueError, "`seed` of Noise must be an integer"),
        (lambda: Noise(0.1, seed=-1), ValueError, "`seed` of Noise must be an integer"),
        (lambda: Noise(True), TypeError, "`eta` of Noise"),
    ],
)
def test_wrong_arguments_are_told(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_ones_own_needs_a_call_only():
    class Half(Transform):
        """Half of the gradient."""

        def __call__(self, p, g, h):
            return g / 2

    assert repr(Half()) == "Half()" and float(Half()(0.0, 3.0, None)) == 1.5
    with pytest.raises(NotImplementedError, match=r"Transform must say `\(p, g, h\) -> g`"):
        Transform()(0.0, 3.0, None)
