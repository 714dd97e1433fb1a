"""SAM, ASAM and GSAM: the gradient at the worst point nearby."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import mirrored

import tf_decoupled as td
from tf_decoupled.gradients import gsam_rho, sam

RNG = np.random.default_rng(0)
A = np.diag([1.0, 2.0, 3.0, 4.0, 5.0]) + 0.3
THETA = RNG.normal(size=5)
RHO = 0.1


def quadratic(dtype="float64"):
    """½ θᵀ A θ of two variables, of two and three numbers."""
    variables = [tf.Variable(THETA[:2], dtype=dtype), tf.Variable(THETA[2:, None], dtype=dtype)]

    def loss_fn():
        theta = tf.concat([tf.reshape(v, [-1]) for v in variables], 0)
        return tf.tensordot(theta, tf.linalg.matvec(tf.constant(A, dtype), theta), 1) / 2

    return variables, loss_fn


def joined(grads):
    return np.concatenate([np.ravel(g) for g in grads])


def graph(function):
    return tf.function(function)()


def compiled(function):
    return tf.function(function, jit_compile=True)()


def eager(function):
    return function()


@pytest.mark.parametrize("run", [eager, graph, compiled])
def test_of_a_quadratic_it_is_the_closed_form(run):
    variables, loss_fn = quadratic()
    loss, grads = run(lambda: sam(loss_fn, variables, RHO))
    g = A @ THETA
    expected = A @ (THETA + RHO * g / np.linalg.norm(g))
    np.testing.assert_allclose(joined(grads), expected, rtol=1e-9)
    np.testing.assert_allclose(loss, THETA @ g / 2, rtol=1e-12)
    assert [g.shape for g in grads] == [(2,), (3, 1)]


@pytest.mark.parametrize("run", [eager, graph, compiled])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_weights_come_back_bit_for_bit(run, dtype):
    variables, loss_fn = quadratic(dtype)
    before = [v.numpy() for v in variables]
    run(lambda: sam(loss_fn, variables, 0.37, adaptive=True, alpha=0.3))
    for v, b in zip(variables, before, strict=True):
        np.testing.assert_array_equal(v.numpy(), b)


def seen_by_the_second_pass(rho=RHO, **options):
    """θ + e."""
    variables, loss_fn = quadratic()
    points = []

    def noted():
        points.append(joined([v.numpy() for v in variables]))
        return loss_fn()

    sam(noted, variables, rho, **options)
    first, second = points
    np.testing.assert_array_equal(first, THETA)
    return second


def test_the_perturbation_has_length_rho_over_all_variables():
    e = seen_by_the_second_pass() - THETA
    np.testing.assert_allclose(np.linalg.norm(e), RHO, rtol=1e-9)
    np.testing.assert_allclose(e / RHO, A @ THETA / np.linalg.norm(A @ THETA), rtol=1e-9)


def test_that_of_asam_is_larger_where_weights_are_and_vectors_count_whole():
    e = seen_by_the_second_pass(adaptive=True, eta=0.2) - THETA
    t = np.concatenate([np.ones(2), np.abs(THETA[2:]) + 0.2])
    g = A @ THETA
    np.testing.assert_allclose(e, RHO * t**2 * g / np.linalg.norm(t * g), rtol=1e-9)


def two_layers(c):
    rng = np.random.default_rng(1)
    w = [tf.Variable(c * rng.normal(size=[4, 3])), tf.Variable(rng.normal(size=[3, 2]) / c)]
    x, y = rng.normal(size=[8, 4]), rng.normal(size=[8, 2])
    return w, lambda: tf.reduce_mean(tf.square(tf.constant(x) @ w[0] @ w[1] - y))


@pytest.mark.parametrize("adaptive", [True, False])
def test_asam_does_not_see_how_two_layers_share_their_scale_and_sam_does(adaptive):
    changes = []
    for c in (1.0, 7.0):
        w, loss_fn = two_layers(c)
        losses = []
        noted = lambda: losses.append(loss_fn()) or losses[-1]  # noqa: B023, E731
        _, (first, second) = sam(noted, w, 0.1, adaptive=adaptive, eta=0.0)
        changes.append([losses[1], *np.ravel(c * first), *np.ravel(second / c)])
    assert np.allclose(*changes, rtol=1e-8) == adaptive


def test_without_rho_it_is_the_gradient_and_any_optimizer_s_step_bit_for_bit():
    (ours, loss_fn), (theirs, other) = quadratic("float32"), quadratic("float32")
    optimizers = [td.AdamW(0.1, clipnorm=0.5), td.AdamW(0.1, clipnorm=0.5)]
    for _ in range(3):
        optimizers[0].apply(sam(loss_fn, ours, 0.0)[1], ours)
        with tf.GradientTape() as tape:
            loss = other()
        optimizers[1].apply(tape.gradient(loss, theirs), theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_gsam_is_sam_less_the_ascent_at_right_angles():
    variables, loss_fn = quadratic()
    _, same = sam(loss_fn, variables, RHO, alpha=tf.constant(0.0, tf.float64))
    second = joined(sam(loss_fn, variables, RHO)[1])
    np.testing.assert_array_equal(joined(same), second)
    ours = joined(sam(loss_fn, variables, RHO, alpha=0.4)[1])
    g = A @ THETA
    across = g - (g @ second) / (second @ second) * second
    assert np.linalg.norm(across) > 1e-3
    np.testing.assert_allclose(ours, second - 0.4 * across, rtol=1e-9)
    np.testing.assert_allclose(ours @ second, second @ second, rtol=1e-9)


def test_rho_of_gsam_is_as_large_as_the_rate():
    rates = tf.constant([0.1, 0.3, 0.5])
    rhos = gsam_rho(rates, rho_min=0.01, rho_max=0.05, rate_min=0.1, rate_max=0.5)
    np.testing.assert_allclose(rhos, [0.01, 0.03, 0.05], rtol=1e-6)


def test_the_scale_of_the_loss_does_not_count_for_the_perturbation():
    variables, loss_fn = quadratic()
    _, grads = sam(loss_fn, variables, RHO)
    _, scaled = sam(lambda: 2.0**15 * loss_fn(), variables, RHO)
    np.testing.assert_allclose(joined(scaled), 2.0**15 * joined(grads), rtol=1e-9)


def test_what_the_loss_function_returns_beside_the_loss_is_of_the_first_pass():
    variables, loss_fn = quadratic()
    (loss, (theta,)), _ = sam(lambda: (loss_fn(), [tf.identity(variables[0])]), variables, RHO)
    np.testing.assert_array_equal(theta, THETA[:2])
    np.testing.assert_allclose(loss, THETA @ A @ THETA / 2)


def test_a_variable_without_a_gradient_stays_out():
    variables, loss_fn = quadratic()
    alone = tf.Variable([1e9])
    _, grads = sam(loss_fn, [*variables, alone], RHO, alpha=0.1)
    _, expected = sam(loss_fn, variables, RHO, alpha=0.1)
    assert grads[2] is None
    np.testing.assert_array_equal(joined(grads[:2]), joined(expected))
    assert sam(lambda: tf.constant(1.0), [alone], RHO)[1] == [None]


def test_a_gradient_of_zero_moves_nothing():
    v = tf.Variable([0.0, 0.0])
    loss, (g,) = sam(lambda: tf.reduce_sum(v * v), [v], RHO, adaptive=True, alpha=0.5)
    np.testing.assert_array_equal(g, [0.0, 0.0])
    assert loss == 0


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_gradient_that_is_not_finite_shows_and_perturbs_nothing(bad):
    v, w = tf.Variable([1.0, 2.0]), tf.Variable([[3.0]])
    passes = []

    def loss_fn():
        passes.append(v.numpy())
        return tf.reduce_sum(v * [1.0, bad if len(passes) == 1 else 1.0]) + tf.reduce_sum(w * w)

    _, grads = sam(loss_fn, [v, w], RHO)
    assert all(np.all(np.isnan(g)) for g in grads)
    np.testing.assert_array_equal(passes[1], passes[0])
    np.testing.assert_array_equal(v.numpy(), [1.0, 2.0])


def test_repeated_rows_of_a_sparse_gradient_are_summed():
    table = RNG.normal(size=[6, 3])
    rows = tf.constant([1, 4, 1])

    def gradient(read):
        v = tf.Variable(table)
        _, (g,) = sam(lambda: tf.reduce_sum(tf.square(read(v))), [v], RHO, adaptive=True)
        return g

    sparse = gradient(lambda v: tf.gather(v, rows))
    assert isinstance(sparse, tf.IndexedSlices)
    dense = gradient(lambda v: tf.one_hot(rows, 6, dtype=v.dtype) @ v)
    np.testing.assert_allclose(tf.convert_to_tensor(sparse), dense, rtol=1e-9)


def network():
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    return keras.Sequential([keras.layers.Input((3,)), *layers, keras.layers.Dense(1)])


def test_batch_statistics_are_updated_once_and_dropout_is_the_same_in_both_passes():
    model, x = network(), tf.constant(RNG.normal(size=[16, 3]), tf.float32)
    state = model.non_trainable_variables
    start = [v.numpy() for v in state]
    dropped = []

    def loss_fn():
        y = model.layers[2](model.layers[0](x), training=True)
        dropped.append(y.numpy() == 0)
        return tf.reduce_mean(model(x, training=True) ** 2)

    loss_fn()
    once = [v.numpy() for v in state]
    for v, value in zip(state, start, strict=True):
        v.assign(value)
    sam(loss_fn, model.trainable_variables, RHO, state=state)
    for v, value in zip(state, once, strict=True):
        np.testing.assert_array_equal(v.numpy(), value)
    np.testing.assert_array_equal(dropped[1], dropped[2])
    assert any(np.any(a != b) for a, b in zip(start, once, strict=True))


def test_each_replica_climbs_by_its_own_part_and_all_come_back():
    strategy = mirrored()
    with strategy.scope():
        v = keras.Variable([1.0, 2.0])
    scale = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant([[1.0, 0.0], [0.0, 1.0]][context.replica_id_in_sync_group])
    )

    def step(a):
        _, (g,) = sam(lambda: tf.reduce_sum(a * v**2) / 2, [v], 0.5)
        return g

    parts = tf.function(lambda: strategy.run(step, (scale,)))()
    first, second = strategy.experimental_local_results(parts)
    np.testing.assert_allclose(first, [1.5, 0.0], rtol=1e-6)
    np.testing.assert_allclose(second, [0.0, 2.5], rtol=1e-6)
    for part in strategy.experimental_local_results(v.value):
        np.testing.assert_array_equal(part, [1.0, 2.0])


def test_weights_come_back_where_the_second_pass_fails():
    v = tf.Variable([1.0])
    passes = []

    def loss_fn():
        passes.append(1)
        if len(passes) == 2:
            raise OSError("out of memory")
        return tf.reduce_sum(v * v)

    with pytest.raises(OSError, match="out of memory"):
        sam(loss_fn, [v], RHO)
    np.testing.assert_array_equal(v.numpy(), [1.0])
