"""L-BFGS on the full batch."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import mirrored

import tf_decoupled as td

RNG = np.random.default_rng(0)


def quadratic(n=8, dtype="float64"):
    """½ (θ − θ*)ᵀ A (θ − θ*), and θ*."""
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=[n, n]))
    matrix = tf.constant((q * np.linspace(1, 10, n)) @ q.T, dtype)
    goal = tf.constant(np.random.default_rng(2).normal(size=n), dtype)
    v = tf.Variable(tf.zeros([n], dtype))

    def loss_fn():
        apart = v - goal
        return tf.tensordot(apart, tf.linalg.matvec(matrix, apart), 1) / 2

    return v, loss_fn, goal


def path(loss_fn, v, **options):
    """What was done, and where the variable was at the start and after each step."""
    points = [v.numpy()]

    def callback(*progress):
        tf.py_function(lambda x: points.append(x.numpy()), [tf.identity(v)], [])

    return td.minimize_lbfgs(loss_fn, [v], callback=callback, **options), np.stack(points)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_quadratic_of_n_dimensions_takes_few_steps(jit_compile):
    v, loss_fn, goal = quadratic()
    done = td.minimize_lbfgs(
        loss_fn, [v], memory=8, gradient_tolerance=1e-9, jit_compile=jit_compile
    )
    np.testing.assert_allclose(v.numpy(), goal, atol=1e-9)
    assert done.converged and done.reason == "gradient"
    assert done.iterations <= 25 and done.evaluations <= 40
    assert done.gradient_norm <= 1e-9 and abs(done.loss) < 1e-16


def conjugate_gradients(matrix, x, g, steps):
    """The points of the method of conjugate gradients."""
    p = -g
    for _ in range(steps):
        a = (g @ g) / (p @ matrix @ p)
        x, before = x + a * p, g
        g = g + a * (matrix @ p)
        p = -g + (g @ g) / (before @ before) * p
        yield x


def test_with_an_exact_line_search_it_is_the_method_of_conjugate_gradients():
    matrix = np.diag([1.0, 3.0, 4.0, 9.0])
    start = np.array([1.0, -2.0, 3.0, 1.0])
    v = tf.Variable(start)
    loss_fn = lambda: tf.tensordot(v, tf.linalg.matvec(tf.constant(matrix), v), 1) / 2  # noqa: E731
    # c₂ this small accepts nothing but the minimum of the line.
    options = dict(gradient_tolerance=1e-12, c1=1e-9, c2=1e-8, max_line_search=100)
    _, points = path(loss_fn, v, max_iterations=4, **options)
    theirs = conjugate_gradients(matrix, start, matrix @ start, 4)
    np.testing.assert_allclose(points[1:], list(theirs), atol=1e-6)


def rosenbrock(x):
    return tf.reduce_sum(100 * tf.square(x[1:] - x[:-1] ** 2) + tf.square(1 - x[:-1]))


@pytest.mark.parametrize("n", [2, 10])
def test_rosenbrock_s_valley_is_followed_to_its_end(n):
    v = tf.Variable(np.where(np.arange(n) % 2, 1.0, -1.2))
    done = td.minimize_lbfgs(lambda: rosenbrock(v), [v], gradient_tolerance=1e-9)
    np.testing.assert_allclose(v.numpy(), np.ones(n), atol=1e-8)
    assert done.converged and done.evaluations < 60 * n


def test_several_variables_are_their_concatenation():
    start = RNG.normal(size=6)
    one = tf.Variable(start)
    several = [tf.Variable(start[:4].reshape(2, 2)), tf.Variable(start[4]), tf.Variable(start[5:])]
    joined = lambda: tf.concat([tf.reshape(v, [-1]) for v in several], 0)  # noqa: E731
    options = dict(max_iterations=12)
    first = td.minimize_lbfgs(lambda: rosenbrock(one), [one], **options)
    second = td.minimize_lbfgs(lambda: rosenbrock(joined()), several, **options)
    np.testing.assert_allclose(joined(), one, rtol=1e-9)
    assert first.evaluations == second.evaluations


def test_each_step_satisfies_the_strong_wolfe_conditions():
    v, c1, c2 = tf.Variable(np.array([-1.2, 1.0])), 1e-4, 0.5
    _, points = path(lambda: rosenbrock(v), v, max_iterations=15, c1=c1, c2=c2)

    def at(x):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = rosenbrock(x)
        return loss.numpy(), tape.gradient(loss, x).numpy()

    assert len(points) == 16
    for before, after in itertools.pairwise(points):
        (loss, g), (next_loss, next_g), step = at(before), at(after), after - before
        assert next_loss <= loss + c1 * g @ step
        assert abs(next_g @ step) <= c2 * abs(g @ step)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_where_the_loss_is_no_number_the_step_is_too_long(bad):
    v = tf.Variable(np.array([3.0]))

    def loss_fn():  # √ beyond 0, of which the minimum is at 0.01
        x = v[0]
        return tf.where(x > 0, x - 0.01 * tf.math.log(tf.maximum(x, 1e-300)), bad)

    done = td.minimize_lbfgs(loss_fn, [v], gradient_tolerance=1e-9)
    np.testing.assert_allclose(v.numpy(), [0.01], rtol=1e-6)
    assert done.converged


def test_a_start_that_is_not_finite_is_left_as_it_is():
    v = tf.Variable([-1.0])
    done = td.minimize_lbfgs(lambda: tf.math.log(v[0]), [v])
    assert (done.reason, done.converged, done.iterations) == ("not finite", False, 0)
    np.testing.assert_array_equal(v.numpy(), [-1.0])


def test_a_start_at_the_minimum_takes_one_evaluation():
    v, loss_fn, goal = quadratic()
    v.assign(goal)
    done = td.minimize_lbfgs(loss_fn, [v])
    assert (done.reason, done.iterations, done.evaluations) == ("gradient", 0, 1)


def test_the_callback_sees_each_step_and_ends_it():
    v, loss_fn, _ = quadratic()
    seen = []

    def note(*progress):
        seen.append([x.numpy() for x in progress])

    def callback(*progress):
        tf.py_function(note, [*progress, tf.identity(v)], [])
        return progress[0] >= 3

    done = td.minimize_lbfgs(loss_fn, [v], callback=callback)
    assert (done.reason, done.iterations, done.converged) == ("callback", 3, False)
    iterations, losses, norms, values = zip(*seen, strict=True)
    assert iterations == (1, 2, 3) and losses[0] > losses[1] > losses[2]
    np.testing.assert_array_equal(values[-1], v.numpy())
    assert (losses[-1], norms[-1]) == (done.loss, done.gradient_norm)


def test_a_line_search_that_is_cut_short_takes_its_best_point():
    v, seen = tf.Variable(np.array([0.0])), []
    wall = lambda x: tf.where(x < 1.5, -x, 100 * (x - 1.5) ** 2 - 1.5)[0]  # noqa: E731

    def callback(*progress):
        tf.py_function(lambda x: seen.append(x.numpy()), [tf.identity(v)], [])

    options = dict(max_line_search=2, max_iterations=1)  # tries 1, and 2, which is worse
    done = td.minimize_lbfgs(lambda: wall(v), [v], callback=callback, **options)
    np.testing.assert_array_equal([*seen, v.numpy()], [[1.0], [1.0]])
    assert done.loss == -1.0


def test_a_callback_that_says_nothing_stops_nothing():
    v, loss_fn, _ = quadratic()
    assert td.minimize_lbfgs(loss_fn, [v], callback=lambda *progress: None).converged


@pytest.mark.parametrize(
    "options,reason",
    [
        (dict(max_iterations=2), "iterations"),
        (dict(max_evaluations=1), "evaluations"),
        (dict(max_evaluations=3), "evaluations"),
        (dict(loss_tolerance=0.5), "loss"),
    ],
)
def test_it_says_why_it_stopped(options, reason):
    v = tf.Variable(np.array([-1.2, 1.0]))
    done = td.minimize_lbfgs(lambda: rosenbrock(v), [v], **options)
    assert done.reason == reason and done.converged == (reason == "loss")
    assert done.loss == rosenbrock(v).numpy()
    assert done.evaluations <= options.get("max_evaluations", 100)


def test_in_float32_it_ends_where_rounding_leaves_nothing_to_gain():
    v, loss_fn, goal = quadratic(dtype="float32")
    done = td.minimize_lbfgs(lambda: loss_fn() + 1000.0, [v], gradient_tolerance=0.0)
    np.testing.assert_allclose(v.numpy(), goal, atol=1e-2)
    assert done.evaluations < 2000


def test_a_loss_without_an_end_does_not_go_on_for_ever():
    v = tf.Variable([1.0])
    done = td.minimize_lbfgs(lambda: -v[0], [v], max_iterations=3)
    assert not done.converged and np.all(np.isfinite(v.numpy()))


def test_a_physics_informed_network_solves_its_equation():
    """u'' = −π² sin(π x), u(0) = u(1) = 0, of which u = sin(π x) is the solution."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(10, "tanh", dtype="float64") for _ in range(2)]
    model = keras.Sequential([keras.layers.Input((1,), dtype="float64"), *layers])
    model.add(keras.layers.Dense(1, dtype="float64"))
    x = tf.constant(np.linspace(0, 1, 20)[:, None])

    def residuals():
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                u = model(x)
            slope = inner.gradient(u, x)
        force = np.pi**2 * tf.sin(np.pi * x)
        ends = tf.reduce_sum(tf.square(tf.gather(u, [0, 19])))
        return tf.reduce_mean(tf.square(outer.gradient(slope, x) + force)) + 100 * ends

    done = td.minimize_lbfgs(residuals, model.trainable_variables, max_iterations=300)
    assert done.loss < 1e-3 and done.iterations > 20
    np.testing.assert_allclose(model(x), np.sin(np.pi * x), atol=1e-2)


def test_inside_of_a_graph_or_a_strategy_it_raises():
    v, loss_fn, _ = quadratic()
    with pytest.raises(RuntimeError, match=r"outside of `tf.function`"):
        tf.function(lambda: td.minimize_lbfgs(loss_fn, [v]), autograph=False)()
    with mirrored().scope(), pytest.raises(NotImplementedError, match="for one device"):
        td.minimize_lbfgs(loss_fn, [v])


@pytest.mark.parametrize(
    "options,words",
    [
        (dict(c1=0.5, c2=0.1), r"0 < c1 < c2 < 1.*c1=0.5, c2=0.1"),
        (dict(memory=0), "`memory` must be at least 1"),
        (dict(max_iterations=0), "`max_iterations` must be at least 1"),
    ],
)
def test_wrong_arguments_raise(options, words):
    v, loss_fn, _ = quadratic()
    with pytest.raises(ValueError, match=words):
        td.minimize_lbfgs(loss_fn, [v], **options)
    with pytest.raises(ValueError, match="at least one variable"):
        td.minimize_lbfgs(loss_fn, [])
