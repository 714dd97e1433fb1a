"""The harness finds what is wrong with a step: its checks can fail."""

import dataclasses
import functools
import importlib.util
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_decoupled.testing import tpu

needs_libtpu = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("jax", "libtpu"))),
    reason="needs jax and libtpu: the extra [tpu-aot]",
)


@functools.cache
def emulated():
    return tpu.EmulatedTPUStrategy(2)


def traced(step, *args):
    return emulated().trace(step, args)


def parts(variable):
    return [part.numpy().tolist() for part in emulated().experimental_local_results(variable)]


def replica_number():
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def summed(x):
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x)


def test_it_is_tensorflows_strategy():
    strategy = emulated()
    assert isinstance(strategy, tf.distribute.TPUStrategy) and strategy.num_replicas_in_sync == 2


@pytest.mark.parametrize("around", [lambda run: run, tf.function], ids=["eager", "traced"])
def test_replicas_run_what_they_are_given_and_meet_in_a_sum(around):
    @tf.function
    def step(x):
        return {"mine": x, "all": summed(x), "who": replica_number()}

    def value(context):
        return tf.constant([1.0, 10.0][context.replica_id_in_sync_group])

    x = emulated().experimental_distribute_values_from_function(value)
    results = around(lambda x: emulated().run(step, (x,)))(x)
    assert [parts(results[name]) for name in ("mine", "all", "who")] == [[1, 10], [11, 11], [0, 1]]


def test_replicas_that_assign_different_values_diverge():
    with emulated().scope():
        v = tf.Variable([0.0], aggregation=tf.VariableAggregation.NONE)
    step = tf.function(lambda: v.assign([tf.cast(replica_number(), tf.float32)]))
    emulated().run(step)
    assert parts(v) == [[0.0], [1.0]]


def test_sums_inside_branches_and_loops_are_run_and_counted():
    def step():
        x = tf.cast(replica_number() + 1, tf.float32)
        x = tf.cond(tf.constant(1) > 0, lambda: summed(x), lambda: x)
        return tf.while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, summed(x)), (0, x))[1]

    assert parts(tf.function(lambda: emulated().run(step))()) == [12.0, 12.0]
    assert emulated().clusters[-1].count("CrossReplicaSum") == {"float32": 2}


def fitted(strategy):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        layers = [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        optimizer = keras.optimizers.AdamW(0.01)
        model.compile(optimizer, "mse", steps_per_execution=2, jit_compile=False)
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    model.fit(x, x.sum(1, keepdims=True), batch_size=16, epochs=2, verbose=0, shuffle=False)
    return model.get_weights()


def test_fit_on_replicas_equals_fit_on_one_device():
    for a, b in zip(fitted(emulated()), fitted(tf.distribute.get_strategy()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert emulated().clusters[-1].count("AllToAll")["int64"]  # Keras's count of iterations


@pytest.mark.parametrize(
    "step,named",
    [
        (lambda: tf.linalg.lu(tf.eye(3)), "Lu(T=float32"),
        (lambda: tf.print("now"), "StringFormat"),
        (lambda: tf.cast(tf.ones(2), tf.complex128), "Cast("),
    ],
)
def test_an_operation_without_a_tpu_kernel_is_named(step, named):
    found = traced(step).without_kernel()
    assert found and any(operation.startswith(named) for operation in found)


def test_an_operation_without_a_tpu_kernel_is_named_inside_a_branch():
    def step(x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.linalg.lu(x)[0], lambda: x)

    (found,) = traced(step, tf.eye(3)).without_kernel()
    assert found.startswith("Lu(") and " in " in found


def test_float64_is_found():
    found = traced(lambda x: tf.sqrt(tf.cast(x, "float64")), tf.ones(2)).using("float64")
    assert any(operation.startswith("Sqrt(T=float64)") for operation in found)


def test_an_exchange_that_is_no_broadcast_raises():
    def step(x):
        return tf.distribute.get_replica_context().all_gather(x, axis=0)

    with pytest.raises(NotImplementedError, match="gather floating point or int32 values"):
        tf.function(lambda: emulated().run(step, (tf.constant([1, 2], "int64"),)))()


def test_a_program_needs_static_shapes():
    traced_with = []

    @tf.function(input_signature=[tf.TensorSpec([None])])
    def step(x):
        traced_with.append(emulated().trace(tf.square, (x,)))

    step(tf.ones(3))
    with pytest.raises(ValueError, match="drop_remainder=True"):
        traced_with[0].program()


def test_more_replicas_than_logical_cpus_raise_once_tensorflow_has_started():
    tf.ones(1)
    with pytest.raises(RuntimeError, match="9 replicas, 2 logical CPUs"):
        tpu.EmulatedTPUStrategy(9)


def test_the_compiler_names_the_extra_that_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"\[tpu-aot\].*no jax and no libtpu"):
        tpu.compile(tpu.Program("", 1, 0), "v5e:1x1")


def adam(p, m, v, g):
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
    return p - m / (tf.sqrt(v) + 1e-8), m, v


def function_program(function, *specs):
    return tpu.lowered(tf.function(function, jit_compile=True, autograph=False), *specs)


@needs_libtpu
def test_what_aborts_the_compiler_or_does_not_fit_is_an_error_of_that_program_alone():
    huge, small = ([tf.TensorSpec([size])] * 4 for size in (1_200_000_000, 1000))
    aborts = function_program(
        lambda x: tf.cast(x, tf.complex128) * 2, tf.TensorSpec([8], "float64")
    )
    programs = [aborts, function_program(adam, *huge), function_program(adam, *small)]
    crash, too_large, fine = tpu.compile_each(programs, "v5e:1x1")
    assert "ended its process" in str(crash) and "c128" in str(crash)
    assert "RESOURCE_EXHAUSTED" in str(too_large)
    assert fine.flops > 0 and fine.memory["argument"] >= 16_000
    with pytest.raises(tpu.CompilerError, match="8 replicas don't fit the 1 cores of v5e:1x1"):
        tpu.compile(dataclasses.replace(programs[2], replicas=8), "v5e:1x1")


@needs_libtpu
def test_a_buffer_that_is_not_donated_and_a_float64_are_seen():
    v = tf.Variable(tf.ones(256))
    program = function_program(lambda x: v.assign_add(x).shape, tf.TensorSpec([256]))
    copying = re.sub(r"(input_output_alias = )\[.*?}\]", r"\1[]", program.stablehlo, count=1)
    double = function_program(lambda x: x * 2, tf.TensorSpec([8], "float64"))
    undonated = dataclasses.replace(program, stablehlo=copying)
    good, bad, wide = tpu.compile_each([program, undonated, double], "v2:2x2")
    assert (good.assigned, good.donated) == (1, 1) and not good.uses("f64")
    assert (bad.assigned, bad.donated) == (1, 0)
    assert wide.uses("f64")
