"""The older methods: what their authors promise, and that Keras's names take Keras's steps."""

import inspect
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run, variables
from pure import flat, last, steps

import tf_decoupled as td

SHAPE = (4, 3)
RATE = 0.5


def start(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(size=shape)


def some(count=6, seed=1, shape=SHAPE):
    return [[np.random.default_rng([seed, i]).normal(size=shape)] for i in range(count)]


def path(rule, p, grads, dtype=tf.float64):
    """The value of one variable after each step."""
    return np.array([now.values[0].numpy() for now in steps(rule, [p], grads, dtype)])


def same_paths(left, right, p, grads, tolerance=1e-12):
    np.testing.assert_allclose(path(left, p, grads), path(right, p, grads), rtol=tolerance)


# First steps in closed form.

G = some(1)[0][0]
FIRST = {
    "NAdamW, ψ = 0.004": (lambda: td.NAdamW(RATE, 0.0, epsilon=0.0), -1.0565 * np.sign(G)),
    "Nadam, ψ = 1": (lambda: td.Nadam(RATE, epsilon=0.0), -1.0628 * np.sign(G)),
    "AMSGradW": (lambda: td.AMSGradW(RATE, 0.0, epsilon=0.0), -np.sign(G)),
    "AdaMaxW": (lambda: td.AdaMaxW(RATE, 0.0, epsilon=0.0), -np.sign(G)),
    "AdagradW": (lambda: td.AdagradW(RATE, 0.0, epsilon=0.0), -np.sign(G)),
    "Adagrad": (lambda: td.Adagrad(RATE, epsilon=0.0), -G / np.sqrt(0.1 + G**2)),
    "RowwiseAdagrad": (
        lambda: td.RowwiseAdagrad(RATE, epsilon=0.0),
        -G / np.sqrt(np.mean(G**2, 1, keepdims=True)),
    ),
    "RMSpropW": (lambda: td.RMSpropW(RATE, 0.0, epsilon=0.0), -np.sign(G) / math.sqrt(0.1)),
    "RMSpropW, centered": (
        lambda: td.RMSpropW(RATE, 0.0, epsilon=0.0, centered=True),
        -np.sign(G) / math.sqrt(0.1 * 0.9),
    ),
    "AdadeltaW": (lambda: td.AdadeltaW(RATE, 0.0), -1e-3 * G / np.sqrt(0.05 * G**2 + 1e-6)),
    "ProximalAdagrad": (lambda: td.ProximalAdagrad(RATE), -G / np.sqrt(0.1 + G**2)),
    "FtrlW": (lambda: td.FtrlW(RATE, 0.0), -G / np.sqrt(0.1 + G**2)),
}


@pytest.mark.parametrize("name", FIRST)
def test_the_first_step_is_as_worked_out_by_hand(name):
    make, expected = FIRST[name]
    (after,) = path(make(), start(), [[G]])
    np.testing.assert_allclose(after - start(), RATE * expected, rtol=1e-4)


# Zeros.

WITHOUT_SAFETY = [
    *(td.NAdamW(epsilon=0.0), td.AMSGradW(), td.AdagradW(epsilon=0.0), td.AdaMaxW(epsilon=0.0)),
    td.Adagrad(epsilon=0.0, initial_accumulator_value=0.0),
    td.RowwiseAdagrad(epsilon=0.0),
    *(td.RMSpropW(epsilon=0.0), td.RMSpropW(epsilon=0.0, centered=True)),
    *(td.AdadeltaW(epsilon=0.0), td.FtrlW(initial_accumulator_value=0.0)),
    *(td.Ftrl(initial_accumulator_value=0.0), td.Ftrl(0.0), td.FtrlW(0.0)),
    td.ProximalAdagrad(initial_accumulator_value=0.0, l1_regularization_strength=0.1),
    *(td.ConditionalGradient(epsilon=0.0), td.ConditionalGradient(ord="nuclear")),
]


@pytest.mark.parametrize("rule", WITHOUT_SAFETY, ids=repr)
def test_zero_gradients_leave_no_nan_whatever_is_zero_besides(rule):
    zero = [np.zeros(SHAPE)]
    for grads in ([zero] * 3, [zero, *some(2), zero]):
        now = last(rule, [start()], grads, tf.float32)
        for array in (now.values[0], *flat(now.slots[0]).values()):
            assert np.all(np.isfinite(array))


@pytest.mark.parametrize("make", [td.Ftrl, td.FtrlW, td.ProximalAdagrad])
def test_a_rate_of_zero_stands_still(make):
    after = path(make(0.0, weight_decay=0.0), start(), some())
    np.testing.assert_array_equal(after[-1], start())


# NAdam and AdaMax.


def test_a_momentum_that_is_constant_is_optax_s_form():
    """u = (β₁ m / (1 − β₁ᵗ⁺¹) + (1 − β₁) g / (1 − β₁ᵗ)) / √v̂"""
    rule, m, v = td.NAdamW(RATE, 0.0, beta_1=0.75, beta_2=0.5, momentum_decay=1e4), 0.0, 0.0
    before = start()
    for t, ((g,), after) in enumerate(zip(some(), path(rule, before, some()), strict=True), 1):
        m, v = 0.75 * m + 0.25 * g, 0.5 * v + 0.5 * g**2
        m_hat = 0.75 * m / (1 - 0.75 ** (t + 1)) + 0.25 * g / (1 - 0.75**t)
        u = m_hat / (np.sqrt(v / (1 - 0.5**t)) + 1e-8)
        np.testing.assert_allclose(after, before - RATE * u, rtol=1e-7)
        before = after


def test_a_variable_that_comes_late_counts_its_own_steps_only():
    """As if μ were that of the late step, and no step before had been: u = μ' m / (1 − μ μ') + g"""
    rule = td.NAdamW(RATE, 0.0, beta_1=0.75, beta_2=0.0, epsilon=0.0, momentum_decay=1.0)
    now = last(rule, [start()], [[G]], first=10)
    μ, following = (0.75 * (1 - 0.5 * 0.96**t) for t in (11, 12))
    u = following * 0.25 * G / (1 - μ * following) + G
    np.testing.assert_allclose(now.values[0], start() - RATE * u / np.abs(G), rtol=1e-6)


def test_adamax_s_steps_have_the_bound_of_the_paper():
    """|m| ≤ (1 − β₁) Σᵢ (β₁ / β₂)ⁱ n, as no gradient i steps ago was above n / β₂ⁱ."""
    rng = np.random.default_rng(3)
    grads = [[rng.normal(size=SHAPE) * 10.0 ** rng.integers(-3, 4)] for _ in range(40)]
    rule = td.AdaMaxW(RATE, 0.0, beta_1=0.5, beta_2=0.9, epsilon=0.0)
    lengths = np.abs(np.diff(path(rule, start(), grads), axis=0)).max((1, 2))
    bound = 0.5 / (1 - 0.5 / 0.9) / (1 - 0.5 ** np.arange(2, 41))
    assert np.all(lengths <= RATE * bound * (1 + 1e-6))
    assert np.any(lengths > 0.9 * RATE)


def test_amsgrad_s_second_moment_never_falls():
    grads = [[10.0**-i * g] for i, (g,) in enumerate(some())]
    rule = td.AMSGradW(RATE, 0.0, beta_2=0.5)
    largest = [now.slots[0]["v_max"].numpy() for now in steps(rule, [start()], grads)]
    assert np.all(np.diff(largest, axis=0) >= 0)
    others = path(td.AdamW(RATE, 0.0, beta_2=0.5), start(), grads)
    lengths = [np.abs(each[-1] - each[-2]) for each in (path(rule, start(), grads), others)]
    assert np.all(2 * lengths[0] < lengths[1])


# Adagrad.


def test_rows_of_one_column_are_adagrad():
    for shape in ((5, 1), (5,), ()):
        left, right = td.RowwiseAdagrad(RATE, 0.1), td.AdagradW(RATE, 0.1)
        same_paths(left, right, start(shape=shape), some(shape=shape))


def test_rows_without_gradient_stay_and_others_move_by_the_rate():
    g = G.copy()
    g[1] = 0.0
    (after,) = path(td.RowwiseAdagrad(RATE), start(), [[g]])
    np.testing.assert_array_equal(after[1], start()[1])
    lengths = np.sqrt(np.mean((after - start()) ** 2, 1))
    np.testing.assert_allclose(np.delete(lengths, 1), RATE, rtol=1e-6)


def test_a_constant_gradient_makes_adagrad_s_rate_fall_as_one_over_the_root_of_t():
    moved = np.diff(path(td.AdagradW(RATE, 0.0), start(), [[G]] * 9), axis=0)
    for t, step in enumerate(moved, 2):
        np.testing.assert_allclose(step, -RATE * np.sign(G) / math.sqrt(t), rtol=1e-6)


def test_without_regularization_ftrl_and_proximal_adagrad_are_adagrad():
    """FtrlW from any start, and Ftrl from zero."""
    adagrad, zero = td.AdagradW(RATE, 0.0, initial_accumulator_value=0.1, epsilon=0.0), 0 * G
    same_paths(td.ProximalAdagrad(RATE), adagrad, start(), some())
    same_paths(td.FtrlW(RATE, 0.0), adagrad, start(), some())
    same_paths(td.Ftrl(RATE), adagrad, zero, some())


def test_so_is_ftrl_w_with_any_schedule_and_decay_and_keras_s_shrinks():
    falling = td.schedules.PiecewiseConstant([3], [0.5, 0.01])
    adagrad = td.AdagradW(falling, 0.2, initial_accumulator_value=0.1, epsilon=0.0)
    same_paths(td.FtrlW(falling, 0.2), adagrad, start(), some())
    shrunk = path(td.Ftrl(falling), start(), some())
    assert np.linalg.norm(shrunk[-1]) < 0.2 * np.linalg.norm(shrunk[2])


# RMSprop and Adadelta.


def test_the_centered_variance_is_the_mean_square_less_the_squared_mean():
    plain, centered = (td.RMSpropW(RATE, centered=centered) for centered in (False, True))
    raw, own = (last(rule, [start()], some()).slots[0] for rule in (plain, centered))
    np.testing.assert_allclose(own["v"] + own["a"] ** 2, raw["v"], rtol=1e-12)


def test_constant_gradients_give_no_nan_when_centered():
    """The mean square less the square of the mean is, rounded, below 0 for some of these."""
    g = np.linspace(900, 1100, 60).reshape(20, 3)
    for now in steps(td.RMSprop(rho=0.5, centered=True), [0 * g], [[g]] * 30, tf.float32):
        assert np.all(np.isfinite(now.values[0])) and np.all(now.slots[0]["v"] >= 0)


def test_momentum_repeats_each_step_in_shrinking_shares():
    grads = [[G], *[[0 * G]] * 5]
    moved = np.diff(path(td.RMSpropW(RATE, 0.0, momentum=0.5), start(), grads), axis=0)
    first = path(td.RMSpropW(RATE, 0.0), start(), [[G]])[0] - start()
    for t, step in enumerate(moved, 1):
        np.testing.assert_allclose(step, 0.5**t * first, rtol=1e-9)


def test_adadelta_s_steps_don_t_see_the_rate():
    one, tenth = (path(td.AdadeltaW(rate, 0.0), start(), some()) for rate in (1.0, 0.125))
    np.testing.assert_allclose(8 * (tenth - start()), one - start(), rtol=1e-9)


# FTRL and proximal Adagrad.

REGULAR = dict(
    l1_regularization_strength=0.3,
    l2_regularization_strength=0.2,
    l2_shrinkage_regularization_strength=0.1,
)


@pytest.mark.parametrize("power", [-0.5, -0.3, 0.0])
def test_from_zero_with_a_constant_rate_ftrl_w_is_keras_s(power):
    options = REGULAR | dict(learning_rate_power=power, beta=0.7)
    ours = path(td.FtrlW(RATE, 0.0, **options), 0 * G, some())
    np.testing.assert_allclose(ours, path(td.Ftrl(RATE, **options), 0 * G, some()), atol=1e-12)
    assert 0 < np.mean(ours == 0) < 1


@pytest.mark.parametrize("make", [td.FtrlW, td.Ftrl, td.ProximalAdagrad])
def test_a_large_l1_leaves_exact_zeros_also_with_decay(make):
    for λ in (0.0, 0.1):
        rule = make(RATE, weight_decay=λ, l1_regularization_strength=50.0)
        np.testing.assert_array_equal(path(rule, start(), some())[-1], 0.0)


@pytest.mark.parametrize("make", [td.FtrlW, td.Ftrl])
def test_a_decay_is_not_undone_by_the_next_step(make):
    rule = make(RATE, weight_decay=0.1)
    after = path(rule, start(), [*some(3), *[[0 * G]] * 4])
    for t in range(4):
        np.testing.assert_allclose(after[3 + t], (1 - 0.1 * RATE) ** (t + 1) * after[2], rtol=1e-7)


def test_the_proximal_step_is_the_minimum_that_it_says():
    """Where θ ≠ 0: (w − θ) / a = λ₁ sign θ + λ₂ θ;  where θ = 0: |w| ≤ a λ₁."""
    l1, l2, a = 0.5, 0.25, RATE / np.sqrt(0.1 + G**2)
    rule = td.ProximalAdagrad(RATE, l1_regularization_strength=l1, l2_regularization_strength=l2)
    (θ,) = path(rule, start(), [[G]])
    w, zero = start() - a * G, θ == 0
    assert 0 < np.sum(zero) < zero.size
    np.testing.assert_allclose(((w - θ) / a)[~zero], (l1 * np.sign(θ) + l2 * θ)[~zero], rtol=1e-6)
    assert np.all(np.abs(w[zero]) <= a[zero] * l1)


# Conditional gradient.


def nuclear(x):
    return np.linalg.norm(x, "nuc")


@pytest.mark.parametrize("ord, norm", [("fro", np.linalg.norm), ("nuclear", nuclear)])
def test_what_is_in_the_ball_stays_there_and_what_isn_t_comes_nearer(ord, norm):
    rule = td.ConditionalGradient(RATE, lambda_=1.5, ord=ord)
    for scale in (0.1, 10.0):
        norms = [norm(p) for p in path(rule, scale * start(), some())]
        most = max(1.5, norm(scale * start()))
        assert max(norms) <= most * (1 + 1e-9)
        assert norms[-1] < most


def test_a_whole_step_ends_at_the_farthest_point_of_the_ball():
    u, _, v = np.linalg.svd(G)
    for ord, s in (("fro", G / np.linalg.norm(G)), ("nuclear", np.outer(u[:, 0], v[0]))):
        rule = td.ConditionalGradient(1.0, lambda_=1.5, ord=ord, power_steps=200)
        (after,) = path(rule, start(), [[G]])
        np.testing.assert_allclose(after, -1.5 * s, atol=1e-6)


def test_for_vectors_and_scalars_both_norms_are_the_same():
    for shape in ((5,), (), (1, 4)):
        grads = some(3, shape=shape)
        options = dict(lambda_=1.5, epsilon=0.0)
        both = [td.ConditionalGradient(RATE, **options, ord=o) for o in ("fro", "nuclear")]
        paths = [path(rule, start(shape=shape), grads) for rule in both]
        np.testing.assert_allclose(*paths, rtol=1e-9, atol=1e-12)


def test_the_top_pair_is_found_where_the_largest_row_is_at_right_angles_to_it():
    g = np.zeros((11, 2))
    g[0, 0], g[1:, 1] = 2.0, 1.0  # singular values 2 and √10
    (after,) = path(td.ConditionalGradient(1.0, lambda_=1.0, ord="nuclear"), 0 * g, [[g]])
    expected = np.zeros((11, 2))
    expected[1:, 1] = -1 / math.sqrt(10)
    np.testing.assert_allclose(after, expected, atol=1e-3)


def test_kernels_of_more_axes_are_matrices_of_all_the_others_and_out():
    grads = some(3, shape=(2, 3, 4))
    rule = td.ConditionalGradient(RATE, ord="nuclear")
    kernel = path(rule, start(shape=(2, 3, 4)), grads)
    matrix = path(rule, start(shape=(2, 3, 4)).reshape(6, 4), [[g.reshape(6, 4)] for (g,) in grads])
    np.testing.assert_allclose(kernel.reshape(-1, 6, 4), matrix, rtol=1e-12)


# Keras.

K = keras.optimizers
BESIDE = [
    *((cls, {}) for cls in (K.Nadam, K.Adagrad, K.RMSprop, K.Adamax, K.Adadelta, K.Ftrl, K.Lamb)),
    (K.Nadam, dict(learning_rate=0.1, beta_1=0.7, beta_2=0.8, epsilon=0.3)),
    (K.Adagrad, dict(learning_rate=0.1, initial_accumulator_value=0.0, epsilon=0.3)),
    (K.RMSprop, dict(learning_rate=0.1, rho=0.7, momentum=0.8, epsilon=0.3, centered=True)),
    (K.RMSprop, dict(learning_rate=0.1, rho=0.7, momentum=0.8, epsilon=0.3)),
    (K.Adamax, dict(learning_rate=0.1, beta_1=0.7, beta_2=0.8, epsilon=0.3)),
    (K.Adadelta, dict(learning_rate=0.1, rho=0.7, epsilon=0.3)),
    (
        K.Ftrl,
        dict(learning_rate=0.1, learning_rate_power=-0.3, initial_accumulator_value=0.4, beta=0.2)
        | REGULAR,
    ),
]


@pytest.mark.parametrize("scheduled", [False, True], ids=["constant", "schedule"])
@pytest.mark.parametrize("cls, options", BESIDE, ids=lambda x: getattr(x, "__name__", str(x)))
def test_it_takes_the_steps_of_keras_s_optimizer_of_the_same_name(cls, options, scheduled):
    if scheduled:
        rate = options.get("learning_rate", 1e-3)
        falling = K.schedules.PolynomialDecay(rate, 10, rate / 10)
        options = options | dict(learning_rate=falling)
    double = lambda: [keras.Variable(v.numpy(), dtype="float64") for v in variables()]  # noqa: E731
    grads = [[g.astype("float64") for g in gs] for gs in gradients(steps=6)]
    ours = run(getattr(td, cls.__name__)(**options, jit_compile=False), double(), grads)
    optimizer, theirs = cls(**options), double()
    for gs in grads:
        optimizer.apply([tf.constant(g) for g in gs], theirs)
    for v, a, b in zip(variables(), ours, theirs, strict=True):  # what is float32 are numbers
        np.testing.assert_allclose(a - v.numpy(), b.numpy() - v.numpy(), 3e-5, 1e-12)


NAMESAKES = [K.Adam, K.Nadam, K.Adagrad, K.RMSprop, K.Adamax, K.Adadelta, K.Ftrl, K.Lamb]


@pytest.mark.parametrize("cls", NAMESAKES, ids=lambda cls: cls.__name__)
def test_it_takes_keras_s_arguments_with_keras_s_defaults(cls):
    ours = inspect.signature(getattr(td, cls.__name__)).parameters
    other = {"epsilon"} if cls is K.Adam else set()  # Adam's is the paper's, and says so
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name in ("self", "kwargs"):
            continue
        assert name in ours
        if name not in other:
            assert (ours[name].default or None) == (parameter.default or None), name


@pytest.mark.parametrize("cls", NAMESAKES[1:], ids=lambda cls: cls.__name__)
def test_a_second_argument_without_a_name_which_is_another_in_keras_is_refused(cls):
    with pytest.raises(TypeError, match="takes 1 positional argument, `learning_rate`"):
        getattr(td, cls.__name__)(0.01, 0.9)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: td.Ftrl(learning_rate_power=0.5), "must be a finite number <= 0, and is never"),
        (lambda: td.Ftrl(learning_rate_power=-math.inf), "must be a finite number <= 0"),
        (lambda: td.Adagrad(initial_accumulator_value=-1), "must be a finite number >= 0, and is"),
        (lambda: td.Ftrl(l1_regularization_strength=-1), "must be a finite number >= 0"),
        (lambda: td.ConditionalGradient(ord="spectral"), "must be one of 'fro', 'nuclear'"),
        (lambda: td.ConditionalGradient(power_steps=0), "must be an integer >= 1"),
    ],
)
def test_wrong_arguments_are_told(make, words):
    with pytest.raises(ValueError, match=words):
        make()
