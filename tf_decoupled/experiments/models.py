"""The networks of the experiments: plain Keras models with logits, and readable variable paths."""

import re

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tf_decoupled.experiments.errors import InputError

NAMES = (
    "sbw16",
    "resnet8",
    "resnet20",
    "resnet32",
    "resnet56",
    "mlp",
    "shake_shake_26_2x64d",
    "shake_shake_26_2x96d",
)
_RESNET = re.compile(r"resnet(\d+)")
_SHAKE_SHAKE = re.compile(r"shake_shake_(\d+)_2x([1-9]\d*[02468]|[2468])d")


def build(name: str, input_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """A built model that maps images [n, *input_shape] to logits [n, classes].

    - `sbw16`: three stride-2 convolutions of 16, 32, 64 with batch normalisation, and a dense layer
      on all their pixels. Trains in seconds, and can overfit.
    - `mlp`: one hidden layer of 128 GELU units. Without batch normalisation and without kinks, at
      which a rounding error decides: replicas compute what one device does.
    - `resnet{6n+2}`: the ResNet of He et al. for CIFAR: 3 stages of n blocks, 16, 32, 64 wide,
      shortcuts of option A (no parameters).
    - `shake_shake_{6n+2}_2x{w}d`: the ResNet of Gastaldi with two residual branches, w, 2w, 4w
      wide, Shake-Shake-Image. 26 2x64d and 26 2x96d, of 11.7 and 26.2 million parameters, are
      those of the AdamW paper.

    Convolutions have no bias, since batch normalisation follows them all; its momentum is 0.9.
    Raises `InputError` for an unknown name.

    He et al., "Deep residual learning for image recognition", 2016, section 4.2. arXiv:1512.03385.
    Gastaldi, "Shake-Shake regularization", 2017. arXiv:1705.07485.
    """
    images = keras.Input(input_shape, name="images")
    if name == "sbw16":
        features = _sbw16(images)
    elif name == "mlp":
        features = layers.Dense(128, "gelu", name="hidden")(layers.Flatten(name="flatten")(images))
    elif (match := _RESNET.fullmatch(name)) and _is_depth(match[1]):
        features = _resnet(images, int(match[1]))
    elif (match := _SHAKE_SHAKE.fullmatch(name)) and _is_depth(match[1]):
        features = _shake_shake(images, int(match[1]), int(match[2]))
    else:
        raise InputError(
            f"Unknown model {name!r}. Known: {', '.join(NAMES)}; any resnet{{d}} and "
            "shake_shake_{d}_2x{w}d with d = 8, 14, 20 ... and an even w."
        )
    logits = layers.Dense(classes, name="logits")(features)
    return keras.Model(images, logits, name=name)


def _is_depth(digits: str) -> bool:
    return int(digits) >= 8 and int(digits) % 6 == 2


def reinitialize(model: keras.Model, seed: int) -> None:
    """Assigns every variable of `model` its initial value anew: weights, statistics, random states.

    Each is drawn by its layer's own initializer with a seed made of `seed` and the variable's
    position, so the values depend on the model's architecture and `seed` >= 0 alone, in every
    process. Variables are assigned in place: what was traced with them stays valid.

    Raises `TypeError` for a layer with a variable whose initializer isn't the layer's attribute.
    """
    position = 0
    for layer in _leaves(model):
        for variable in layer.weights:
            variable.assign(_initial_value(layer, variable, _derived_seed(seed, position)))
            position += 1
        for generator in vars(layer).values():
            if isinstance(generator, keras.random.SeedGenerator):
                generator.state.assign([_derived_seed(seed, position), 0])
                position += 1


def _leaves(layer: layers.Layer) -> list[layers.Layer]:
    if isinstance(layer, keras.Model):
        return [leaf for inner in layer.layers for leaf in _leaves(inner)]
    return [layer]


def _derived_seed(seed: int, position: int) -> int:
    return int(np.random.SeedSequence([seed, position]).generate_state(1)[0] >> 1)


def _initial_value(layer: layers.Layer, variable: keras.Variable, seed: int) -> tf.Tensor:
    initializer = getattr(layer, f"{variable.name}_initializer", None)
    if not isinstance(initializer, keras.initializers.Initializer):
        raise TypeError(
            f"reinitialize needs the initializer of `{variable.path}` as the attribute "
            f"{variable.name}_initializer of its layer; {type(layer).__name__} has none."
        )
    config = initializer.get_config()
    if "seed" in config:
        initializer = type(initializer).from_config(config | {"seed": seed})
    return initializer(variable.shape, dtype=variable.dtype)


# Layers


def _conv(x, filters: int, name: str, size: int = 3, strides: int = 1):
    """A convolution whose windows are centred on the pixels 0, strides, 2 strides ..., as Torch's.

    Keras's "same" would centre them, at stride 2, on 1, 3, 5 ...: off the shortcuts' pixels.
    """
    if size > 1 and strides > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_padding")(x)
    return layers.Conv2D(
        filters,
        size,
        strides,
        padding="same" if strides == 1 else "valid",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2, "fan_out", "untruncated_normal"),
        name=name,
    )(x)


def _bn(x, name: str):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def _relu(x, name: str):
    return layers.ReLU(name=name)(x)


