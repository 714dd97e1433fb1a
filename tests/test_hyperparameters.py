"""Declared hyperparameters: live after tracing, scheduled, checked, and part of the state."""

import functools
import inspect
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run, small_data, small_model, variables
from probes import l2, leading, trailing

import tf_decoupled as td


def live(optimizer):
    """The hyperparameters that hold numbers, the wrapped optimizer's included."""
    names = list(optimizer.hyperparameter_variables())
    return [(optimizer.inner if "inner/" in n else optimizer, n.split("/")[-1]) for n in names]


@pytest.mark.parametrize("case", [l2, trailing, leading], ids=lambda case: case.name)
def test_every_number_acts_at_the_next_step_without_a_new_trace(case):
    grads = gradients(steps=4)
    make = functools.partial(
        case.make,
        weight_decay=0.1,
        decay_coupling="schedule",
        clipnorm=0.5,
        use_ema=True,
        ema_overwrite_frequency=2,
    )
    probe, unchanged = make(), run(make(), variables(), grads, graph=True)
    for owner, name in live(probe):
        optimizer, trainable, traces = make(), variables(), []
        optimizer.build(trainable)
        step = counting_step(optimizer, trainable, traces)
        step([tf.constant(g) for g in grads[0]])
        owner = optimizer if owner is probe else optimizer.inner
        old = getattr(owner, name)
        setattr(owner, name, 1 if "int" in old.dtype else float(old) / 2 + 1e-3)
        for gs in grads[1:]:
            step([tf.constant(g) for g in gs])
        changed = any(np.any(v.numpy() != u) for v, u in zip(trainable, unchanged, strict=True))
        assert len(traces) == 1
        assert changed, name


def counting_step(optimizer, trainable, traces):
    @tf.function
    def step(grads):
        traces.append(1)
        optimizer.apply(grads, trainable)

    return step


def test_live_numbers_equal_an_optimizer_made_with_them():
    grads = gradients(steps=5)
    optimizer, trainable = td.AdamW(0.1, weight_decay=0.5), variables()
    optimizer.build(trainable)
    optimizer.learning_rate, optimizer.weight_decay, optimizer.beta_1 = 0.02, 0.1, 0.5
    made = td.AdamW(0.02, weight_decay=0.1, beta_1=0.5)
    for a, b in zip(run(optimizer, trainable, grads), run(made, variables(), grads), strict=True):
        np.testing.assert_array_equal(a, b)


def test_live_numbers_are_saved_with_the_state(tmp_path):
    model = small_model()
    model.compile(td.AdamW(0.1), "mse")
    model.fit(*small_data(), verbose=0)
    model.optimizer.learning_rate, model.optimizer.beta_2 = 0.025, 0.75
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert (float(loaded.learning_rate), float(loaded.beta_2)) == (float(np.float32(0.025)), 0.75)


def test_keras_callbacks_set_the_rate():
    model = small_model()
    model.compile(td.AdamW(0.1), "mse")
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    history = model.fit(*small_data(), epochs=3, verbose=0, callbacks=[schedule]).history
    np.testing.assert_allclose(history["learning_rate"], [0.05, 0.025, 0.0125], rtol=1e-6)


def test_every_hyperparameter_takes_a_schedule():
    momentum = td.schedules.PiecewiseConstant([0], [0.0, 0.5])
    optimizer = td.SGDW(0.1, weight_decay=0.0, momentum=momentum)
    (v,), ones = variables([(1,)]), [[np.ones(1, "float32")]] * 2
    start = v.numpy()
    run(optimizer, [v], ones, graph=True)
    np.testing.assert_allclose(v, start - 0.1 - 0.15, rtol=1e-6)


