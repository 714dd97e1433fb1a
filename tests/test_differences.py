"""docs/differences-from-keras.md: each row is measured on both sides."""

import functools
import pathlib
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import mirrored, small_data, small_model

import tf_decoupled as td

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "differences-from-keras.md"
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?!\w)")
K = keras.optimizers
OLDER = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15)  # than the page's Keras
eager = functools.partial(dict, jit_compile=False)


def page():
    """Keras's cell and ours of each row, by its anchor."""
    rows = {}
    for line in PAGE.read_text().splitlines():
        if anchor := re.match(r'\| <a id="([\w-]+)"></a>', line):
            cells = line.strip("|").split("|")
            assert len(cells) == 4 and anchor[1] not in rows, line
            rows[anchor[1]] = cells[1], cells[2]
    return rows


ROWS = page()
MEASURED = {}


def row(anchor):
    """A test of one row. It returns the numbers of Keras's cell and of ours, in their order."""

    def test_of(measure):
        @functools.wraps(measure)
        def test(*args, **kwargs):
            measured = measure(*args, **kwargs) or ([], [])
            for cell, numbers in list(zip(ROWS[anchor], measured, strict=True))[OLDER:]:
                claimed = [float(number) for number in NUMBER.findall(cell)]
                assert [float(n) for n in numbers] == pytest.approx(claimed, rel=3e-3, abs=1e-6)

        MEASURED[anchor] = test
        return test

    return test_of


def both(measure):
    """What `measure` finds for Keras's optimizers, and for ours."""
    return measure(K), measure(td)


def of(library, name, *args, **kwargs):
    """An optimizer of either library; ours steps without XLA."""
    options = kwargs if library is K else eager(kwargs)
    return getattr(library, name)(*args, **options)


def end(optimizer, grads=(1.0,), start=0.0, dtype="float32"):
    """Where a weight stands after these gradients."""
    v = keras.Variable([start], dtype=dtype, name="weight")
    for g in grads:
        optimizer.apply([tf.constant([g], dtype)], [v])
    return float(v.numpy()[0])


def traced(optimizer, v):
    """A step with gradient 0, in a graph."""
    optimizer.build([v])
    return tf.function(lambda: optimizer.apply([tf.constant([0.0])], [v]), autograph=False)


def average(optimizer):
    state = {v.path: v.numpy() for v in optimizer.variables}
    (found,) = (value for path, value in state.items() if path.endswith("average"))
    return float(found[0])


def test_each_row_of_the_page_is_measured():
    assert ROWS.keys() == MEASURED.keys()


# Defaults and arguments.


@row("decay-default")
def test_the_decay_of_adamw():
    return both(lambda library: [library.AdamW().weight_decay])


@row("lamb-defaults")
def test_decay_and_epsilon_of_lamb():
    assert K.Lamb().weight_decay is None
    return [K.Lamb().epsilon], [td.LAMB().weight_decay, td.LAMB().epsilon]


@row("epsilon-default")
def test_epsilon_of_adam_and_adamw():
    assert td.Adam().epsilon == td.AdamW().epsilon
    return both(lambda library: [library.Adam().epsilon])


@row("epsilon-place")
def test_where_epsilon_stands():
    def first(library, **options):
        return [-end(of(library, "AdamW", 1.0, weight_decay=0.0, epsilon=1.0, **options))]

    assert first(td, epsilon_hat=True) == pytest.approx(first(K), rel=1e-4)
    return both(first)


@row("lion-rate")
def test_the_rate_of_lion():
    return both(lambda library: [library.Lion().learning_rate])


@row("second-argument")
def test_the_second_argument_without_a_name():
    assert K.SGD(0.01, 0.9).momentum == 0.9
    assert float(td.SGD(0.01, 0.9).weight_decay) == float(td.Adam(1e-3, 0.9).weight_decay)


@row("no-decay")
def test_none_is_no_decay():
    if not OLDER:
        with pytest.raises(ValueError, match="weight_decay"):
            K.AdamW(weight_decay=None)
    assert float(td.AdamW(weight_decay=None).weight_decay) == 0.0


