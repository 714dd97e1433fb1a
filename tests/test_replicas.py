"""Replicas give the weights of one device, whatever the clip, the context and the build."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, mirrored, run, small_data, variables
from probes import l2, leading, nested

import tf_decoupled as td
from tf_decoupled.engine import replicas


def train(strategy, make, grads, built_before, made_inside=True):
    """Gives replica r the share (1/4, 3/4)[r] of each gradient; the variables at the end."""
    with strategy.scope():
        trainable = variables()
        optimizer = make() if made_inside else None
    optimizer = optimizer or make()
    if built_before:
        optimizer.build(trainable)

    def shares(g):
        def share(context):
            if context.num_replicas_in_sync == 1:
                return g
            return g * (0.25 + 0.5 * context.replica_id_in_sync_group)

        return strategy.experimental_distribute_values_from_function(share)

    @tf.function
    def step(gs):
        local = [shares(g) for g in gs]
        strategy.run(lambda gs: optimizer.apply(gs, trainable), args=(local,))

    for gs in grads:
        step([tf.constant(g) for g in gs])
    assert int(optimizer.iterations.numpy()) == len(grads)
    return trainable


@pytest.mark.parametrize("case", [l2, nested, leading], ids=lambda case: case.name)
def test_two_replicas_built_inside_the_step_equal_one_device(case):
    grads, shared = gradients(steps=4), dict(weight_decay=0.1, global_clipnorm=0.5)
    strategy = mirrored()
    ours = train(strategy, lambda: case.make(**shared), grads, built_before=False)
    expected = run(case.make(**shared), variables(), grads, graph=True)
    for v, e in zip(ours, expected, strict=True):
        for component in strategy.experimental_local_results(v.value):
            np.testing.assert_allclose(component, e, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
@pytest.mark.parametrize("made_inside", [True, False])
def test_gradients_are_reduced_before_they_are_clipped(clip, made_inside):
    grads, make = gradients(steps=3), lambda: td.AdamW(0.1, **{clip: 0.1})
    ours = train(mirrored(), make, grads, built_before=True, made_inside=made_inside)
    for v, e in zip(ours, run(make(), variables(), grads, graph=True), strict=True):
        np.testing.assert_allclose(v.numpy(), e, rtol=1e-6, atol=1e-6)


def test_large_small_and_sparse_tensors_are_summed_each_in_its_place():
    shapes = [(2,), (replicas.LARGE // 4,), (), (3, replicas.LARGE // 8), (1,)]
    rows = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([1]), tf.constant([4, 2]))

    def summed():
        tensors = [tf.fill(shape, float(i)) for i, shape in enumerate(shapes)]
        return [tf.convert_to_tensor(t) for t in replicas.all_reduce([*tensors, rows])]

    both = tf.function(lambda: mirrored().run(summed))()
    *dense, sparse = (mirrored().experimental_local_results(each)[1].numpy() for each in both)
    for i, (array, shape) in enumerate(zip(dense, shapes, strict=True)):
        np.testing.assert_array_equal(array, np.full(shape, 2.0 * i))
    np.testing.assert_array_equal(sparse, [[0, 0], [2, 2], [0, 0], [0, 0]])


def test_a_large_gradient_is_summed_without_a_copy_in_one_array_with_others():
    shapes = [(8,), (replicas.LARGE // 4,), (4,)]

    @tf.function
    def step():
        return mirrored().run(lambda: replicas.all_reduce([tf.ones(shape) for shape in shapes]))

    operations = step.get_concrete_function().graph.get_operations()
    joined = [op.outputs[0].shape.num_elements() for op in operations if op.type == "ConcatV2"]
    assert joined == [12, 12]  # on each replica


def test_a_gradient_of_10_and_minus_9_is_clipped_to_1():
    strategy = mirrored()
    with strategy.scope():
        v, optimizer = keras.Variable([0.0]), td.SGD(1.0, clipnorm=1.0)
        optimizer.build([v])

    def step():
        r = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([tf.where(tf.equal(r, 0), [30.0], [-9.0])], [v])

    tf.function(lambda: strategy.run(step))()
    np.testing.assert_allclose(v.numpy(), [-1.0])


@pytest.mark.parametrize(
    "strategy",
    [
        lambda: tf.distribute.OneDeviceStrategy("CPU:0"),
        lambda: tf.distribute.OneDeviceStrategy("CPU:1"),
        tf.distribute.MultiWorkerMirroredStrategy,
    ],
    ids=["CPU:0", "CPU:1", "one worker"],
)
def test_a_strategy_of_one_replica_equals_none(strategy):
    grads, make = gradients(steps=3), lambda: td.AdamW(0.1)
    ours = train(strategy(), make, grads, built_before=False)
    for v, e in zip(ours, run(make(), variables(), grads, graph=True), strict=True):
        np.testing.assert_allclose(v.numpy(), e, rtol=1e-6, atol=1e-6)


def test_apply_works_in_the_cross_replica_context():
    grads = gradients(steps=3)
    with mirrored().scope():
        ours = variables()
        optimizer = td.AdamW(0.1)
        for gs in grads:
            optimizer.apply([tf.constant(g) for g in gs], ours)
    for v, e in zip(ours, run(td.AdamW(0.1), variables(), grads), strict=True):
        np.testing.assert_allclose(v.numpy(), e, rtol=1e-6, atol=1e-6)


def test_fit_under_replicas_saves_and_goes_on_without_them(tmp_path):
    x, y = small_data()

    def fitted(strategy):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        with strategy.scope():
            layers = [
                keras.layers.Input((4,)),
                keras.layers.Dense(8, "relu"),
                keras.layers.Dense(1),
            ]
            model = keras.Sequential(layers)
            optimizer = td.Lookahead(td.AdamW(0.01, clipnorm=0.5), sync_period=2)
            model.compile(optimizer, "mse")
        model.fit(x, y, epochs=2, batch_size=16, verbose=0, shuffle=False)
        return model

    one, two = fitted(tf.distribute.get_strategy()), fitted(mirrored())
    two.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for model in (one, two, loaded):
        model.fit(x, y, batch_size=16, verbose=0, shuffle=False)
    for a, b, c in zip(one.weights, two.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(c.numpy(), a.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.xla
def test_the_update_is_compiled_once_per_device():
    strategy = mirrored()
    with strategy.scope():
        trainable, optimizer = variables(), td.AdamW()
        optimizer.build(trainable)
    grads = [tf.constant(g) for g in gradients(steps=1)[0]]

    @tf.function
    def step(gs):
        strategy.run(lambda gs: optimizer.apply(gs, trainable), (gs,))

    graph = step.get_concrete_function(grads).graph.as_graph_def()
    assert sum(f.attr["_XlaMustCompile"].b for f in graph.library.function) == 2


def test_strategies_that_are_not_supported_yet_say_so():
    strategy = tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"], "CPU:0")
    with strategy.scope():
        (v,), optimizer = variables([(2,)]), td.AdamW()
        with pytest.raises(NotImplementedError, match="Received: CentralStorageStrategy"):
            strategy.run(lambda: optimizer.apply([tf.ones(2)], [v]))
