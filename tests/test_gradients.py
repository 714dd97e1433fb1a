"""Gradients of single examples, and what is known of a Hessian without building it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import mirrored

from tf_decoupled import gradients

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=[7, 4]), RNG.normal(size=[7, 2])


def layers():
    rng = np.random.default_rng(1)
    return [tf.Variable(rng.normal(size=shape)) for shape in [(4, 3), (3,), (3, 2)]]


def loss_of(variables):
    """The squared error of a small network, of a batch."""
    kernel, bias, head = variables

    def loss_fn(batch):
        x, y = batch
        return tf.reduce_mean(tf.square(tf.tanh(x @ kernel + bias) @ head - y))

    return loss_fn


def one_by_one(variables, loss_fn=None):
    """The gradient of each example, one after the other, as one vector each."""
    loss_fn, rows = loss_fn or loss_of(variables), []
    for x, y in zip(X, Y, strict=True):
        with tf.GradientTape() as tape:
            loss = loss_fn((tf.constant(x[None]), tf.constant(y[None])))
        rows.append(joined(tape.gradient(loss, variables)))
    return np.stack(rows)


def joined(tensors):
    return np.concatenate([np.ravel(x) for x in tensors])


def clipped(rows, limit):
    return rows / np.maximum(1, np.linalg.norm(rows, axis=1, keepdims=True) / limit)


def hessian(loss_fn, variables):
    """The whole matrix, by differences of gradients."""

    def gradient(theta):
        start = 0
        for v in variables:
            v.assign(tf.reshape(theta[start : start + v.shape.num_elements()], v.shape))
            start += v.shape.num_elements()
        with tf.GradientTape() as tape:
            loss = loss_fn()
        return joined(tape.gradient(loss, variables))

    theta, width = joined(v.numpy() for v in variables), 1e-5
    steps = width * np.eye(len(theta))
    columns = [(gradient(theta + e) - gradient(theta - e)) / (2 * width) for e in steps]
    gradient(theta)
    return (np.stack(columns) + np.stack(columns).T) / 2


# Single examples.


@pytest.mark.parametrize(
    "microbatch_size,compile", [(None, True), (None, False), (1, False), (3, True), (20, False)]
)
def test_each_example_is_clipped_and_the_mean_is_taken(microbatch_size, compile):
    variables = layers()
    loss_fn, expected = loss_of(variables), one_by_one(variables)
    limit = np.median(np.linalg.norm(expected, axis=1))
    run = lambda x, y: gradients.per_example(  # noqa: E731
        loss_fn, variables, (x, y), limit, microbatch_size=microbatch_size
    )
    result = tf.function(run, jit_compile=compile)(tf.constant(X), tf.constant(Y))
    np.testing.assert_allclose(joined(result.gradients), clipped(expected, limit).mean(0))
    np.testing.assert_allclose(result.norms, np.linalg.norm(expected, axis=1))
    losses = [loss_fn((X[i : i + 1], Y[i : i + 1])) for i in range(7)]
    np.testing.assert_allclose(result.losses, losses)


def test_batches_of_unknown_length_are_taken_in_parts():
    variables = layers()
    run = lambda x, y: gradients.per_example(  # noqa: E731
        loss_of(variables), variables, (x, y), 0.1, microbatch_size=2
    )
    spec = [tf.TensorSpec([None, size], tf.float64) for size in (4, 2)]
    result = tf.function(run, input_signature=spec)(X, Y)
    expected = clipped(one_by_one(variables), 0.1).mean(0)
    np.testing.assert_allclose(joined(result.gradients), expected)
    assert result.norms.shape == 7


def test_a_limit_that_is_out_of_reach_gives_the_gradient_of_the_batch():
    variables = layers()
    result = gradients.per_example(loss_of(variables), variables, (X, Y), 1e9)
    np.testing.assert_allclose(joined(result.gradients), one_by_one(variables).mean(0))


def test_an_example_without_a_finite_gradient_counts_as_zero():
    variables, y = layers(), Y.copy()
    y[2] = np.inf
    result = gradients.per_example(loss_of(variables), variables, (X, y), 0.5)
    rows = clipped(one_by_one(variables), 0.5)
    rows[2] = 0
    np.testing.assert_allclose(joined(result.gradients), rows.mean(0))
    assert not np.isfinite(result.norms[2])


def test_keras_models_and_embeddings_have_gradients_of_examples():
    ids = np.array([[1, 2, 1], [0, 3, 3]])
    embedding, head = keras.layers.Embedding(5, 4), keras.layers.Dense(1)
    model = keras.Sequential([keras.layers.Input((3,)), embedding, keras.layers.Flatten(), head])
    variables = model.trainable_variables
    result = gradients.per_example(lambda x: tf.reduce_sum(model(x) ** 2), variables, ids, 0.7)
    rows = []
    for row in ids:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(row[None]) ** 2)
        grads = tape.gradient(loss, variables)
        rows.append(joined([tf.convert_to_tensor(g) for g in grads]))
    expected = clipped(np.stack(rows), 0.7).mean(0)
    np.testing.assert_allclose(joined(result.gradients), expected, rtol=1e-5, atol=1e-6)


def linear(n=4000):
    v = tf.Variable(np.zeros(n))
    return v, lambda x: tf.reduce_sum(x * v)


def test_the_noise_of_the_mean_is_sigma_c_over_the_lot():
    v, loss_fn = linear()
    x = tf.zeros([5, 4000], tf.float64)

    def draw(seed, **options):
        options = dict(noise_multiplier=4.0, seed=seed, **options)
        return gradients.per_example(loss_fn, [v], x, 0.5, **options).gradients[0].numpy()

    np.testing.assert_allclose(np.std(draw(1)), 4.0 * 0.5 / 5, rtol=0.05)
    np.testing.assert_allclose(np.std(draw(1, lot_size=20.0)), 4.0 * 0.5 / 20, rtol=0.05)
    np.testing.assert_array_equal(draw([1, 2]), draw(tf.constant([1, 2])))
    assert abs(np.corrcoef(draw([1, 2]), draw([1, 3]))[0, 1]) < 0.1


def test_noise_without_a_seed_raises():
    v, loss_fn = linear(3)
    x = tf.zeros([2, 3], tf.float64)
    with pytest.raises(ValueError, match=r"Noise needs a seed.*seed=None"):
        gradients.per_example(loss_fn, [v], x, 1.0, noise_multiplier=1.0)


def test_the_noise_of_replicas_adds_up_to_that_of_one_device():
    strategy = mirrored()
    with strategy.scope():
        v = tf.Variable(np.zeros(4000))
    step = lambda: gradients.per_example(  # noqa: E731
        lambda x: tf.reduce_sum(x * v),
        [v],
        tf.zeros([5, 4000], tf.float64),
        1.0,
        noise_multiplier=2.0,
        seed=3,
    ).gradients[0]
    a, b = strategy.experimental_local_results(tf.function(lambda: strategy.run(step))())
    np.testing.assert_allclose(np.std(a + b), 2.0 / 10, rtol=0.05)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


def test_the_fisher_diagonal_is_the_mean_square_of_examples():
    variables = layers()
    ours = gradients.fisher_diagonal(loss_of(variables), variables, (X, Y))
    np.testing.assert_allclose(joined(ours), np.mean(one_by_one(variables) ** 2, 0))


# The Hessian.


def problem():
    """A loss of no argument, its variables, and its Hessian."""
    variables = layers()
    of_batch = loss_of(variables)
    loss_fn = lambda: of_batch((X, Y))  # noqa: E731
    return loss_fn, variables, hessian(loss_fn, variables)


def test_products_with_the_hessian_are_those_of_the_matrix():
    loss_fn, variables, matrix = problem()
    vectors = [RNG.normal(size=v.shape) for v in variables]
    ours = gradients.hessian_vector_product(loss_fn, variables, vectors)
    np.testing.assert_allclose(joined(ours), matrix @ joined(vectors), rtol=1e-6, atol=1e-8)


def test_the_exact_diagonal_is_that_of_the_matrix():
    loss_fn, variables, matrix = problem()
    ours = gradients.hessian_diagonal(loss_fn, variables)
    np.testing.assert_allclose(joined(ours), np.diag(matrix), rtol=1e-6, atol=1e-8)
    assert [x.shape for x in ours] == [v.shape for v in variables]


def test_a_variable_that_is_not_curved_has_a_diagonal_of_zeros():
    v, w = tf.Variable([1.0, 2.0]), tf.Variable([3.0])
    loss_fn = lambda: tf.reduce_sum(v**3) + 5 * w[0]  # noqa: E731
    for ours in (
        gradients.hessian_diagonal(loss_fn, [v, w]),
        gradients.hutchinson(loss_fn, [v, w], 0),
    ):
        np.testing.assert_allclose(joined(ours), [6.0, 12.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize("compile", [False, True])
def test_with_signs_it_is_exact_for_a_diagonal_hessian(compile):
    d = [tf.constant([[1.0, -2.0, 3.0]]), tf.constant([0.5, 4.0])]
    variables = [tf.Variable(tf.ones_like(x)) for x in d]
    loss_fn = lambda: tf.add_n([tf.reduce_sum(a * v**2) / 2 for a, v in zip(d, variables)])  # noqa: B905, E731
    run = tf.function(
        lambda seed: gradients.hutchinson(loss_fn, variables, seed), jit_compile=compile
    )
    for seed in (0, 1):
        np.testing.assert_allclose(joined(run(tf.constant(seed))), joined(d), rtol=1e-6)


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_the_mean_of_many_estimates_is_the_diagonal(distribution):
    loss_fn, variables, matrix = problem()
    run = tf.function(
        lambda seed: gradients.hutchinson(
            loss_fn, variables, seed, samples=2, distribution=distribution
        )
    )
    draws = np.stack([joined(run(tf.constant([7, step]))) for step in range(400)])
    errors = draws.std(0) / 20 + 1e-9
    assert np.all(np.abs(draws.mean(0) - np.diag(matrix)) < 4.5 * errors)


def test_every_seed_and_variable_has_its_own_probes_and_the_same_seed_the_same():
    n = 2000
    variables = [tf.Variable(tf.zeros([n])), tf.Variable(tf.zeros([n]))]
    # H z of a loss whose Hessian is all ones within each variable, times z, tells z but for a sign.
    loss_fn = lambda: tf.add_n([tf.reduce_sum(v) ** 2 for v in variables])  # noqa: E731
    a, b = (x.numpy() for x in gradients.hutchinson(loss_fn, variables, [3, 1]))
    again, _ = gradients.hutchinson(loss_fn, variables, [3, 1])
    other, _ = gradients.hutchinson(loss_fn, variables, [3, 2])
    np.testing.assert_array_equal(a, again)
    for x in (b, other.numpy()):
        assert abs(np.mean(np.sign(a) * np.sign(x))) < 0.1
    assert abs(np.mean(np.sign(a))) < 0.1 and len(np.unique(np.abs(a))) == 1


def test_the_sum_over_replicas_belongs_to_the_sum_of_their_losses():
    strategy, d = mirrored(), [[1.0, 2.0], [30.0, 40.0]]
    with strategy.scope():
        v = tf.Variable([1.0, 1.0])
    scale = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(d[context.replica_id_in_sync_group])
    )
    step = lambda a: gradients.hutchinson(lambda: tf.reduce_sum(a * v**2) / 2, [v], 5)[0]  # noqa: E731
    total = strategy.reduce("SUM", tf.function(lambda: strategy.run(step, (scale,)))(), axis=None)
    np.testing.assert_allclose(total, [31.0, 42.0], rtol=1e-6)


def classifier():
    v = tf.Variable(np.random.default_rng(3).normal(size=[4, 3]))
    return v, lambda: tf.constant(X) @ v


def test_gauss_newton_is_in_the_mean_the_diagonal_of_the_hessian_of_a_linear_classifier():
    v, logits_fn = classifier()
    labels = tf.zeros([7], tf.int32)
    loss = lambda: tf.reduce_mean(  # noqa: E731
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits_fn())
    )
    exact = np.diag(hessian(loss, [v])).reshape(4, 3)
    run = tf.function(lambda seed: gradients.gauss_newton_bartlett(logits_fn, [v], seed)[0])
    draws = np.stack([run(tf.constant([1, step])) for step in range(500)])
    assert np.all(draws >= 0)
    assert np.all(np.abs(draws.mean(0) - exact) < 4.5 * draws.std(0) / np.sqrt(500))


def test_padding_does_not_count_for_gauss_newton():
    v, logits_fn = classifier()
    weights = tf.constant([1.0, 1, 1, 0, 0, 0, 0])
    long = lambda: tf.concat([logits_fn()[:3], logits_fn()[3:] * 1e3], 0)  # noqa: E731
    (ours,) = gradients.gauss_newton_bartlett(long, [v], 2, weights=weights)
    (plain,) = gradients.gauss_newton_bartlett(logits_fn, [v], 2, weights=weights)
    np.testing.assert_allclose(ours, plain)
    (nothing,) = gradients.gauss_newton_bartlett(logits_fn, [v], 2, weights=0 * weights)
    assert not np.any(nothing)


# Eigenvalues.


def of_matrix(matrix, shapes):
    """A quadratic with this Hessian."""
    rng = np.random.default_rng(2)
    variables = [tf.Variable(rng.normal(size=shape)) for shape in shapes]

    def loss_fn():
        theta = tf.concat([tf.reshape(v, [-1]) for v in variables], 0)
        return tf.tensordot(theta, tf.linalg.matvec(tf.constant(matrix), theta), 1) / 2

    return loss_fn, variables


def symmetric(values):
    q, _ = np.linalg.qr(np.random.default_rng(4).normal(size=[len(values)] * 2))
    return (q * values) @ q.T


SPECTRA = {
    "apart": [-9.0, 8.0, 5.0, 1.0, 0.5, 0.1],
    "twice": [3.0, 3.0, 3.0, 1.0, 1.0, -2.0],
    "singular": [4.0, 2.0, 0.0, 0.0, 0.0, 0.0],
    "zero": [0.0] * 6,
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest"])
def test_eigenvalues_are_those_of_numpy_also_where_they_coincide(name, which):
    matrix = symmetric(SPECTRA[name])
    loss_fn, variables = of_matrix(matrix, [(2, 2), (2,)])
    found = gradients.hessian_eigenvalues(loss_fn, variables, 6, which=which, seed=3)
    key = {"magnitude": lambda x: -abs(x), "largest": lambda x: -x, "smallest": lambda x: x}[which]
    expected = sorted(SPECTRA[name], key=key)
    np.testing.assert_allclose(found.values, expected, atol=1e-10)
    np.testing.assert_allclose(found.residuals, np.zeros(6), atol=1e-9)
    vectors = np.stack([joined([v[i] for v in found.vectors]) for i in range(6)])
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(6), atol=1e-9)
    times = np.asarray(expected)[:, None] * vectors
    np.testing.assert_allclose(vectors @ matrix, times, atol=1e-9)


@pytest.mark.parametrize("compile", [False, True])
def test_few_iterations_find_the_outermost_within_their_residuals(compile):
    values = np.concatenate([np.linspace(-1, 1, 38), [20.0, -10.0]])
    loss_fn, variables = of_matrix(symmetric(values), [(5, 4), (20,)])
    find = lambda: gradients.hessian_eigenvalues(loss_fn, variables, 2, iterations=12)  # noqa: E731
    found = tf.function(find, jit_compile=compile)()
    np.testing.assert_allclose(found.values, [20.0, -10.0], rtol=1e-6)
    assert np.all(np.abs(found.values - [20.0, -10.0]) <= found.residuals + 1e-9)
    assert np.all(found.residuals < 1e-2)


def test_in_float32_a_network_s_sharpest_direction_is_found():
    _, variables, matrix = problem()
    low = [tf.Variable(tf.cast(v, tf.float32)) for v in variables]
    of_batch = loss_of(low)
    batch = (tf.constant(X, tf.float32), tf.constant(Y, tf.float32))
    found = gradients.hessian_eigenvalues(lambda: of_batch(batch), low, 3)
    expected = sorted(np.linalg.eigvalsh(matrix), key=abs, reverse=True)[:3]
    np.testing.assert_allclose(found.values, expected, rtol=1e-4)


@pytest.mark.parametrize("k,iterations", [(0, 30), (7, 30), (3, 2)])
def test_more_eigenvalues_than_can_be_found_raise(k, iterations):
    loss_fn, variables = of_matrix(np.eye(6), [(6,)])
    with pytest.raises(ValueError, match=rf"`k` must be at least 1.*k={k}"):
        gradients.hessian_eigenvalues(loss_fn, variables, k, iterations=iterations)


def test_logits_of_a_single_class_raise():
    v = tf.Variable(np.ones([4, 1]))
    with pytest.raises(ValueError, match=r"at least two classes.*\(7, 1\)"):
        gradients.gauss_newton_bartlett(lambda: tf.constant(X) @ v, [v], 0)
