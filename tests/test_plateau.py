"""Plateaus: a rate falls where a loss has stopped to fall, whatever rate it is, and it is saved."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, mirrored, run, small_data, small_model, variables

import tf_decoupled as td
from tf_decoupled.schedules import Join, Linear, Plateau, Warmup


def scales(values, factor=0.1, patience=10, cooldown=0, min_delta=1e-4, min_scale=0.0, sign=1):
    """The scale after each value, as Keras's callback goes about it."""
    scale, best, wait, left = 1.0, None, 0, 0
    for x in values:
        if left > 0:
            left, wait = left - 1, 0
        if best is None or sign * x < sign * best - min_delta:
            best, wait = x, 0
        elif left == 0:
            wait += 1
            if wait >= patience and scale > min_scale:
                scale, left, wait = max(scale * factor, min_scale), cooldown, 0
        yield scale


def seen(plateau, losses):
    """The scale after each loss."""
    for loss in losses:
        plateau.observe(loss)
        yield float(plateau.kept.scale)


def noisy(count=60, seed=0):
    """Losses that fall, stay, and rise."""
    rng = np.random.default_rng(seed)
    return np.float32(np.cumsum(rng.normal(-0.02, 0.2, count)).round(2))


OPTIONS = [
    *(dict(factor=0.5, patience=p, cooldown=c) for p, c in itertools.product([0, 1, 3], [0, 1, 4])),
    dict(factor=0.5, patience=2, min_delta=0.5),
    dict(factor=0.5, patience=1, min_scale=0.125),
    dict(factor=0.3, patience=1, min_scale=0.2, cooldown=2),
    dict(factor=0.5, patience=2, min_delta=0.0),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_scale_falls_as_the_rate_does_with_keras(options):
    losses = noisy()
    mine = list(seen(Plateau(1.0, **options), losses))
    np.testing.assert_allclose(mine, list(scales(losses, **options)), rtol=1e-6)
    assert len(set(mine)) > 2
    theirs = dict(mode="min", monitor="loss") | options
    callback = keras.callbacks.ReduceLROnPlateau(min_lr=theirs.pop("min_scale", 0.0), **theirs)
    model = small_model()
    model.compile(keras.optimizers.SGD(1.0), "mse")
    callback.set_model(model)
    callback.on_train_begin()
    rates = []
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, dict(loss=loss))
        rates.append(float(model.optimizer.learning_rate))
    np.testing.assert_allclose(mine, rates, rtol=1e-6)


def test_where_more_is_better_the_signs_turn():
    values = -noisy()
    options = dict(patience=2, cooldown=1, min_delta=0.1)
    mine = list(seen(Plateau(1.0, mode="max", **options), values))
    np.testing.assert_allclose(mine, list(scales(values, sign=-1, **options)), rtol=1e-6)
    assert len(set(mine)) > 2


def test_of_a_constant_loss_the_first_is_the_best():
    for patience in (1, 2, 5):
        falls = [scale < 1 for scale in seen(Plateau(1.0, patience=patience), [3.0] * 8)]
        assert falls.index(True) == patience  # the first value, then `patience` that are no better


def test_a_window_is_one_value_its_mean():
    losses = noisy(120)
    whole = Plateau(1.0, factor=0.5, patience=1, window=4)
    means = np.mean(losses.reshape(-1, 4), 1, dtype=np.float64)
    mine = list(seen(whole, losses))
    expected = list(scales(means, factor=0.5, patience=1))
    np.testing.assert_allclose(mine[3::4], expected, rtol=1e-6)
    for i in range(1, 4):
        assert mine[3 + i :: 4] == mine[3:-4:4][: len(mine[3 + i :: 4])]  # nothing in between
    assert len(set(mine)) > 2


def test_a_nan_is_never_better_and_spoils_nothing():
    plateau = Plateau(1.0, patience=2)
    assert list(seen(plateau, [math.nan, 2.0])) == [1, 1] and float(plateau.kept.best) == 2
    *_, last = seen(plateau, [math.nan, 1.0, math.nan, math.nan])
    assert last == np.float32(0.1) and float(plateau.kept.best) == 1


# Wherever a rate stands.