def test_the_rate_may_be_a_variable_or_a_callable_that_returns_a_tensor():
    rate = tf.Variable(0.5)
    ones = [[np.ones(2, "float32")]] * 2
    for given in (rate, lambda: rate, lambda: rate * 1.0):
        rate.assign(0.5)
        (v,) = variables([(2,)])
        start, optimizer = v.numpy(), td.SGDW(given, weight_decay=0.0, momentum=0.0)
        run(optimizer, [v], ones[:1], graph=True)
        rate.assign(0.25)
        run(optimizer, [v], ones[1:], graph=True)
        np.testing.assert_allclose(v, start - 0.75, rtol=1e-6)


def test_a_callable_whose_number_a_trace_would_freeze_raises():
    optimizer = td.SGDW(lambda: 0.1)
    with pytest.raises(TypeError, match="which would freeze it there"):
        run(optimizer, variables(), gradients(steps=1), graph=True)
    run(td.SGDW(lambda: 0.1), variables(), gradients(steps=1))  # eagerly it is asked every time


def test_integers_are_numbers_too():
    assert float(td.AdamW(1).learning_rate) == 1.0
    assert float(td.AdamW(np.float32(0.5), weight_decay=None).weight_decay) == 0.0


BAD = [
    (
        dict(learning_rate=-1.0),
        ValueError,
        r"`learning_rate` must be a finite number >= 0.*AdamW\(le",
    ),
    (dict(learning_rate="fast"), TypeError, r"`learning_rate` must be .*Received.*'fast'"),
    (dict(learning_rate=None), TypeError, r"`learning_rate` must be .*Received.*None"),
    (dict(learning_rate=True), TypeError, r"Received.*True"),
    (dict(learning_rate=float("nan")), ValueError, "Received.*nan"),
    (dict(learning_rate=float("inf")), ValueError, "Received.*inf"),
    (dict(beta_1=1.0), ValueError, r"`beta_1` must be a number in \[0, 1\)"),
    (dict(weight_decay=-0.1), ValueError, "`weight_decay` must be"),
    (dict(clipnorm=0), ValueError, "`clipnorm` must be a number > 0"),
    (dict(clipnorm=1, clipvalue=1), ValueError, "Only one of `clipnorm`, `clipvalue`"),
    (dict(jit_compile="yes"), ValueError, '`jit_compile` must be "auto"'),
    (dict(betas=(0.9, 0.99)), TypeError, "unexpected keyword argument 'betas'"),
    (dict(ema_momentum=1.5), ValueError, "`ema_momentum` must be a number in"),
    (dict(ema_overwrite_frequency=0), ValueError, "`ema_overwrite_frequency` must be an integer"),
    (
        dict(gradient_accumulation_steps=2.5),
        ValueError,
        "`gradient_accumulation_steps` must be an int",
    ),
    (dict(gradient_transforms=(3,)), TypeError, "must be a sequence of td.transforms"),
    (dict(state_dtype="int8"), NotImplementedError, "`state_dtype` is not"),
    (dict(low_precision="half"), ValueError, '`low_precision` must be "master"'),
    (dict(learning_rate=1e39), ValueError, "a finite number >= 0, in float32"),
    (dict(beta_2=1 - 1e-9), ValueError, r"a number in \[0, 1\), in float32"),
    (dict(gradient_accumulation_steps=2**70), ValueError, "an integer >= 1, in int64"),
    (dict(learning_rate=tf.Variable([1.0, 2.0])), TypeError, "or a scalar variable"),
    (dict(learning_rate=tf.constant("x")), TypeError, "or a scalar variable"),
    (dict(amsgrad="no"), TypeError, "`amsgrad` must be True or False"),
]


def test_apply_gradients_returns_the_updates_done():
    optimizer, v = td.SGD(0.1), tf.Variable([1.0])
    for _ in range(2):
        done = optimizer.apply_gradients([(tf.ones(1), v)])
    assert int(done) == 2


@pytest.mark.parametrize(
    "name,value,error,words",
    [
        ("global_clipnorm", 0.1, ValueError, "Only one of"),
        ("gradient_accumulation_steps", 2, TypeError, "Make another SGD"),
        ("learning_rate", td.schedules.Cosine(0.1, 9), TypeError, "Received: learning_rate="),
    ],
)
def test_what_shapes_an_optimizer_is_given_at_its_construction(name, value, error, words):
    optimizer = td.SGD(1.0, clipnorm=10.0, decay_coupling="schedule")
    with pytest.raises(error, match=words):
        setattr(optimizer, name, value)


