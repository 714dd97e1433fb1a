"""Blocks: variables of one shape are stepped as a stack, and nobody can tell."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run_mirrored

import tf_decoupled as td
from tf_decoupled.engine import stacking

SHAPES = [(3, 4), (5,), (3, 4), (), (5,), (3, 4)]
EVERYTHING = dict(
    clipnorm=0.5,
    use_ema=True,
    skip_nonfinite=True,
    max_consecutive_skips=3,
    gradient_accumulation_steps=2,
    track_gradient_norm=True,
    jit_compile=False,
)


def named(shapes=SHAPES, dtype="float32", prefix="v"):
    rng = np.random.default_rng(0)
    return [
        keras.Variable(rng.normal(size=shape), dtype=dtype, name=f"{prefix}{i}")
        for i, shape in enumerate(shapes)
    ]


def stepped(make, grads, trainable=None, optimizer=None, **function):
    trainable = named() if trainable is None else trainable
    optimizer = make() if optimizer is None else optimizer
    step = tf.function(lambda gs: optimizer.apply(gs, trainable), **function)
    for gs in grads:
        step([None if g is None else tf.constant(g) for g in gs])
    return trainable, optimizer


@pytest.fixture
def alone(monkeypatch):
    """Calls a function while every variable stands alone."""

    def call(function, *args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(stacking, "LARGEST", 0)
            return function(*args, **kwargs)

    return call


MAKERS = {
    "AdamW": lambda: td.AdamW(0.1, decay_mask=["v2", "v4"], jit_compile=False),
    "everything": lambda: td.AdamW(0.1, **EVERYTHING),
    "LAMB": lambda: td.LAMB(0.1, jit_compile=False),
    "Adafactor": lambda: td.Adafactor(0.1, jit_compile=False),
    "Lookahead": lambda: td.Lookahead(td.AdamW(0.1, jit_compile=False), sync_period=2),
    "Prodigy": lambda: td.Prodigy(d0=0.01, jit_compile=False),
    "ScheduleFree": lambda: td.ScheduleFree(td.SGDW(0.1, jit_compile=False)),
    "transforms": lambda: td.SGDW(
        0.1,
        gradient_transforms=[td.transforms.Centralize(), td.transforms.AddNoise(0.1)],
        jit_compile=False,
    ),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_stack_is_stepped_as_its_variables_alone(name, alone):
    grads = gradients(SHAPES, 4)
    grads[1][2] = grads[2][2] = grads[2][0] = None  # of some variables of a stack only
    stacked, one = stepped(MAKERS[name], grads)
    singly, other = alone(stepped, MAKERS[name], grads)
    assert len(one.blocks) == 3 and len(other.blocks) == len(SHAPES)
    for a, b in zip(stacked, singly, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)
    state, expected = one.get_state(), other.get_state()
    assert list(state) == list(expected) or state.keys() == expected.keys()
    for key, value in expected.items():
        assert state[key].shape == value.shape and state[key].dtype == value.dtype
        np.testing.assert_allclose(state[key], value, rtol=1e-5, atol=1e-7)


def test_states_of_stacks_and_of_variables_alone_are_one_format(alone, tmp_path):
    grads = gradients(SHAPES, 4)
    make = MAKERS["everything"]
    trainable, stacked = stepped(make, grads[:2])
    checkpoint = tf.train.Checkpoint(optimizer=stacked, **{v.name: v for v in trainable})
    path = checkpoint.write(tmp_path / "stacked")
    expected, _ = stepped(make, grads[2:], trainable, stacked)

    def resumed():
        again, optimizer = named(), make()
        [v.assign(v * 0) for v in again]
        tf.train.Checkpoint(optimizer=optimizer, **{v.name: v for v in again}).read(path)
        return stepped(make, grads[2:], again, optimizer)[0]

    for end in (resumed, lambda: alone(resumed)):
        for a, b in zip(end(), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


def test_a_stack_resumes_bit_for_bit_and_late_variables_stand_by_themselves():
    grads, make = gradients(SHAPES, 6), MAKERS["everything"]
    whole, _ = stepped(make, grads)
    half, begun = stepped(make, grads[:3])
    again = make()
    again.build(half)
    again.set_state(begun.get_state())
    stepped(make, grads[3:], half, again)
    for a, b in zip(half, whole, strict=True):
        np.testing.assert_array_equal(a, b)
    before = len(again.blocks)
    late = named([(3, 4), (3, 4)], prefix="late")
    again.add_variables(late)
    assert len(again.blocks) == before + 1
    stepped(make, gradients([(3, 4)] * 2, 2), late, again)
    for a, b in zip(half, whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_stack_is_replicated():
    grads, make = gradients(SHAPES, 4), MAKERS["everything"]
    expected, one = stepped(make, grads)
    trainable, optimizer = run_mirrored(make, grads, SHAPES)
    assert len(optimizer.blocks) == 3
    for a, b in zip(trainable, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
    state = optimizer.get_state()
    for key, value in one.get_state().items():
        np.testing.assert_allclose(state[key], value, rtol=1e-5, atol=1e-6)
    optimizer.set_state({**state, "v2:m": state["v2:m"] + 1})
    np.testing.assert_array_equal(optimizer.get_state()["v2:m"], state["v2:m"] + 1)
    np.testing.assert_array_equal(optimizer.get_state()["v0:m"], state["v0:m"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("mode", ["master", "stochastic"])
def test_a_stack_of_low_precision_rounds_as_its_variables_alone(dtype, mode, alone):
    make = lambda: td.SGDW(0.1, low_precision=mode, jit_compile=False)  # noqa: E731
    grads = gradients([(4, 2)] * 3, 3)
    stacked, one = stepped(make, grads, named([(4, 2)] * 3, dtype))
    singly, _ = alone(stepped, make, grads, named([(4, 2)] * 3, dtype))
    assert len(one.blocks) == 1
    for a, b in zip(stacked, singly, strict=True):
        np.testing.assert_array_equal(a, b)


def test_large_constrained_and_lazily_stepped_variables_stand_alone():
    def built(variables, **arguments):
        optimizer = td.AdamW(**arguments)
        optimizer.build(variables)
        return len(optimizer.blocks)

    assert built(named([(4, 4)] * 3)) == 1
    assert built(named([(129, 128)] * 3)) == 3  # more than 16,384 elements
    assert built(named([(0, 4)] * 2)) == 2
    assert built(named([(4, 4)] * 3), sparse="lazy") == 3
    assert built(named([(4,)] * 3), sparse="lazy") == 1
    positive = keras.constraints.NonNeg()
    layers = [keras.layers.Dense(4, kernel_constraint=positive) for _ in range(2)]
    for layer in layers:
        layer.build((None, 4))
    assert built([v for layer in layers for v in layer.trainable_variables]) == 3
    assert built(named([(4, 4)]) + named([(4, 4)], "bfloat16", "half")) == 2


class Unmappable(td.SGDW):
    """A rule with an operation that can't be mapped."""

    def step(self, p, g, s, h):
        return super().step(tf.bitcast(tf.bitcast(p, tf.int32), tf.float32), g, s, h)


