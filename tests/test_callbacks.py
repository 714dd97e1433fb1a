"""Callbacks: averages where the model is judged or saved, raw weights where it is trained."""

import contextlib
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import events_of, mirrored, small_data, small_model

import tf_decoupled as td
from tf_decoupled.callbacks import HyperparameterLogger, SwapAveraged

averaging = functools.partial(td.AdamW, 0.05, use_ema=True, ema_momentum=0.8, jit_compile=False)
plain_adamw = functools.partial(td.AdamW, 0.05, jit_compile=False)
plain_sgd = functools.partial(td.SGD, 0.05, jit_compile=False)

KINDS = {
    "Lookahead": lambda: td.Lookahead(averaging(), sync_period=3),
    "accumulating": lambda: averaging(gradient_accumulation_steps=2),
    "overwriting": lambda: averaging(ema_overwrite_frequency=3),
}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


class Call(keras.callbacks.Callback):
    """Calls functions by the name of the moment."""

    def __init__(self, **moments):
        super().__init__()
        for moment, function in moments.items():
            setattr(self, moment, lambda *args, f=function, **kwargs: f())


def compiled(optimizer, dtype="float32", scope=contextlib.nullcontext, **options):
    """The same small model at every call; eager, which is quick where there are few steps."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    with scope():
        layers = keras.layers
        hidden = layers.Dense(3, "tanh", name="hidden", dtype=dtype)
        head = layers.Dense(1, name="head", dtype=dtype)
        model = keras.Sequential([layers.Input((4,)), hidden, head])
        options = {"run_eagerly": scope is contextlib.nullcontext} | options
        model.compile(optimizer(), "mse", **options)
    return model


def trainable(model):
    return [v.numpy().astype("float32") for v in model.trainable_variables]


def averages(model):
    state = model.optimizer.get_state()
    return [v for name, v in state.items() if name.endswith(":average")]


def equal(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def fit(model, callbacks, epochs=2, validation=True, **options):
    x, y = small_data()
    data = (x[::2], y[::2]) if validation else None
    options = dict(batch_size=16, epochs=epochs, shuffle=False, verbose=0) | options
    return model.fit(x, y, validation_data=data, callbacks=callbacks, **options).history


def swapping_leaves_training_alone(make, **model_options):
    """Trains with and without the callback, and compares all states and raw weights."""
    seen = []
    for swaps in ([], [SwapAveraged()]):
        model, raw = compiled(make, **model_options), []
        fit(model, [*swaps, Call(on_epoch_begin=lambda m=model, r=raw: r.append(trainable(m)))])
        raw.append(trainable(model))
        seen.append((raw, model.optimizer.get_state()))
    (plain, state), (swapped, other_state) = seen
    assert all(equal(a, b) for a, b in zip(plain, swapped, strict=True))
    assert not equal(plain[0], plain[1])
    for name in state:
        np.testing.assert_array_equal(state[name], other_state[name], name)


@every_kind
def test_training_goes_on_bit_for_bit_as_without_swapping(make):
    swapping_leaves_training_alone(make)


def test_so_it_does_with_bfloat16_weights_and_their_masters():
    swapping_leaves_training_alone(averaging, dtype="bfloat16")


def test_validation_runs_on_the_averages():
    model, expected, raw = compiled(averaging), [], []
    x, y = small_data()

    def evaluate():
        raw.append(model.evaluate(x[::2], y[::2], verbose=0, batch_size=16))
        with model.optimizer.averaged():
            expected.append(model.evaluate(x[::2], y[::2], verbose=0, batch_size=16))

    history = fit(model, [Call(on_epoch_end=evaluate), SwapAveraged()])
    np.testing.assert_allclose(history["val_loss"], expected, rtol=1e-6)
    assert np.abs(np.subtract(raw, expected)).min() > 1e-3


@pytest.mark.parametrize("suffix,validation", [(".keras", True), (".weights.h5", False)])
def test_checkpoints_after_it_hold_averages_and_those_before_it_raw_weights(
    tmp_path, suffix, validation
):
    def checkpoint(name):
        file = str(tmp_path / f"{name}{{epoch}}{suffix}")
        return keras.callbacks.ModelCheckpoint(file, save_weights_only=suffix != ".keras")

    def look():
        raw.append(trainable(model))
        expected.append(averages(model))

    model, raw, expected = compiled(averaging), [], []
    callbacks = [Call(on_epoch_end=look), checkpoint("raw"), SwapAveraged(), checkpoint("averaged")]
    fit(model, callbacks, validation=validation)
    for epoch in range(2):
        for name, weights in (("raw", raw[epoch]), ("averaged", expected[epoch])):
            loaded = compiled(averaging)
            loaded.load_weights(tmp_path / f"{name}{epoch + 1}{suffix}")
            assert equal(trainable(loaded), weights), (name, epoch)
        assert not equal(raw[epoch], expected[epoch])


def test_training_that_was_backed_up_before_it_resumes_bit_for_bit(tmp_path):
    def stop():
        raise KeyboardInterrupt

    def callbacks(*more):
        backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
        return [backup, SwapAveraged(), *more]

    whole, first, second = (compiled(averaging) for _ in range(3))
    fit(whole, [SwapAveraged()])
    with pytest.raises(KeyboardInterrupt):
        fit(first, callbacks(Call(on_epoch_end=stop)))
    fit(second, callbacks())
    assert equal(trainable(second), trainable(whole))
    assert int(second.optimizer.iterations) == 8


def test_early_stopping_after_it_restores_the_averages_of_the_best_epoch():
    model, expected = compiled(averaging), []
    stopping = keras.callbacks.EarlyStopping(patience=9, restore_best_weights=True, mode="max")
    look = Call(on_epoch_end=lambda: expected.append(averages(model)))
    history = fit(model, [look, SwapAveraged(), stopping], epochs=3)
    assert equal(trainable(model), expected[int(np.argmax(history["val_loss"]))])


def test_fit_ends_with_the_averages_in_the_model():
    model = compiled(averaging)
    fit(model, [SwapAveraged()])
    assert equal(trainable(model), averages(model)) and model.optimizer not in SwapAveraged.swapped
    assert "evaluate" not in vars(model)


@pytest.mark.parametrize("moment", ["on_test_batch_end", "on_test_end"])
@pytest.mark.parametrize("first", [True, False], ids=["before it", "after it"])
def test_an_exception_during_validation_brings_the_raw_weights_back(moment, first):
    def fail():
        raise KeyboardInterrupt("in validation")

    model, raw = compiled(averaging), []
    look = Call(on_train_batch_end=lambda: raw.append(trainable(model)))
    callbacks = [Call(**{moment: fail}), SwapAveraged()]
    with pytest.raises(KeyboardInterrupt, match="in validation"):
        fit(model, [look, *(callbacks if first else reversed(callbacks))], epochs=1)
    assert equal(trainable(model), raw[-1]) and not equal(raw[-1], averages(model))
    assert "evaluate" not in vars(model)


def test_data_that_fail_during_validation_bring_the_raw_weights_back():
    def batches():
        x, y = small_data(16)
        yield x, y
        raise ValueError("a bad file")

    model, raw = compiled(averaging), []
    shapes = (tf.TensorSpec((16, 4)), tf.TensorSpec((16, 1)))
    data = tf.data.Dataset.from_generator(batches, output_signature=shapes)
    look = Call(on_train_batch_end=lambda: raw.append(trainable(model)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="a bad file"):
        model.fit(*small_data(), validation_data=data, callbacks=[look, SwapAveraged()], verbose=0)
    assert equal(trainable(model), raw[-1])


@pytest.mark.parametrize("how", ["next fit", "restore"])
def test_raw_weights_come_back_after_a_callback_failed_at_the_end_of_an_epoch(how):
    def fail():
        raise OSError("disk full")

    model, raw = compiled(averaging), []
    look = Call(on_train_batch_end=lambda: raw.append(trainable(model)))
    with pytest.raises(OSError, match="disk full"):
        fit(model, [look, SwapAveraged(), Call(on_epoch_end=fail)])
    assert equal(trainable(model), averages(model))
    if how == "restore":
        SwapAveraged.restore(model)
        assert equal(trainable(model), raw[-1])
    else:
        began = Call(on_train_begin=lambda: raw.append(trainable(model)))
        fit(model, [began, SwapAveraged()], epochs=1)
        assert equal(raw[-1], raw[-2])


def test_a_variable_assigned_meanwhile_keeps_what_it_was_assigned():
    model = compiled(averaging)
    fit(model, [], epochs=1)
    fit(model, [SwapAveraged()], epochs=1)
    SwapAveraged.swap(model)
    model.trainable_variables[0].assign(np.full((4, 3), 7.0))
    SwapAveraged.restore(model)
    np.testing.assert_array_equal(model.trainable_variables[0], np.full((4, 3), 7.0))


def test_evaluate_and_predict_alone_run_on_the_averages_and_swap_back():
    model = compiled(averaging)
    x, y = small_data()
    model.evaluate(x, y, verbose=0, callbacks=[SwapAveraged()])  # before any average
    for _ in range(3):
        model.train_on_batch(x, y)
    before = trainable(model)
    got = model.evaluate(x, y, verbose=0, callbacks=[SwapAveraged()])
    predicted = model.predict(x, verbose=0, callbacks=[SwapAveraged()])
    assert equal(trainable(model), before)
    with model.optimizer.averaged():
        assert got == model.evaluate(x, y, verbose=0)
        np.testing.assert_array_equal(predicted, model.predict(x, verbose=0))
    assert got != model.evaluate(x, y, verbose=0)


def test_it_finds_the_averages_inside_of_keras_loss_scaling():
    model, seen = compiled(lambda: keras.optimizers.LossScaleOptimizer(averaging())), []
    look = Call(on_test_end=lambda: seen.append(trainable(model)))
    fit(model, [look, SwapAveraged()], epochs=1)
    state = model.optimizer.inner_optimizer.get_state()
    assert equal(seen[-1], [v for name, v in state.items() if name.endswith(":average")])


@pytest.mark.parametrize(
    "optimizer,received",
    [
        (lambda: td.AdamW(0.1), r"Received: AdamW\(use_ema=False\)"),
        (lambda: keras.optimizers.SGD(use_ema=True), r"Received: SGD\(use_ema=True\)"),
    ],
    ids=["no averages", "of Keras"],
)
def test_an_optimizer_without_averages_raises(optimizer, received):
    with pytest.raises(TypeError, match=f"keeps averages, as .*use_ema=True.*{received}"):
        fit(compiled(optimizer), [SwapAveraged()])
    with pytest.raises(TypeError, match="Received: a model without an optimizer"):
        small_model().predict(np.zeros((1, 4)), callbacks=[SwapAveraged()], verbose=0)


# HyperparameterLogger


def distance(left, right):
    """The Euclidean distance of two lists of arrays, in float64."""
    pairs = zip(left, right, strict=True)
    return np.sqrt(sum(np.sum((a.astype(np.float64) - b) ** 2) for a, b in pairs))


def test_it_writes_rate_decay_and_every_live_hyperparameter_per_epoch(tmp_path):
    schedule = td.schedules.Linear(0.1, 20)
    model = compiled(
        lambda: td.AdamW(schedule, 0.3, decay_coupling="corrected", clipnorm=5.0, jit_compile=False)
    )
    fit(model, [HyperparameterLogger(tmp_path)])
    got = events_of(tmp_path)
    assert sorted(got["learning_rate"]) == [4, 8]
    for step in (4, 8):
        h = model.optimizer.hyperparameters_at(step)
        names = {n for n, v in h.items() if v is not None} - {"t", "step"}
        assert names <= got.keys() and {"decay", "beta_1", "clipnorm"} <= names
        for name in names:
            np.testing.assert_array_equal(np.float32(got[name][step]), h[name])
    η = 0.1 * (1 - 8 / 20)
    np.testing.assert_allclose(got["decay"][8], η**2 / 0.1 * 0.3, rtol=1e-6)


@pytest.mark.parametrize(
    "options,expected",
    [
        (dict(), [3, 6]),
        (dict(steps_per_execution=2, run_eagerly=False), [4, 6]),
    ],
    ids=str,
)
def test_every_n_updates_it_writes_at_the_first_chance(tmp_path, options, expected):
    model = compiled(plain_adamw, **options)
    fit(model, [HyperparameterLogger(tmp_path, update_freq=3)])
    assert sorted(events_of(tmp_path)["learning_rate"]) == expected


def test_micro_steps_of_an_accumulation_are_no_updates(tmp_path):
    model = compiled(lambda: plain_adamw(gradient_accumulation_steps=2))
    fit(model, [HyperparameterLogger(tmp_path, update_freq=2)])
    got = events_of(tmp_path)
    assert sorted(got["learning_rate"]) == sorted(got["update_norm"]) == [2, 4]


@pytest.mark.parametrize("update_freq,steps", [(1, range(1, 9)), (3, [3, 6]), ("epoch", [4, 8])])
def test_the_update_norm_is_the_length_of_the_last_update(tmp_path, update_freq, steps):
    model, weights = compiled(lambda: td.Lookahead(plain_sgd(weight_decay=0.3), sync_period=2)), []
    look = Call(
        on_train_begin=lambda: weights.append(trainable(model)),
        on_train_batch_end=lambda: weights.append(trainable(model)),
    )
    fit(model, [look, HyperparameterLogger(tmp_path, update_freq)])
    got = events_of(tmp_path)["update_norm"]
    assert sorted(got) == list(steps)
    for step, value in got.items():
        np.testing.assert_allclose(value, distance(weights[step], weights[step - 1]), rtol=1e-5)


def test_the_update_norm_is_that_of_the_masters_of_low_precision_weights(tmp_path):
    def masters():
        state = model.optimizer.get_state()
        return [v for name, v in state.items() if name.endswith(":master")]

    model, seen = compiled(lambda: plain_sgd(1e-4), dtype="bfloat16"), [None]
    look = Call(on_train_batch_end=lambda: seen.append(masters()))
    fit(model, [look, HyperparameterLogger(tmp_path, update_freq=1)])
    got = events_of(tmp_path)["update_norm"]
    for step in range(2, 9):
        np.testing.assert_allclose(got[step], distance(seen[step], seen[step - 1]), rtol=1e-5)


def test_at_the_end_of_an_epoch_it_does_not_mistake_averages_for_weights(tmp_path):
    model, weights = compiled(averaging), []
    look = Call(on_train_batch_end=lambda: weights.append(trainable(model)))
    fit(model, [look, SwapAveraged(), HyperparameterLogger(tmp_path)])
    for step, value in events_of(tmp_path)["update_norm"].items():
        expected = distance(weights[step - 1], weights[step - 2])
        np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras's way to learn the size
def test_over_data_of_unknown_size_the_update_norm_begins_with_the_second_epoch(tmp_path):
    x, y = small_data()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16).filter(lambda *_: True)
    model = compiled(plain_adamw)
    logger = HyperparameterLogger(tmp_path)
    model.fit(data, epochs=3, verbose=0, shuffle=False, callbacks=[logger])
    got = events_of(tmp_path)
    assert sorted(got["learning_rate"]) == [4, 8, 12] and sorted(got["update_norm"]) == [8, 12]


def test_skipped_steps_are_counted_and_have_no_update_norm(tmp_path):
    x, y = small_data()
    y[20] = np.nan  # in the second of four batches
    model = compiled(lambda: plain_sgd(skip_nonfinite=True))
    callbacks = [HyperparameterLogger(tmp_path, update_freq=1)]
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks)
    got = events_of(tmp_path)
    assert got["skipped_steps"] == {1: 0, 2: 1, 3: 1}
    assert np.isfinite(list(got["update_norm"].values())).all()


def test_a_wrapper_s_hyperparameters_stand_beside_those_it_hides(tmp_path):
    inner = td.Lookahead(td.SGD(0.1, 0.2), sync_period=2)
    model = compiled(lambda: td.Lookahead(inner, sync_period=3))
    fit(model, [HyperparameterLogger(tmp_path)], epochs=1)
    got = events_of(tmp_path)
    assert got["sync_period"] == {4: 3} and got["inner/sync_period"] == {4: 2}
    np.testing.assert_allclose([got["learning_rate"][4], got["decay"][4]], [0.1, 0.02], rtol=1e-6)
    assert "inner/learning_rate" not in got


def test_the_gradient_norm_that_an_optimizer_keeps_and_keras_loss_scale_are_events_of(tmp_path):
    optimizer = plain_sgd(track_gradient_norm=True)
    optimizer.update_norm = keras.Variable(2.0, trainable=False)  # no word of the library's
    model = compiled(lambda: keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0))
    fit(model, [HyperparameterLogger(tmp_path)], epochs=1)
    got = events_of(tmp_path)
    assert got["loss_scale"] == {4: 64}
    rate, gradient = got["learning_rate"][4], got["gradient_norm"][4]
    np.testing.assert_allclose(got["update_norm"][4], rate * gradient, rtol=1e-4)


@pytest.mark.slow
def test_on_replicas_both_leave_training_alone(tmp_path):
    raw, swapped, states, losses = [], [], [], []

    def judge():
        with model.optimizer.averaged():
            losses.append(model.evaluate(x[::2], y[::2], verbose=0, batch_size=16))

    x, y = small_data()
    logger = HyperparameterLogger(tmp_path, update_freq=2)
    for seen, callbacks in (
        (raw, []),
        (swapped, [Call(on_epoch_end=judge), SwapAveraged(), logger]),
    ):
        model = compiled(averaging, scope=mirrored().scope)
        look = Call(on_epoch_begin=lambda m=model, s=seen: s.append(trainable(m)))
        history = fit(model, [*callbacks, look])
        states.append(model.optimizer.get_state())
    assert all(equal(a, b) for a, b in zip(raw, swapped, strict=True))
    assert equal(states[0].values(), states[1].values())
    np.testing.assert_allclose(history["val_loss"], losses, rtol=1e-5)
    got = events_of(tmp_path)["update_norm"]
    assert sorted(got) == [2, 4, 6, 8] and min(got.values()) > 0


def test_it_refuses_other_optimizers_and_frequencies(tmp_path):
    with pytest.raises(TypeError, match=r"this library's optimizers.*Received: SGD"):
        fit(compiled(keras.optimizers.SGD), [HyperparameterLogger(tmp_path)])
    for wrong in (0, 1.5, "batch"):
        with pytest.raises(ValueError, match=r"`update_freq` must be.*Received: update_freq="):
            HyperparameterLogger(tmp_path, update_freq=wrong)
