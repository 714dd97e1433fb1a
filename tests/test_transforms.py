"""Gradient transforms, each of one variable's gradient."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run, run_mirrored, told, variables
from pure import namespace, started

import tf_decoupled as td
from tf_decoupled.transforms import (
    EMA,
    AdaptiveGradientClip,
    AddNoise,
    Centralize,
    ClipByBlockRMS,
    ClipByNorm,
    ClipByValue,
    NormalizeUpdate,
    Trace,
    Transform,
    ZeroNans,
)

SHAPES = [(), (5,), (3, 4), (2, 3, 2), (2, 2, 3, 4)]
STATEFUL = [EMA(), EMA(0.5, debias=False), Trace(), Trace(0.5, nesterov=True)]
EVERY = [
    *(AdaptiveGradientClip(), AdaptiveGradientClip(0.5, epsilon=0.25), Centralize()),
    *(AddNoise(0.5, seed=3), ClipByValue(0.5), ClipByNorm(0.5), ClipByBlockRMS(0.5)),
    *(NormalizeUpdate(), ZeroNans(), *STATEFUL),
]
every = pytest.mark.parametrize("transform", EVERY, ids=repr)
of_each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def at(step=1, seed=7, dtype=tf.float64):
    step = tf.constant(step, tf.int64)
    return namespace(
        dict(t=tf.cast(step, dtype), step=step, seed=tf.convert_to_tensor(seed, tf.int32))
    )


def random(shape, seed=0, dtype=tf.float64):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def updated(transform, grads, h=None, p=None):
    """What a transform makes of one gradient after the other."""
    p = tf.zeros_like(grads[0]) if p is None else p
    s, made = started(transform.init(p), p, p.dtype), []
    for g in grads:
        g, s = transform.update(p, g, namespace(s), at(dtype=p.dtype) if h is None else h)
        made.append(g)
    return made


def units(array):
    """Each output's weights as a row; a vector or scalar is one row."""
    array = np.asarray(array)
    return array.reshape(-1, array.shape[-1]).T if array.ndim >= 2 else array.reshape(1, -1)


@every
@of_each_shape
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_shape_and_precision_stay(transform, shape, dtype):
    p = random(shape, dtype=dtype)
    (g,) = updated(transform, [random(shape, 1, dtype)], at(dtype=dtype), p)
    assert g.shape == shape and g.dtype == dtype


@of_each_shape
def test_each_unit_is_clipped_to_a_part_of_its_norm(shape):
    p, g = random(shape), random(shape, 1) * 0.3
    clipped = units(AdaptiveGradientClip(0.25, epsilon=0.5)(p, g, at()))
    for weights, before, after in zip(units(p), units(g), clipped, strict=True):
        allowed = 0.25 * max(np.linalg.norm(weights), 0.5)
        factor = min(1, allowed / np.linalg.norm(before))
        np.testing.assert_allclose(after, before * factor, rtol=1e-12)


@of_each_shape
def test_units_inside_the_bound_stay_bit_for_bit(shape):
    p, g = random(shape, dtype=tf.float32), random(shape, 1, tf.float32)
    np.testing.assert_array_equal(AdaptiveGradientClip(1e4)(p, g, at()), g)


def test_a_unit_of_zeros_may_move_and_a_gradient_of_zeros_stays():
    zero, g = tf.zeros([3, 2], tf.float64), random([3, 2])
    moved = AdaptiveGradientClip(0.01, epsilon=0.5)(zero, g, at())
    np.testing.assert_allclose(np.linalg.norm(moved, axis=0), 0.005)
    assert not np.any(AdaptiveGradientClip()(g, zero, at()))
    assert not np.any(AdaptiveGradientClip()(zero, zero, at()))