@row("limits")
def test_which_momenta_are_refused():
    with pytest.raises(ValueError, match="momentum"):
        td.SGD(momentum=1.0)
    end(K.SGD(momentum=1.0))
    with pytest.raises(ValueError, match="beta_1"):
        K.Lion(beta_1=0.0)
    assert end(td.Lion(1.0, beta_1=0.0, jit_compile=False), [5.0]) == -1.0


@row("string")
def test_an_optimizer_by_a_string():
    assert type(K.get("AdamW")) is type(K.get("adamw")) is K.AdamW
    assert type(K.get("tf_decoupled>AdamW")) is td.AdamW
    for unknown in ("tf_decoupled>adamw", "td>AdamW", "Signum"):
        with pytest.raises(ValueError, match="Could not interpret optimizer identifier"):
            K.get(unknown)
    with pytest.raises(TypeError, match="could not be deserialized"):
        K.get("tf_decoupled>Lookahead")
    assert type(td.create("lookahead_adamw")) is td.Lookahead


@row("adafactor-arguments")
def test_the_exponent_and_the_rate_of_adafactor():
    theirs, ours, same = K.Adafactor(), td.Adafactor(), td.schedules.InverseSquareRoot(1e-3)
    rates = [float(same(tf.constant(step - 1))) for step in (1, 10**8)]
    assert rates == pytest.approx([1e-3, 1e-4], rel=1e-5) and theirs.relative_step
    return (
        [theirs.beta_2_decay, theirs.learning_rate],
        [ours.decay_exponent, ours.learning_rate],
    )


# The step.


@row("momentum")
def test_the_momentum_holds_the_rate():
    def second(library):
        optimizer, v = of(library, "SGD", 1.0, momentum=0.5), keras.Variable([0.0])
        optimizer.apply([tf.constant([1.0])], [v])
        before, optimizer.learning_rate = v.numpy()[0], 0.0
        optimizer.apply([tf.constant([1.0])], [v])
        return [v.numpy()[0] - before]

    return both(second)


@row("lamb-decay")
def test_the_decay_of_lamb():
    theirs = end(K.Lamb(0.1, weight_decay=0.5), [0.0], 2.0)
    return [theirs], [end(td.LAMB(0.1, weight_decay=0.5, jit_compile=False), [0.0], 2.0)]


@row("adafactor-state")
def test_the_state_of_adafactor():
    def floats(library):
        optimizer = library.Adafactor()
        optimizer.build([keras.Variable(np.ones((3, 4), "float32"), name="matrix")])
        return [sum(np.prod(v.shape) for v in optimizer.variables if "matrix" in v.path)]

    return both(floats) if not OLDER else ([], floats(td))


@row("repeated-rows")
def test_rows_that_are_named_twice():
    def step(library):
        optimizer, v = of(library, "Adam", 1.0), keras.Variable([[0.0]])
        optimizer.apply([tf.IndexedSlices([[1.0], [3.0]], [0, 0], [1, 1])], [v])
        return v.numpy()[0]

    return both(step)


@row("bfloat16")
def test_bfloat16_weights():
    def moved(library):
        optimizer = of(library, "AdamW", 0.01, weight_decay=0.0)
        return [-end(optimizer, 40 * [1.0], dtype="bfloat16")]

    return both(moved)


@row("clip")
def test_clipping_on_replicas():
    def step(library):
        with mirrored().scope():
            v, optimizer = keras.Variable([0.0]), of(library, "SGD", 1.0, clipnorm=1.0)
            optimizer.build([v])

        def apply():
            first = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
            optimizer.apply([tf.where(first, [30.0], [-9.0])], [v])

        tf.function(lambda: mirrored().run(apply), autograph=False)()
        return mirrored().experimental_local_results(v.value)[0].numpy()

    return both(step)


# Updates, averages, schedules.


@row("saved-iterations")
def test_the_counter_that_is_saved():
    def counter(library):
        optimizer = of(library, "SGD", gradient_accumulation_steps=2)
        end(optimizer, 4 * [1.0])
        assert int(optimizer.iterations) == 2
        return [optimizer.variables[0].numpy()]

    return both(counter)


