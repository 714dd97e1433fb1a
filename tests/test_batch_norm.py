"""refresh_batch_norm: the moving statistics become those of the data under the present weights."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import mirrored

import tf_decoupled as td
from tf_decoupled.batch_norm import refresh_batch_norm

layers = keras.layers


def rows(n=50, width=4, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, width)) * [1, 5, 0.1, 2] + [0, 3, -1, 100]).astype("float32")


def first_norm(**options):
    """A model whose first layer is the normalization, so that its input is the data."""
    norm = layers.BatchNormalization(name="norm", **options)
    return keras.Sequential([layers.Input((4,)), norm, layers.Dense(2)]), norm


def statistics(norm):
    return norm.moving_mean.numpy(), norm.moving_variance.numpy()


def check(norm, x, rtol=2e-6):
    """The statistics are those of x over all axes but the last, in float64."""
    x = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    np.testing.assert_allclose(norm.moving_mean, x.mean(0), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(norm.moving_variance, x.var(0), rtol=10 * rtol)


def everything(model):
    return {i: v.numpy() for i, v in enumerate(model.variables)}


class Batches(keras.utils.PyDataset):
    def __init__(self, x, size=16):
        super().__init__()
        self.x, self.size = x, size

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, i):
        return self.x[i * self.size : (i + 1) * self.size], np.zeros(1)


def dataset(*tensors):
    return tf.data.Dataset.from_tensor_slices(tensors if len(tensors) > 1 else tensors[0])


X = rows()
FORMS = [
    X,
    tf.constant(X),
    (X, np.zeros(50)),
    dataset(X).batch(16),
    dataset(X, np.zeros(50), np.ones(50)).batch(16),
    Batches(X),
    [X[:7], X[7:]],
    ((X[i : i + 9], None) for i in range(0, 50, 9)),
]


def test_the_statistics_are_the_exact_ones_of_all_data_in_every_form():
    model, norm = first_norm()
    for data in FORMS:
        norm.moving_mean.assign(np.full(4, np.nan))
        norm.moving_variance.assign(np.full(4, np.nan))
        assert refresh_batch_norm(model, data) == [norm.path]
        check(norm, X)


def test_how_the_data_are_batched_does_not_count():
    model, norm = first_norm(momentum=0.3)
    for size in (1, 7, 50):
        refresh_batch_norm(model, X, batch_size=size)
        check(norm, X)


def test_steps_limits_the_batches_also_of_endless_data():
    model, norm = first_norm()
    for data in (
        dataset(X).batch(10).repeat(),
        (X[i % 50 : i % 50 + 10] for i in range(0, 999, 10)),
    ):
        refresh_batch_norm(model, data, steps=3)
        check(norm, X[:30])


def test_a_dict_of_arrays_feeds_a_model_with_several_inputs():
    a, b = layers.Input((4,), name="a"), layers.Input((4,), name="b")
    norm = layers.BatchNormalization()
    model = keras.Model({"a": a, "b": b}, norm(layers.Concatenate()([a, b])))
    refresh_batch_norm(model, {"a": X, "b": X[::-1] * 2})
    check(norm, np.concatenate([X, X[::-1] * 2], 1))


@pytest.mark.parametrize("axis", [-1, 1])
def test_images_count_every_position(axis):
    x = np.random.default_rng(0).normal(3, 2, size=(10, 3, 5, 4)).astype("float32")
    norm = layers.BatchNormalization(axis=axis)
    model = keras.Sequential([layers.Input(x.shape[1:]), norm])
    refresh_batch_norm(model, x, batch_size=4)
    check(norm, np.moveaxis(x, axis, -1))


def test_masked_positions_do_not_count():
    x = np.random.default_rng(0).normal(size=(20, 5, 4)).astype("float32")
    x[:, 3:] = 0.0
    x[:5, 1:] = 0.0
    norm = layers.BatchNormalization()
    model = keras.Sequential([layers.Input((5, 4)), layers.Masking(), norm])
    refresh_batch_norm(model, x, batch_size=6)
    check(norm, x[np.any(x != 0, -1)])


def test_batches_of_different_size_and_shape_count_by_their_positions():
    norm = layers.BatchNormalization()
    model = keras.Sequential([layers.Input((None, 4)), norm])
    rng = np.random.default_rng(0)
    batches = [rng.normal(i, i + 1, size=(3 + i, 2 * i + 1, 4)).astype("float32") for i in range(4)]
    refresh_batch_norm(model, [*batches, np.zeros((0, 3, 4), "float32")])
    check(norm, np.concatenate([b.reshape(-1, 4) for b in batches]))


def test_a_layer_that_is_called_twice_pools_both_calls():
    norm = layers.BatchNormalization()
    x = layers.Input((4,))
    refresh_batch_norm(keras.Model(x, norm(x) + norm(3 * x)), X)
    check(norm, np.concatenate([X, 3 * X]))


def deep(dtype="float32", rate=0.0):
    """A model in a model, with dropout before the normalization inside."""
    inner = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dropout(rate, seed=1),
            layers.BatchNormalization(name="second", epsilon=1e-2, dtype=dtype),
        ]
    )
    first = layers.BatchNormalization(name="first", dtype=dtype)
    dense = layers.Dense(6, name="dense", dtype=dtype)
    return keras.Sequential(
        [layers.Input((4,)), first, dense, inner, layers.Dense(1, name="head", dtype=dtype)]
    )


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_layer_in_a_nested_model_sees_what_training_would_give_it_without_dropout(rate):
    model = deep(rate=rate)
    first, dense, inner, _ = model.layers
    first.gamma.assign([2.0, 1.0, 1.0, 0.5])
    second = inner.get_layer("second")
    assert refresh_batch_norm(model, X, batch_size=25) == [first.path, second.path]
    kernel, bias = (np.asarray(w, np.float64) for w in dense.get_weights())
    halves = []
    for half in np.split(X.astype(np.float64), 2):
        normal = (half - half.mean(0)) / np.sqrt(half.var(0) + first.epsilon)
        halves.append(normal * first.gamma.numpy() @ kernel + bias)
    check(first, X)
    check(second, np.concatenate(halves), rtol=2e-5)


def test_it_agrees_with_keras_own_training_on_a_single_batch():
    model = deep()
    for layer in (model.layers[0], model.layers[2].get_layer("second")):
        layer.momentum = 0.0
    model(X, training=True)
    expected = everything(model)
    for layer in (model.layers[0], model.layers[2].get_layer("second")):
        layer.moving_mean.assign(tf.fill(layer.moving_mean.shape, np.nan))
    refresh_batch_norm(model, X, batch_size=50)
    for i, value in everything(model).items():
        np.testing.assert_allclose(value, expected[i], rtol=1e-5, atol=1e-6)


def test_layers_inside_of_layers_are_found():
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.norms = {"one": layers.BatchNormalization()}

        def call(self, x):
            return self.norms["one"](x)

    block = Block()
    model = keras.Sequential([layers.Input((4,)), block])
    assert len(refresh_batch_norm(model, X)) == 1
    check(block.norms["one"], X)


def test_a_model_that_runs_eagerly_is_not_traced():
    class Eager(layers.Layer):
        def call(self, x):
            return x * float(len(x.numpy()) > 0) if tf.executing_eagerly() else x * np.nan

    norm = layers.BatchNormalization()
    model = keras.Sequential([layers.Input((4,)), Eager(), norm])
    model.compile("sgd", "mse", run_eagerly=True)
    refresh_batch_norm(model, X)
    check(norm, X)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_low_precision_models_are_refreshed_in_float32(dtype):
    model = deep(dtype)
    x = (X / 4).astype("float32")
    assert len(refresh_batch_norm(model, x)) == 2
    low = np.asarray(tf.cast(tf.cast(x, model.layers[0].compute_dtype), tf.float32))
    check(model.layers[0], low, rtol=2e-6 if dtype.startswith("mixed") else 2e-3)


class Failing:
    """Batches that end in an error."""

    def __iter__(self):
        yield X[:10]
        raise OSError("a bad file")


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_else_of_the_model_changes_and_nothing_at_all_if_it_fails(fails):
    class Noise(layers.Layer):
        def __init__(self):
            super().__init__()
            self.seeds = keras.random.SeedGenerator(3)

        def call(self, x):  # in inference, too
            return x + 1e-3 * keras.random.normal(keras.ops.shape(x), seed=self.seeds)

    model = deep(rate=0.5)
    model = keras.Sequential([layers.Input((4,)), *model.layers, Noise(), layers.Dropout(0.1)])
    model.layers[1].trainable = False
    model.compile(td.SGD(0.1, momentum=0.9), "mse")
    model.evaluate(X, np.zeros((50, 1)), verbose=0)
    before = everything(model)
    statistics = [i for i, v in enumerate(model.variables) if "moving" in v.path]
    if fails:
        with pytest.raises(OSError, match="a bad file"):
            refresh_batch_norm(model, Failing())
    else:
        refresh_batch_norm(model, X)
    for i, value in everything(model).items():
        same = np.array_equal(value, before[i])
        assert same == (fails or i not in statistics), model.variables[i].path
    assert [layer.trainable for layer in model.layers] == [True, False, True, True, True, True]
    norms = [model.layers[0], model.layers[2].get_layer("second")]
    assert [norm.momentum for norm in norms] == [0.99, 0.99]
    assert not any("call" in vars(norm) for norm in norms)


def test_frozen_layers_stay_and_normalize_as_in_inference():
    model = deep()
    first, dense, inner, _ = model.layers
    first.trainable = False
    first.moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    before = statistics(first)
    second = inner.get_layer("second")
    assert refresh_batch_norm(model, X) == [second.path]
    np.testing.assert_array_equal(statistics(first), before)
    check(second, dense(first(X, training=False)).numpy(), rtol=2e-5)
    model.trainable = False
    assert refresh_batch_norm(model, Failing()) == []


def test_without_batch_normalization_nothing_is_done_and_no_data_read():
    model = keras.Sequential([layers.Input((4,)), layers.Dense(2), layers.LayerNormalization()])
    assert refresh_batch_norm(model, Failing()) == []


def test_a_layer_that_is_not_called_stays_with_a_warning():
    class Branch(keras.Model):
        def __init__(self):
            super().__init__()
            self.used = layers.BatchNormalization(name="used")
            self.auxiliary = layers.BatchNormalization(name="auxiliary")

        def call(self, x, training=False):
            return self.used(x) + (self.auxiliary(x) if training else 0.0)

    model = Branch()
    model(X, training=True)
    before = statistics(model.auxiliary)
    with pytest.warns(UserWarning, match="got no input stay as they are.*auxiliary"):
        assert refresh_batch_norm(model, X) == [model.used.path]
    np.testing.assert_array_equal(statistics(model.auxiliary), before)
    check(model.used, X)


def test_inside_of_averaged_the_statistics_are_those_of_the_averages():
    model = deep()
    model.compile(td.SGD(0.1, use_ema=True, ema_momentum=0.5, jit_compile=False), "mse")
    for _ in range(3):
        model.train_on_batch(X, X[:, :1])
    second, weights = model.layers[2].get_layer("second"), model.layers[1].get_weights()
    with model.optimizer.averaged():
        refresh_batch_norm(model, X, batch_size=50)
        averaged = statistics(second)
        normal = (X - X.mean(0)) / np.sqrt(X.var(0) + 1e-3)
        first = model.layers[0]
        check(second, model.layers[1](normal * first.gamma + first.beta).numpy(), rtol=1e-4)
    np.testing.assert_array_equal(statistics(second), averaged)
    np.testing.assert_array_equal(model.layers[1].get_weights()[0], weights[0])
    refresh_batch_norm(model, X, batch_size=50)
    assert np.abs(statistics(second)[1] / averaged[1] - 1).max() > 0.01


@pytest.mark.parametrize("synchronized", [False, True])
@pytest.mark.parametrize("inside", [False, True], ids=["outside of the scope", "inside of it"])
def test_models_on_replicas_are_refreshed_on_every_replica(synchronized, inside):
    with mirrored().scope():
        model, norm = first_norm(synchronized=synchronized)
        if inside:
            refresh_batch_norm(model, X)
    if not inside:
        refresh_batch_norm(model, X)
    check(norm, X)
    for variable, expected in zip(
        (norm.moving_mean, norm.moving_variance), statistics(norm), strict=True
    ):
        parts = mirrored().experimental_local_results(variable.value)
        assert len(parts) == 2
        for part in parts:
            np.testing.assert_array_equal(part, expected)


class Own(layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training, mask)


def renormalizing():
    return layers.BatchNormalization(renorm=True)


KNOWN = inspect.signature(layers.BatchNormalization.__init__).parameters
WITH_RENORM = pytest.mark.skipif("renorm" not in KNOWN, reason="of newer versions of Keras")


@pytest.mark.parametrize("make", [Own, pytest.param(renormalizing, marks=WITH_RENORM)])
def test_normalizations_of_another_kind_raise(make):
    norm = make()
    model = keras.Sequential([layers.Input((4,)), norm])
    with pytest.raises(NotImplementedError, match="Only batch normalization as Keras defines it"):
        refresh_batch_norm(model, X)
    norm.trainable = False
    assert refresh_batch_norm(model, X) == []


def test_time_distributed_counts_every_time():
    norm = layers.BatchNormalization()
    model = keras.Sequential([layers.Input((3, 4)), layers.TimeDistributed(norm)])
    x = rows(60).reshape(20, 3, 4)
    refresh_batch_norm(model, x)
    check(norm, x)


@pytest.mark.parametrize("eager", [False, True])
def test_a_normalization_inside_of_a_loop_raises(eager):
    class Mapped(layers.Layer):
        def __init__(self):
            super().__init__()
            self.norm = layers.BatchNormalization()
            self.norm.build((None, 4))

        def call(self, x):
            return tf.map_fn(self.norm, x)

    model = keras.Sequential([layers.Input((3, 4)), Mapped()])
    model.compile("sgd", "mse", run_eagerly=eager)
    x = np.random.default_rng(0).normal(size=(6, 3, 4)).astype("float32")
    if eager:  # the loop runs in Python
        refresh_batch_norm(model, x)
        check(model.layers[0].norm, x)
        return
    with pytest.raises(NotImplementedError, match="inside of a loop or map can't be refreshed"):
        refresh_batch_norm(model, x)


def endless():
    return dataset(X).batch(5).repeat()


@pytest.mark.parametrize(
    "data,words",
    [
        (lambda: iter(()), "has no batch with a row"),
        (lambda: X[:0], "has no batch with a row"),
        (endless, "has no end: say how many batches"),
    ],
)
def test_data_without_a_row_or_without_an_end_raise(data, words):
    model, norm = first_norm()
    before = statistics(norm)
    with pytest.raises(ValueError, match=words):
        refresh_batch_norm(model, data())
    np.testing.assert_array_equal(statistics(norm), before)


def test_a_model_that_is_not_built_raises():
    with pytest.raises(ValueError, match=r"Build the model first.*'unbuilt', not built"):
        model = keras.Sequential([layers.BatchNormalization()], name="unbuilt")
        refresh_batch_norm(model, X)