@pytest.mark.parametrize("arguments,error,words", BAD, ids=lambda x: str(x)[:40])
def test_bad_arguments_raise_at_construction_with_what_was_received(arguments, error, words):
    with pytest.raises(error, match=words):
        td.AdamW(**arguments)


def test_bad_assignments_raise_too():
    optimizer = td.AdamW()
    with pytest.raises(ValueError, match="`learning_rate` must be"):
        optimizer.learning_rate = -1.0
    with pytest.raises(AttributeError, match="`amsgrad` shapes the traced step and is fixed"):
        optimizer.amsgrad = True
    optimizer.clipnorm = 1.0  # nothing is traced yet
    optimizer.build(variables())
    with pytest.raises(TypeError, match=r"built as None and can't become a number"):
        optimizer.clipvalue = 1.0
    with pytest.raises(TypeError, match=r"built as a number and can't become a schedule"):
        optimizer.weight_decay = td.schedules.Linear(0.1, 10)


def test_a_wrapper_shows_and_sets_what_it_wraps():
    optimizer = td.Lookahead(td.AdamW(0.1, weight_decay=0.2, decay_mask=["v1"]), sync_period=2)
    optimizer.learning_rate = 0.5
    assert float(optimizer.inner.learning_rate) == float(optimizer.learning_rate) == 0.5
    optimizer.build(variables())
    assert [row.decays for row in optimizer.decay_report().rows] == [True, False, True, True]
    with pytest.raises(TypeError, match="unexpected keyword argument 'weight_decay'"):
        td.Lookahead(td.AdamW(), weight_decay=1.0)
    with pytest.raises(TypeError, match="goes around an optimizer of this library"):
        td.Lookahead(keras.optimizers.Adam())
    with pytest.raises(ValueError, match="`sync_period` must be an integer >= 1"):
        td.Lookahead(td.AdamW(), sync_period=2.5)
    built = td.AdamW()
    built.build(variables())
    with pytest.raises(ValueError, match="Make a fresh one"):
        td.Lookahead(built)


def test_the_signature_is_what_was_declared():
    parameters = inspect.signature(td.AdamW).parameters
    assert list(parameters)[:2] == ["learning_rate", "weight_decay"]
    assert parameters["beta_1"].default == 0.9 == td.AdamW.beta_1
    assert parameters["beta_1"].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(parameters)[-1] == "name"
    assert next(iter(inspect.signature(td.Lookahead).parameters)) == "inner"


def test_a_user_s_optimizer_is_fifteen_lines_and_does_not_replace_its_namesake(tmp_path):
    class AdamW(td.Optimizer):
        """Signed descent, under a name that is taken."""

        learning_rate: td.Scalar = 0.01
        beta: td.Beta = 0.5

        def init(self, p):
            return {}

        def update(self, p, g, s, h):
            return tf.sign(g) * (1 - h.beta), {}

    model = small_model()
    model.compile(AdamW(weight_decay=0.1, decay_mask=td.masks.matrices), "mse")
    model.fit(*small_data(), verbose=0)
    model.save(tmp_path / "model.keras")
    assert type(keras.models.load_model(tmp_path / "model.keras").optimizer) is AdamW
    assert type(keras.optimizers.deserialize(keras.optimizers.serialize(td.AdamW()))) is td.AdamW


def test_a_class_variable_is_no_argument():
    class Noted(td.SGD):
        notes: ClassVar[str] = "x"
        more: "ClassVar[str]" = "y"
        bare: ClassVar = "z"
        strength: td.Scalar = 1.0

    assert set(Noted.declared) - set(td.SGD.declared) == {"strength"}
    assert (Noted().notes, Noted().more, Noted.bare) == ("x", "y", "z")


