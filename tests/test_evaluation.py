"""Evaluation weights: what a model is judged by, where that isn't what is trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, small_data, small_model, variables

import tf_decoupled as td

MAKERS = {
    "averages": lambda: td.AdamW(0.05, use_ema=True, jit_compile=False),
    "ScheduleFree": lambda: td.ScheduleFree(td.AdamW(0.05, beta_1=0.0, jit_compile=False)),
}


def compiled(make):
    keras.utils.set_random_seed(0)
    model = small_model()
    model.compile(make(), "mse")
    return model


def fit(model, epochs=1, **kwargs):
    return model.fit(*small_data(), epochs=epochs, verbose=0, shuffle=False, **kwargs)


def values(variables):
    return [np.asarray(v) for v in variables]


def assert_equal(these, those):
    for a, b in zip(these, those, strict=True):
        np.testing.assert_array_equal(a, b)


def held(optimizer):
    return int(optimizer.holds_evaluation_weights())


def stepped(optimizer, trainable, steps, seed=1):
    optimizer.build(trainable)
    for gs in gradients(steps=steps, seed=seed):
        optimizer.apply([tf.constant(g) for g in gs], trainable)
    return values(trainable)


def test_schedule_free_evaluates_the_mean_of_its_base_sequence():
    optimizer = td.ScheduleFree(td.SGDW(0.1, 0.0, momentum=0.0, jit_compile=False), beta=0.8)
    trainable, zs = variables(), []
    for gs in gradients(steps=5):
        optimizer.apply([tf.constant(g) for g in gs], trainable)
        zs.append(np.asarray(optimizer.get_state()["v0:z"], "float64"))
    with optimizer.evaluation_weights():
        np.testing.assert_allclose(trainable[0], np.mean(zs, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_training_goes_on_bit_for_bit_after_a_look_at_the_evaluation_weights(name):
    trainable, whole = variables(), variables()
    optimizer, expected = MAKERS[name](), stepped(MAKERS[name](), whole, 4)
    stepped(optimizer, trainable, 4)
    assert_equal(values(trainable), expected)
    raw = values(trainable)
    with optimizer.evaluation_weights():
        assert any(np.any(a != b) for a, b in zip(values(trainable), raw, strict=True))
        with optimizer.averaged():  # a second time changes nothing
            pass
        assert any(np.any(a != b) for a, b in zip(values(trainable), raw, strict=True))
    assert_equal(values(trainable), raw)
    assert held(optimizer) == 0


def test_without_evaluation_weights_it_says_how_to_get_some():
    optimizer = td.AdamW()
    optimizer.build(variables())
    assert not optimizer.has_evaluation_weights()
    with (
        pytest.raises(ValueError, match=r"no evaluation weights.*use_ema=True.*td\.ScheduleFree"),
        optimizer.evaluation_weights(),
    ):
        pass


def test_after_fit_the_model_is_the_evaluated_one_and_training_begins_where_it_was():
    model, whole = compiled(MAKERS["ScheduleFree"]), compiled(MAKERS["ScheduleFree"])
    fit(model)
    assert held(model.optimizer) == 1
    model.optimizer.restore_training_weights()
    assert held(model.optimizer) == 0
    fit(model)
    fit(whole, epochs=2)
    for a, b in zip(model.weights, whole.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_step_from_evaluation_weights_begins_at_the_training_weights():
    def begun():
        trainable, optimizer = variables(), MAKERS["ScheduleFree"]()
        stepped(optimizer, trainable, 3)
        return trainable, optimizer

    (once, first), (twice, second) = begun(), begun()
    second.finalize_variable_values(twice)
    assert held(second) == 1
    assert any(np.any(a != b) for a, b in zip(values(once), values(twice), strict=True))
    once_evaluated = values(twice)
    second.finalize_variable_values(twice)  # not again
    assert_equal(once_evaluated, values(twice))
    for a, b in zip(stepped(first, once, 2, 7), stepped(second, twice, 2, 7), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert held(second) == 0


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_keras_file_of_either_weights_trains_on(evaluated, tmp_path):
    model = compiled(MAKERS["ScheduleFree"])
    fit(model)
    model.optimizer.restore_training_weights()
    path = tmp_path / "model.keras"
    if evaluated:
        with model.optimizer.evaluation_weights():
            model.save(path)
            expected = model.predict(small_data()[0], verbose=0)
    else:
        model.save(path)
        expected = model.predict(small_data()[0], verbose=0)
    again = keras.models.load_model(path)
    assert held(again.optimizer) == evaluated
    np.testing.assert_array_equal(again.predict(small_data()[0], verbose=0), expected)
    again.optimizer.restore_training_weights()
    for each in (model, again):
        fit(each)
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 if evaluated else 0)


def test_the_callback_judges_and_saves_the_evaluation_weights(tmp_path):
    data = small_data()
    model, plain = compiled(MAKERS["ScheduleFree"]), compiled(MAKERS["ScheduleFree"])
    callbacks = [
        td.callbacks.SwapAveraged(),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
    ]
    history = fit(model, epochs=2, validation_data=data, callbacks=callbacks)
    fit(plain, epochs=2)
    assert_equal(values(model.weights), values(plain.weights))
    saved = keras.models.load_model(tmp_path / "2.keras")
    loss = saved.evaluate(*data, verbose=0)
    np.testing.assert_allclose(loss, history.history["val_loss"][-1], rtol=1e-5)
    fit(model, callbacks=[td.callbacks.SwapAveraged()])  # it begins with the training weights
    plain.optimizer.restore_training_weights()
    fit(plain)
    assert_equal(values(model.weights), values(plain.weights))


def test_a_partition_evaluates_as_its_members_do():
    members = [
        (td.masks.matrices, td.ScheduleFree(td.SGDW(0.1, 0.0, momentum=0.0))),
        (None, td.SGDW(0.1)),
    ]
    optimizer, trainable = td.Partition(members, jit_compile=False), variables()
    stepped(optimizer, trainable, 3)
    before = values(trainable)
    with optimizer.evaluation_weights():
        moved = [bool(np.any(a != b)) for a, b in zip(values(trainable), before, strict=True)]
    assert moved == [len(v.shape) >= 2 for v in trainable]


# Each variable by itself, and inside of wrappers.


def plain_sgd():
    return td.SGDW(0.5, 0.0, momentum=0.0, jit_compile=False)


INSIDE = {
    "RateMultipliers": lambda: td.RateMultipliers(td.IterateAverage(plain_sgd()), [(None, 1.0)]),
    "LayerwiseDecay": lambda: td.LayerwiseDecay(td.ScheduleFree(plain_sgd()), rate=1.0),
    "Lookahead": lambda: td.Lookahead(td.DoG(averaging=True), slow_step_size=1.0),
}
BARE = {
    "RateMultipliers": lambda: td.IterateAverage(plain_sgd()),
    "LayerwiseDecay": lambda: td.ScheduleFree(plain_sgd()),
    "Lookahead": lambda: td.DoG(averaging=True),
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_wrapper_is_judged_by_what_its_inner_rule_is(name):
    ends = []
    for make in (INSIDE[name], BARE[name]):
        optimizer, trainable = make(), variables()
        before = stepped(optimizer, trainable, 4)
        optimizer.finalize_variable_values(trainable)
        assert any(np.any(a != b) for a, b in zip(before, values(trainable), strict=True))
        ends.append(values(trainable))
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_variable_without_gradient_goes_on_to_hold_its_evaluation_weights():
    optimizer, (a, b) = MAKERS["ScheduleFree"](), variables([(2,), (2,)])
    optimizer.build([a, b])
    for _ in range(5):
        optimizer.apply([tf.ones(2), tf.ones(2)], [a, b])
    training = values([a, b])
    optimizer.finalize_variable_values([a, b])
    judged = values([a, b])
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([tf.ones(2), None], [a, b])
    with optimizer.evaluation_weights():
        assert_equal([judged[1]], values([b]))
    optimizer.restore_training_weights()
    np.testing.assert_allclose(b, training[1], rtol=1e-6)


def test_a_skipped_step_leaves_evaluation_weights_where_they_are():
    optimizer, trainable = td.ScheduleFree(plain_sgd(), skip_nonfinite=True), variables()
    training = stepped(optimizer, trainable, 3)
    optimizer.finalize_variable_values(trainable)
    judged = values(trainable)
    optimizer.apply([tf.fill(v.shape, np.nan) for v in trainable], trainable)
    assert_equal(judged, values(trainable))
    optimizer.restore_training_weights()
    for a, b in zip(training, values(trainable), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: td.IterateAverage(plain_sgd()),
        lambda: td.IterateAverage(plain_sgd(), window=3),
        lambda: td.DoG(averaging=True, jit_compile=False),
    ],
    ids=["all", "window", "DoG"],
)
def test_weights_that_were_assigned_after_training_are_trained(make, dtype):
    optimizer, v = make(), keras.Variable([1.0, 2.0], dtype=dtype)
    optimizer.build([v])
    for g in (1.0, -3.0, 0.5):
        optimizer.apply([tf.constant([g, -g], dtype)], [v])
    training = v.numpy().astype("float32")
    optimizer.finalize_variable_values([v])
    optimizer.apply([tf.zeros(2, dtype)], [v])
    np.testing.assert_allclose(v.numpy().astype("float32"), training, rtol=1e-6)
    optimizer.finalize_variable_values([v])
    v.assign([100.0, 200.0])
    optimizer.apply([tf.zeros(2, dtype)], [v])
    np.testing.assert_array_equal(v.numpy().astype("float32"), [100.0, 200.0])
