"""find_lr: it finds the rates that train, and leaves everything as it was."""

import copy
import importlib
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import mirrored, small_data

import tf_decoupled as td

layers = keras.layers


def model_of(optimizer, policy=None, inside=(), **options):
    """A compiled model with statistics, seeds and a metric of its own."""
    options = dict(loss="mse", metrics=["mae"], run_eagerly=True) | options
    model = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(8, "relu", name="hidden", dtype=policy),
            layers.BatchNormalization(name="norm", dtype=policy),
            layers.Dropout(0.1, seed=1, name="dropout", dtype=policy),
            *inside,
            layers.Dense(1, name="head", dtype=policy),
        ]
    )
    model.compile(optimizer, **options)
    return model


def quick(**options):
    return dict(steps=8, batch_size=8, lowest=1e-5, highest=1.0) | options


def everything(model):
    """All numbers of the model and its optimizer, by replica; and what isn't a variable."""
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    numbers = []
    for v in variables:
        inner = v if isinstance(v, tf.Variable) else getattr(v, "value", v)
        strategy = getattr(inner, "distribute_strategy", None)
        parts = strategy.experimental_local_results(inner) if strategy else [inner]
        numbers += [np.array(tf.convert_to_tensor(part)) for part in parts]
    given = dict(vars(model.optimizer.given))
    rest = [{n: type(v) for n, v in given.items()}, repr(model.optimizer)]
    return numbers, [*rest, model.stop_training, vars(model).get("history")]


