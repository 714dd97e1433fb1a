"""The networks have their papers' shapes, and every variable its initial value again, by seed."""

import hashlib
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_decoupled.experiments import models
from tf_decoupled.experiments.errors import InputError

CIFAR = (32, 32, 3)
SMALL_NAMES = ("sbw16", "resnet8", "shake_shake_8_2x4d")


def trainable_count(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def output_shape(model, layer):
    return tuple(model.get_layer(layer).output.shape)[1:]


def between(model, first, last):
    """The part of `model` from the output of the layer `first` to that of `last`."""
    return keras.Model(model.get_layer(first).output, model.get_layer(last).output)


def bits(model):
    return [v.numpy().tobytes() for v in model.variables]


def batch(count=8, shape=CIFAR, seed=0):
    random = np.random.RandomState(seed)
    return random.standard_normal((count, *shape)).astype("float32"), np.arange(count) % 10


def train_one_step(model, run_eagerly=True):
    x, y = batch(shape=model.input_shape[1:])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=run_eagerly)
    model.train_on_batch(x, y)


# Architecture


@pytest.mark.parametrize(
    ("name", "count", "published"),
    [
        ("resnet20", 269_722, 0.27),
        ("resnet32", 464_154, 0.46),
        ("resnet56", 853_018, 0.85),
    ],
)
def test_resnets_have_the_parameters_of_table_6_of_he_et_al(name, count, published):
    assert trainable_count(models.build(name, CIFAR, 10)) == count
    assert round(count / 1e6, 2) == published


def shake_shake_count(width):
    """The parameters of 26 2x{width}d, added up: convolutions, batch normalisations, dense."""
    count, before = 3 * 16 * 9 + 2 * 16, 16
    for filters in (width, 2 * width, 4 * width):
        branches = 2 * 9 * (before * filters + 7 * filters**2) + 4 * 4 * 2 * filters
        shortcut = before * filters + 2 * filters
        count, before = count + branches + shortcut, filters
    return count + (before + 1) * 10


@pytest.mark.parametrize(
    ("name", "width", "count"),
    [("shake_shake_26_2x64d", 64, 11_653_978), ("shake_shake_26_2x96d", 96, 26_192_922)],
)
def test_shake_shake_has_the_parameters_of_gastaldis_network(name, width, count):
    assert trainable_count(models.build(name, CIFAR, 10)) == count == shake_shake_count(width)


def test_sbw16_has_34_thousand_parameters():
    assert trainable_count(models.build("sbw16", (28, 28, 1), 10)) == 33_658


@pytest.mark.parametrize("name", SMALL_NAMES)
@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 8, 3)])
def test_every_network_maps_images_to_logits(name, shape):
    model = models.build(name, shape, 7)
    assert model.name == name
    assert model(batch(3, shape)[0]).shape == (3, 7)
    assert model.layers[-1].activation is keras.activations.linear


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet8", [(28, 28, 16), (14, 14, 32), (7, 7, 64)]),
        ("shake_shake_8_2x4d", [(28, 28, 4), (14, 14, 8), (7, 7, 16)]),
    ],
)
def test_every_stage_halves_the_image_and_doubles_the_width(name, stages):
    model = models.build(name, (28, 28, 1), 10)
    assert [output_shape(model, f"stage{i}_block1_add") for i in (1, 2, 3)] == stages


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_variable_paths_are_readable_and_the_same_in_every_model(name):
    first, second = ([v.path for v in models.build(name, CIFAR, 10).variables] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)
    prefixes = {path.split("_")[0].split("/")[0] for path in first}
    assert prefixes <= {"stem", "stage1", "stage2", "stage3", "logits"}


def test_resnet_variables_are_named_by_stage_block_and_layer():
    paths = [v.path for v in models.build("resnet20", CIFAR, 10).variables]
    assert "stage1_block2_conv1/kernel" in paths and "stage3_block3_bn2/gamma" in paths


def test_convolutions_have_no_bias_and_batch_normalisation_forgets_a_tenth():
    for name in SMALL_NAMES:
        for layer in models.build(name, CIFAR, 10).layers:
            assert not getattr(layer, "use_bias", False) or layer.name == "logits"
            assert getattr(layer, "momentum", 0.9) == 0.9


@pytest.mark.parametrize(
    "name", ["resnet", "resnet2", "resnet21", "shake_shake_26_2x3d", "shake_shake_26_2x0d", "sbw"]
)
def test_an_unknown_model_is_answered_with_the_known_ones(name):
    with pytest.raises(InputError, match=rf"'{name}'\. Known: sbw16, resnet8, .*_2x96d; any "):
        models.build(name, CIFAR, 10)


# Where windows and shortcuts look


