"""What the engine does around every rule: the probes have every trait of one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, mirrored, run, state_of, variables
from probes import PROBES, leading, nested, trailing

import tf_decoupled as td

every = pytest.mark.parametrize("case", PROBES, ids=lambda case: case.name)


def equal(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


@every
def test_eager_code_and_graphs_agree_bit_for_bit(case):
    grads = gradients(case.shapes, steps=4)
    eager = run(case.make(weight_decay=0.1), variables(case.shapes), grads)
    equal(eager, run(case.make(weight_decay=0.1), variables(case.shapes), grads, graph=True))


@pytest.mark.xla
@pytest.mark.parametrize("case", [trailing, nested, leading], ids=lambda case: case.name)
def test_the_step_compiled_alone_or_inside_of_another_agrees_with_eager_code(case):
    grads = gradients(steps=4)
    eager = run(case.make(weight_decay=0.1), variables(), grads)
    for how in ({}, dict(graph=True), dict(graph=True, jit_compile=True)):
        compiled = run(case.make(weight_decay=0.1, jit_compile="auto"), variables(), grads, **how)
        for a, b in zip(eager, compiled, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@every
def test_masked_variables_move_as_without_decay_bit_for_bit(case):
    grads, regular = gradients(case.shapes, steps=3), case.all_options().keys() & {"l2"}
    λ = td.schedules.Linear(0.5, 4)
    none = run(
        case.make(weight_decay=0.0, **dict.fromkeys(regular, 0.0)), variables(case.shapes), grads
    )
    every = run(case.make(weight_decay=λ), variables(case.shapes), grads)
    for mask, decay in (
        (td.masks.matrices, [len(shape) >= 2 for shape in case.shapes]),
        (["v0"], [i > 0 for i in range(len(case.shapes))]),
    ):
        mixed = run(case.make(weight_decay=λ, decay_mask=mask), variables(case.shapes), grads)
        for decays, a, b, c in zip(decay, none, every, mixed, strict=True):
            np.testing.assert_array_equal(c, b if decays else a)
            assert np.any(a != b), "the decay moves nothing, so the test shows nothing"


@every
def test_config_round_trip_gives_bit_equal_steps(case):
    grads, mask = gradients(case.shapes, steps=3), td.masks.matrices | td.masks.only("v1")
    original = case.make(weight_decay=0.2, decay_mask=mask)
    config = keras.optimizers.serialize(original)
    again = keras.optimizers.deserialize(config)
    assert type(again) is type(original)
    assert again.get_config() == original.get_config()
    equal(run(original, variables(case.shapes), grads), run(again, variables(case.shapes), grads))


@pytest.mark.parametrize("case", [trailing, nested, leading], ids=lambda case: case.name)
def test_a_gradient_that_comes_late_does_no_damage(case):
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
def test_a_second_call_does_not_trace_again(case):
    optimizer, trainable = case.make(), variables(case.shapes)
    optimizer.build(trainable)
    traces = []

    @tf.function
    def step(grads):
        traces.append(1)
        optimizer.apply(grads, trainable)

    for gs in gradients(case.shapes, steps=3):
        step([tf.constant(g) for g in gs])
    assert len(traces) == 1


@every
def test_empty_and_huge_and_zero_gradients_stay_finite(case):
    shapes = case.takes([(0, 3), (2, 2), (3,)])
    optimizer, trainable = case.make(weight_decay=0.1, global_clipnorm=1.0), variables(shapes)
    zero = [np.zeros(shape, "float32") for shape in shapes]
    huge = [np.full(shape, 3e30, "float32") for shape in shapes]
    for v in run(optimizer, trainable, [zero, huge, zero, huge]):
        assert np.all(np.isfinite(v))
    slots = state_of(optimizer).items()
    assert all(np.all(np.isfinite(x)) or "trail" in n for n, x in slots)


@every
def test_a_step_of_empty_variables_is_counted(case):
    shapes = case.takes([(0, 3), (0,)])
    optimizer, trainable = case.make(jit_compile=False), variables(shapes)
    grads = [[np.zeros(shape, "float32") for shape in shapes]] * 2
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
    grads = gradients(case.shapes, steps=3)
    optimizer, trainable = case.make(weight_decay=0.1), variables(case.shapes)
    first = run(optimizer, trainable, grads, graph=True)
    optimizer.reset_state()
    for v, w in zip(trainable, variables(case.shapes), strict=True):
        v.assign(w)
    equal(first, run(optimizer, trainable, grads, graph=True))