@keras.saving.register_keras_serializable("tf_decoupled")
class IdentityShortcut(layers.Layer):
    """Every `strides`-th pixel, with zeros for the channels that are missing to `filters`.

    He et al. 2016, section 3.3, option A.
    """

    def __init__(self, filters: int, strides: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides

    def call(self, x):
        missing = self.filters - x.shape[-1]
        return tf.pad(x[:, :: self.strides, :: self.strides], [[0, 0]] * 3 + [[0, missing]])

    def compute_output_shape(self, input_shape):
        count, height, width, _ = input_shape
        return count, -(-height // self.strides), -(-width // self.strides), self.filters

    def get_config(self):
        return super().get_config() | {"filters": self.filters, "strides": self.strides}


@keras.saving.register_keras_serializable("tf_decoupled")
class ShakeShake(layers.Layer):
    """A random mixture of two residual branches, another for every image and for each direction.

        training:    y = α a + (1 − α) b,    ∂a = β ∂y,  ∂b = (1 − β) ∂y,    α, β ~ U(0, 1)
        inference:   y = (a + b) / 2

    `seed`: of the random numbers; None for one that `keras.utils.set_random_seed` decides.

    Gastaldi, "Shake-Shake regularization", 2017, "Shake-Shake-Image". arXiv:1705.07485
    """

    def __init__(self, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed, name=f"{self.name}_seed")

    def call(self, branches, training=False):
        a, b = branches
        if not training:
            return (a + b) / 2
        per_image = [tf.shape(a)[0], 1, 1, 1]
        alpha, beta = (
            keras.random.uniform(per_image, dtype=a.dtype, seed=self.seed_generator)
            for _ in range(2)
        )
        return _mixture(a, b, alpha, beta)

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return super().get_config() | {"seed": self.seed}


@tf.custom_gradient
def _mixture(a, b, alpha, beta):
    def gradient(dy):
        return beta * dy, (1 - beta) * dy, None, None

    return alpha * a + (1 - alpha) * b, gradient


# Networks: from images to features [n, k]


def _sbw16(x):
    for stage, filters in enumerate((16, 32, 64), start=1):
        x = _conv(x, filters, f"stage{stage}_conv", strides=2)
        x = _relu(_bn(x, f"stage{stage}_bn"), f"stage{stage}_relu")
    return layers.Flatten(name="flatten")(x)


def _resnet(x, depth: int):
    x = _relu(_bn(_conv(x, 16, "stem_conv"), "stem_bn"), "stem_relu")
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(1, (depth - 2) // 6 + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = _resnet_block(x, filters, strides, f"stage{stage}_block{block}")
    return layers.GlobalAveragePooling2D(name="pooling")(x)


def _resnet_block(x, filters: int, strides: int, name: str):
    shortcut = x
    if strides > 1:
        shortcut = IdentityShortcut(filters, strides, name=f"{name}_shortcut")(x)
    x = _conv(x, filters, f"{name}_conv1", strides=strides)
    x = _relu(_bn(x, f"{name}_bn1"), f"{name}_relu1")
    x = _bn(_conv(x, filters, f"{name}_conv2"), f"{name}_bn2")
    return _relu(layers.Add(name=f"{name}_add")([shortcut, x]), f"{name}_relu2")


def _shake_shake(x, depth: int, width: int):
    x = _bn(_conv(x, 16, "stem_conv"), "stem_bn")
    for stage, filters in enumerate((width, 2 * width, 4 * width), start=1):
        for block in range(1, (depth - 2) // 6 + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = _shake_shake_block(x, filters, strides, f"stage{stage}_block{block}")
    return layers.GlobalAveragePooling2D(name="pooling")(_relu(x, "relu"))


def _shake_shake_block(x, filters: int, strides: int, name: str):
    rectified = _relu(x, f"{name}_relu1")
    branches = []
    for branch in (f"{name}_branch1", f"{name}_branch2"):
        y = _bn(_conv(rectified, filters, f"{branch}_conv1", strides=strides), f"{branch}_bn1")
        y = _conv(_relu(y, f"{branch}_relu2"), filters, f"{branch}_conv2")
        branches.append(_bn(y, f"{branch}_bn2"))
    mixture = ShakeShake(name=f"{name}_shake")(branches)
    shortcut = x
    if x.shape[-1] != filters:
        shortcut = _shake_shake_shortcut(rectified, filters, strides, f"{name}_shortcut")
    return layers.Add(name=f"{name}_add")([shortcut, mixture])


def _shake_shake_shortcut(x, filters: int, strides: int, name: str):
    """Two 1 x 1 convolutions side by side, the second of the image shifted down and to the right.

    Shifted by one pixel: at stride 2, they see different pixels.
    """
    shifted = layers.ZeroPadding2D(((1, 0), (1, 0)), name=f"{name}_padding")(x)
    shifted = layers.Cropping2D(((0, 1), (0, 1)), name=f"{name}_cropping")(shifted)
    halves = [
        _conv(x, filters // 2, f"{name}_conv1", 1, strides),
        _conv(shifted, filters // 2, f"{name}_conv2", 1, strides),
    ]
    return _bn(layers.Concatenate(name=f"{name}_concatenate")(halves), f"{name}_bn")