def test_strided_convolutions_are_centred_on_the_even_pixels():
    model = models.build("sbw16", (8, 8, 1), 10)
    kernel = np.zeros((3, 3, 1, 16), "float32")
    kernel[1, 1] = 1
    model.get_layer("stage1_conv").kernel.assign(kernel)
    x, _ = batch(2, (8, 8, 1))
    y = between(model, "images", "stage1_conv")(x)
    np.testing.assert_array_equal(y[..., :1], x[:, ::2, ::2])


@pytest.mark.parametrize("size", [4, 5])
def test_the_identity_shortcut_takes_the_even_pixels_and_adds_zero_channels(size):
    x, _ = batch(2, (size, size, 3))
    layer = models.IdentityShortcut(filters=8, strides=2)
    y = layer(x)
    np.testing.assert_array_equal(y[..., :3], x[:, ::2, ::2])
    np.testing.assert_array_equal(y[..., 3:], 0)
    assert layer.compute_output_shape((2, size, size, 3)) == tuple(y.shape)


def test_the_shortcut_of_shake_shake_sees_the_even_and_the_odd_pixels():
    model = models.build("shake_shake_8_2x4d", (8, 8, 3), 10)
    for half in (1, 2):
        model.get_layer(f"stage2_block1_shortcut_conv{half}").kernel.assign(np.eye(4)[None, None])
    x, _ = batch(2, (8, 8, 4))
    part = between(model, "stage2_block1_relu1", "stage2_block1_shortcut_concatenate")
    y = part(x).numpy()
    np.testing.assert_array_equal(y[..., :4], x[:, ::2, ::2])
    np.testing.assert_array_equal(y[:, 1:, 1:, 4:], x[:, 1:-1:2, 1:-1:2])
    np.testing.assert_array_equal(y[:, 0, :, 4:], 0)
    np.testing.assert_array_equal(y[:, :, 0, 4:], 0)


# Shake-Shake


def branches(count=1000):
    shape = (count, 2, 3, 1)
    return tf.ones(shape), tf.zeros(shape)


def shaken(layer, a, b):
    """(y, ∂y/∂a, ∂y/∂b) of one training pass, for the sum of y."""
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        y = layer([a, b], training=True)
    return y, *tape.gradient(y, [a, b])


def test_shake_shake_mixes_every_image_by_its_own_uniform_alpha():
    layer = models.ShakeShake(seed=1)
    alpha, _, _ = shaken(layer, *branches())
    np.testing.assert_array_equal(alpha, alpha[:, :1, :1] * np.ones((1, 2, 3, 1)))
    deciles = np.histogram(alpha[:, 0, 0, 0], bins=10, range=(0, 1))[0]
    assert deciles.sum() == 1000 and deciles.min() > 60 and deciles.max() < 140
    assert not np.array_equal(alpha, shaken(layer, *branches())[0])


def test_shake_shake_is_a_convex_combination():
    a, b = (tf.random.stateless_normal((5, 4, 4, 3), [0, i]) for i in range(2))
    alpha, _, _ = shaken(models.ShakeShake(seed=1), tf.ones((5, 4, 4, 3)), tf.zeros((5, 4, 4, 3)))
    y, _, _ = shaken(models.ShakeShake(seed=1), a, b)
    np.testing.assert_allclose(y, alpha * a + (1 - alpha) * b, rtol=1e-6, atol=1e-6)


def test_shake_shake_goes_backward_by_a_beta_that_does_not_depend_on_alpha():
    alpha, beta, rest = (t.numpy() for t in shaken(models.ShakeShake(seed=1), *branches()))
    np.testing.assert_array_equal(beta, beta[:, :1, :1] * np.ones((1, 2, 3, 1), "float32"))
    np.testing.assert_allclose(beta + rest, 1, rtol=1e-6)
    deciles = np.histogram(beta[:, 0, 0, 0], bins=10, range=(0, 1))[0]
    assert deciles.sum() == 1000 and deciles.min() > 60 and deciles.max() < 140
    assert abs(np.corrcoef(alpha[:, 0, 0, 0], beta[:, 0, 0, 0])[0, 1]) < 0.1


def test_shake_shake_averages_the_branches_at_inference():
    a, b = (tf.random.stateless_normal((5, 4, 4, 3), [0, i]) for i in range(2))
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        y = models.ShakeShake()([a, b], training=False)
    np.testing.assert_allclose(y, (a + b) / 2, rtol=1e-6)
    for gradient in tape.gradient(y, [a, b]):
        np.testing.assert_array_equal(gradient, np.full((5, 4, 4, 3), 0.5))


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_one_training_step_moves_every_trainable_variable(name):
    model = models.build(name, (8, 8, 3), 10)
    models.reinitialize(model, 1)
    before = bits(model)
    train_one_step(model, run_eagerly=False)
    after = bits(model)
    for variable, old, new in zip(model.variables, before, after, strict=True):
        assert old != new, variable.path