def assert_same(now, before):
    assert len(now[0]) == len(before[0]) and now[1] == before[1]
    for a, b in zip(now[0], before[0], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def trained(model, batches=3):
    """The model after some steps, so that nothing is at its start."""
    x, y = small_data(8 * batches)
    model.fit(x, y, batch_size=8, epochs=1, verbose=0, shuffle=False)
    return model


eager = dict(jit_compile=False)
MAKE = {
    "AdamW": lambda: td.AdamW(1e-3, 0.01, **eager),
    "schedule": lambda: td.AdamW(td.schedules.Cosine(1e-3, 50), decay_coupling="schedule", **eager),
    "plateau": lambda: td.SGDW(td.schedules.Plateau(0.01, patience=1), **eager),
    "callable": lambda: td.SGDW(lambda: tf.constant(0.01), **eager),
    "averages": lambda: td.SGDW(0.01, use_ema=True, ema_overwrite_frequency=2, **eager),
    "ScheduleFree": lambda: td.ScheduleFree(td.AdamW(1e-3, beta_1=0.0), **eager),
    "Lookahead": lambda: td.Lookahead(td.Lion(td.schedules.Linear(1e-3, 9)), **eager),
    "accumulation": lambda: td.SGDW(0.01, gradient_accumulation_steps=2, **eager),
    "Partition": lambda: td.create("muon", learning_rate=0.02, **eager),
    "scaled": lambda: td.AdamW(1e-3, loss_scale="dynamic", skip_nonfinite=True, **eager),
}


@pytest.mark.parametrize("name", [name for name in MAKE if name not in ("AdamW", "schedule")])
def test_all_is_what_it_was_bit_for_bit(name):
    model = trained(model_of(MAKE[name]()))
    before = everything(model)
    found, again = (td.find_lr(model, small_data(), **quick()) for _ in range(2))
    assert (found.losses == again.losses).all()
    assert_same(everything(model), before)
    assert len(found.rates) == len(found.losses) == len(found.smoothed) >= 5


@pytest.mark.parametrize("name", ["AdamW", "schedule"])
def test_training_in_a_graph_goes_on_as_without_it(name):
    ends = []
    for asked in (False, True):
        keras.utils.set_random_seed(1)
        model = trained(model_of(MAKE[name](), run_eagerly=False))
        if asked:
            td.find_lr(model, small_data(), **quick())
        ends.append(everything(trained(model))[0])
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(a, b)


def test_before_any_step_training_begins_as_without_it():
    ends = []
    for asked in (False, True):
        keras.utils.set_random_seed(1)
        model = model_of(MAKE["scaled"]())
        if asked:
            td.find_lr(model, small_data(), **quick())
        assert int(model.optimizer.iterations.numpy()) == 0
        ends.append(everything(trained(model))[0])
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_low_precision_is_restored_with_its_loss_scale(policy):
    model = model_of(MAKE["AdamW"](), policy, run_eagerly=False)
    found = td.find_lr(model, small_data(), **quick(highest=1e-2, steps=5))
    assert math.isfinite(found.losses[-1])
    if policy == "mixed_float16":  # found out while the test was traced, as `fit` would
        assert float(model.optimizer.dynamic_scale) == 2.0**15
        assert int(model.optimizer.finite_steps.numpy()) == 0
    trained(model)
    before = everything(model)
    td.find_lr(model, small_data(), **quick(highest=1e4))
    assert_same(everything(model), before)


@pytest.mark.parametrize(
    "name",
    ["schedule", *(pytest.param(n, marks=pytest.mark.slow) for n in ("AdamW", "accumulation"))],
)
def test_replicas_are_restored_each(name):
    with mirrored().scope():
        model = model_of(MAKE[name](), run_eagerly=False)
    trained(model)
    before = everything(model)
    found = td.find_lr(model, small_data(), **quick(steps=6))
    assert_same(everything(model), before)
    assert len(found.losses) == 6 and found.losses[0] > 0


class Stops(Exception):
    pass


@pytest.mark.parametrize("error,name", [(Stops, "AdamW"), (KeyboardInterrupt, "schedule")])
def test_what_stops_it_is_raised_and_all_is_what_it_was(error, name, monkeypatch):
    rise = importlib.import_module("tf_decoupled.find_lr").Rise
    ends = rise.on_train_batch_end

    def stop(self, batch, logs=None):
        ends(self, batch, logs)
        if batch == 3:
            raise error("there")

    model = trained(model_of(MAKE[name]()))
    before = everything(model)
    monkeypatch.setattr(rise, "on_train_batch_end", stop)
    with pytest.raises(error, match="there"):
        td.find_lr(model, small_data(), **quick())
    assert_same(everything(model), before)
    trained(model)


# The curve.


def linear_model(optimizer, **options):
    """One weight, from 0: the loss of a batch of ones against 1 is (w − 1)²."""
    model = keras.Sequential(
        [layers.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    model.compile(optimizer, "mse", **(dict(run_eagerly=True) | options))
    return model


ONES = (np.ones((8, 1), "float32"), np.ones((8, 1), "float32"))


def by_hand(rates, momentum=0.0):
    """Losses of gradient descent on (w − 1)² at these rates, each before its step."""
    w, losses = 0.0, []
    for rate in rates:
        losses.append((w - 1.0) ** 2)
        w -= rate * 2.0 * (w - 1.0)
    return losses


@pytest.mark.parametrize("schedule", [False, True])
def test_each_loss_is_that_before_a_step_with_its_rate(schedule):
    rate = td.schedules.Cosine(3.0, 5) if schedule else 3.0
    model = linear_model(td.SGD(rate, **eager), run_eagerly=not schedule)
    found = td.find_lr(model, ONES, steps=30, lowest=1e-3, highest=100)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-3, 100, 30)[: len(found.rates)])
    np.testing.assert_allclose(found.losses, by_hand(found.rates), rtol=2e-4, atol=1e-6)
    assert found.diverged and len(found.rates) < 30
    assert found.suggestion < found.minimum < found.rates[-1]
    assert 0.03 < found.suggestion < 1.0  # at 1 and more this descent diverges


def test_data_that_the_model_can_not_train_on_is_told_and_changes_nothing():
    model = trained(model_of(MAKE["AdamW"]()))
    before = everything(model)
    x, y = small_data()
    with pytest.raises(ValueError, match=r"what the model trains on. .*shapes.* ended in "):
        td.find_lr(model, (x[:, :2], y), **quick())
    assert_same(everything(model), before)


@pytest.mark.parametrize(
    "coupling,schedule",
    [
        *(("learning_rate", True), ("schedule", True), ("schedule", False)),
        *(("independent", True), ("corrected", True)),
    ],
)
def test_decay_is_that_of_an_optimizer_made_with_the_rate(coupling, schedule):
    rate = td.schedules.Cosine(0.1, 50) if schedule else 0.1
    optimizer = td.SGDW(rate, 0.05, momentum=0.0, decay_coupling=coupling, jit_compile=False)
    found = td.find_lr(linear_model(optimizer), ONES, steps=6, lowest=1e-3, highest=0.5)
    w, expected = 0.0, []
    for r in found.rates:
        expected.append((w - 1.0) ** 2)
        kappa = 0.05 * (r if coupling in ("learning_rate", "corrected") else 1.0)
        w = w - r * 2.0 * (w - 1.0) - kappa * w
    np.testing.assert_allclose(found.losses, expected, rtol=2e-4, atol=1e-6)


def test_a_base_that_was_given_stays():
    optimizer = td.SGDW(
        0.1, 0.05, momentum=0.0, decay_coupling="schedule", base_learning_rate=0.2, **eager
    )
    found = td.find_lr(linear_model(optimizer), ONES, steps=6, lowest=1e-2, highest=0.5)
    w, expected = 0.0, []
    for r in found.rates:
        expected.append((w - 1.0) ** 2)
        w = w - r * 2.0 * (w - 1.0) - r / 0.2 * 0.05 * w
    np.testing.assert_allclose(found.losses, expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options,compiled",
    [
        (dict(gradient_accumulation_steps=3), {}),
        ({}, dict(steps_per_execution=2)),
        (dict(gradient_accumulation_steps=3), dict(steps_per_execution=2)),
    ],
)
def test_each_rate_has_the_batches_of_an_update(options, compiled):
    model = linear_model(td.SGD(0.1, jit_compile=False, **options), **compiled)
    found = td.find_lr(model, ONES, steps=6, lowest=1e-3, highest=0.1)
    updates = 2 if not options else 1  # of the batches of one execution
    rates = np.repeat(found.rates, updates)
    expected = np.mean(np.reshape(by_hand(rates), (-1, updates)), 1)
    if options and compiled:
        assert len(found.losses) == 6  # 4 batches for each rate: updates come in between
        return
    np.testing.assert_allclose(found.losses, expected, rtol=1e-3)


def test_members_keep_the_ratio_of_their_rates():
    first = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="first")
    second = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="second")
    model = keras.Sequential([layers.Input((1,)), first, second])
    slow, fast = td.SGD(td.schedules.Cosine(0.1, 9)), td.SGD(0.4)
    model.compile(
        td.Partition([(td.masks.only("first"), slow), (None, fast)], jit_compile=False),
        "mse",
        run_eagerly=True,
    )
    y = np.zeros((8, 1), "float32")
    found = td.find_lr(model, (ONES[0], y), steps=8, lowest=1e-3, highest=0.05)
    a = b = 1.0
    expected = []
    for r in found.rates:
        expected.append((a * b) ** 2)
        a, b = a - r * 2 * a * b * b, b - 4 * r * 2 * a * b * a
    np.testing.assert_allclose(found.losses, expected, rtol=1e-4)
    assert float(fast.learning_rate) == np.float32(0.4) and callable(slow.given.learning_rate)