@row("schedule-count")
def test_what_schedules_count():
    def weight(library, boundary=1):
        rate = K.schedules.PiecewiseConstantDecay([boundary], [1.0, 0.1])
        return [end(of(library, "SGD", rate, gradient_accumulation_steps=2), 4 * [1.0])]

    assert weight(K, boundary=3) == pytest.approx(weight(td))
    return both(weight)


@row("average")
def test_an_average():
    def second(library):
        optimizer = of(library, "SGD", 1.0, use_ema=True, ema_momentum=0.9)
        assert end(optimizer, [1.0, 1.0]) == -2.0
        return [average(optimizer)]

    return both(second)


@row("average-count")
def test_what_averages_count():
    def after(library):
        shared = dict(use_ema=True, ema_momentum=0.5, gradient_accumulation_steps=2)
        optimizer = of(library, "SGD", 1.0, **shared)
        end(optimizer, 6 * [1.0])
        return [average(optimizer)]

    return both(after)


# Masks and live hyperparameters.


@row("masks")
def test_what_is_left_out_of_the_decay_of_a_copy():
    def bias(library):
        optimizer = of(library, "SGD", 1.0, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        copied = type(optimizer).from_config(optimizer.get_config())
        v = keras.Variable([1.0], name="bias")
        copied.apply([tf.constant([0.0])], [v])
        return v.numpy()

    return both(bias)


@row("no-match")
def test_a_name_that_matches_nothing():
    def excluded(library):
        optimizer = of(library, "SGD", 1.0, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["bais"])
        return end(optimizer)

    excluded(K)
    with pytest.warns(UserWarning, match="bais"):
        excluded(td)
    with pytest.raises(ValueError, match="bais"):
        end(td.SGD(1.0, weight_decay=0.5, decay_mask=["bais"]))


@row("exclude-late")
def test_leaving_out_after_a_step_was_traced():
    def late(library):
        optimizer, v = of(library, "SGD", 1.0, weight_decay=0.5), keras.Variable([1.0], name="w")
        step = traced(optimizer, v)
        step()
        optimizer.exclude_from_weight_decay(var_names=["w"])
        step()
        return v.numpy()[0]

    assert late(K) == 0.25
    with pytest.raises(ValueError, match="exclude_from_weight_decay"):
        late(td)


@row("live")
def test_a_decay_that_is_assigned_after_the_trace():
    def next_step(library):
        optimizer, v = of(library, "SGD", 1.0, weight_decay=0.25), keras.Variable([1.0])
        step = traced(optimizer, v)
        step()
        optimizer.weight_decay = 0.0
        v.assign([1.0])
        step()
        return v.numpy() - 1.0

    return both(next_step)


@row("strict")
def test_an_assignment_that_is_wrong():
    theirs, ours = K.AdamW(), td.AdamW()
    theirs.beta_1 = 2.0
    with pytest.raises(ValueError, match=r"`beta_1` must be a number in \[0, 1\)"):
        ours.beta_1 = 2.0
    assert theirs.beta_1 == 2.0


@row("rate-to-schedule")
def test_a_schedule_for_a_number():
    theirs, ours = K.SGD(0.1), td.SGD(0.1, jit_compile=False)
    for optimizer in (theirs, ours):
        end(optimizer)
    theirs.learning_rate = K.schedules.CosineDecay(1.0, 10)
    with pytest.raises(TypeError, match="the traced step would not notice"):
        ours.learning_rate = K.schedules.CosineDecay(1.0, 10)


@row("variables")
def test_how_many_variables_there_are():
    return both(lambda library: [len(library.SGD(0.5).variables)])


@row("new-variables")
def test_a_variable_that_comes_later():
    def later(library):
        optimizer = of(library, "SGD", 1.0)
        end(optimizer)
        return end(optimizer)

    with pytest.raises(ValueError, match=r"Unknown variable|unrecognized variable"):
        later(K)
    with pytest.warns(UserWarning, match="add_variables"):
        assert later(td) == -1.0


# Mixed precision.


@pytest.fixture
def mixed_float16():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(policy)


@row("loss-scale")
def test_compile_under_mixed_float16(mixed_float16):
    model, ours = small_model(), td.SGD(jit_compile=False)
    model.compile(K.SGD(), "mse")
    assert isinstance(model.optimizer, K.LossScaleOptimizer)
    model.compile(ours, "mse")
    assert model.optimizer is ours
    ours.build(model.trainable_variables)
    assert ours.loss_scale is not None


@row("dynamic-scale")
def test_the_dynamic_scale():
    theirs, ours = K.LossScaleOptimizer(K.SGD()), td.DynamicLossScale()
    return (
        [theirs.initial_scale, theirs.dynamic_growth_steps],
        [ours.initial_scale, ours.growth_steps, ours.minimum],
    )


@row("loss-scale-class")
def test_ours_are_loss_scale_optimizers_without_another_inside():
    assert isinstance(td.SGD(), K.LossScaleOptimizer)
    assert hasattr(K.LossScaleOptimizer(K.SGD()), "inner_optimizer")
    assert not hasattr(td.SGD(), "inner_optimizer")


@row("own-loop")
def test_a_loop_without_scale_loss_under_mixed_float16(mixed_float16):
    assert end(K.SGD(1.0)) == -1.0
    with pytest.raises(ValueError, match=r"opt\.scale_loss\(loss\)"):
        end(td.SGD(1.0))


@row("own-policy")
@pytest.mark.filterwarnings("ignore:.*run_eagerly")
def test_a_model_with_a_policy_of_its_own():
    for library in (K, td):
        for run_eagerly in (False, True):
            model = keras.Sequential([keras.layers.Dense(1, dtype="mixed_float16")])
            model.dtype_policy = keras.DTypePolicy("mixed_float16")
            model.compile(of(library, "SGD"), "mse", run_eagerly=run_eagerly)
            model.fit(*small_data(8), verbose=0)
            scaled = getattr(model.optimizer, "dynamic_scale", None) is not None
            assert scaled == (library is K or not run_eagerly)


@row("fixed-scale")
def test_a_loss_scale_that_no_loss_was_multiplied_by():
    with pytest.raises(ValueError, match=r"opt\.scale_loss\(loss\)"):
        end(td.SGD(1.0, loss_scale_factor=1024.0), [1024.0])
    return [end(K.SGD(1.0, loss_scale_factor=1024.0), [1024.0])], []


# Subclasses and callbacks.


@row("hooks")
def test_subclasses_that_override():
    called = []
    names = ("update_step", "_clip_gradients", "_apply_weight_decay")
    body = {name: lambda self, g, *_, name=name: called.append(name) or g for name in names}
    end(type("Theirs", (K.SGD,), body)(clipnorm=1.0, weight_decay=0.5))
    assert set(called) == set(names)
    for name in names:
        with pytest.raises(TypeError, match=f"never calls `{name}`"):
            type("Ours", (td.SGD,), {name: body[name]})


@row("private")
def test_private_names():
    options = dict(use_ema=True, gradient_accumulation_steps=2)
    theirs, ours = K.SGD(**options), td.SGD(jit_compile=False, **options)
    for optimizer in (theirs, ours):
        end(optimizer)
    names = ("_accumulated_gradients", "_model_variables_moving_average")
    assert all(hasattr(theirs, name) for name in names)
    assert not hasattr(ours, names[0]) and ours.get_state()["weight:gradient_sum"] == [1.0]


@row("swap")
def test_the_callback_of_keras():
    for library in (K, td):
        model = small_model()
        model.compile(of(library, "SGD", use_ema=True), "mse")
        callback, data = keras.callbacks.SwapEMAWeights(), small_data(8)
        if library is K:
            model.fit(*data, validation_data=data, verbose=0, callbacks=[callback])
        else:
            with pytest.raises(ValueError, match=r"td\.callbacks\.SwapAveraged\(\)"):
                model.fit(*data, validation_data=data, verbose=0, callbacks=[callback])


@row("words")
def test_the_words_of_errors():
    for library, words in ((K, "Only one of"), (td, "Only one of .* Received: {'clipnorm': 1.0")):
        with pytest.raises(ValueError, match=words):
            library.SGD(clipnorm=1.0, clipvalue=1.0)


# Saved state.


def stepped(library, weights, *args, **kwargs):
    """An optimizer after 2 steps, and what it saves."""
    optimizer, store = of(library, "AdamW", *args, **kwargs), {}
    for _ in range(2):
        optimizer.apply([tf.constant(v.numpy()) for v in weights], weights)
    optimizer.save_own_variables(store)
    return optimizer, store


def weights_of(*values):
    return [keras.Variable(v, name=f"w{i}") for i, v in enumerate(values)]


def moments(optimizer):
    """The first moments, in the order of the build."""
    endings = ("_momentum", "_m")
    slots = [v for v in optimizer.variables if len(v.shape)]
    return [v.numpy().tolist() for v in slots if v.path.endswith(endings)]


def loaded(library, store, weights, *args):
    optimizer = of(library, "AdamW", *args)
    optimizer.build(weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.load_own_variables(store)
    return optimizer


@row("other-order")
def test_variables_built_in_another_order():
    def found(library):
        weights = weights_of([1.0, 2.0], [3.0, 4.0])
        saved, store = stepped(library, weights, 0.1)
        again = loaded(library, store, weights_of(*(v.numpy() for v in weights))[::-1], 0.1)
        expected = moments(saved)[::-1]
        return [sum(a == b for a, b in zip(moments(again), expected, strict=True))]

    return both(found)


@row("before-build")
def test_a_file_loaded_before_the_build():
    def counted(library):
        weights = weights_of([1.0, 2.0])
        _, store = stepped(library, weights)
        again = of(library, "AdamW")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again.load_own_variables(store)
        again.apply([tf.ones(2)], weights)
        return [int(again.iterations)]

    return both(counted)


@row("whole-h5")
@pytest.mark.filterwarnings("ignore")
def test_a_whole_h5_file(tmp_path):
    def go_on(library):
        model = small_model()
        model.compile(of(library, "AdamW"), keras.losses.MeanSquaredError(), run_eagerly=True)
        model.train_on_batch(*small_data(8))
        model.save(tmp_path / f"{library.__name__}.h5")
        again = keras.models.load_model(tmp_path / f"{library.__name__}.h5")
        again.compile(again.optimizer, "mse", run_eagerly=True)
        again.train_on_batch(*small_data(8))
        return int(again.optimizer.iterations)

    with pytest.raises(ValueError, match="Unknown variable"):
        go_on(K)
    assert go_on(td) == 2


@row("fewer")
def test_a_file_of_fewer_variables():
    def found(library):
        _, store = stepped(library, weights_of([1.0, 2.0]))
        again = loaded(library, store, weights_of([1.0, 2.0], [3.0, 4.0]))
        return [sum(any(m) for m in moments(again))]

    return both(found)


@row("more")
def test_a_file_of_more_variables():
    def found(library):
        _, store = stepped(library, weights_of([1.0, 2.0], [3.0, 4.0]))
        again = loaded(library, store, weights_of([1.0, 2.0]))
        return [sum(any(m) for m in moments(again))]

    return both(found)


@row("given-now")
def test_a_rate_given_otherwise_now():
    def rate(library):
        weights = weights_of([1.0, 2.0])
        _, store = stepped(library, weights, 0.1)
        return [float(loaded(library, store, weights, 0.5).learning_rate)]

    weights = weights_of([1.0, 2.0])
    optimizer, store = stepped(td, weights, 0.1)
    optimizer.learning_rate = 0.05
    optimizer.save_own_variables(store)
    assert float(loaded(td, store, weights, 0.1).learning_rate) == np.float32(0.05)
    return both(rate)


@row("import")
def test_what_keras_finds_without_an_import():
    names = (keras.saving.get_registered_name(library.AdamW) for library in (K, td))
    assert tuple(names) == ("AdamW", "tf_decoupled>AdamW")
