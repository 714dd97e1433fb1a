"""k micro-steps are one step on the k times larger batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, mirrored, run, run_mirrored, small_data, variables
from probes import l2, leading, nested, trailing

import tf_decoupled as td


def means(grads, k):
    """The mean gradients of each group of k steps."""
    groups = [grads[i : i + k] for i in range(0, len(grads), k)]
    return [[np.mean(g, 0) for g in zip(*group, strict=True)] for group in groups]


def assert_close(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_k_micro_steps_equal_one_step_with_the_mean_gradient_also_in_a_graph():
    grads, shared = gradients(steps=6), dict(learning_rate=td.schedules.Cosine(0.1, 5))
    optimizer, trainable = nested.make(gradient_accumulation_steps=3, **shared), variables()
    ours = run(optimizer, trainable, grads, graph=True)
    assert_close(ours, run(nested.make(**shared), variables(), means(grads, 3)))
    assert (int(optimizer.iterations), int(optimizer.micro_steps)) == (2, 0)


def test_the_whole_step_may_be_compiled():
    grads = gradients(steps=4)
    optimizer = td.AdamW(0.1, gradient_accumulation_steps=2, global_clipnorm=0.5)
    ours = run(optimizer, variables(), grads, graph=True, jit_compile=True)
    expected = run(td.AdamW(0.1, global_clipnorm=0.5), variables(), means(grads, 2), graph=True)
    assert_close(ours, expected)


def test_a_group_that_is_not_full_can_be_flushed():
    grads, (optimizer, trainable) = (
        gradients(steps=5),
        (
            td.AdamW(0.1, gradient_accumulation_steps=3),
            variables(),
        ),
    )
    run(optimizer, trainable, grads, graph=True)
    assert (int(optimizer.iterations), int(optimizer.micro_steps)) == (1, 2)
    for _ in range(2):  # the second finds nothing to do
        optimizer.flush_accumulated()
    assert (int(optimizer.iterations), int(optimizer.micro_steps)) == (2, 0)
    expected = run(td.AdamW(0.1), variables(), means(grads, 3), graph=True)
    assert_close([v.numpy() for v in trainable], expected)


def test_k_is_live():
    grads = gradients(steps=6)
    optimizer, trainable = td.SGDW(0.1, gradient_accumulation_steps=2), variables()
    optimizer.build(trainable)
    step = tf.function(lambda gs: optimizer.apply(gs, trainable))
    for i, gs in enumerate(grads):
        if i == 2:
            optimizer.gradient_accumulation_steps = 4
        step([tf.constant(g) for g in gs])
    expected = run(td.SGDW(0.1), variables(), means(grads[:2], 2) + means(grads[2:], 4))
    assert_close([v.numpy() for v in trainable], expected)
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_variable_without_gradients_in_a_group_is_left_alone():
    (grads,) = gradients(steps=1)
    optimizer, trainable = td.AdamW(0.1, gradient_accumulation_steps=2), variables()
    optimizer.build(trainable)
    before = [v.numpy() for v in trainable]
    optimizer.apply([grads[0], None, None, grads[3]], trainable)
    optimizer.apply([grads[0], None, grads[2], grads[3]], trainable)
    moved = [bool(np.any(v.numpy() != b)) for v, b in zip(trainable, before, strict=True)]
    assert moved == [True, False, True, True]
    assert not np.any(optimizer.get_state()["v1:m"])


def test_low_precision_gradients_are_summed_in_float32():
    v = keras.Variable([0.0], dtype="bfloat16", name="v")
    optimizer = td.SGD(1.0, gradient_accumulation_steps=1024)
    optimizer.build([v])
    step = tf.function(lambda g: optimizer.apply([g], [v]))
    for _ in range(1024):
        step(tf.constant([1.0], tf.bfloat16))
    np.testing.assert_array_equal(tf.cast(v.value, tf.float32), [-1.0])


def test_an_interrupted_group_resumes_bit_for_bit():
    grads, make = gradients(steps=6), lambda: td.AdamW(0.1, gradient_accumulation_steps=3)
    whole = run(make(), variables(), grads, graph=True)
    first, second, trainable, resumed = make(), make(), variables(), variables(seed=9)
    run(first, trainable, grads[:2], graph=True)
    second.build(resumed)
    second.set_state(first.get_state())
    for v, w in zip(resumed, trainable, strict=True):
        v.assign(w)
    for a, b in zip(whole, run(second, resumed, grads[2:], graph=True), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_nan_in_a_group_skips_its_update_only():
    grads = gradients(steps=4)
    grads[1][0][0, 0] = np.nan
    optimizer = td.AdamW(0.1, gradient_accumulation_steps=2, skip_nonfinite=True)
    ours = run(optimizer, variables(), grads, graph=True)
    assert_close(ours, run(td.AdamW(0.1), variables(), means(grads[2:], 2), graph=True))
    assert (int(optimizer.iterations), int(optimizer.skipped_steps)) == (1, 1)


def test_fit_accumulates_as_with_the_larger_batch(tmp_path):
    x, y = small_data()
    weights = []
    for batch_size, k in ((32, None), (8, 4)):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile(td.AdamW(0.01, gradient_accumulation_steps=k), "mse")
        model.fit(x, y, batch_size=batch_size, epochs=2, shuffle=False, verbose=0)
        assert int(model.optimizer.iterations) == 4
        weights.append([w.numpy() for w in model.weights])
    assert_close(*weights)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert int(again.gradient_accumulation_steps) == 4


@pytest.mark.parametrize("case", [l2, trailing, leading], ids=lambda case: case.name)
def test_replicas_accumulate_in_a_graph(case):
    grads, make = gradients(steps=4), lambda: case.make(gradient_accumulation_steps=2)
    trainable, _ = run_mirrored(make, grads)
    expected = run(case.make(), variables(), means(grads, 2), graph=True)
    for v, e in zip(trainable, expected, strict=True):
        for component in mirrored().experimental_local_results(v.value):
            np.testing.assert_allclose(component, e, rtol=1e-5, atol=1e-6)


def test_replicas_reduce_once_per_group():
    with mirrored().scope():
        trainable, optimizer = variables(), td.AdamW(gradient_accumulation_steps=4)
        optimizer.build(trainable)

    @tf.function
    def step(gs):
        mirrored().run(lambda gs: optimizer.apply(gs, trainable), (gs,))

    grads = [tf.constant(g) for g in gradients(steps=1)[0]]
    graph = step.get_concrete_function(grads).graph.as_graph_def()
    reductions = [node.op for node in graph.node if node.op.startswith("Collective")]
    once = [n.op for f in graph.library.function for n in f.node_def if "CollectiveReduce" in n.op]
    assert not reductions  # outside of the condition
    assert len(once) == 2  # inside: all gradients in one batch, on each of two devices


def test_the_sums_of_replicas_are_saved_as_one_and_go_on_elsewhere():
    grads = gradients(steps=6)
    make = lambda: td.AdamW(0.1, gradient_accumulation_steps=3)  # noqa: E731
    expected = run(make(), variables(), grads, graph=True)
    trainable, optimizer = run_mirrored(make, grads[:2])
    alone = make()
    alone.build(there := variables())
    alone.set_state(optimizer.get_state())
    for v, w in zip(there, trainable, strict=True):
        v.assign(w.numpy())
    assert_close(run(alone, there, grads[2:], graph=True), expected)


def test_half_a_group_of_variables_in_a_stack_is_put_back_on_replicas():
    shapes = [(2, 3)] * 3
    make = lambda: td.SGDW(0.1, gradient_accumulation_steps=2, jit_compile=False)  # noqa: E731
    _, optimizer = run_mirrored(make, gradients(shapes, 1), shapes)
    before = optimizer.get_state()
    assert any(np.any(value) for name, value in before.items() if "sum" in name)
    optimizer.set_state(before)
    for name, value in optimizer.get_state().items():
        np.testing.assert_allclose(value, before[name], err_msg=name)