@pytest.mark.parametrize(
    "value,error",
    [
        (tf.constant(2.0), ValueError),
        (tf.constant(float("nan")), ValueError),
        (np.array(-1.0), ValueError),
        (tf.Variable(2.0), ValueError),
        (keras.Variable(1.0), ValueError),
        (tf.constant([0.5]), TypeError),
        (np.array([0.5]), TypeError),
        (tf.constant("x"), TypeError),
        (tf.constant(True), TypeError),
    ],
    ids=lambda each: type(each).__name__,
)
def test_arrays_tensors_and_variables_are_checked_like_numbers(value, error):
    optimizer = td.AdamW()
    with pytest.raises(error, match=r"`beta_1` must be a number in \[0, 1\).*Received"):
        optimizer.beta_1 = value
    assert float(optimizer.beta_1) == np.float32(0.9)
    with pytest.raises(error, match=r"`beta_1` must be a number in \[0, 1\).*Received"):
        td.AdamW(beta_1=value)


def test_a_tensor_without_a_value_yet_is_assigned():
    optimizer = td.AdamW()

    @tf.function
    def halve():
        optimizer.learning_rate = optimizer.learning_rate * 0.5

    halve()
    assert float(optimizer.learning_rate) == np.float32(0.5e-3)


def nested(inner, levels):
    """The optimizer in so many Lookaheads, and all of them from the outside in."""
    chain = [inner]
    for _ in range(levels):
        chain.insert(0, td.Lookahead(chain[0]))
    return chain


def test_at_every_depth_a_schedule_shows_the_rate_of_the_present_step():
    schedule = td.schedules.Linear(1.0, 10)
    for levels in (1, 3):
        outer, *wrapped = nested(td.SGD(schedule, jit_compile=False), levels)
        run(outer, variables([(2,)]), gradients([(2,)], steps=3))
        for each in wrapped:
            assert int(each.iterations) == 3
            assert float(each.learning_rate) == float(outer.learning_rate) == np.float32(0.7)


def test_no_level_of_wrapping_takes_a_schedule_once_built():
    outer, *wrapped = nested(td.SGD(), 4)
    outer.build(variables([(2,)]))
    for each in (outer, *wrapped[:-1]):
        with pytest.raises(TypeError, match="built as a number and can't become a schedule"):
            each.slow_step_size = td.schedules.Linear(0.5, 10)
    assert all(each.built for each in wrapped)


def test_the_configuration_shows_the_numbers_that_were_given():
    given = dict(learning_rate=1e-4, beta_1=0.9, beta_2=0.98, clipnorm=0.1, epsilon=1 / 3)
    optimizer = td.AdamW(**given)
    assert {name: optimizer.get_config()[name] for name in given} == given
    optimizer.beta_1, optimizer.epsilon = tf.constant(0.8), np.float32(1e-7)
    optimizer.learning_rate = 2 / 3
    config = td.AdamW.from_config(optimizer.get_config()).get_config()
    shown = [config[name] for name in ("beta_1", "epsilon", "learning_rate")]
    assert shown == [0.8, 1e-7, 2 / 3]


def test_a_number_that_the_variable_no_longer_holds_is_shown_in_the_fewest_digits():
    optimizer, rate = td.AdamW(1 / 3), tf.Variable(0.7)
    optimizer.hyperparameter_variables()["learning_rate"].assign(0.6)
    assert optimizer.get_config()["learning_rate"] == 0.6
    assert td.AdamW(rate).get_config()["learning_rate"] == 0.7
    assert (
        td.AdamW(gradient_accumulation_steps=3.0).get_config()["gradient_accumulation_steps"] == 3
    )


def test_the_configuration_of_a_decoupled_class_shows_the_decay_that_was_given():
    optimizer = td.decouple(keras.optimizers.SGD)(0.5, weight_decay=1e-4)
    assert optimizer.get_config()["weight_decay"] == 1e-4


