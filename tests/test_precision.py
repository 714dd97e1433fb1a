"""bfloat16 and float16 variables train as float32 ones do."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run, state_of

import tf_decoupled as td
from tf_decoupled.engine.concerns.precision import round_stochastically


def narrow(dtype, shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [
        keras.Variable(rng.normal(size=s).astype("float32"), dtype=dtype, name=f"v{i}")
        for i, s in enumerate(shapes)
    ]


def regression_loss(dtype, steps=1000, **options):
    """The loss of a linear model with weights of `dtype` after AdamW steps at rate 1e-3."""
    rng = np.random.default_rng(7)
    x = tf.constant(rng.normal(size=(512, 16)), tf.float32)
    truth = tf.constant(rng.normal(size=16) * 0.3, tf.float32)
    y = tf.linalg.matvec(x, truth) + tf.constant(rng.normal(size=512) * 0.5, tf.float32)
    w = keras.Variable(np.full(16, 0.1, "float32"), dtype=dtype, name="w")
    optimizer = td.AdamW(1e-3, **options)
    optimizer.build([w])

    def loss(weights):
        return tf.reduce_mean((tf.linalg.matvec(x, tf.cast(weights, tf.float32)) - y) ** 2)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = loss(w.value)
        optimizer.apply([tape.gradient(value, w.value)], [w])

    for _ in range(steps):
        step()
    return float(loss(w.value))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("mode", ["master", "stochastic"])
def test_a_thousand_steps_end_within_a_hundredth_of_float32(dtype, mode):
    wide = regression_loss("float32")
    assert regression_loss("float32", steps=1) > 3 * wide, "nothing was learned to compare"
    np.testing.assert_allclose(regression_loss(dtype, low_precision=mode), wide, rtol=0.01)


@pytest.mark.parametrize("mode", ["master", "stochastic"])
def test_slots_are_float32_and_a_value_assigned_between_steps_is_respected(mode):
    (v,), zero = narrow("bfloat16", [(3,)]), [[np.zeros(3, "float32")]]
    optimizer = td.AdamW(1e-3, low_precision=mode)
    run(optimizer, [v], zero)
    dtypes = {value.dtype.name for value in state_of(optimizer).values() if value.shape}
    assert dtypes == {"float32"}
    v.assign([1.0, 2.0, 3.0])
    run(optimizer, [v], zero)
    np.testing.assert_allclose(tf.cast(v.value, tf.float32), [1.0, 2.0, 3.0], rtol=0.01)


@pytest.mark.parametrize("dtype,step", [("bfloat16", 2.0**-7), ("float16", 2.0**-10)])
def test_stochastic_rounding_takes_a_neighbour_and_is_right_on_average(dtype, step):
    for value in (1.0 + 0.3 * step, -1.0 - 0.3 * step):
        x = tf.fill([20_000], tf.constant(value, tf.float32))
        rounded = tf.cast(
            round_stochastically(x, tf.as_dtype(dtype), tf.constant([1, 2])), tf.float32
        )
        assert set(np.unique(rounded)) == {np.sign(value), np.sign(value) * (1 + step)}
        np.testing.assert_allclose(np.mean(rounded), value, atol=0.02 * step)


def test_stochastic_rounding_keeps_exact_values_tiny_ones_and_what_is_not_finite():
    special = tf.constant([0.0, 1.0, -2.5, np.inf, -np.inf, np.nan])
    for dtype in (tf.bfloat16, tf.float16):
        rounded = tf.cast(round_stochastically(special, dtype, tf.constant([0, 0])), tf.float32)
        np.testing.assert_array_equal(rounded, special)
    tiny = tf.fill([20_000], tf.constant(0.25 * 2.0**-24))
    rounded = tf.cast(round_stochastically(tiny, tf.float16, tf.constant([0, 1])), tf.float32)
    np.testing.assert_allclose(np.mean(rounded), 0.25 * 2.0**-24, rtol=0.05)


@pytest.mark.xla
def test_stochastic_rounding_resumes_bit_for_bit():
    grads, make = gradients([(4,)], steps=6), lambda: td.AdamW(1e-2, low_precision="stochastic")
    (whole,), (part,), (rest,) = (narrow("bfloat16", [(4,)]) for _ in range(3))
    run(make(), [whole], grads, graph=True)
    first, second = make(), make()
    run(first, [part], grads[:3], graph=True)
    second.build([rest])
    second.set_state(first.get_state())
    rest.assign(part)
    run(second, [rest], grads[3:], graph=True)
    np.testing.assert_array_equal(rest.numpy(), whole.numpy())


def after_five_steps(*before, name="block/dense_1/kernel"):
    """A bfloat16 variable after stochastic steps, with others built before it."""
    *others, v = [tf.Variable(tf.ones([64], tf.bfloat16), name=n) for n in (*before, name)]
    optimizer = td.AdamW(1e-3, low_precision="stochastic", jit_compile=False)
    optimizer.build([*others, v])
    for (g,) in gradients([(64,)], steps=5):
        optimizer.apply([tf.constant(g)], [v])
    return v.numpy()


def test_a_variable_is_rounded_alike_whatever_is_built_before_it():
    expected = after_five_steps()
    later = after_five_steps("block/head/kernel", "block/norm/beta")
    np.testing.assert_array_equal(later, expected)
    other = after_five_steps(name="block/dense_1/bias")
    assert (other != expected).any(), "each variable has random bits of its own"


def test_rounding_goes_on_alike_under_the_names_that_keras_gives_a_loaded_model():
    names = ("sequential/dense_1/kernel", "dense_9/kernel")
    first, second = (tf.Variable(tf.ones([64], tf.bfloat16), name=name) for name in names)
    made = lambda: td.AdamW(1e-3, low_precision="stochastic", jit_compile=False)  # noqa: E731
    optimizers = made(), made()
    for optimizer, v in zip(optimizers, (first, second), strict=True):
        optimizer.build([v])
    optimizers[1].set_state(optimizers[0].get_state())
    for (g,) in gradients([(64,)], steps=3):
        for optimizer, v in zip(optimizers, (first, second), strict=True):
            optimizer.apply([tf.constant(g)], [v])
    np.testing.assert_array_equal(first.numpy(), second.numpy())


# What other concerns read of a low-precision variable comes from its master.


def test_rows_that_were_missed_catch_up_in_the_master():
    table = keras.Variable(np.ones((3, 2), "float32"), dtype="bfloat16", name="table")
    optimizer = td.SGDW(0.1, momentum=0.0, weight_decay=0.5, sparse="lazy", jit_compile=False)
    optimizer.build([table])
    for row in (0, 0, 0, 0, 1):
        slices = tf.IndexedSlices(tf.zeros((1, 2)), tf.constant([row]), tf.constant([3, 2]))
        optimizer.apply([slices], [table])
    expected = np.array([0.95**4, 0.95**5, 1.0], "float32")
    np.testing.assert_allclose(np.float32(table.numpy())[:, 0], expected, rtol=2.0**-8)


def test_training_goes_on_from_evaluation_weights_in_low_precision():
    def path(held):
        v = keras.Variable(np.ones(4, "float32"), dtype="bfloat16", name="v")
        rule = td.SGDW(0.5, momentum=0.0, weight_decay=0.0)
        optimizer = td.ScheduleFree(rule, beta=0.5, jit_compile=False)
        optimizer.build([v])
        for step in range(4):
            if step == held:
                before = np.float32(v.numpy())
                optimizer.finalize_variable_values([v])  # as at the end of `fit`
                assert np.all(np.abs(np.float32(v.numpy()) - before) > 0.1)
            optimizer.apply([tf.ones(4)], [v])
        return np.float32(v.numpy())

    np.testing.assert_allclose(path(held=3), path(held=None), rtol=0.02, atol=0.02)
