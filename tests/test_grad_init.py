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


def objective(scales, starts, variables, loss, batches, first_step, limited):
    """What algorithm 1 lowers, at these scales; A[g] is that at scales of 1."""
    step = gradients(loss, variables, batches[0])
    step = step if first_step == "sgd" else [np.sign(g) for g in step]
    for variable, start, scale in zip(variables, starts, scales, strict=True):
        variable.assign(scale * start)
    if limited:
        value = norm(gradients(loss, variables, batches[0]), first_step)
    else:
        for variable, each in zip(variables, step, strict=True):
            variable.assign(variable - ETA * each)
        (x, y), (x2, y2) = batches
        value = float(loss((tf.concat([x[:3], x2[3:]], 0), tf.concat([y[:3], y2[3:]], 0))))
    for variable, start in zip(variables, starts, strict=True):
        variable.assign(start)
    return value


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("first_step", ["sgd", "adam"])
@pytest.mark.parametrize("seed", range(3))
def test_the_first_scales_go_down_the_slope_of_finite_differences(first_step, limited, seed):
    """Adam's first step is −τ sign(∇): it tells the sign of each derivative."""
    variables, loss = small(seed=seed)
    starts, batches = [v.numpy() for v in variables], data(2, seed=seed + 10)
    args = starts, variables, loss, batches, first_step, limited
    slopes = []
    for i in range(3):
        ends = [objective(1 + h * np.eye(3)[i], *args) for h in (1e-5, -1e-5)]
        slopes.append((ends[0] - ends[1]) / 2e-5)
    length = norm(gradients(loss, variables, batches[0]), first_step)
    found = grad_init(
        loss, variables, batches, learning_rate=ETA, first_step=first_step, scale_rate=TAU,
        gradient_limit=1e-3 if limited else 1e3,
    )  # fmt: skip
    assert slopes[1] == 0 and min(abs(slopes[0]), abs(slopes[2])) > 1e-4
    np.testing.assert_allclose(list(found.scales.values()), 1 - TAU * np.sign(slopes), rtol=1e-4)
    assert list(found.scales) == ["v0", "v1", "v2"]
    assert len(found.norms) == 1 and len(found.losses) == (not limited)
    for v, start, scale in zip(variables, starts, found.scales.values(), strict=True):
        np.testing.assert_allclose(v, np.float32(scale) * start, rtol=1e-6)
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
