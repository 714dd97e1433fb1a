"""GradInit: scales move against the gradient of what the algorithm says, and are written."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_decoupled.grad_init import grad_init

ETA, TAU = 0.05, 0.01


def small(gain=1.0, seed=0):
    """Three variables, one of them zero, and a smooth loss of a batch (x, y), in float64."""
    rng = np.random.default_rng(seed)
    values = [gain * rng.normal(size=(3, 4)), np.zeros(4), gain * rng.normal(size=(4, 1))]
    variables = [keras.Variable(v, dtype="float64", name=f"v{i}") for i, v in enumerate(values)]

    def loss(batch):
        x, y = batch
        first, bias, last = variables
        hidden = tf.tanh(tf.matmul(x, first) + bias)
        return tf.reduce_mean(tf.square(tf.matmul(hidden, last) - y))

    return variables, loss


def data(count, size=6, seed=1):
    rng = np.random.default_rng(seed)
    shapes = [(count, size, 3), (count, size, 1)]
    x, y = (rng.normal(size=shape) for shape in shapes)
    return [(tf.constant(a), tf.constant(b)) for a, b in zip(x, y, strict=True)]


def gradients(loss, variables, batch):
    with tf.GradientTape() as tape:
        value = loss(batch)
    return [g.numpy() for g in tape.gradient(value, [v.value for v in variables])]


def norm(grads, first_step):
    if first_step == "sgd":
        return np.sqrt(sum(np.sum(g**2) for g in grads))
    return sum(np.sum(np.abs(g)) for g in grads)


def place(variables, starts, scales):
    for variable, start, scale in zip(variables, starts, scales, strict=True):
        variable.assign(scale * start)


def slopes(at, starts, variables, loss, batches, first_step, limited):
    """The derivatives of what algorithm 1 lowers by each scale, by finite differences."""
    place(variables, starts, at)
    step = gradients(loss, variables, batches[0])
    step = step if first_step == "sgd" else [np.sign(g) for g in step]
    (x, y), (x2, y2) = batches
    mixed = tf.concat([x[:3], x2[3:]], 0), tf.concat([y[:3], y2[3:]], 0)

    def lowered(scales):
        place(variables, starts, scales)
        if limited:
            return norm(gradients(loss, variables, batches[0]), first_step)
        for variable, each in zip(variables, step, strict=True):
            variable.assign(variable - ETA * each)
        return float(loss(mixed))

    h = 1e-5 * np.eye(len(at))
    return np.array([(lowered(at + e) - lowered(at - e)) / 2e-5 for e in h])


def two_steps_of_adam(first, second):
    """How far Adam goes with these two gradients, in its rate: it tells how they compare."""
    m, v = 0.1 * (0.9 * first + second) / 0.19, 0.001 * (0.999 * first**2 + second**2)
    return m / (np.sqrt(v / (1 - 0.999**2)) + 1e-8)


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("first_step", ["sgd", "adam"])
@pytest.mark.parametrize("seed", range(2))
def test_scales_go_down_the_slopes_of_finite_differences(first_step, limited, seed):
    variables, loss = small(seed=seed)
    starts, batches = [v.numpy() for v in variables], data(3, seed=seed + 10)
    options = dict(learning_rate=ETA, first_step=first_step, scale_rate=TAU)
    length = norm(gradients(loss, variables, batches[0]), first_step)
    found = grad_init(loss, variables, batches, gradient_limit=1e-3 if limited else 1e3, **options)
    for v, start, scale in zip(variables, starts, found.scales.values(), strict=True):
        np.testing.assert_allclose(v, np.float32(scale) * start, rtol=1e-6)
    how = starts, variables, loss
    first = slopes(np.ones(3), *how, batches[:2], first_step, limited)
    at = 1 - TAU * np.sign(first)
    second = slopes(at, *how, batches[1:], first_step, limited)
    moved = two_steps_of_adam(*np.clip([first, second], -1, 1))
    assert first[1] == 0 and min(abs(first[0]), abs(first[2])) > 1e-3
    np.testing.assert_allclose((at - list(found.scales.values())) / TAU, moved, atol=1e-3)
    assert list(found.scales) == ["v0", "v1", "v2"]
    assert len(found.norms) == 2 and len(found.losses) == 2 * (not limited)
    assert found.norms[0] == pytest.approx(length, rel=1e-5)


@pytest.mark.parametrize("first_step", ["sgd", "adam"])
def test_too_large_weights_are_found_better_scales(first_step):
    variables, loss = small(gain=4.0)
    batches = data(80)

    def after_a_step():
        now = [v.numpy() for v in variables]
        step = gradients(loss, variables, batches[0])
        for v, g in zip(variables, step, strict=True):
            v.assign(v - ETA * (g if first_step == "sgd" else np.sign(g)))
        value = float(loss(batches[1]))
        for v, p in zip(variables, now, strict=True):
            v.assign(p)
        return value

    before = after_a_step()
    found = grad_init(loss, variables, batches, learning_rate=ETA, first_step=first_step)
    assert after_a_step() < 0.7 * before
    assert found.scales["v2"] < 0.8 and found.scales["v1"] == 1
    if first_step == "sgd":  # with a limit of 1 by default
        assert found.norms[0] > 2 and min(found.norms) < 0.7 * found.norms[0]


def test_scales_stay_above_the_least():
    variables, loss = small(gain=4.0)
    found = grad_init(
        loss, variables, data(12), learning_rate=ETA, scale_rate=0.3, least_scale=0.25
    )
    assert min(found.scales.values()) == 0.25


def test_a_batch_that_is_not_finite_changes_nothing():
    variables, loss = small()
    starts = [v.numpy() for v in variables]
    spoiled = [(x * np.nan, y) for x, y in data(2)]
    found = grad_init(loss, variables, spoiled, learning_rate=ETA)
    assert set(found.scales.values()) == {1.0}
    for v, start in zip(variables, starts, strict=True):
        np.testing.assert_array_equal(v, start)


def test_a_model_and_a_dataset_will_do():
    model = keras.Sequential([keras.Input([8]), keras.layers.Embedding(8, 4)])
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(2, activation="relu", kernel_initializer="he_normal"))
    x = np.random.default_rng(0).integers(0, 8, (32, 8))
    dataset = tf.data.Dataset.from_tensor_slices((x, np.ones((32, 2), "float32"))).batch(8)
    loss = lambda batch: tf.reduce_mean((model(batch[0]) - batch[1]) ** 2)  # noqa: E731
    found = grad_init(loss, model.trainable_variables, dataset, learning_rate=0.1)
    assert len(found.losses) == 3 and len(found.scales) == 3
    bias = next(scale for path, scale in found.scales.items() if path.endswith("bias"))
    assert bias == 1 and set(found.scales.values()) != {1.0}


@pytest.mark.parametrize(
    "options,words",
    [
        (dict(learning_rate=0.1, first_step="rmsprop"), "`first_step` must be.*'rmsprop'"),
        (dict(learning_rate=0), "`learning_rate` and `scale_rate` must be > 0"),
    ],
)
def test_wrong_arguments_are_told(options, words):
    with pytest.raises(ValueError, match=words):
        grad_init(lambda batch: 0.0, [], [], **options)


def test_batch_statistics_are_put_back():
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    state = model.non_trainable_variables
    loss = lambda batch: tf.reduce_mean(model(batch, training=True) ** 2)  # noqa: E731
    before = [v.numpy() for v in state]
    grad_init(loss, model.trainable_variables, [x] * 3, learning_rate=0.1, state=state)
    for v, value in zip(state, before, strict=True):
        np.testing.assert_array_equal(v, value)