def test_a_rule_that_cannot_be_mapped_steps_variables_alone():
    trainable, optimizer = stepped(
        lambda: Unmappable(0.1, jit_compile=False), gradients([(3,)] * 3, 2), named([(3,)] * 3)
    )
    assert len(optimizer.blocks) == 3
    expected, _ = stepped(
        lambda: td.SGDW(0.1, jit_compile=False), gradients([(3,)] * 3, 2), named([(3,)] * 3)
    )
    for a, b in zip(trainable, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_transform_that_cannot_be_mapped_gets_variables_alone():
    distinct = lambda p, g, h: g + 0 * tf.reduce_sum(tf.unique(tf.reshape(g, [-1]))[0])  # noqa: E731
    make = lambda: td.SGDW(0.1, gradient_transforms=[distinct], jit_compile=False)  # noqa: E731
    _, optimizer = stepped(make, gradients([(3,)] * 3, 1), named([(3,)] * 3))
    assert len(optimizer.blocks) == 3


def test_slots_of_a_stack_behave_like_variables():
    _, optimizer = stepped(MAKERS["AdamW"], gradients(SHAPES, 1))
    slot = optimizer.named_variables()["v2:m"]
    assert slot.path == slot.name == "v2_m" and slot.dtype == "float32"
    assert tuple(slot.shape) == (3, 4) and "v2_m" in repr(slot)
    np.testing.assert_array_equal(tf.convert_to_tensor(slot), slot.numpy())
    np.testing.assert_array_equal(np.asarray(slot), slot.value)
    before = optimizer.named_variables()["v0:m"].numpy()
    slot.assign(tf.ones((3, 4)))
    np.testing.assert_array_equal(slot.numpy(), 1.0)
    np.testing.assert_array_equal(optimizer.named_variables()["v0:m"].numpy(), before)
    with pytest.raises(ValueError, match=r"shape \(3, 4\) is needed. Received: \(2,\)"):
        slot.assign(tf.ones(2))
    optimizer.reset_state()
    np.testing.assert_array_equal(slot.numpy(), 0.0)
    named_variables = optimizer.named_variables()
    optimizer.set_weights([np.asarray(v) + (":" in n) for n, v in named_variables.items()])
    np.testing.assert_array_equal(slot.numpy(), 1.0)


def test_blocks_of_large_models_are_few():
    shapes = [(8, 8), (8,)] * 50
    optimizer = td.AdamW()
    optimizer.build(named(shapes))
    assert len(optimizer.blocks) == 2
    assert sum(":" in name for name in optimizer.get_state()) == 200


@pytest.mark.xla
def test_xla_compiles_a_step_of_not_too_many_blocks(monkeypatch):
    def is_compiled(**arguments):
        trainable = named([(2,), (3,), (4,)])
        optimizer = td.SGDW(0.1, **arguments)
        optimizer.build(trainable)
        step = tf.function(lambda: optimizer.apply([tf.ones(v.shape) for v in trainable]))
        functions = step.get_concrete_function().graph.as_graph_def().library.function
        return any(f.attr["_XlaMustCompile"].b for f in functions)

    assert is_compiled()
    monkeypatch.setattr("tf_decoupled.engine.blocks.COMPILED", 2)
    assert not is_compiled() and is_compiled(jit_compile=True)
    monkeypatch.setattr("tf_decoupled.engine.blocks.LARGE", 3)  # 9 numbers in 3 blocks
    assert is_compiled()
