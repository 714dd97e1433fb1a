"""What holds for every optimizer, whatever its rule."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import (
    CASES,
    SHAPES,
    gradients,
    mirrored,
    run,
    small_data,
    small_model,
    state_of,
    variables,
)

import tf_decoupled as td

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
inside_the_ratio = ("LAMB",)  # the decay belongs to the direction there, by the paper


def equal(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


@every
def test_eager_graph_and_xla_agree(case):
    grads = gradients(steps=4)
    eager = run(case.make(weight_decay=0.1), variables(), grads)
    graph = run(case.make(weight_decay=0.1), variables(), grads, graph=True)
    inside = run(case.make(weight_decay=0.1), variables(), grads, graph=True, jit_compile=True)
    plain = run(case.make(weight_decay=0.1, jit_compile=False), variables(), grads, graph=True)
    equal(eager, graph)
    for a, b, c in zip(graph, inside, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(a, c, rtol=1e-5, atol=1e-6)


@every
def test_decay_never_enters_the_state(case):
    grads = gradients(steps=1)
    without, with_decay = case.make(weight_decay=0.0), case.make(weight_decay=0.3)
    run(without, variables(), grads)
    run(with_decay, variables(), grads)
    for (name, a), b in zip(state_of(without).items(), state_of(with_decay).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@every
def test_masked_variables_move_as_without_decay_bit_for_bit(case):
    grads = gradients(steps=3)
    options = case.options if "l2" in case.options else {}
    no_l2 = {"l2": 0.0} if options else {}
    none = run(case.make(weight_decay=0.0, **no_l2), variables(), grads, graph=True)
    every = run(case.make(weight_decay=0.3), variables(), grads, graph=True)
    masked = case.make(weight_decay=0.3, decay_mask=td.masks.matrices)
    mixed = run(masked, variables(), grads, graph=True)
    for shape, a, b, c in zip(SHAPES, none, every, mixed, strict=True):
        np.testing.assert_array_equal(c, b if len(shape) >= 2 else a)
        if shape:  # LAMB steps a scalar by its own norm, whatever the decay
            assert np.any(a != b), "the decay moves nothing, so the test shows nothing"


@every
def test_a_zero_gradient_leaves_the_decay_alone(case):
    if case.name in inside_the_ratio or "l2" in case.options:
        pytest.skip("the decay is rescaled there, or joined by an L2 gradient")
    start = [v.numpy() for v in variables()]
    grads = [[np.zeros(shape, "float32") for shape in SHAPES]] * 3
    after = run(case.make(weight_decay=0.3), variables(), grads)
    shrink = 1 - case.learning_rate * 0.3
    power = shrink**3
    if case.name.startswith("Lookahead"):  # slow weights hold on to where they were
        assert all(np.all(np.abs(a) < np.abs(p)) for a, p in zip(after, start, strict=True))
        return
    for a, p in zip(after, start, strict=True):
        np.testing.assert_allclose(a, p * power, rtol=1e-6)


@every
def test_config_round_trip_gives_bit_equal_steps(case):
    grads, mask = gradients(steps=3), td.masks.matrices | td.masks.only("v1")
    original = case.make(weight_decay=0.2, decay_mask=mask)
    config = keras.optimizers.serialize(original)
    again = keras.optimizers.deserialize(config)
    assert type(again) is type(original)
    assert again.get_config() == original.get_config()
    equal(run(original, variables(), grads), run(again, variables(), grads))


@every
def test_resume_equals_continue_bit_for_bit(case):
    grads = gradients(steps=7)
    schedule = td.schedules.Cosine(case.learning_rate, 9, alpha=0.1)
    make = lambda: case.make(learning_rate=schedule, weight_decay=0.1)  # noqa: E731
    uninterrupted = run(make(), variables(), grads, graph=True)
    first, trainable = make(), variables()
    run(first, trainable, grads[:4], graph=True)
    second, resumed = make(), variables(seed=5)
    second.build(resumed)
    second.set_state(first.get_state())
    for v, w in zip(resumed, trainable, strict=True):
        v.assign(w)
    equal(uninterrupted, run(second, resumed, grads[4:], graph=True))


@every
def test_fit_saves_to_keras_and_resumes_bit_for_bit(case, tmp_path):
    x, y = small_data()
    model = small_model()
    model.compile(case.make(weight_decay=0.01), "mse")
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, epochs=2, batch_size=16, verbose=0, shuffle=False)
    assert model.evaluate(x, y, verbose=0) < before
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(x, y, epochs=1, batch_size=16, verbose=0, shuffle=False)
    assert int(loaded.optimizer.iterations) == 12
    equal([v.numpy() for v in model.variables], [v.numpy() for v in loaded.variables])


@every
def test_a_none_gradient_leaves_variable_and_slots_untouched(case):
    optimizer, trainable = case.make(weight_decay=0.1), variables()
    (grads,) = gradients(steps=1)
    optimizer.build(trainable)
    before, slots = trainable[1].numpy(), state_of(optimizer)
    with pytest.warns(UserWarning, match=r"Gradients do not exist for variables \['v1'\]"):
        optimizer.apply([grads[0], None, grads[2], grads[3]], trainable)
    np.testing.assert_array_equal(trainable[1], before)
    for name, value in state_of(optimizer).items():
        assert np.array_equal(value, slots[name], equal_nan=True) == name.startswith("v1:")


@every
def test_a_gradient_that_comes_late_does_no_damage(case):
    if "Lookahead" not in case.name:
        pytest.skip("only wrappers keep copies of variables")
    optimizer, trainable = case.make(), variables()
    grads = gradients(steps=3)
    start = trainable[0].numpy()
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        for gs in grads:
            optimizer.apply([None, *gs[1:]], trainable)
    for gs in grads:
        optimizer.apply(gs, trainable)
    assert np.max(np.abs(trainable[0].numpy() - start)) < 10 * case.learning_rate


@every
def test_repeated_sparse_rows_equal_the_dense_gradient(case):
    rows, values = [2, 0, 2], np.random.default_rng(3).normal(size=(3, 4)).astype("float32")
    dense = np.zeros((3, 4), "float32")
    np.add.at(dense, rows, values)
    results = []
    for g in (tf.IndexedSlices(values, rows, (3, 4)), tf.constant(dense)):
        optimizer, (v,) = case.make(weight_decay=0.1), variables([(3, 4)])
        for _ in range(2):
            optimizer.apply([g], [v])
        results.append(v.numpy())
    np.testing.assert_allclose(*results, rtol=1e-6, atol=1e-7)


@every
def test_a_second_call_does_not_trace_again(case):
    optimizer, trainable = case.make(), variables()
    optimizer.build(trainable)
    traces = []

    @tf.function
    def step(grads):
        traces.append(1)
        optimizer.apply(grads, trainable)

    for gs in gradients(steps=3):
        step([tf.constant(g) for g in gs])
    assert len(traces) == 1


@every
def test_empty_and_huge_and_zero_gradients_stay_finite(case):
    shapes = [(0, 3), (2, 2), (3,)]
    optimizer, trainable = case.make(weight_decay=0.1, global_clipnorm=1.0), variables(shapes)
    zero = [np.zeros(shape, "float32") for shape in shapes]
    huge = [np.full(shape, 3e30, "float32") for shape in shapes]
    for v in run(optimizer, trainable, [zero, huge, zero, huge]):
        assert np.all(np.isfinite(v))
    slots = state_of(optimizer).items()
    assert all(np.all(np.isfinite(x)) or "slow" in n for n, x in slots)


@every
def test_a_step_of_empty_variables_is_counted(case):
    optimizer, trainable = case.make(jit_compile=False), variables([(0, 3), (0,)])
    grads = [[np.zeros(shape, "float32") for shape in [(0, 3), (0,)]]] * 2
    run(optimizer, trainable, grads)
    optimizer.apply([], [])
    assert int(optimizer.iterations) == 2, "and no gradients at all are no step, as in Keras"


@pytest.mark.parametrize(
    "options",
    [
        {"global_clipnorm": 1.0, "track_gradient_norm": True},
        {"clipnorm": 1.0, "max_consecutive_skips": 2, "use_ema": True},
        {"clipvalue": 1.0, "gradient_accumulation_steps": 2},
    ],
    ids=lambda options: ", ".join(options),
)
@pytest.mark.parametrize("strategy", [tf.distribute.get_strategy, mirrored])
def test_empty_variables_are_counted_with_whatever_else_a_step_does(options, strategy):
    with strategy().scope():
        optimizer, trainable = td.AdamW(jit_compile=False, **options), variables([(0, 3)])
        optimizer.build(trainable)

    @tf.function
    def step():
        strategy().run(lambda: optimizer.apply([tf.zeros((0, 3))], trainable))

    for _ in range(4):
        step()
    assert optimizer.iterations.numpy() == (2 if "gradient_accumulation_steps" in options else 4)


@every
def test_reset_state_starts_anew(case):
    grads = gradients(steps=3)
    optimizer, trainable = case.make(weight_decay=0.1), variables()
    first = run(optimizer, trainable, grads, graph=True)
    optimizer.reset_state()
    for v, w in zip(trainable, variables(), strict=True):
        v.assign(w)
    equal(first, run(optimizer, trainable, grads, graph=True))


@every
def test_slots_are_laid_out_as_ever(case):
    optimizer = case.make()
    optimizer.build(variables([(3, 4), (5,)]))
    layout = {name: v.shape for name, v in state_of(optimizer).items()}
    assert layout == {f"v{i}:{n}": shape for i, n, shape in LAYOUTS[case.name]}


def both(*names):
    return [(i, name, shape) for i, shape in enumerate([(3, 4), (5,)]) for name in names]


LAYOUTS = {
    "AdamW": both("m", "v"),
    "AdamW-amsgrad": both("m", "v", "v_max"),
    "AdamW-epsilon_hat": both("m", "v"),
    "Adam-l2": both("m", "v"),
    "SGDW": both("m"),
    "SGDW-nesterov": both("m"),
    "SGD-l2": both("m"),
    "Lion": both("m"),
    "LAMB": both("m", "v"),
    "Adafactor": [(0, "r", (3,)), (0, "c", (4,)), (1, "v", (5,))],
    "Lookahead-AdamW": both("slow", "inner/m", "inner/v"),
    "Lookahead-Lookahead-SGDW": both("slow", "inner/slow", "inner/inner/m"),
}
