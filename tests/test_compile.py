"""The update step is one XLA computation, and falls back where the host has no XLA."""

import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run, variables

import tf_decoupled as td
from tf_decoupled.engine import replicas

pytestmark = pytest.mark.xla


def called_functions(optimizer, jit=None):
    """Whether each function called inside a traced, uncompiled step must be compiled by XLA."""
    trainable = variables()
    optimizer.build(trainable)

    @tf.function(jit_compile=jit)
    def step(grads):
        optimizer.apply(grads, trainable)

    (grads,) = gradients(steps=1)
    graph = step.get_concrete_function([tf.constant(g) for g in grads]).graph.as_graph_def()
    return [
        f.attr["_XlaMustCompile"].b
        for f in graph.library.function
        if "inference" in f.signature.name
    ]


@pytest.mark.parametrize("jit_compile,compiled", [("auto", True), (True, True), (False, False)])
def test_the_step_is_compiled_inside_a_function_that_is_not(jit_compile, compiled):
    assert called_functions(td.AdamW(jit_compile=jit_compile)) == [compiled]


@pytest.mark.parametrize(
    "shape,per_variable",
    [((129, 128), 0), ((2, 2), 2)],  # a small one is read for its stack, and assigned
    ids=["large", "small"],
)
def test_the_operations_outside_the_compiled_step_hardly_grow_with_the_variables(
    shape, per_variable
):
    def operations(count):
        trainable, optimizer = variables([shape] * count), td.AdamW()
        optimizer.build(trainable)
        function = tf.function(lambda grads: optimizer.apply(grads, trainable))
        concrete = function.get_concrete_function([tf.ones(shape)] * count)
        plumbing = ("Placeholder", "NoOp", "Identity")
        return sum(op.type not in plumbing for op in concrete.graph.get_operations())

    assert operations(9) - operations(2) == 7 * per_variable


@pytest.mark.parametrize("make", [td.AdamW, td.LAMB, lambda **o: td.Lookahead(td.AdamW(**o))])
def test_bias_corrections_are_computed_once_for_all_variables(make):
    def powers(count):
        trainable = variables([(2, 2)] * count)
        optimizer = make(use_ema=True, decay_mask=["v0"], jit_compile=False)
        optimizer.build(trainable)
        function = tf.function(lambda grads: optimizer.apply(grads, trainable))
        graph = function.get_concrete_function([tf.ones((2, 2))] * count).graph
        library = graph.as_graph_def().library.function
        ops = [node.op for called in library for node in called.node_def]
        return [ops.count(name) for name in ("Expm1", "Log1p", "Pow")]

    assert powers(2) == powers(7) == [3, 3, 0]  # β₁, β₂ and that of the averages


def test_auto_falls_back_where_the_host_has_no_xla(monkeypatch):
    expected = run(td.AdamW(0.1), variables(), gradients(steps=3), graph=True)
    real = tf.function

    def without_xla(*args, jit_compile=None, **kwargs):
        if not jit_compile:
            return real(*args, **kwargs)

        def refuse(*_):
            raise tf.errors.NotFoundError(
                None, None, "could not find registered transfer manager for platform Host"
            )

        return refuse if args else lambda function: refuse

    monkeypatch.setattr(replicas.tf, "function", without_xla)
    replicas.host_compiles.cache_clear()
    try:
        assert not replicas.host_compiles()
        fallen_back = run(td.AdamW(0.1), variables(), gradients(steps=3))
        with pytest.raises(tf.errors.NotFoundError, match="platform Host"):
            run(td.AdamW(0.1, jit_compile=True), variables(), gradients(steps=1))
    finally:
        replicas.host_compiles.cache_clear()
    for a, b in zip(expected, fallen_back, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_a_compiled_step_resumes_bit_for_bit():
    grads, rate = gradients(steps=6), td.schedules.Cosine(0.1, 9)
    make = lambda: td.Lookahead(td.AdamW(rate, 0.1, clipnorm=1.0), sync_period=2)  # noqa: E731
    uninterrupted = run(make(), variables(), grads, graph=True)
    first, second, trainable, resumed = make(), make(), variables(), variables(seed=5)
    run(first, trainable, grads[:3], graph=True)
    second.build(resumed)
    second.set_state(first.get_state())
    for v, w in zip(resumed, trainable, strict=True):
        v.assign(w)
    for a, b in zip(uninterrupted, run(second, resumed, grads[3:], graph=True), strict=True):
        np.testing.assert_array_equal(a, b)


def test_this_host_compiles():
    assert replicas.host_compiles()
