"""Models that `fit` trains by SAM, and that estimate their Hessian."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import mirrored, small_data, small_model
from probes import Watching

import tf_decoupled as td
from tf_decoupled.engine.state import Slot

X, Y = small_data()


def trained(model, steps=3, optimizer=None, **arguments):
    optimizer = optimizer or td.SGDW(0.1, momentum=0.5, jit_compile=False)
    model.compile(optimizer, "mse", metrics=["mae"], **arguments)
    return model.fit(X, Y, batch_size=32, epochs=steps, shuffle=False, verbose=0).history


def by_hand(rho, steps=3, **options):
    """The same small model, trained by `sam` in a loop."""
    model, optimizer = small_model(), td.SGDW(0.1, momentum=0.5, jit_compile=False)
    losses = []
    for x, y in [(X[:32], Y[:32]), (X[32:], Y[32:])] * steps:
        loss_fn = lambda: tf.reduce_mean((model(x, training=True) - y) ** 2)  # noqa: B023, E731
        state = model.non_trainable_variables
        variables = model.trainable_variables
        loss, grads = td.gradients.sam(loss_fn, variables, rho, state=state, **options)
        optimizer.apply(grads, variables)
        losses.append(float(loss))
    return model, np.reshape(losses, [steps, 2]).mean(1)


def weights_of(model):
    return [v.numpy() for v in (model.inner if hasattr(model, "inner") else model).weights]


def close(left, right, tolerance=1e-5):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def equal(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "options,jit_compile",
    [(dict(), False), (dict(adaptive=True, eta=0.1), True), (dict(alpha=0.4), False)],
)
def test_fit_does_what_a_loop_does_and_shows_the_loss_at_the_weights(options, jit_compile):
    keras.utils.set_random_seed(1)
    model = td.training.Model(small_model(), rho=0.1, **options)
    history = trained(model, jit_compile=jit_compile)
    keras.utils.set_random_seed(1)
    expected, losses = by_hand(0.1, **options)
    close(weights_of(model), weights_of(expected))
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)


def test_it_is_another_training_than_the_plain_one_and_without_rho_the_same_bit_for_bit():
    ends, histories = [], []
    for wrap in (lambda m: m, lambda m: td.training.Model(m, rho=0.0), td.training.Model):
        keras.utils.set_random_seed(1)
        model = wrap(small_model())
        histories.append(trained(model))
        ends.append(weights_of(model))
    equal(ends[0], ends[1])
    assert histories[0] == histories[1]
    assert any(np.any(np.abs(a - b) > 1e-4) for a, b in zip(ends[0], ends[2], strict=True))


class Residual(keras.Model):
    """A model of one's own, with dropout, trained by SAM."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(4, "relu")
        self.dropout = keras.layers.Dropout(0.2, seed=1)
        self.head = keras.layers.Dense(1)

    def call(self, x, training=None):
        return self.head(self.dropout(x + self.hidden(x), training=training))


@keras.saving.register_keras_serializable("tests")
class Saved(Residual):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dropout.rate = 0.0  # files don't hold the state of its seed


@keras.saving.register_keras_serializable("tests")
class Mixed(td.training.TrainStep, Residual):
    rho = 0.1


def functional():
    x = keras.layers.Input((4,))
    return keras.Model(x, keras.layers.Dense(1)(keras.layers.Dense(8, "relu")(x)))


class Functional(td.training.TrainStep, keras.Model):
    rho = 0.1