@pytest.mark.parametrize("build", [True, False], ids=["built", "not built"])
@pytest.mark.parametrize(
    "rate", [td.schedules.Linear(0.1, 10), lambda: tf.constant(0.1)], ids=["schedule", "callable"]
)
def test_a_number_does_not_replace_a_schedule(rate, build):
    for optimizer in (td.AdamW(rate), td.Lookahead(td.AdamW(rate))):
        if build:
            optimizer.build(variables([(2,)]))
        for number in (0.5, np.float32(0.5), tf.constant(0.5)):
            with pytest.raises(TypeError, match=r"`learning_rate` holds a schedule.*Received"):
                optimizer.learning_rate = number
        assert float(optimizer.learning_rate) == np.float32(0.1)


def test_a_schedule_may_be_replaced_before_the_build():
    optimizer = td.AdamW(td.schedules.Linear(0.1, 10))
    optimizer.learning_rate = td.schedules.Linear(0.5, 10)
    assert float(optimizer.learning_rate) == 0.5


def test_keras_callbacks_do_not_replace_a_schedule():
    model = small_model()
    model.compile(td.AdamW(td.schedules.Linear(0.1, 10)), "mse", jit_compile=False)
    callback = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate)
    with pytest.raises(TypeError, match="`learning_rate` holds a schedule"):
        model.fit(*small_data(), verbose=0, callbacks=[callback])


@pytest.mark.parametrize(
    "make,words",
    [
        (lambda: td.AdamW(lr=0.1), "argument 'lr'.*`learning_rate`.*lr=0.1"),
        (
            lambda: td.AdamW(decay=0.1),
            r"argument 'decay'.*`learning_rate=td.schedules.InverseTime\(0.1, 1.*`weight_decay`",
        ),
        (lambda: td.SGD(eps=1e-7), "argument 'eps'. It is called `epsilon`"),
        (lambda: td.SGD(max_grad_norm=1.0), "argument 'max_grad_norm'.*`global_clipnorm`"),
        (lambda: td.AdamW(weigth_decay=0.1), "argument 'weigth_decay'.*mean `weight_decay`"),
        (lambda: td.AdamW(frobnicate=1), "argument 'frobnicate'. .*`beta_1`"),
        (lambda: td.AdamW(1e-3, 0.1, 0.9), "positional.*`learning_rate`, `weight_decay`.*0.9"),
        (lambda: td.AdamW(1e-3, learning_rate=0.1), "multiple values for argument 'learning_rate'"),
        (lambda: td.Lookahead(td.AdamW(), 6), "takes 1 positional.*`inner`.*by name"),
        (lambda: td.Lookahead(td.AdamW(), weight_decay=1.0), "'weight_decay'.*that is wrapped"),
        (lambda: td.Lookahead(td.AdamW(), slow_step=1.0), "mean `slow_step_size`"),
    ],
    ids=[
        "lr",
        "decay",
        "eps",
        "norm",
        "typo",
        "unknown",
        "three",
        "twice",
        "two",
        "shared",
        "wrapper",
    ],
)
def test_arguments_that_there_are_not_raise_and_say_what_there_is(make, words):
    with pytest.raises(TypeError, match=f"(?s){words}"):
        make()


def test_the_old_decay_of_keras_is_the_schedule_that_the_error_names():
    steps = np.arange(5)
    np.testing.assert_allclose(
        td.schedules.InverseTime(0.1, 1, 1e-4)(steps), 0.1 / (1 + 1e-4 * steps), rtol=1e-6
    )


@pytest.mark.parametrize(
    "name,words", [("lr", "called `learning_rate`"), ("decay", "InverseTime.*`weight_decay`")]
)
def test_an_old_name_can_not_be_assigned(name, words):
    optimizer = td.AdamW()
    for value in (0.1, tf.Variable(0.1), td.schedules.Linear(0.1, 10)):
        with pytest.raises(AttributeError, match=f"no hyperparameter '{name}'.*{words}"):
            setattr(optimizer, name, value)


def kernels_only(variable):
    return variable.name == "kernel"


