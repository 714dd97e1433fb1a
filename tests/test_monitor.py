"""Monitor: its numbers are NumPy's, wherever they are shown, and training doesn't notice."""

import contextlib
import csv
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import events_of, mirrored, small_data

import tf_decoupled as td
from tf_decoupled.callbacks import Monitor
from tf_decoupled.callbacks.measuring import OF_VARIABLES, QUANTITIES
from tf_decoupled.callbacks.monitor_figure import draw
from tf_decoupled.testing import tpu

sgd = functools.partial(td.SGD, learning_rate=0.1, jit_compile=False)
adamw = functools.partial(td.AdamW, learning_rate=0.05, jit_compile=False)


def compiled(optimizer, dtype="float32", scope=contextlib.nullcontext, alike=0, **options):
    """Linear layers, the same at every call; eager, which is quick where there are few steps."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    with scope():
        middle = [layers.Dense(3, name=f"alike{i}", dtype=dtype) for i in range(alike)]
        head = layers.Dense(1, name="head", dtype=dtype, bias_initializer="ones")
        first = layers.Dense(3, name="first", dtype=dtype, bias_initializer="ones")
        model = keras.Sequential([layers.Input((4,)), first, *middle, head], name="net")
        options = {"run_eagerly": scope is contextlib.nullcontext, "jit_compile": False} | options
        model.compile(optimizer(), "mse", **options)
    return model


def fit(model, *callbacks, epochs=2, batch_size=16, **options):
    x, y = small_data()
    options = dict(shuffle=False, verbose=0, callbacks=list(callbacks)) | options
    return model.fit(x, y, batch_size, epochs, **options).history


@functools.cache
def emulated_tpu():
    return tpu.EmulatedTPUStrategy(2)


def slowly(value):
    return pytest.param(value, marks=pytest.mark.slow)


class Values(keras.callbacks.Callback):
    """The weights before each batch and after the last, in float64."""

    def on_train_begin(self, logs=None):
        self.seen = [self._values()]

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self._values())

    def _values(self):
        return [v.numpy().astype("float64") for v in self.model.trainable_variables]


def gradients_of(weights, x, y):
    """Those of the mean squared error of linear layers: kernels and biases in turns."""
    inputs = [x.astype("float64")]
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        inputs.append(inputs[-1] @ kernel + bias)
    error, grads = 2 * (inputs.pop() - y) / len(x), []
    for kernel in reversed(weights[::2]):
        grads = [inputs.pop().T @ error, error.sum(0), *grads]
        error = error @ kernel.T
    return grads


def batches(size=16):
    x, y = small_data()
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def length(arrays):
    return np.sqrt(sum(np.sum(a**2) for a in arrays))


NAMES = ["net/first/kernel", "net/first/bias", "net/head/kernel", "net/head/bias"]


def test_each_number_is_that_of_a_step_by_hand():
    schedule = td.schedules.Linear(0.1, 20)
    make = lambda: td.SGDW(schedule, 0.5, decay_mask=td.masks.matrices, jit_compile=False)  # noqa: E731
    model, values = compiled(make), Values()
    monitor = Monitor(QUANTITIES, per="variable", every=1)
    fit(model, values, monitor)
    got = monitor.history
    assert list(got["update"]) == list(range(1, 9))
    m = [np.zeros_like(v) for v in values.seen[0]]
    for t, (x, y) in enumerate(batches() * 2):
        θ, η = values.seen[t], 0.1 * (1 - t / 20)
        grads = gradients_of(θ, x, y)
        m = [0.9 * a + η * g for a, g in zip(m, grads, strict=True)]
        for name, p, g, a, κ in zip(NAMES, θ, grads, m, [0.5 * η, 0] * 2, strict=True):
            expected = {
                "gradient_norm": length([g]),
                "weight_norm": length([p]),
                "update_norm": length([a + κ * p]),
                "relative_update": length([a + κ * p]) / length([p]),
                "m_norm": length([a]),
                "decay": κ,
            }
            numbers = [got[f"{quantity}/{name}"][t] for quantity in expected]
            np.testing.assert_allclose(numbers, list(expected.values()), rtol=2e-4)
        np.testing.assert_allclose(got["learning_rate"][t], η, rtol=1e-6)
        assert got["weight_decay"][t] == 0.5
        assert got["loss_scale"][t] == 1 and got["skipped_steps"][t] == 0


@pytest.mark.parametrize("per", ["model", "layer"])
def test_norms_of_a_part_are_those_of_its_variables_together(per):
    model, values = compiled(lambda: sgd(weight_decay=0.5, decay_mask=td.masks.matrices)), Values()
    monitor = Monitor(OF_VARIABLES, per=per, every=1)
    fit(model, values, monitor, epochs=1)
    got = monitor.history
    parts = {"": slice(4)} if per == "model" else {"/net/first": slice(2), "/net/head": slice(2, 4)}
    for t, (x, y) in enumerate(batches()):
        θ, after = values.seen[t], values.seen[t + 1]
        for part, cells in parts.items():
            moved = length([b - a for a, b in zip(θ[cells], after[cells], strict=True)])
            expected = {
                "gradient_norm": length(gradients_of(θ, x, y)[cells]),
                "weight_norm": length(θ[cells]),
                "update_norm": moved,
                "relative_update": moved / length(θ[cells]),
                "decay": 0.05 * length(θ[cells][::2]) / length(θ[cells]),
            }
            numbers = [got[quantity + part][t] for quantity in expected]
            np.testing.assert_allclose(numbers, list(expected.values()), rtol=2e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(clipnorm=1e-3),
        dict(loss_scale=64.0),
        dict(gradient_accumulation_steps=2, skip_nonfinite=True),
    ],
    ids=str,
)
def test_gradients_are_unscaled_means_that_are_not_clipped(arguments):
    model, values = compiled(lambda: sgd(**arguments)), Values()
    monitor = Monitor("gradient_norm", per="variable", every=1)
    fit(model, values, monitor, epochs=1)
    k = arguments.get("gradient_accumulation_steps", 1)
    for i, (x, y) in enumerate(batches(16 * k)):
        for name, g in zip(NAMES, gradients_of(values.seen[k * i], x, y), strict=True):
            got = monitor.history[f"gradient_norm/{name}"]
            assert len(got) == 4 // k
            np.testing.assert_allclose(got[i], length([g]), rtol=2e-4)


def test_variables_of_a_stack_have_their_own_norms():
    model, values = compiled(lambda: adamw(weight_decay=0.1), alike=3), Values()
    monitor = Monitor(OF_VARIABLES, per="variable", every=1)
    fit(model, values, monitor, epochs=1)
    assert any(block.stacked for block in model.optimizer.blocks)
    grads = gradients_of(values.seen[0], *batches()[0])
    names = [v.path for v in model.trainable_variables]
    for name, p, after, g in zip(names, *values.seen[:2], grads, strict=True):
        for quantity, expected in (
            ("gradient_norm", length([g])),
            ("weight_norm", length([p])),
            ("update_norm", length([after - p])),
            ("m_norm", 0.1 * length([g])),
            ("v_norm", 0.001 * length([g**2])),
            ("decay", 0.05 * 0.1),
        ):
            got = monitor.history[f"{quantity}/{name}"][0]
            np.testing.assert_allclose(got, expected, rtol=1e-3, err_msg=f"{quantity}/{name}")


def test_names_stand_in_history_and_csv_from_the_first_epoch_on(tmp_path):
    model = compiled(adamw)
    monitor = Monitor(QUANTITIES, per="layer", every=1000)
    seen, file = [], tmp_path / "log.csv"
    look = keras.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: seen.append({**logs}))
    history = fit(model, monitor, keras.callbacks.CSVLogger(str(file)), look, epochs=3)
    with open(file) as lines:
        rows = list(csv.DictReader(lines))
    for name in {*monitor.history} - {"update"}:
        assert len(history[name]) == 3
        assert [float(row[name]) for row in rows] == history[name]
        assert [logs[name] for logs in seen[:4]] == [seen[0][name]] * 4
    assert {"m_norm/net/first", "decay/net/head", "learning_rate"} <= {*rows[0]}
    assert list(monitor.history["update"]) == [1]  # nothing was measured later
    quiet = Monitor(in_logs=False)
    assert "weight_norm" not in fit(compiled(adamw), quiet) and len(quiet.history["weight_norm"])


def test_the_progress_bar_shows_them(capsys):
    fit(compiled(sgd), Monitor(), epochs=1, verbose=2)
    assert "relative_update: " in capsys.readouterr().out


def test_scalars_for_tensorboard_stand_over_updates(tmp_path):
    model = compiled(adamw)
    monitor = Monitor(["gradient_norm", "slot_norms", "learning_rate"], every=3, log_dir=tmp_path)
    fit(model, monitor)
    got, names = events_of(tmp_path), ["gradient_norm", "m_norm", "v_norm", "learning_rate"]
    assert list(got) == names and list(monitor.history) == ["update", *names]
    for name in names:
        assert list(got[name]) == [1, 3, 6] == list(monitor.history["update"])
        np.testing.assert_array_equal(np.float32([*got[name].values()]), monitor.history[name])


def shows_something(png):
    picture = tf.io.decode_png(png.read_bytes()).numpy()
    return picture.shape[0] > 300 and len(np.unique(picture)) > 50


def test_the_figure_is_a_png_that_shows_something(tmp_path):
    png = tmp_path / "monitor.png"
    monitor = Monitor(["slot_norms", "learning_rate"], per="layer", every=2, png=png)
    fit(compiled(adamw), monitor)
    assert shows_something(png)


def test_a_figure_of_many_parts_names_some_of_them(tmp_path):
    parts = {f"layer{i}": np.full(50, i) for i in range(40)}
    panels = {"weight_norm": parts, "skipped_steps": {"": np.full(50, np.nan)}}
    draw(np.arange(50), panels, tmp_path / "many.png")
    assert shows_something(tmp_path / "many.png")


def test_a_figure_that_cannot_be_drawn_takes_nothing_away(tmp_path):
    monitor = Monitor(png=tmp_path / "folder.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.warns(UserWarning, match=r"Monitor can't draw .*folder\.png"):
        assert len(fit(compiled(sgd), monitor)["loss"]) == 2
    with pytest.raises(ValueError, match="nothing to draw: no update was sampled"):
        Monitor().draw(tmp_path / "empty.png")


TRAININGS = {
    "eager": (adamw, dict()),
    "together": (
        lambda: td.Lookahead(
            adamw(
                gradient_accumulation_steps=2,
                global_clipnorm=0.5,
                use_ema=True,
                loss_scale="dynamic",
            ),
            sync_period=2,
        ),
        dict(run_eagerly=False, steps_per_execution=3),
    ),
}
COMPILED = {
    "step compiled": (functools.partial(td.AdamW, 0.05, 0.1), dict(run_eagerly=False)),
    "all compiled": (
        functools.partial(td.AdamW, 0.05, 0.1),
        dict(run_eagerly=False, jit_compile=True),
    ),
}


def leaves_training_alone(make, options):
    """Trains with and without two monitors, twice in a row, and compares the whole state."""
    states = []
    for monitors in ([], [Monitor(QUANTITIES, every=2), Monitor(per="variable", every=3)]):
        model = compiled(make, alike=2, **options)
        for _ in range(2):
            fit(model, *monitors)
        weights = {v.path: v.numpy() for v in model.variables}
        states.append(weights | model.optimizer.get_state())
        assert all(np.isfinite(m.history["gradient_norm"]).all() for m in monitors[:1])
    plain, watched = states
    assert list(plain) == list(watched)
    for name in plain:
        np.testing.assert_array_equal(plain[name], watched[name], name)


def test_training_is_bit_for_bit_the_same():
    leaves_training_alone(adamw, dict(run_eagerly=False))


@pytest.mark.slow
@pytest.mark.parametrize("make,options", TRAININGS.values(), ids=TRAININGS)
def test_so_it_is_in_eager_code_and_with_much_around_it(make, options):
    leaves_training_alone(make, options)


@pytest.mark.slow
@pytest.mark.xla
@pytest.mark.parametrize("make,options", COMPILED.values(), ids=COMPILED)
def test_so_it_is_where_xla_compiles_the_step(make, options):
    leaves_training_alone(make, options)


@pytest.mark.parametrize("strategy", [mirrored, slowly(emulated_tpu)])
def test_replicas_have_the_norms_of_one_device(strategy):
    histories = []
    for scope in (contextlib.nullcontext, strategy().scope):
        model = compiled(lambda: adamw(gradient_accumulation_steps=2), alike=2, scope=scope)
        monitor = Monitor(OF_VARIABLES, per="variable", every=2)
        fit(model, monitor)
        histories.append(monitor.history)
    one, two = histories
    assert list(one) == list(two) and list(one["update"]) == [1, 2, 4]
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4, err_msg=name)
    if strategy is emulated_tpu:
        cluster = strategy().clusters[-1]
        assert cluster.count("If") or cluster.count("StatelessIf")
        assert not cluster.without_kernel() and not cluster.using("float64")


@pytest.mark.parametrize("dtype,rtol", [("bfloat16", 2e-2), ("float64", 1e-6)])
def test_the_weights_are_masters_where_there_are_and_doubles_stay_doubles(dtype, rtol):
    model = compiled(lambda: sgd(learning_rate=1e-5), dtype=dtype)
    monitor = Monitor(per="variable", every=1)
    fit(model, monitor, epochs=1)
    got = monitor.history
    for name in NAMES:
        moved = got[f"relative_update/{name}"] * got[f"weight_norm/{name}"]
        expected = np.float32(1e-5) * got[f"gradient_norm/{name}"]
        # A float32 master near 1 is known to 6e-8; a bfloat16 weight would not move at all.
        np.testing.assert_allclose(moved, expected, rtol=rtol)


class WithoutGradient(keras.Model):
    """A model that is built by its first batch; one of its variables is not used."""

    def build(self, shape):
        self.head = keras.layers.Dense(1, name="head")
        self.head.build(shape)
        self.unused = self.add_weight((2,), initializer="ones", name="unused")

    def call(self, x):
        return self.head(x)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_what_there_is_none_of_is_nan_and_left_out_of_the_rest():
    model = WithoutGradient(name="net")
    model.compile(sgd(), "mse", run_eagerly=True)
    fit(model, whole := Monitor(every=1), single := Monitor(per="variable", every=1))
    assert list(whole.history["update"]) == list(range(2, 9))  # not the one that built the model
    unused, parts = single.history["gradient_norm/net/unused"], single.history
    assert np.isnan(unused).all() and (parts["relative_update/net/unused"] == 0).all()
    known = [v for name, v in parts.items() if name.startswith("gradient_norm/net/head")]
    np.testing.assert_allclose(whole.history["gradient_norm"], np.hypot(*known), rtol=1e-6)


def test_frozen_variables_have_no_names():
    model = compiled(adamw)
    fit(model, monitor := Monitor(per="layer"))
    assert "weight_norm/net/first" in monitor.history
    model.get_layer("first").trainable = False
    model.compile(model.optimizer, "mse", run_eagerly=True)
    fit(model, monitor)
    assert [name for name in monitor.history if "weight" in name] == ["weight_norm/net/head"]


def test_a_relative_update_of_zeros_is_not_a_number():
    model = compiled(sgd)
    model.get_layer("head").bias.assign([0.0])
    fit(model, monitor := Monitor(per="variable", every=1), epochs=1)
    got = monitor.history["relative_update/net/head/bias"]
    assert np.isnan(got[0]) and np.isfinite(got[1:]).all()


def test_members_of_a_partition_have_their_own_slots_rates_and_decays():
    members = [
        (td.masks.only("first"), td.Lion(0.02, 0.3, name="signs")),
        (None, td.AdamW(td.schedules.Linear(0.1, 16))),
    ]
    model = compiled(lambda: td.Partition(members, jit_compile=False))
    monitor = Monitor(
        ["slot_norms", "learning_rate", "weight_decay", "decay"], per="layer", every=4
    )
    fit(model, monitor)
    got, adam = monitor.history, model.optimizer.optimizers[1].name
    assert {n for n in got if "v_norm" in n} == {"v_norm/net/head"}
    np.testing.assert_allclose(got["learning_rate/signs"], 0.02, rtol=1e-6)
    np.testing.assert_allclose(got["weight_decay/signs"], 0.3, rtol=1e-6)
    np.testing.assert_allclose(got["decay/net/first"], 0.006, rtol=1e-6)
    expected = 0.1 * (1 - np.array([0, 3, 7]) / 16)
    np.testing.assert_allclose(got[f"learning_rate/{adam}"], expected, rtol=1e-6)


def test_wrappers_have_the_slots_and_multiplied_decays_of_what_is_inside():
    rates = [(td.masks.only("first"), 0.5)]
    make = lambda: td.RateMultipliers(adamw(weight_decay=0.2), rates)  # noqa: E731
    model, monitor = compiled(make), Monitor(["slot_norms", "decay"], per="layer", every=8)
    fit(model, monitor)
    got = monitor.history
    assert {name.partition("/net")[0] for name in got} == {
        *("update", "inner/m_norm", "inner/v_norm", "decay")
    }
    np.testing.assert_allclose(got["decay/net/first"], 0.005, rtol=1e-6)
    np.testing.assert_allclose(got["decay/net/head"], 0.01, rtol=1e-6)


def test_a_later_fit_measures_from_the_training_weights():
    model = compiled(lambda: td.ScheduleFree(sgd(learning_rate=0.01)))
    fit(model, monitor := Monitor(["weight_norm", "update_norm"], every=1))
    fit(model, monitor)
    moved, weights = monitor.history["update_norm"], monitor.history["weight_norm"]
    assert list(monitor.history["update"]) == list(range(1, 17))
    assert moved[8] < 2 * moved[7] and abs(weights[8] - weights[7]) <= 2 * moved[7]


def test_a_skipped_step_is_no_sample_but_counted():
    x, y = small_data()
    y[:20] = np.nan  # the first two of four batches
    model, monitor = compiled(lambda: sgd(skip_nonfinite=True)), Monitor(QUANTITIES)
    history = model.fit(x, y, 16, 1, shuffle=False, verbose=0, callbacks=[monitor]).history
    assert list(monitor.history["update"]) == [1] and history["skipped_steps"] == [2]
    assert np.isfinite(monitor.history["gradient_norm"]).all()


def test_nothing_of_it_stays_in_what_is_saved_or_stepped_without_it(tmp_path):
    model = compiled(adamw, run_eagerly=False)
    fit(model, Monitor())
    assert model.train_step.__func__ is keras.Model.train_step
    assert not [name for name in model.optimizer.get_state() if "norms" in name]
    td.export.TrainableModel(model).save(tmp_path / "exported")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.optimizer.get_state()) == len(model.optimizer.get_state())
    trained = model.train_function
    fit(model, Monitor())
    assert model.train_function is trained  # one trace serves all


def test_gradient_norms_can_be_kept_in_a_loop_of_one_s_own():
    v, w = keras.Variable([3.0, 4.0], name="v"), keras.Variable(1.0, name="w")
    optimizer = sgd()
    step = tf.function(lambda *grads: optimizer.apply(grads, [v, w]))
    with pytest.raises(ValueError, match=r"No gradient norms were kept.*keeping_gradient_norms"):
        optimizer.gradient_norms()
    with optimizer.keeping_gradient_norms():
        step(tf.constant([3.0, 4.0]), tf.constant(2.0))
    assert optimizer.gradient_norms() == {}
    optimizer.ask_for_gradient_norms()
    step(tf.constant([3e30, 4e30]), tf.constant(-2.0))
    optimizer.ask_for_gradient_norms(False)
    step(tf.constant([0.0, 0.0]), tf.constant(0.0))
    assert optimizer.gradient_norms() == {"v": np.float32(5e30), "w": 2.0}


@pytest.mark.parametrize("sparse", ["exact", "lazy"])
def test_the_norm_of_a_sparse_gradient_is_that_of_the_dense_one(sparse):
    table = keras.Variable(np.ones((5, 2), "float32"), name="table")
    optimizer = sgd(sparse=sparse)
    optimizer.build([table])
    optimizer.ask_for_gradient_norms()
    slices = tf.IndexedSlices(tf.constant([[3.0, 0], [2, 0], [0, 12]]), [1, 1, 4], (5, 2))
    with optimizer.keeping_gradient_norms():
        optimizer.apply([slices], [table])
    assert optimizer.gradient_norms() == {"table": 13.0}


def test_it_refuses_other_optimizers_and_what_it_does_not_know(tmp_path):
    with pytest.raises(TypeError, match=r"this library's optimizers\. Received: SGD"):
        fit(compiled(keras.optimizers.SGD), Monitor())
    known = r"`quantities` must be some of 'gradient_norm', .*'skipped_steps'\. Received: "
    for wrong in ("gradients", ["weight_norm", "m"], [], [3], None):
        with pytest.raises((ValueError, TypeError), match=known):
            Monitor(wrong)
    for wrong in (0, -1, 1.5, True, "epoch"):
        with pytest.raises((ValueError, TypeError), match=r"`every` must be .*Received: every="):
            Monitor(every=wrong)
    with pytest.raises(ValueError, match=r"one of 'model', 'layer', 'variable'\. Received: per="):
        Monitor(per="block")
    with pytest.raises(TypeError, match=r"`in_logs` must be True or False\. Received: in_logs=1"):
        Monitor(in_logs=1)
    with pytest.raises(FileNotFoundError, match=r"folder that exists\. Received: png=.*absent"):
        Monitor(png=tmp_path / "absent" / "a.png")


def test_norms_are_seen_also_after_another_variable_has_come():
    model, monitor = compiled(adamw, run_eagerly=False), Monitor("gradient_norm", every=1)
    fit(model, monitor, epochs=1)
    model.optimizer.add_variables([keras.Variable(1.0, name="late")])
    fit(model, monitor, epochs=1)
    assert np.isfinite(monitor.history["gradient_norm"]).all()