def test_clips_of_huge_gradients_dont_overflow_and_nan_stays_nan():
    p, g = random([3, 2], dtype=tf.float32), random([3, 2], 1, tf.float32)
    huge = AdaptiveGradientClip()(p, 1e30 * g, at())
    np.testing.assert_allclose(huge, AdaptiveGradientClip()(p, 1e3 * g, at()), rtol=1e-5)
    spoiled = tf.tensor_scatter_nd_update(g, [[0, 0]], [np.nan])
    clipped = AdaptiveGradientClip()(p, spoiled, at()).numpy()
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
    noise = AddNoise(0.5, gamma=0.75)(zero, zero, at(step)).numpy() / math.sqrt(0.5 / step**0.75)
    assert abs(noise.mean()) < 4 / math.sqrt(noise.size)
    assert noise.var() == pytest.approx(1, abs=4 * math.sqrt(2 / noise.size))
    assert np.mean(np.abs(noise) > 1.959964) == pytest.approx(0.05, abs=0.003)


def test_variables_steps_and_seeds_have_noise_of_their_own_and_it_repeats():
    zero = tf.zeros([100, 100])

    def noise(seed=0, step=1, own=7):
        made = AddNoise(1.0, gamma=0.0, seed=seed)(zero, zero, at(step, own, tf.float32))
        return np.ravel(made)

    np.testing.assert_array_equal(noise(), noise())
    all_of_them = [noise(), noise(seed=1), noise(seed=7, own=0), noise(step=7, own=1)]
    all_of_them += [noise(step=2), noise(step=3), noise(own=8), noise(own=2**31 - 1)]
    correlations = np.corrcoef([*all_of_them, noise()[::-1], np.roll(noise(), 1)])
    assert np.abs(correlations - np.eye(10)).max() < 0.05


def test_no_noise_at_all_leaves_the_gradient():
    g = random([4])
    np.testing.assert_array_equal(AddNoise(0)(g, g, at()), g)


# Clips and lengths of whole variables.


def clipped(length, limit):
    return min(1, limit / length)