@pytest.mark.parametrize(
    "make,shown",
    [
        (lambda: td.AdamW(), "AdamW(learning_rate=0.001)"),
        (
            lambda: td.SGDW(0.5, 0.1, nesterov=True, jit_compile=False),
            "SGDW(learning_rate=0.5, weight_decay=0.1, nesterov=True, jit_compile=False)",
        ),
        (
            lambda: td.Lookahead(td.AdamW(0.01), sync_period=3),
            "Lookahead(AdamW(learning_rate=0.01), sync_period=3)",
        ),
        (
            lambda: td.AdamW(decay_mask=td.masks.exclude("bias"), decay_coupling="schedule"),
            "AdamW(learning_rate=0.001, decay_coupling='schedule', decay_mask=exclude('bias'))",
        ),
        (
            lambda: td.AdamW(keras.optimizers.schedules.CosineDecay(0.1, 10), clipnorm=1.0),
            "AdamW(learning_rate=CosineDecay(initial_learning_rate=0.1, decay_steps=10, "
            "alpha=0.0, warmup_steps=0), clipnorm=1.0)",
        ),
        (
            lambda: td.AdamW(td.schedules.Linear(0.1, 10), decay_mask=kernels_only),
            "AdamW(learning_rate=Linear(initial_learning_rate=0.1, decay_steps=10, "
            "end_learning_rate=0.0), decay_mask=kernels_only)",
        ),
        (
            lambda: td.AdamW(weight_decay=td.NormalizedDecay(0.1, 8, 64, 2)),
            "AdamW(learning_rate=0.001, weight_decay=NormalizedDecay(rate=0.1, batch_size=8, "
            "train_size=64, epochs=2))",
        ),
        (
            lambda: td.Adafactor(),
            "Adafactor(learning_rate=InverseSquareRoot(peak_learning_rate=0.01))",
        ),
    ],
    ids=["AdamW", "SGDW", "Lookahead", "mask", "Keras", "ours", "normalized", "Adafactor"],
)
def test_an_optimizer_prints_as_the_call_that_makes_it(make, shown):
    assert repr(make()) == shown


def test_an_optimizer_prints_its_present_numbers_also_in_a_trace():
    optimizer, seen = td.AdamW(0.1), []
    optimizer.learning_rate = 0.2

    @tf.function
    def trace():
        seen.append(repr(optimizer))

    trace()
    assert seen == ["AdamW(learning_rate=0.2, base_learning_rate=0.1)"]


def test_a_mistyped_hyperparameter_raises_when_assigned():
    for optimizer in (td.AdamW(), td.Lookahead(td.AdamW())):
        with pytest.raises(AttributeError, match=r"(?s)'weigth_decay'.*mean `weight_decay`.*0.1"):
            optimizer.weigth_decay = 0.1
    with pytest.raises(AttributeError, match="mean `sync_period`"):
        optimizer.sync_periods = 2


def test_other_attributes_may_be_set():
    class Mine(td.SGD):
        learning_rates = ()

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.momentums = []
            self.note = "mine"

    optimizer = Mine()
    optimizer.notes, optimizer._weight_decays, optimizer.learning_rates = 1, 2, (3,)
    optimizer.momentums = [1]
    optimizer.name = "other"
    assert (optimizer.note, optimizer.notes, optimizer.name) == ("mine", 1, "other")


@pytest.mark.parametrize("wrong", ["abc", [np.ones(2)]], ids=["str", "array"])
def test_an_optimizer_is_built_on_variables_only(wrong):
    with pytest.raises(TypeError, match=r"is built on variables.*Received: "):
        td.AdamW().build(wrong)


def test_apply_gradients_of_no_pairs_raises():
    optimizer = td.AdamW()
    for nothing in ([], zip([], [], strict=True)):
        with pytest.raises(ValueError, match=r"needs at least one \(gradient, variable\) pair"):
            optimizer.apply_gradients(nothing)
    assert int(optimizer.iterations) == 0