def test_any_schedule_is_scaled_and_its_peak_stays():
    plateau = Plateau(Warmup(Linear(0.5, 20), 5), patience=1)
    plain = Warmup(Linear(0.5, 20), 5)
    np.testing.assert_array_equal(plateau(np.arange(30)), plain(np.arange(30)))
    list(seen(plateau, [1.0, 1.0]))
    np.testing.assert_allclose(plateau(np.arange(30)), 0.1 * plain(np.arange(30)), rtol=1e-6)
    assert plateau.peak == plain.peak == 0.5
    plateau.reset()
    np.testing.assert_array_equal(plateau(np.arange(30)), plain(np.arange(30)))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_traced_step_follows_and_observes_without_a_new_trace(compiled):
    optimizer = td.SGD(Plateau(0.5, factor=0.5, patience=1), jit_compile=compiled)
    (v,) = variables([(3,)])
    optimizer.build([v])

    @tf.function
    def step(g, loss):
        optimizer.apply([g], [v])
        optimizer.observe_loss(loss)

    expected = v.numpy()
    for rate in (0.5, 0.5, 0.25, 0.125):
        step(tf.ones(3), tf.constant(1.0))
        expected = expected - rate
        np.testing.assert_allclose(v, expected, rtol=1e-6, atol=1e-6)
    assert step.experimental_get_tracing_count() == 1


def test_every_plateau_of_an_optimizer_hears_each_loss_once():
    shared = Plateau(0.5, patience=1)
    inside = Join([0.1, Plateau(0.2, patience=2)], [3])
    optimizers = [
        td.SGDW(shared, inside, momentum=0.0),
        td.Lookahead(td.AdamW(shared, weight_decay=inside)),
        td.Partition([(td.masks.matrices, td.SGDW(shared, inside)), (None, td.AdamW(shared))]),
    ]
    for optimizer in optimizers:
        shared.reset()
        inside.schedules[1].reset()
        for falls in ([1, 1], [0.1, 1], [0.01, 0.1]):
            optimizer.observe_loss(2.0)
            kept = [shared.kept.scale, inside.schedules[1].kept.scale]
            np.testing.assert_allclose(kept, falls, rtol=1e-6)
    assert float(inside(10)) == pytest.approx(0.02)


def test_several_losses_at_a_time_are_refused():
    with pytest.raises(ValueError, match=r"must be a scalar.*\(2,\)"):
        td.AdamW(Plateau(0.1)).observe_loss([1.0, 2.0])


def test_replicas_observe_the_sum_of_their_losses():
    losses = noisy(40).reshape(-1, 2)
    options = dict(factor=0.5, patience=1)
    expected = list(scales(losses.sum(1, dtype=np.float64), **options))
    assert expected != list(scales(losses[:, 0], **options))
    outside = Plateau(1.0, **options)
    with mirrored().scope():
        inside = Plateau(1.0, **options)

    @tf.function
    def step(pair):
        def replica():
            here = tf.distribute.get_replica_context().replica_id_in_sync_group
            for plateau in (outside, inside):
                plateau.observe(tf.gather(pair, here))

        mirrored().run(replica)

    for pair, scale in zip(losses, expected, strict=True):
        step(tf.constant(pair))
        for plateau in (outside, inside):
            assert plateau.kept.scale.numpy() == pytest.approx(scale, rel=1e-6)
    assert len(set(expected)) > 1
    of_each = mirrored().experimental_local_results(inside.kept.scale.value)
    assert len({float(each) for each in of_each}) == 1


# Saved with the optimizer.


def stalled():
    """An optimizer that has stepped and observed, and the variables."""
    optimizer, trainable = td.SGD(Plateau(0.5, patience=2, cooldown=3, window=2)), variables()
    run(optimizer, trainable, gradients(steps=1))
    for loss in (1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0):
        optimizer.observe_loss(loss)
    return optimizer, trainable


KEPT = dict(scale=0.1, best=1.0, bad_values=0, cooling=3, mean=3.0, losses=1)


def assert_kept(optimizer, **kept):
    state = optimizer.get_state()
    for name, value in (KEPT | kept).items():
        np.testing.assert_allclose(state[f"learning_rate/{name}"], value, rtol=1e-6)