@of_each_shape
def test_clips_are_those_of_their_formulas(shape):
    g = random(shape, 1)
    a = g.numpy()
    norm, rms = np.linalg.norm(a), np.sqrt(np.mean(a**2))
    for limit in (0.1, 0.5, 100.0):
        made = [cls(limit)(g, g, at()) for cls in (ClipByValue, ClipByNorm, ClipByBlockRMS)]
        wanted = [np.clip(a, -limit, limit), a * clipped(norm, limit), a * clipped(rms, limit)]
        for mine, theirs in zip(made, wanted, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    np.testing.assert_allclose(NormalizeUpdate(3)(g, g, at()), a * 3 / norm, rtol=1e-12)


def test_gradients_inside_the_limit_stay_bit_for_bit_and_zeros_stay_zeros():
    g, zero = random([4, 3], dtype=tf.float32), tf.zeros([4, 3])
    for cls in (ClipByValue, ClipByNorm, ClipByBlockRMS):
        np.testing.assert_array_equal(cls(100)(g, g, at()), g)
        assert not np.any(cls(0.5)(zero, zero, at()))
    assert not np.any(NormalizeUpdate()(zero, zero, at()))


def test_lengths_of_huge_gradients_dont_overflow():
    g = random([4, 3], dtype=tf.float32)
    for transform in (ClipByNorm(0.5), ClipByBlockRMS(0.5), NormalizeUpdate()):
        small, huge = transform(g, 1e3 * g, at()), transform(g, 1e30 * g, at())
        np.testing.assert_allclose(small, huge, rtol=1e-5)


def test_a_nan_becomes_zero_and_inf_stays():
    g = tf.constant([1.0, np.nan, -np.inf, np.inf, -2.0])
    np.testing.assert_array_equal(ZeroNans()(g, g, at()), [1, 0, -np.inf, np.inf, -2])
    for cls in (ClipByNorm, ClipByBlockRMS):
        assert np.all(np.isnan(cls(1)(g, g, at())))


# Transforms that remember.


def averages(grads, β, debias=True):
    """m after each gradient, as the sum that the recursion comes to."""
    for n in range(1, len(grads) + 1):
        m = sum((1 - β) * β ** (n - i) * g for i, g in enumerate(grads[:n], 1))
        yield m / (1 - β**n) if debias else m


def traces(grads, β, nesterov=False):
    for n in range(1, len(grads) + 1):
        m = sum(β ** (n - i) * g for i, g in enumerate(grads[:n], 1))
        yield β * m + grads[n - 1] if nesterov else m


REMEMBERED = [
    (EMA(0.875), lambda grads: averages(grads, 0.875)),
    (EMA(0.5, debias=False), lambda grads: averages(grads, 0.5, False)),
    (EMA(0), lambda grads: grads),
    (Trace(0.75), lambda grads: traces(grads, 0.75)),
    (Trace(0.75, nesterov=True), lambda grads: traces(grads, 0.75, True)),
]


@pytest.mark.parametrize("transform,reference", REMEMBERED, ids=told)
def test_averages_and_traces_are_their_sums(transform, reference):
    grads = [random([3, 2], seed) for seed in range(6)]
    for mine, theirs in zip(updated(transform, grads), reference(grads), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


OF_THE_ENGINE = [(3, 2), (3, 2), (4,)]


def smoothed(**options):
    transforms = [ClipByNorm(0.5), EMA(0.5), EMA(0.75)]
    return td.SGDW(1.0, 0.0, momentum=0.0, gradient_transforms=transforms, **options)


def in_turn(grads):
    """The gradients of one variable after those transforms; None is a step without one."""
    present = [g * clipped(np.linalg.norm(g), 0.5) for g in grads if g is not None]
    return list(averages(list(averages(present, 0.5)), 0.75))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_each_transform_of_each_variable_has_a_state_of_its_own(compiled):
    grads = gradients(OF_THE_ENGINE, 5)
    grads[0][1] = grads[2][1] = None  # its average begins later
    starts = [v.numpy() for v in variables(OF_THE_ENGINE)]
    optimizer, trainable = smoothed(jit_compile=compiled), variables(OF_THE_ENGINE)
    for gs in grads:
        optimizer.apply([None if g is None else tf.constant(g) for g in gs], trainable)
    for i, (start, end) in enumerate(zip(starts, trainable, strict=True)):
        np.testing.assert_allclose(end, start - sum(in_turn([g[i] for g in grads])), atol=2e-6)


def test_a_skipped_step_is_not_remembered():
    grads = gradients(OF_THE_ENGINE, 4)
    spoiled = [g * np.float32(np.nan) for g in grads[0]]
    skipping = [*grads[:2], spoiled, *grads[2:]]
    plain = run(smoothed(), variables(OF_THE_ENGINE), grads, graph=True)
    optimizer = smoothed(skip_nonfinite=True)
    for a, b in zip(
        plain, run(optimizer, variables(OF_THE_ENGINE), skipping, graph=True), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert optimizer.skipped_steps.numpy() == 1


def test_what_transforms_remember_is_saved():
    grads = gradients(OF_THE_ENGINE, 6)
    expected = run(smoothed(), variables(OF_THE_ENGINE), grads)
    begun, trainable = smoothed(), variables(OF_THE_ENGINE)
    run(begun, trainable, grads[:3])
    again = td.SGDW.from_config(begun.get_config())
    again.build(trainable)
    again.set_state(begun.get_state())
    for a, b in zip(run(again, trainable, grads[3:]), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    names = {name for name in begun.get_state() if name.startswith("v0:transforms")}
    assert names == {f"v0:transforms/{i}/{name}" for i in (1, 2) for name in ("m", "weight")}


def test_replicas_remember_the_same():
    grads = gradients(OF_THE_ENGINE, 4)
    expected = run(smoothed(), variables(OF_THE_ENGINE), grads)
    trainable, _ = run_mirrored(smoothed, grads, OF_THE_ENGINE)
    for v, end in zip(trainable, expected, strict=True):
        np.testing.assert_allclose(v, end, atol=1e-6)


def test_a_transform_that_returns_other_slots_is_told():
    class Forgetful(Trace):
        def update(self, p, g, s, h):
            return g, {}

    optimizer = td.SGDW(gradient_transforms=[Forgetful()], jit_compile=False)
    with pytest.raises(ValueError, match=r"(?s)must return the slots.*Declared.*0/m.*Received"):
        optimizer.apply([tf.ones([3])], variables([(3,)]))


@every
@of_each_shape
@pytest.mark.parametrize("compiled", [False, True])
def test_a_stack_is_its_variables_one_by_one_compiled_or_not(transform, shape, compiled):
    p, g = random((3, *shape), dtype=tf.float32), random((3, *shape), 1, tf.float32)
    seeds = tf.constant([5, 6, 7])

    def one(arguments):
        p, g, seed = arguments
        return updated(transform, [g, 2 * g + p], at(seed=seed, dtype=tf.float32), p)[-1]

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
    names = {type(each).__name__: type(each) for each in EVERY}
    assert eval(repr(transform), names) == transform
    assert transform != AddNoise(0.25) and transform != 3


def test_reprs_are_as_one_writes_them():
    assert repr(Centralize()) == "Centralize()"
    assert repr(AdaptiveGradientClip(0.02)) == "AdaptiveGradientClip(limit=0.02, epsilon=0.001)"
    assert repr(EMA(0)) == "EMA(decay=0, debias=True)"
    assert repr(AddNoise(1, seed=np.int64(4))) == "AddNoise(eta=1, gamma=0.55, seed=4)"


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: AdaptiveGradientClip(0), ValueError, "`limit` of AdaptiveGr.* a finite.*limit=0$"),
        (lambda: AdaptiveGradientClip(epsilon=-1.0), ValueError, "`epsilon` of Adaptive.*> 0"),
        (
            lambda: AdaptiveGradientClip("0.1"),
            TypeError,
            "`limit` of Adaptive.*Received: limit='0.1'",
        ),
        (lambda: AdaptiveGradientClip(math.inf), ValueError, "finite"),
        (lambda: AdaptiveGradientClip(1e39), ValueError, "finite"),
        (lambda: ClipByValue(0), ValueError, "`limit` of ClipByValue must be a finite number > 0"),
        (lambda: ClipByNorm(-1.0), ValueError, "`limit` of ClipByNorm"),
        (lambda: ClipByBlockRMS(None), TypeError, "`limit` of ClipByBlockRMS"),
        (lambda: NormalizeUpdate(0), ValueError, "`scale` of NormalizeUpdate"),
        (lambda: EMA(1.0), ValueError, r"`decay` of EMA must be a number in \[0, 1\)"),
        (lambda: EMA(debias=1), TypeError, "`debias` of EMA must be True or False"),
        (lambda: Trace(-0.1), ValueError, "`decay` of Trace"),
        (lambda: Trace(nesterov=None), TypeError, "`nesterov` of Trace must be True or False"),
        (lambda: AddNoise(math.nan), ValueError, "`eta` of AddNoise must be a finite number >= 0"),
        (lambda: AddNoise(0.1, gamma=None), TypeError, "`gamma` of AddNoise"),
        (lambda: AddNoise(0.1, seed=1.5), ValueError, "`seed` of AddNoise must be an integer"),
        (lambda: AddNoise(0.1, seed=-1), ValueError, "`seed` of AddNoise must be an integer"),
        (lambda: AddNoise(True), TypeError, "`eta` of AddNoise"),
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


def test_variables_of_one_shape_get_different_noise():
    trainable = variables([(6,), (6,)])
    start, zero = [v.numpy() for v in trainable], [[np.zeros(6, "float32")] * 2]
    moved = run(td.SGD(1.0, gradient_transforms=[AddNoise(1.0)]), trainable, zero)
    a, b = (p - q for p, q in zip(moved, start, strict=True))
    assert np.all(a != 0) and np.all(a != b)