def test_a_curve_is_smoothed_evenly_and_falls_steepest_where_it_says():
    x = np.linspace(-4, 0, 81)
    losses = 2.0 - 1.0 / (1.0 + np.exp(-6 * (x + 2.0))) + np.where(x > -0.5, 9 * (x + 0.5), 0)
    found = td.RateCurve.of(10.0**x, losses, 4, True)
    assert found.suggestion == pytest.approx(1e-2, rel=0.3)
    np.testing.assert_allclose(found.smoothed[10], losses[6:15].mean())
    np.testing.assert_allclose(found.smoothed[0], losses[:5].mean())
    rising = td.RateCurve.of(10.0**x, x + 5, 4, False)
    assert rising.suggestion is None and rising.minimum == pytest.approx(1e-4)
    assert "suggestion=None" in repr(rising) and "81 rates from 0.0001 to 1" in repr(rising)
    assert not rising.diverged


def test_noise_alone_suggests_nothing():
    for seed in range(20):
        losses = 2 + np.random.default_rng(seed).normal(size=100)
        assert td.RateCurve.of(np.geomspace(1e-7, 1, 100), losses, 5, False).suggestion is None


def test_the_curve_is_drawn_into_a_file(tmp_path):
    losses = [2.0, 2.1, 1.9, 1.0, 0.7, 0.6, 5.0, 90.0]
    found = td.RateCurve.of(np.geomspace(1e-4, 1, 8), losses, 1, True)
    found.plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(FileNotFoundError):
        found.plot(tmp_path / "none" / "rates.png")