# Keras 3.10 warns of the inputs of any model that it has loaded.
@pytest.mark.filterwarnings("ignore:(.|\n)*The structure of `inputs`:UserWarning")
@pytest.mark.parametrize("name", SMALL_NAMES)
def test_a_saved_network_is_the_same_when_it_is_loaded(name, tmp_path):
    model = models.build(name, (8, 8, 3), 10)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x, _ = batch(shape=(8, 8, 3))
    np.testing.assert_array_equal(loaded(x), model(x))
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]


# Initial values by seed


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_a_seed_gives_the_same_bits_to_every_variable_even_after_training(name):
    first, second = (models.build(name, (8, 8, 3), 10) for _ in range(2))
    models.reinitialize(first, 7)
    train_one_step(second)
    models.reinitialize(second, 7)
    assert bits(first) == bits(second)


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_another_seed_gives_every_kernel_and_random_state_other_values(name):
    model = models.build(name, CIFAR, 10)
    models.reinitialize(model, 7)
    first = bits(model)
    models.reinitialize(model, 8)
    for variable, old, new in zip(model.variables, first, bits(model), strict=True):
        assert (old != new) == variable.path.endswith(("kernel", "seed_generator_state"))


def test_variables_of_one_shape_are_drawn_independently():
    model = models.build("resnet20", (8, 8, 3), 10)
    models.reinitialize(model, 0)
    names = [f"stage1_block{b}_conv{c}" for b in (1, 2, 3) for c in (1, 2)]
    kernels = np.stack([model.get_layer(n).kernel.numpy().ravel() for n in names])
    correlations = np.corrcoef(kernels)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 0.1


def test_reinitialized_variables_follow_their_initializers():
    model = models.build("resnet8", (8, 8, 3), 10)
    train_one_step(model)
    models.reinitialize(model, 3)
    kernel = model.get_layer("stage3_block1_conv2").kernel.numpy()
    assert abs(kernel.mean()) < 3 * kernel.std() / np.sqrt(kernel.size)
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.02)
    limit = np.sqrt(6 / (64 + 10))  # Glorot's, for the dense layer
    assert 0.98 * limit < np.abs(model.get_layer("logits").kernel).max() <= limit
    bn = model.get_layer("stage3_block1_bn2")
    for variable, value in zip(bn.variables, (1, 0, 0, 1), strict=True):
        np.testing.assert_array_equal(variable, np.full(64, value))


FINGERPRINT = """
import hashlib
from tf_decoupled.experiments import models
model = models.build("shake_shake_8_2x4d", (32, 32, 3), 10)
models.reinitialize(model, 5)
print(hashlib.sha256(b"".join(v.numpy().tobytes() for v in model.variables)).hexdigest())
"""


def test_a_seed_gives_the_same_bits_in_another_process():
    model = models.build("shake_shake_8_2x4d", CIFAR, 10)
    models.reinitialize(model, 5)
    environment = os.environ | {"PYTHONHASHSEED": "123"}
    command = [sys.executable, "-c", FINGERPRINT]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split()[-1] == hashlib.sha256(b"".join(bits(model))).hexdigest()


def test_reinitialized_networks_share_one_traced_function():
    model = models.build("sbw16", (8, 8, 1), 10)
    x, y = batch(shape=(8, 8, 1))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
        weights = model.trainable_variables
        for variable, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            variable.assign_sub(0.1 * gradient)

    results = []
    for seed in (1, 2, 1):
        models.reinitialize(model, seed)
        step()
        results.append(bits(model))
    assert results[0] == results[2] != results[1]
    assert step.experimental_get_tracing_count() == 1


def test_networks_within_networks_are_reinitialized_too():
    inner = models.build("sbw16", (8, 8, 1), 10)
    outer = keras.Sequential([inner, keras.layers.Dropout(0.5)])
    outer.build((None, 8, 8, 1))
    models.reinitialize(outer, 1)
    first = bits(outer)
    models.reinitialize(outer, 2)
    models.reinitialize(outer, 1)
    assert bits(outer) == first


class Unusual(keras.layers.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=())

    def call(self, x):
        return x * self.scale


def test_a_variable_without_a_known_initializer_is_named():
    model = keras.Sequential([keras.Input((2,)), Unusual(name="odd")])
    with pytest.raises(TypeError, match=r"odd/scale` as the attribute scale_initializer.*Unusual"):
        models.reinitialize(model, 0)