@pytest.mark.parametrize("make", [small_model, functional, Saved])
def test_it_is_saved_and_loaded_and_goes_on_bit_for_bit(make, tmp_path):
    schedule = td.schedules.Cosine(0.1, 10, alpha=0.1)
    model = td.training.Model(make(), rho=schedule, alpha=0.2)
    trained(model, optimizer=td.AdamW(0.01, jit_compile=False))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is td.training.Model and loaded.alpha == 0.2
    assert loaded.rho.get_config() == schedule.get_config()
    equal(weights_of(loaded), weights_of(model))
    for each in (model, loaded):
        each.fit(X, Y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    equal(weights_of(loaded), weights_of(model))
    assert int(loaded.optimizer.iterations) == 10
    np.testing.assert_array_equal(model.predict(X, verbose=0), model.inner.predict(X, verbose=0))


def test_a_class_of_one_s_own_takes_the_step_and_is_saved(tmp_path):
    ends = []
    for make in (Mixed, lambda: td.training.Model(Residual(), rho=0.1)):
        keras.utils.set_random_seed(1)
        model = make()
        trained(model)
        ends.append(weights_of(model))
    close(*ends)
    model = Mixed()
    trained(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is Mixed
    equal(weights_of(loaded), weights_of(model))


def test_a_functional_class_of_one_s_own_takes_the_step():
    ends = []
    for make in (lambda m: Functional(m.inputs, m.outputs), lambda m: td.training.Model(m, 0.1)):
        keras.utils.set_random_seed(1)
        model = make(functional())
        trained(model)
        ends.append(weights_of(model))
    close(*ends)


def test_two_replicas_train_and_their_weights_stay_the_same():
    with mirrored().scope():
        model = td.training.Model(small_model(), rho=0.1)
        model.compile(td.SGDW(0.05, jit_compile=False), "mse")
    before = weights_of(model)
    losses = model.fit(X, Y, batch_size=32, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for v in model.trainable_variables:
        first, second = mirrored().experimental_local_results(v.value)
        np.testing.assert_array_equal(first, second)
    # The loss that is shown is the mean over replicas, of the first pass.
    with mirrored().scope():
        plain = small_model()
        plain.set_weights(before)
        plain.compile(td.SGDW(0.05, jit_compile=False), "mse")
    theirs = plain.fit(X[:32], Y[:32], batch_size=32, epochs=1, verbose=0).history["loss"]
    model.inner.set_weights(before)
    ours = model.fit(X[:32], Y[:32], batch_size=32, epochs=1, verbose=0).history["loss"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_replicas_of_plain_layers_do_what_a_loop_on_each_half_does():
    keras.utils.set_random_seed(1)
    with mirrored().scope():
        model = td.training.Model(functional(), rho=0.3)
        model.compile(td.SGDW(0.1, momentum=0.0, jit_compile=False), "mse")
    alone = functional()
    alone.set_weights(model.inner.get_weights())
    model.fit(X[:32], Y[:32], batch_size=32, epochs=1, shuffle=False, verbose=0)
    halves = []
    for half in (slice(0, 16), slice(16, 32)):
        loss_fn = lambda: tf.reduce_mean((alone(X[half]) - Y[half]) ** 2) / 2  # noqa: B023, E731
        halves.append(td.gradients.sam(loss_fn, alone.trainable_variables, 0.3)[1])
    grads = [a + b for a, b in zip(*halves, strict=True)]
    td.SGDW(0.1, momentum=0.0).apply(grads, alone.trainable_variables)
    close(weights_of(model), weights_of(alone))


def test_in_float16_losses_are_scaled_and_too_large_a_scale_is_lowered():
    model = small_model()
    layers = [
        type(each).from_config(each.get_config() | dict(dtype="mixed_float16"))
        for each in model.layers
    ]
    model = td.training.Model(keras.Sequential([keras.layers.Input((4,)), *layers]), rho=0.1)
    scale = td.DynamicLossScale(initial_scale=2.0**24)
    optimizer = td.SGDW(0.05, loss_scale=scale, jit_compile=False)
    losses = trained(model, steps=12, optimizer=optimizer)["loss"]
    assert losses[-1] < losses[0] and np.all(np.isfinite(losses))
    assert 1 < float(optimizer.dynamic_scale) < 2.0**24
    assert int(optimizer.skipped_steps) >= 1
    assert all(np.all(np.isfinite(w)) for w in weights_of(model))


def test_metrics_and_the_losses_of_several_outputs_count_each_batch_once():
    x = keras.layers.Input((4,))
    heads = {name: keras.layers.Dense(1, name=name)(x) for name in ("a", "b")}
    start = keras.Model(x, heads)
    histories = []
    for rho in (0.0, 0.2):
        model = td.training.Model(keras.models.clone_model(start), rho=rho)
        model.inner.set_weights(start.get_weights())
        model.compile(keras.optimizers.SGD(0.0), dict(a="mse", b="mae"), metrics=dict(a=["mae"]))
        fitted = model.fit(X, dict(a=Y, b=2 * Y), batch_size=48, epochs=1, verbose=0, shuffle=False)
        histories.append(fitted.history)
    assert histories[0].keys() == histories[1].keys() >= {"loss", "a_loss", "b_loss", "a_mae"}
    for name, value in histories[0].items():
        np.testing.assert_allclose(histories[1][name], value, rtol=1e-6, err_msg=name)


class Polyak(td.Optimizer):
    """θ ← θ − L g / ‖g‖²: its step depends on the loss."""

    def shared(self):
        return dict(loss=Slot((), 1.0))

    def step(self, p, g, s, h):
        return p - 0.01 * h.loss * tf.math.divide_no_nan(g, tf.reduce_sum(g * g)), {}


def test_an_optimizer_that_asks_for_the_loss_gets_that_of_the_first_pass():
    model = td.training.Model(small_model(), rho=0.5)
    history = trained(model, steps=1, optimizer=Polyak(jit_compile=False))
    model.reset_metrics()
    losses = model.train_on_batch(X, Y, return_dict=True)["loss"]
    assert history["loss"][0] > 0
    np.testing.assert_allclose(model.optimizer.loss.numpy(), losses, rtol=1e-6)


# Estimates of the Hessian.


def test_the_optimizer_gets_an_estimate_every_few_updates():
    model = td.training.Model(functional(), rho=0.0, estimate_every=2)
    optimizer = Watching(0.0, jit_compile=False)
    model.compile(optimizer, "mse")
    seen = []
    for _ in range(4):
        model.train_on_batch(X, Y)
        seen.append(next(v for k, v in optimizer.get_state().items() if k.endswith("kernel:c")))
    assert np.any(seen[0])
    equal(seen[0:1] + seen[2:3], seen[1:2] + seen[3:4])
    assert np.any(seen[2] != seen[1])


def test_of_a_linear_model_it_is_the_diagonal_of_the_hessian_in_the_mean():
    x = np.eye(4, dtype="float32").repeat(2, 0)  # a diagonal Hessian, which signs find exactly
    inner = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1, use_bias=False)])
    model = td.training.Model(inner, rho=0.0, estimate_every=1)
    model.compile(Watching(0.0, jit_compile=False), "mse")
    model.train_on_batch(x, x.sum(1, keepdims=True))
    (c,) = (v for k, v in model.optimizer.get_state().items() if k.endswith(":c"))
    np.testing.assert_allclose(c, np.full([4, 1], 2 * 2 / 8) / 2, rtol=1e-5)


@pytest.mark.parametrize("estimator,rho", [("hutchinson", 0.1), ("gauss_newton_bartlett", 0.0)])
def test_replicas_estimate_together(estimator, rho):
    with mirrored().scope():
        inner = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
        model = td.training.Model(inner, rho, estimate_every=2, estimator=estimator)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(Watching(0.0, jit_compile=False), loss)
    labels, seen = np.arange(len(X)) % 3, []
    for _ in range(3):
        model.fit(X, labels, batch_size=64, shuffle=False, verbose=0)
        state = model.optimizer.get_state()
        seen.append(next(v for k, v in state.items() if k.endswith("kernel:c")))
    assert np.any(seen[0]) and np.all(np.isfinite(seen[2]))
    np.testing.assert_array_equal(seen[0], seen[1])
    assert np.any(seen[2] != seen[1])


def test_an_estimate_changes_neither_statistics_nor_metrics():
    ends = []
    for every in (0, 1):
        keras.utils.set_random_seed(1)
        model = td.training.Model(small_model(), rho=0.0, estimate_every=every)
        history = trained(model, optimizer=Watching(0.0, jit_compile=False))
        ends.append([*weights_of(model), *history["loss"], *history["mae"]])
    close(*ends, tolerance=1e-6)


@pytest.mark.parametrize(
    "arguments,error,words",
    [
        (dict(inner="model"), TypeError, "`inner` must be a keras.Model"),
        (dict(rho=-0.1), ValueError, "`rho` must be at least 0.*rho=-0.1"),
        (dict(alpha=-1), ValueError, "`alpha` must be at least 0"),
        (dict(estimator="fisher"), ValueError, "must be one of 'hutchinson', 'gauss_newton"),
    ],
)
def test_wrong_arguments_raise(arguments, error, words):
    with pytest.raises(error, match=words):
        td.training.Model(**dict(dict(inner=small_model()), **arguments))


def test_a_plateau_hears_the_losses_of_epochs_only():
    plateau = td.schedules.Plateau(1e-3, patience=1, factor=0.5)
    model = td.training.Model(small_model(), rho=0.5)
    trained(model, optimizer=td.SGDW(plateau, momentum=0.0, jit_compile=False))
    assert float(plateau.kept.scale) == 1.0 and np.isinf(plateau.kept.best)
    model.optimizer.observe_loss(1.0)
    assert float(plateau.kept.best) == 1.0


class Older(td.training.TrainStep, Residual):
    """Its `compute_loss` is written as before Keras 3.3."""

    rho = 0.1

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return tf.reduce_mean((y_pred - y) ** 2)


def test_a_loss_of_an_older_class_is_trained():
    assert np.isfinite(trained(Older())["loss"]).all()


@pytest.mark.parametrize("shape", [(), (1,)])
def test_rows_of_weight_0_tell_nothing_of_the_hessian(shape):
    hessians = []
    for outlier in (1.0, 1000.0):
        keras.utils.set_random_seed(0)
        net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model = td.training.Model(net, 0.0, estimate_every=1, estimator="gauss_newton_bartlett")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(td.Sophia(1e-3, beta_2=0.0, jit_compile=False), loss)
        x, weights = X[:8].copy(), np.ones((8, *shape), "float32")
        x[4:], weights[4:] = outlier * x[4:], 0.0
        data = tf.data.Dataset.from_tensors((x, np.arange(8) % 3, weights))
        model.fit(data, shuffle=False, verbose=0)
        hessians.append([v for n, v in model.optimizer.get_state().items() if n.endswith(":h")])
    equal(*hessians)


def test_estimates_go_through_keras_s_loss_scale_and_need_someone_to_take_them():
    wrapped = keras.mixed_precision.LossScaleOptimizer(td.Sophia(1e-3, jit_compile=False))
    model = td.training.Model(small_model(), rho=0.0, estimate_every=1)
    trained(model, steps=1, optimizer=wrapped)
    state = wrapped.inner_optimizer.get_state()
    assert any(np.any(v) for name, v in state.items() if name.endswith(":h"))
    model = td.training.Model(small_model(), rho=0.0, estimate_every=1)
    with pytest.raises(TypeError, match=r"`estimate_every` needs.*Received: AdamW"):
        trained(model, steps=1, optimizer=keras.optimizers.AdamW())


def test_exported_it_takes_one_gradient_and_says_so():
    model = td.training.Model(small_model(), rho=0.1)
    trained(model, steps=1)
    with pytest.warns(UserWarning, match="no SAM, and no estimates"):
        specs = [tf.TensorSpec([None, n], tf.float32) for n in (X.shape[1], Y.shape[1])]
        td.export.TrainableModel(model, x=specs[0], y=specs[1])
