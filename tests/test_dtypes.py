"""Variables that aren't float32: stepped in float64, or overwritten with their gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, mirrored, small_data, tell_loss

import tf_decoupled as td

SHAPES = [(3, 4), (5,), (3, 4)]


def float64_variables():
    rng = np.random.default_rng(0)
    return [
        keras.Variable(rng.normal(size=s), dtype="float64", name=f"v{i}")
        for i, s in enumerate(SHAPES)
    ]


@pytest.fixture
def float64_numbers():
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


@pytest.mark.parametrize("jit_compile", [False, True])
def test_float64_variables_are_stepped_in_float64(float64_numbers, jit_compile):
    trainable = float64_variables()
    grads = [[g.astype("float64") for g in gs] for gs in gradients(SHAPES, 5)]
    optimizer = td.AdamW(1e-3, 0.1, jit_compile=jit_compile)
    for gs in grads:
        optimizer.apply([tf.constant(g) for g in gs], trainable)
    for i, start in enumerate(float64_variables()):
        p, m, v = start.numpy(), 0.0, 0.0
        for t, gs in enumerate(grads, start=1):
            m, v = 0.9 * m + 0.1 * gs[i], 0.999 * v + 0.001 * gs[i] ** 2
            u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            p = p - 1e-3 * u - 1e-3 * 0.1 * p
        np.testing.assert_allclose(trainable[i], p, rtol=1e-13)
    state = optimizer.get_state()
    assert state["v0:m"].dtype == state["learning_rate"].dtype == np.float64


def test_without_float64_numbers_the_rounding_is_theirs_alone():
    trainable, expected = float64_variables(), [v.numpy() for v in float64_variables()]
    optimizer = td.SGDW(0.1, 0.0, momentum=0.0, jit_compile=False)
    for gs in gradients(SHAPES, 3):
        optimizer.apply([tf.constant(g, tf.float64) for g in gs], trainable)
        rate = np.float64(np.float32(0.1))
        expected = [p - rate * g.astype("float64") for p, g in zip(expected, gs, strict=True)]
    for a, b in zip(trainable, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: td.AdamW(0.1, global_clipnorm=0.5),
        lambda: td.Prodigy(d0=0.01),
        lambda: td.DAdaptAdamW(d0=0.01),
        lambda: td.DoG(),
        lambda: td.KOALAV(),
        lambda: td.KOALAM(),
        lambda: td.Mechanic(td.AdamW(0.1)),
        lambda: td.ScheduleFree(td.AdamW(0.1)),
    ],
)
def test_float64_numbers_go_with_sums_over_all_variables(float64_numbers, make, dtype):
    """It ends where float32 numbers do, but for rounding."""
    ends = []
    for floatx in ("float64", "float32"):
        keras.config.set_floatx(floatx)
        trainable, optimizer = [keras.Variable(v, dtype=dtype) for v in float64_variables()], make()
        for gs in gradients(SHAPES, 4):
            tell_loss(optimizer, 1.0)
            optimizer.apply([tf.constant(g, dtype) for g in gs], trainable)
        ends.append([v.numpy() for v in trainable])
    for a, b in zip(*ends, strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda **k: td.AdamW(0.1, **k),
        lambda **k: td.LAMB(0.1, **k),
        lambda **k: td.Adafactor(0.1, **k),
        lambda **k: td.Lookahead(td.Lion(0.1), **k),
        lambda **k: td.Prodigy(d0=0.01, **k),
        lambda **k: td.ScheduleFree(td.AdamW(0.1), **k),
    ],
)
def test_float64_goes_with_every_concern(make):
    trainable = float64_variables()
    optimizer = make(
        clipnorm=1.0,
        use_ema=True,
        skip_nonfinite=True,
        track_gradient_norm=True,
        gradient_accumulation_steps=2,
        gradient_transforms=[td.transforms.Centralize(), td.transforms.AddNoise(0.01)],
        jit_compile=False,
    )
    for gs in gradients(SHAPES, 4):
        optimizer.apply([tf.constant(g, tf.float64) for g in gs], trainable)
    assert all(np.isfinite(v.numpy()).all() and v.dtype == "float64" for v in trainable)
    assert int(optimizer.iterations) == 2
    with optimizer.evaluation_weights():
        assert all(np.isfinite(v.numpy()).all() for v in trainable)


def test_float64_and_float32_variables_go_side_by_side():
    wide, narrow = float64_variables()[0], keras.Variable(np.ones((3, 4), "float32"))
    optimizer = td.AdamW(0.1, global_clipnorm=1.0, jit_compile=False)
    optimizer.apply([tf.ones((3, 4), tf.float64), tf.ones((3, 4))], [wide, narrow])
    assert len(optimizer.blocks) == 2 and wide.dtype == "float64" and narrow.dtype == "float32"
    np.testing.assert_allclose(narrow, 0.9, rtol=1e-2)


def overwritten(value, name="scale"):
    variable = keras.Variable(value, dtype="float32", name=name, trainable=True)
    variable.overwrite_with_gradient = True
    return variable


def test_what_is_overwritten_becomes_its_gradient_whatever_happens_to_others():
    scale, weight = overwritten([1.0, 2.0]), keras.Variable([1.0, 2.0], name="weight")
    optimizer = td.SGDW(
        1.0, 0.5, momentum=0.0, clipnorm=0.1, loss_scale=8.0, skip_nonfinite=True, jit_compile=False
    )
    optimizer.scale_loss(tf.constant(1.0))
    optimizer.apply([tf.constant([5.0, 6.0]), tf.constant([8.0, 0.0])], [scale, weight])
    np.testing.assert_array_equal(scale, [5.0, 6.0])
    np.testing.assert_allclose(weight, [1 - 0.1 - 0.5, 1.0], rtol=1e-6)
    optimizer.apply([tf.constant([7.0, np.inf]), tf.constant([np.nan, 0.0])], [scale, weight])
    np.testing.assert_array_equal(scale, [7.0, np.inf])  # as Keras's LossScaleOptimizer
    np.testing.assert_allclose(weight, [1 - 0.1 - 0.5, 1.0], rtol=1e-6)
    assert int(optimizer.skipped_steps) == 1 and not any(
        "scale:" in n for n in optimizer.get_state()
    )


def test_over_an_accumulation_the_largest_counts_as_in_keras():
    for make in (td.SGDW, keras.optimizers.SGD):
        scale, weight = overwritten([1.0, 2.0]), keras.Variable([1.0, 2.0], name="weight")
        optimizer = make(1.0, gradient_accumulation_steps=2)
        for first in ([3.0, 9.0], [4.0, 5.0]):
            before = scale.numpy()
            optimizer.apply([tf.constant(first), tf.constant([1.0, 1.0])], [scale, weight])
        np.testing.assert_array_equal(before, [1.0, 2.0])
        np.testing.assert_array_equal(scale, [4.0, 9.0])


def test_replicas_overwrite_with_the_largest_of_theirs():
    with mirrored().scope():
        scale, optimizer = overwritten([1.0, 2.0]), td.SGDW(1.0, jit_compile=False)
        optimizer.build([scale])

    @tf.function
    def step():
        def replica():
            i = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
            optimizer.apply([tf.stack([3.0 + i, 9.0 - i])], [scale])

        mirrored().run(replica)

    step()
    np.testing.assert_array_equal(scale.numpy(), [4.0, 9.0])


def test_a_float8_layer_trains_as_with_keras():
    def trained(optimizer):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(4, name="dense")])
        model.layers[0].quantize("float8")
        model.compile(optimizer, "mse", jit_compile=False)
        x, _ = small_data()
        model.fit(x, x, epochs=1, verbose=0, shuffle=False)
        return model.get_weights()

    ours = trained(td.SGDW(0.1, 0.0, momentum=0.0, jit_compile=False))
    theirs = trained(keras.optimizers.SGD(0.1))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_optimizer_of_overwritten_variables_alone_steps():
    scale = overwritten([1.0])
    optimizer = td.AdamW(
        global_clipnorm=1.0, skip_nonfinite=True, track_gradient_norm=True, jit_compile=False
    )
    optimizer.apply([tf.constant([3.0])], [scale])
    assert scale.numpy() == [3.0] and optimizer.gradient_norm.numpy() == 0
    assert int(optimizer.iterations) == 1
