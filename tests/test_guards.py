"""skip_nonfinite: a step with a NaN or inf anywhere changes nothing, and is counted."""

import contextlib
import copy
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import SHAPES, gradients, mirrored, run, small_data, small_model, variables
from probes import l2, leading, nested

import tf_decoupled as td


def poisoned(value, which=1):
    (grads,) = gradients(steps=1)
    grads[which].flat[0] = value
    return grads


@pytest.mark.parametrize("case", [l2, nested, leading], ids=lambda case: case.name)
def test_a_step_with_a_nan_changes_nothing_and_is_counted(case):
    make = functools.partial(case.make, weight_decay=0.1)
    grads = gradients(steps=4)
    with_bad = [*grads[:2], poisoned(np.nan), poisoned(np.inf, 0), *grads[2:]]
    optimizer, trainable = make(skip_nonfinite=True), variables()
    ours = run(optimizer, trainable, with_bad, graph=True)
    expected = run(make(skip_nonfinite=True), variables(), grads, graph=True)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (int(optimizer.skipped_steps), int(optimizer.iterations)) == (2, 4)
    assert optimizer.get_state()["skipped_steps"] == 2


def test_without_the_guard_a_nan_goes_through():
    assert np.isnan(run(td.AdamW(), variables(), [poisoned(np.nan)])[1].flat[0])
    assert td.AdamW().skipped_steps == 0


def test_a_wrapper_and_low_precision_skip_too():
    low = [keras.Variable(np.ones(s, "float32"), dtype="bfloat16", name="v") for s in SHAPES]
    inner = td.AdamW(0.1, skip_nonfinite=True)
    optimizer = td.Lookahead(inner, sync_period=1)
    run(optimizer, low, [poisoned(np.inf)])
    assert int(optimizer.skipped_steps) == 1 and int(optimizer.iterations) == 0
    for v in low:
        np.testing.assert_array_equal(tf.cast(v.value, tf.float32), np.ones(v.shape))


def test_the_counter_is_saved(tmp_path):
    x, y = small_data()
    model = small_model()
    model.compile(td.AdamW(skip_nonfinite=True), "mse")
    y[:32] = np.nan
    model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    assert int(model.optimizer.skipped_steps) == 1
    model.save(tmp_path / "model.keras")
    assert int(keras.models.load_model(tmp_path / "model.keras").optimizer.skipped_steps) == 1


def test_one_inf_on_one_replica_skips_the_step_on_all():
    strategy = mirrored()
    with strategy.scope():
        v, optimizer = keras.Variable([1.0, 2.0, 3.0]), td.AdamW(0.1, skip_nonfinite=True)
        optimizer.build([v])

    def step():
        r = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([tf.where(tf.equal(r, 1), [np.inf, 1.0, 1.0], [1.0, 1.0, 1.0])], [v])

    tf.function(lambda: strategy.run(step))()
    for component in strategy.experimental_local_results(v.value):
        np.testing.assert_array_equal(component, [1.0, 2.0, 3.0])
    assert int(optimizer.skipped_steps.numpy()) == 1 and int(optimizer.iterations.numpy()) == 0


BAD_STEPS = 3


def hopeless(strategy, **function):
    """A step of two variables of which v0 has a NaN in each gradient, and the optimizer."""
    with strategy.scope():
        trainable = variables([(3,), ()])
        optimizer = td.AdamW(max_consecutive_skips=BAD_STEPS)
        optimizer.build(trainable)

    def step(g):
        strategy.run(lambda g: optimizer.apply([g, tf.constant(1.0)], trainable), (g,))

    return tf.function(step, **function) if function is not None else step, optimizer


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("graph", [True, False])
def test_too_many_skips_in_a_row_raise_and_name_the_variable(replicas, graph):
    strategy = mirrored() if replicas == 2 else tf.distribute.get_strategy()
    step, optimizer = hopeless(strategy)
    step = step if graph else step.python_function
    good, bad = tf.ones(3), tf.constant([1.0, np.nan, 1.0])
    for g in (bad, bad, good, bad, bad):
        step(g)
    words = r"\[v0\] \[3\] \[v1\] \[0\]" if graph else "{'v0': 3}"
    with pytest.raises((FloatingPointError, tf.errors.InvalidArgumentError), match=words):
        step(bad)
    with pytest.raises(FloatingPointError, match=r"{'v0': 3}"):
        optimizer.check_skips()
    assert int(optimizer.skipped_steps.numpy()) == 5 and int(optimizer.iterations.numpy()) == 1