# The data.


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return tuple(a[8 * i : 8 * (i + 1)] for a in small_data(24))


def sliced(rows=24):
    return tf.data.Dataset.from_tensor_slices(small_data(rows)).batch(8)


@pytest.mark.parametrize(
    "data",
    [
        lambda: sliced(),
        lambda: Batches(),
        lambda: [Batches()[i] for i in range(3)],
        lambda: (Batches()[i % 3] for i in range(30)),
        lambda: sliced().repeat(),
    ],
    ids=["Dataset", "PyDataset", "list", "generator", "endless"],
)
def test_data_in_each_form_gives_the_same_curve(data):
    def of(data):
        keras.utils.set_random_seed(1)
        model = model_of(td.SGD(0.01, **eager))
        return td.find_lr(model, data, **quick(steps=5, highest=0.1)).losses

    np.testing.assert_allclose(of(data()), of(sliced()), rtol=1e-6)


def test_arrays_are_drawn_by_a_seed_with_their_weights():
    x, y = small_data(20)
    model = model_of(td.SGD(0.1, **eager))
    curve = lambda *data, **k: td.find_lr(model, data, **quick(steps=5, **k)).losses  # noqa: E731
    first = curve(x, y)
    assert (first == curve(tf.constant(x), y, seed=0)).all()
    assert (first != curve(x, y, seed=1)).any()
    weighted = curve(x, y, np.full(20, 2.0, "float32"))
    np.testing.assert_allclose(weighted[0], 2 * first[0], rtol=1e-6)


@pytest.mark.parametrize(
    "data,error,words",
    [
        (lambda: iter([Batches()[0]] * 7), ValueError, "The data ended after 7 of 8 rates"),
        (lambda: iter(()), ValueError, "ended before the first rate: it has no batch"),
        (lambda: sliced().take(0), ValueError, "ended before the first rate"),
        (lambda: sliced().filter(lambda *_: False), ValueError, "ended before the first rate"),
        (lambda: [], ValueError, "ended before the first rate"),
        (lambda: (np.zeros((0, 4)), np.zeros((0, 1))), ValueError, "one or more. Received"),
        (lambda: (np.zeros((3, 4)), np.zeros((2, 1))), ValueError, r"arrays of \[2, 3\] rows"),
        (lambda: 3, TypeError, "`data` must be a tuple of arrays"),
    ],
)
def test_data_that_is_too_short_or_none_raises(data, error, words):
    model = model_of(td.SGD(0.1, **eager))
    before = everything(model)[0][: len(model.variables)]
    with pytest.raises(error, match=words):
        td.find_lr(model, data(), **quick())
    for a, b in zip(before, everything(model)[0], strict=False):
        np.testing.assert_array_equal(a, b)