def test_state_is_got_set_and_reset():
    optimizer, trainable = stalled()
    assert_kept(optimizer)
    again = td.SGD.from_config(optimizer.get_config())
    again.build(trainable)
    again.set_state(optimizer.get_state())
    assert_kept(again)
    assert float(again.learning_rate) == pytest.approx(0.05)
    again.reset_state()
    assert_kept(again, scale=1, best=math.inf, cooling=0, mean=0, losses=0)
    assert_kept(optimizer)


def test_a_checkpoint_has_it(tmp_path):
    optimizer, trainable = stalled()
    named = {f"v{i}": v for i, v in enumerate(trainable)}
    path = tf.train.Checkpoint(optimizer=optimizer, **named).write(tmp_path / "at")
    again = td.SGD.from_config(optimizer.get_config())
    again.build(trainable)
    tf.train.Checkpoint(optimizer=again, **named).read(path).assert_consumed()
    assert_kept(again)


def compiled_model(rate):
    model = small_model()
    model.compile(td.SGD(rate, jit_compile=False), "mse", jit_compile=False)
    return model


def fit(model, epochs=1, **options):
    callbacks = [td.callbacks.ReduceOnPlateau("loss")]
    return model.fit(
        *small_data(), epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks, **options
    )


def test_fit_goes_on_from_a_file_as_if_it_had_not_ended(tmp_path):
    make = lambda: Plateau(Linear(0.2, 200), factor=0.25, patience=1, min_delta=0.3)  # noqa: E731
    whole = fit(compiled_model(make()), epochs=6).history
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    begun = compiled_model(make())
    first = fit(begun, epochs=3).history
    begun.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    second = fit(loaded, epochs=3).history
    for name in ("loss", "learning_rate"):
        np.testing.assert_allclose(first[name] + second[name], whole[name], rtol=1e-5)
    unscaled = [float(Linear(0.2, 200)(2 * n)) for n in range(1, 7)]
    falls = np.array(whole["learning_rate"]) / unscaled
    assert falls[0] == pytest.approx(1) and falls[-1] < 0.5


def test_an_exported_step_has_it(tmp_path):
    optimizer, (v,) = td.SGD(Plateau(0.5, patience=1)), variables([(3,)])
    optimizer.build([v])
    module = tf.Module()
    module.optimizer, module.v = optimizer, v.value

    @tf.function(input_signature=[tf.TensorSpec([3]), tf.TensorSpec([])])
    def step(g, loss):
        optimizer.apply([g], [v])
        optimizer.observe_loss(loss)
        return tf.identity(v.value)

    module.step = step
    tf.saved_model.save(module, str(tmp_path))
    loaded, start = tf.saved_model.load(str(tmp_path)), v.numpy()
    for _ in range(3):
        end = loaded.step(tf.ones(3), 1.0)
    np.testing.assert_allclose(end, start - 0.5 - 0.5 - 0.05, rtol=1e-5)


# The callback.


def test_a_metric_that_is_not_there_is_told():
    model = compiled_model(Plateau(0.1))
    callback = td.callbacks.ReduceOnPlateau()
    callback.set_model(model)
    with pytest.warns(UserWarning, match=r"`val_loss` is not among .* \['loss'\]"):
        callback.on_epoch_end(0, dict(loss=1.0))


@pytest.mark.parametrize("optimizer", [td.AdamW(), keras.optimizers.SGD()], ids=["ours", "Keras's"])
def test_the_callback_needs_a_schedule_to_tell(optimizer):
    model = small_model()
    model.compile(optimizer, "mse")
    words = "needs a schedule to tell: compile.*Received: (AdamW|SGD)"
    with pytest.raises(ValueError, match=words):
        td.callbacks.ReduceOnPlateau().set_model(model)


@pytest.mark.parametrize(
    "options,words",
    [
        (dict(factor=1.0), r"`factor` of Plateau must be in \(0, 1\)"),
        (dict(patience=-1), "`patience` of Plateau"),
        (dict(min_delta=-0.1), "`min_delta` of Plateau must be at least 0"),
        (dict(min_scale=2), "`min_scale` of Plateau must be between 0 and 1"),
        (dict(mode="auto"), "`mode` of Plateau must be one of .'min', 'max'."),
        (dict(window=0), "`window` of Plateau"),
    ],
)
def test_a_wrong_argument_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        Plateau(0.1, **options)