def test_a_step_compiled_as_a_whole_is_asked_from_outside():
    step, optimizer = hopeless(tf.distribute.get_strategy(), jit_compile=True)
    for i in range(BAD_STEPS):
        optimizer.check_skips()
        step(tf.fill((3,), np.nan if i else np.inf))
    with pytest.raises(FloatingPointError, match=r"{'v0': 3}"):
        optimizer.check_skips()


SCALE = dict(initial_scale=8.0, growth_steps=2, growth_factor=4.0, backoff_factor=0.5, minimum=2.0)


def scaled(finite):
    """The scales before each of the steps, one more at the end."""
    scale, steps, scales = 8.0, 0, [8.0]
    for ok in finite:
        steps = steps + 1 if ok else 0
        if not ok:
            scale = max(2.0, scale * 0.5)
        elif steps == 2:
            scale, steps = scale * 4.0, 0
        scales.append(scale)
    return scales


@pytest.mark.parametrize("case", [l2, nested, leading], ids=lambda case: case.name)
def test_a_dynamic_loss_scale_follows_its_definition_and_leaves_training_alone(case):
    finite = [True, False, True, True, True, False, False, False, False, True]
    grads = gradients(steps=len(finite))
    expected = run(case.make(), variables(), [g for g, ok in zip(grads, finite, strict=True) if ok])
    optimizer, trainable = case.make(loss_scale=td.DynamicLossScale(**SCALE)), variables()
    optimizer.build(trainable)

    @tf.function
    def step(gs, poison):
        scale = optimizer.scale_loss(tf.constant(1.0))
        optimizer.apply([g * scale + poison for g in gs], trainable)

    scales = [8.0]
    for gs, ok in zip(grads, finite, strict=True):
        step([tf.constant(g) for g in gs], tf.constant(0.0 if ok else np.nan))
        scales.append(float(optimizer.dynamic_scale.numpy()))
    assert scales == scaled(finite)
    assert int(optimizer.skipped_steps) == finite.count(False)
    for v, e in zip(trainable, expected, strict=True):
        np.testing.assert_allclose(v.numpy(), e, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("scale", ["dynamic", 1024.0])
def test_replicas_and_groups_scale_as_one_device(k, scale):
    grads, strategy = gradients(steps=4), mirrored()
    with strategy.scope():
        trainable = variables()
        make = functools.partial(td.AdamW, 0.1, global_clipnorm=0.5, gradient_accumulation_steps=k)
        optimizer = make(loss_scale=scale)
        optimizer.build(trainable)

    def on_one(gs, poison):
        scale = optimizer.scale_loss(tf.constant(1.0))
        second = tf.distribute.get_replica_context().replica_id_in_sync_group == 1
        here = tf.where(second, poison, 0.0)
        optimizer.apply([g / 2 * scale + here for g in gs], trainable)

    step = tf.function(lambda gs, poison: strategy.run(on_one, (gs, poison)))
    if scale == "dynamic":  # one replica's inf skips the step, or the group, of all
        for _ in range(k or 1):
            step([tf.constant(g) for g in gradients(steps=1)[0]], tf.constant(np.inf))
        assert float(optimizer.dynamic_scale.numpy()) == 2.0**14
    for gs in grads:
        step([tf.constant(g) for g in gs], tf.constant(0.0))
    expected = run(make(), variables(), grads, graph=True)
    for v, e in zip(trainable, expected, strict=True):
        for component in strategy.experimental_local_results(v.value):
            np.testing.assert_allclose(component, e, rtol=1e-5, atol=1e-6)


def test_compile_under_mixed_float16_ends_up_with_this_loss_scale(tmp_path):
    x, y = small_data()
    policy = keras.config.dtype_policy()
    optimizer = td.AdamW(0.01)  # the policy counts at the first step
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small_model()
        model.compile(td.AdamW(0.01, loss_scale="dynamic"), "mse")
        model.compile(optimizer, "mse")
        model.fit(x, y * 1e3, batch_size=16, epochs=3, verbose=0)
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.optimizer is optimizer
    done, skipped = int(optimizer.iterations), int(optimizer.skipped_steps)
    assert (done + skipped, skipped > 0) == (12, True)
    assert float(optimizer.dynamic_scale.numpy()) == 2.0 ** (15 - skipped)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert float(again.dynamic_scale.numpy()) == 2.0 ** (15 - skipped)
    assert again.loss_scale.get_config() == optimizer.loss_scale.get_config()
    again.reset_state()
    assert float(again.dynamic_scale.numpy()) == 2.0**15


@contextlib.contextmanager
def mixed_float16():
    """The global policy that Keras wraps optimizers for."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def test_a_scale_that_was_turned_off_stays_off_under_mixed_float16():
    with mixed_float16():
        run(td.AdamW(loss_scale=1.0), variables(), gradients(steps=1))
        run(again(td.AdamW(loss_scale=1.0)), variables(), gradients(steps=1))
        around = keras.optimizers.LossScaleOptimizer(
            td.AdamW(0.1, loss_scale=1.0), initial_scale=4.0
        )
        trainable = variables()
        run(around, trainable, [[4.0 * g for g in gs] for gs in gradients(steps=3)], graph=True)
    expected = run(td.AdamW(0.1), variables(), gradients(steps=3), graph=True)
    for v, e in zip(trainable, expected, strict=True):
        np.testing.assert_allclose(v.numpy(), e, rtol=1e-6, atol=1e-7)


def again(optimizer):
    return type(optimizer).from_config(optimizer.get_config())


def built(optimizer):
    optimizer.build(variables())
    return optimizer


@pytest.mark.parametrize(
    "make",
    [
        lambda: td.AdamW(jit_compile=False),
        lambda: again(td.AdamW(jit_compile=False)),
        lambda: copy.deepcopy(td.AdamW(jit_compile=False)),
        lambda: copy.deepcopy(built(td.AdamW(jit_compile=False))),
        lambda: keras.optimizers.get(
            keras.optimizers.serialize(td.Lookahead(td.AdamW(jit_compile=False)))
        ),
    ],
    ids=["fresh", "from_config", "deepcopy", "deepcopy of a built one", "a wrapper, from_config"],
)
def test_an_optimizer_that_was_made_again_scales_under_mixed_float16_as_a_fresh_one(make):
    optimizer, trainable = make(), variables()
    with mixed_float16():
        optimizer.build(trainable)
        with pytest.raises(ValueError, match=r"opt.scale_loss\(loss\)"):
            optimizer.apply([tf.convert_to_tensor(v) for v in trainable], trainable)
        assert float(optimizer.scale_loss(tf.constant(1.0))) == 2.0**15
    assert optimizer.get_state()["dynamic_scale"] == 2.0**15
    optimizer.apply([tf.convert_to_tensor(v) for v in trainable], trainable)


def test_what_trained_without_a_scale_resumes_without_one_bit_for_bit(tmp_path):
    x, y = small_data()
    model = small_model()
    model.compile(td.AdamW(0.01, jit_compile=False), "mse")
    model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    with mixed_float16():
        resumed = keras.models.load_model(tmp_path / "model.keras")
        for each in (model, resumed):
            each.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    assert resumed.optimizer.dynamic_scale is None
    for a, b in zip(model.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def float16_model(policy):
    layers = [
        keras.layers.Dense(
            1, use_bias=False, kernel_initializer="ones", activation="sigmoid", dtype=policy
        )
        for _ in range(15)
    ]
    return keras.Sequential([keras.Input((1,)), *layers])


def test_a_model_with_a_mixed_float16_policy_of_its_own_is_scaled_in_fit():
    model = float16_model("mixed_float16")
    model.compile(td.SGD(1e9, jit_compile=False), "mse")
    model.fit(np.ones((1, 1)), np.ones((1, 1)), verbose=0)
    assert float(model.layers[0].kernel.numpy()[0, 0]) != 1.0
    assert model.optimizer.get_config()["loss_scale"]["class_name"] == "DynamicLossScale"


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_model_without_float16_is_not_scaled_though_its_data_are_float16(policy):
    model = float16_model(policy)
    model.compile(td.SGD(0.1, jit_compile=False), "mse")
    model.fit(np.ones((1, 1), "float16"), np.ones((1, 1), "float16"), verbose=0)
    assert model.optimizer.dynamic_scale is None


def test_float16_inside_of_a_function_of_its_own_is_seen_and_a_scale_turned_off_is_respected():
    v = keras.Variable([[2.0]])

    @tf.function
    def inner(x):
        return tf.cast(tf.matmul(tf.cast(x, "float16"), tf.constant([[1.0]], "float16")), "float32")

    def scaled(optimizer):
        return float(tf.function(lambda: optimizer.scale_loss(inner(v.value)))()[0, 0])

    assert scaled(td.SGD()) == 2.0**16
    assert scaled(td.SGD(loss_scale=1)) == 2.0


def test_what_went_on_unscaled_is_not_scaled_later_but_says_so():
    v, optimizer = keras.Variable([1.0]), td.SGD(jit_compile=False)
    optimizer.apply([tf.constant([1.0])], [v])
    x = tf.constant([[1.0]], "float16")
    half = tf.function(lambda: optimizer.scale_loss(tf.cast(tf.matmul(x, x), "float32")))
    with pytest.warns(UserWarning, match=r'goes on without a loss scale.*`loss_scale="dynamic"`'):
        half()
    assert optimizer.dynamic_scale is None


@pytest.mark.parametrize("argument", ["loss_scale", "loss_scale_factor"])
def test_a_number_as_loss_scale_raises_too_if_no_loss_was_multiplied_by_it(argument):
    optimizer, v = td.SGD(1.0, jit_compile=False, **{argument: 1024.0}), keras.Variable([1.0])
    with pytest.raises(ValueError, match=r"`opt.scale_loss\(loss\)`.*Received: loss_scale=1024"):
        optimizer.apply([tf.constant([1024.0])], [v])
    step = tf.function(lambda: optimizer.apply([tf.constant([1024.0])], [v]))
    with pytest.raises(ValueError, match="Received: loss_scale=1024"):
        step()
    assert v.numpy() == 1.0
    optimizer.apply([optimizer.scale_loss(tf.constant([1.0]))], [v])
    assert v.numpy() == 0.0


def test_a_variable_without_a_gradient_is_not_blamed():
    a, b = variables([(2,), (2,)])
    optimizer = td.AdamW(max_consecutive_skips=2)
    bad, good = tf.fill((2,), np.nan), tf.ones(2)
    optimizer.apply([bad, good], [a, b])
    optimizer.apply([good], [b])
    optimizer.apply([bad], [b])
    with pytest.raises(FloatingPointError, match=r"{'v1': 2}"):
        optimizer.apply([bad], [b])


def test_a_variable_whose_gradients_are_finite_again_is_not_blamed():
    a, b = variables([(2,), (2,)])
    optimizer = td.AdamW(max_consecutive_skips=2)
    bad, good = tf.fill((2,), np.nan), tf.ones(2)
    optimizer.apply([bad, good], [a, b])
    with pytest.raises(FloatingPointError, match=r"{'v1': 1}"):
        optimizer.apply([good, bad], [a, b])


def test_small_float16_gradients_arrive():
    v = keras.Variable([1.0], dtype="float16")
    optimizer = td.SGD(2.0**20, loss_scale="dynamic")
    with tf.GradientTape() as tape:
        tape.watch(v.value)
        loss = tf.reduce_sum(
            tf.cast(v.value * tf.constant(2.0**-11, "float16"), "float32") * 2**-15
        )
        loss = optimizer.scale_loss(loss)
    optimizer.apply([tape.gradient(loss, v.value)], [v])
    np.testing.assert_allclose(optimizer.get_state()[f"{v.path}:master"], [1 - 2.0**-6])


@pytest.mark.parametrize(
    "arguments,words",
    [
        (dict(loss_scale="static"), "Received: loss_scale='static'"),
        (dict(loss_scale=2.0, loss_scale_factor=2.0), "set one"),
        (dict(loss_scale=-1.0), r"`loss_scale_factor` must be a number > 0"),
        (dict(max_consecutive_skips=0), "an integer >= 1"),
    ],
)
def test_guards_refuse_what_they_can_not_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        td.AdamW(**arguments)


@pytest.mark.parametrize(
    "wrong", [dict(minimum=0.0), dict(growth_factor=1.0), dict(growth_steps=0)]
)
def test_a_dynamic_loss_scale_refuses_numbers_that_never_settle(wrong):
    with pytest.raises(ValueError, match=r"Received: {'initial_scale'"):
        td.DynamicLossScale(**wrong)


@pytest.mark.parametrize(
    "name,value,error",
    [
        ("initial_scale", "8", TypeError),
        ("initial_scale", None, TypeError),
        ("growth_steps", True, TypeError),
        ("growth_steps", 2.5, ValueError),
        ("growth_factor", np.array([2.0]), TypeError),
        ("growth_factor", float("nan"), ValueError),
        ("growth_factor", 1 + 1e-9, ValueError),
        ("backoff_factor", tf.constant(0.5), TypeError),
        ("initial_scale", 1e39, ValueError),
        ("initial_scale", 10**400, ValueError),
    ],
    ids=lambda each: str(each)[:20],
)
def test_a_dynamic_loss_scale_takes_numbers_that_float32_holds(name, value, error):
    with pytest.raises(error, match=rf"{name}.*Received: .*{name}"):
        td.DynamicLossScale(**{name: value})


def test_unscaling_what_was_never_scaled_raises():
    optimizer = td.AdamW(loss_scale="dynamic")
    with pytest.raises(ValueError, match=r"differentiate `opt.scale_loss\(loss\)`"):
        optimizer.apply([tf.ones(3)], variables([(3,)]))


def test_a_scale_that_would_overflow_float32_stays():
    scale = td.DynamicLossScale(initial_scale=2.0**127, growth_steps=1)
    after, _ = scale.after(tf.constant(2.0**127), tf.constant(0, tf.int64), tf.constant(True))
    assert float(after) == 2.0**127