# What can't be tested.


def test_a_loss_that_is_no_number_from_the_start_raises():
    x, y = small_data()
    model = trained(model_of(td.AdamW(1e-3, **eager)))
    before = everything(model)
    with pytest.raises(ValueError, match=r"isn't finite before the first step.*loss nan"):
        td.find_lr(model, (x, y * np.nan), **quick())
    assert_same(everything(model), before)


def test_a_test_that_diverges_at_once_says_so():
    model = linear_model(td.SGD(0.1, **eager))
    with pytest.raises(ValueError, match=r"diverged after \d rates, .*begin lower.* lowest=50"):
        td.find_lr(model, ONES, lowest=50.0, highest=1e4, steps=20)


def test_without_a_limit_it_goes_on_to_the_highest_rate():
    model = linear_model(td.SGD(0.1, **eager))
    found = td.find_lr(model, ONES, steps=12, lowest=2.0, highest=5.0, divergence=float("inf"))
    assert len(found.rates) == 12 and not found.diverged and found.losses[-1] > 10


@pytest.mark.parametrize(
    "model,error,words",
    [
        (lambda: None, TypeError, "`model` must be a keras.Model. Received: model=None"),
        (lambda: keras.Sequential([layers.Dense(1)]), TypeError, "compiled with an optimizer of"),
        (lambda: model_of("adam"), TypeError, "compiled with an optimizer of this library"),
        (lambda: unbuilt(), ValueError, "Build the model first"),
    ],
)
def test_a_model_that_will_not_do_raises(model, error, words):
    with pytest.raises(error, match=words):
        td.find_lr(model(), small_data())


def unbuilt():
    model = keras.Sequential([layers.Dense(1)])
    model.compile(td.AdamW(), "mse")
    return model


@pytest.mark.parametrize(
    "given,words",
    [
        (dict(lowest=0.0), "`lowest` must be a finite number > 0"),
        (dict(highest=math.inf), "`highest` must be a finite number > 0"),
        (dict(lowest=1.0, highest=0.1), "The rates must rise.*lowest=1.0, highest=0.1"),
        (dict(steps=4), "`steps` must be an integer, at least 5"),
        (dict(steps=10.5), "`steps` must be an integer"),
        (dict(batch_size=0), "`batch_size` must be an integer, at least 1"),
        (dict(divergence=0), "`divergence` must be a number > 0"),
    ],
)
def test_arguments_that_will_not_do_raise(given, words):
    with pytest.raises(ValueError, match=words):
        td.find_lr(linear_model(td.SGD(0.1)), ONES, **given)


def test_a_train_step_without_a_loss_is_told():
    class Silent(keras.Sequential):
        def train_step(self, data):
            return {"error": tf.constant(1.0)}

    model = Silent([layers.Input((1,)), layers.Dense(1)])
    model.compile(td.SGD(0.1), "mse", run_eagerly=True)
    with pytest.raises(ValueError, match=r"returns as 'loss'. Received: \['error'\]"):
        td.find_lr(model, ONES)


def test_optimizers_are_not_copied_or_replaced():
    model = model_of(td.AdamW(1e-3, **eager))
    optimizer, given = model.optimizer, copy.copy(vars(model.optimizer.given))
    td.find_lr(model, small_data(), **quick())
    assert model.optimizer is optimizer and vars(optimizer.given) == given


def test_an_optimizer_of_a_configuration_gives_the_same_curve():
    first = td.SGDW(0.1, 0.3, momentum=0.0, decay_coupling="schedule", jit_compile=False)
    curves = [
        td.find_lr(linear_model(optimizer), ONES, steps=6, lowest=1e-3, highest=0.5).losses
        for optimizer in (first, td.SGDW.from_config(first.get_config()))
    ]
    np.testing.assert_array_equal(*curves)
