"""Signs, norms, optimism and small states: what each of these methods is defined by."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from pure import as_float32, combined, last, seen, shared_of, started, step, steps
from pure import hyperparameters as numbers
from references import signs

from tf_decoupled.engine.hyperparameters import namespace
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.optimizers.fromage import Fromage
from tf_decoupled.optimizers.generalized_sign_sgd import GeneralizedSignSGD
from tf_decoupled.optimizers.koala import KOALAM, KOALAV
from tf_decoupled.optimizers.lars import LARS
from tf_decoupled.optimizers.noisy_sgd import NoisySGD
from tf_decoupled.optimizers.novograd import NovoGrad
from tf_decoupled.optimizers.optimistic_sgd import OptimisticSGD
from tf_decoupled.optimizers.pnm import PNM, AdaPNM
from tf_decoupled.optimizers.signum import Signum
from tf_decoupled.optimizers.sm3 import SM3
from tf_decoupled.optimizers.sophia import Sophia

SHAPES = [(3, 4), (5,), (2, 3, 2)]
ETA = 0.125  # in float32, too
EXACT = dict(rtol=1e-6, atol=1e-9)


def draw(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


def moved(rule, grads, starts=None):
    """How far each variable has come after these lists of gradients."""
    starts = draw(0) if starts is None else starts
    return [p.numpy() - q for p, q in zip(last(rule, starts, grads).values, starts, strict=True)]


def path(rule, start, grads):
    """The values of one variable after each step."""
    return np.array([now.values[0].numpy() for now in steps(rule, [start], [[g] for g in grads])])


def played(rule, gradient, start, count):
    """Where a rule ends whose gradient depends on where it is."""
    p, dtype = tf.constant(start, tf.float64), tf.float64
    slots = started(rule.init(p), p, dtype)
    for at in range(count):
        p, slots = step(rule, p, gradient(p), slots, seen(numbers(rule, at, dtype)))
    return p.numpy()


# Steps relative to norms.


@pytest.mark.parametrize("late", [0, 2])
def test_the_first_step_of_novograd_has_the_length_of_the_rate_whenever_it_comes(late):
    zero, gs = [np.zeros(shape) for shape in SHAPES], draw(1)
    for d, g in zip(moved(NovoGrad(ETA), [zero] * late + [gs]), gs, strict=True):
        np.testing.assert_allclose(d, -ETA * g / np.linalg.norm(g), **EXACT)


def test_novograd_sums_up_where_the_paper_does_not_average():
    (d,) = moved(NovoGrad(ETA, beta_1=0.5), [[np.array([3.0, -4.0])]] * 3, [np.zeros(2)])
    lengths = 1 + 1.5 + 1.75  # m is 1, 1 + 1/2, 1 + 1/2 + 1/4 long
    np.testing.assert_allclose(d, -ETA * lengths * np.array([0.6, -0.8]), **EXACT)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_step_of_lars_is_as_long_as_a_part_of_the_variable(size):
    gs = [size * g for g in draw(1)]
    rule = LARS(ETA, momentum=0.0, trust_coefficient=0.25)
    for d, p in zip(moved(rule, [gs]), draw(0), strict=True):
        assert np.linalg.norm(d) == pytest.approx(ETA * 0.25 * np.linalg.norm(p), rel=1e-6)


def test_the_divisor_of_lars_is_the_sum_of_two_norms_and_not_the_norm_of_the_sum():
    p, g = np.array([3.0, 4.0]), np.array([0.0, -2.0])  # ‖θ‖ = 5, ‖g‖ = 2
    rule = LARS(1.0, momentum=0.0, trust_coefficient=0.25, l2=0.5)
    (d,) = moved(rule, [[g]], [p])
    np.testing.assert_allclose(d, -0.25 * 5 / (2 + 0.5 * 5) * (g + 0.5 * p), **EXACT)


@pytest.mark.parametrize("rule", [LARS(ETA), Fromage(ETA)], ids=["LARS", "Fromage"])
def test_a_variable_of_zeros_moves_by_its_gradient_all_the_same(rule):
    (d,) = moved(rule, [[np.array([3.0, -4.0])]], [np.zeros(2)])
    shrunk = math.sqrt(1 + ETA**2) if isinstance(rule, Fromage) else 1.0
    np.testing.assert_allclose(d, -ETA / shrunk * np.array([3.0, -4.0]), **EXACT)


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_fromage_turns_a_variable_and_keeps_its_norm_where_the_gradient_is_at_a_right_angle(size):
    p, g = np.array([3.0, 4.0]), size * np.array([-4.0, 3.0])
    (after,) = last(Fromage(ETA), [p], [[g]]).values
    assert np.linalg.norm(after) == pytest.approx(5.0, rel=1e-9)
    assert math.acos(after.numpy() @ p / 25) == pytest.approx(math.atan(ETA), rel=1e-6)


# Positive and negative momentum.


@pytest.mark.parametrize("beta_0", [0.0, 0.5, 1.0, 3.0])
def test_the_noise_that_pnm_lets_through_does_not_depend_on_beta_0(beta_0):
    """The squares of how much each step moves by one gradient that comes first."""
    beta_1 = 0.5
    once = [np.ones(1)] + [np.zeros(1)] * 39
    come = path(PNM(1.0, beta_1=beta_1, beta_0=beta_0), np.zeros(1), once)
    each = np.diff(come[:, 0], prepend=0.0)
    assert np.sum(each**2) == pytest.approx((1 - beta_1**2) / (1 + beta_1**2), rel=1e-6)


def test_the_first_steps_of_pnm_and_adapnm_in_closed_form():
    gs, β = draw(1), as_float32(0.9)
    for d, g in zip(moved(PNM(ETA), [gs]), gs, strict=True):
        np.testing.assert_allclose(d, -ETA * 2 * (1 - β**2) / math.sqrt(5) * g, **EXACT)
    for d, g in zip(moved(AdaPNM(ETA, epsilon=0.0), [gs]), gs, strict=True):
        np.testing.assert_allclose(d, -ETA * 2 * (1 + β) / math.sqrt(5) * np.sign(g), rtol=1e-5)


def test_pnm_without_memory_is_optimistic_gradient_descent_but_for_the_root():
    grads = [[np.zeros(4)], *([g] for g in np.random.default_rng(2).normal(size=(6, 4)))]
    ours = moved(PNM(ETA, beta_1=0.0, beta_0=0.75), grads, [np.ones(4)])
    theirs = moved(OptimisticSGD(ETA, beta=0.75), grads, [np.ones(4)])
    np.testing.assert_allclose(math.hypot(1.75, 0.75) * ours[0], theirs[0], **EXACT)


# Signs.


def rough(seed=3, count=30):
    """Gradients that explode now and then."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 6)) * 10.0 ** rng.integers(-3, 6, (count, 1))


def test_every_step_of_signum_is_as_long_as_the_rate_and_goes_against_the_momentum():
    grads, β, m = rough(), as_float32(0.9), np.zeros(6)
    each = np.diff(path(Signum(ETA), np.zeros(6), grads), axis=0, prepend=np.zeros((1, 6)))
    for d, g in zip(each, grads, strict=True):
        m = β * m + (1 - β) * g
        np.testing.assert_allclose(d, -ETA * np.sign(m), rtol=1e-12)


def test_generalized_sign_sgd_without_beta_2_is_signum():
    rule = GeneralizedSignSGD(ETA, beta_2=0.0, epsilon=0.0)
    theirs = path(Signum(ETA), np.zeros(6), rough())
    np.testing.assert_allclose(path(rule, np.zeros(6), rough()), theirs, **EXACT)


def test_generalized_sign_sgd_clips_itself_whatever_the_gradient_is():
    rule, most = GeneralizedSignSGD(ETA, beta_2=0.75, epsilon=0.0), ETA / math.sqrt(1 - 0.75)
    each = np.diff(path(rule, np.zeros(6), rough()), axis=0, prepend=np.zeros((1, 6)))
    assert np.abs(each).max() <= most * (1 + 1e-9)
    np.testing.assert_allclose(np.abs(each[0]), most, rtol=1e-9)


# Optimism.


def test_optimistic_descent_ends_a_game_around_whose_end_gradient_descent_circles():
    """min over x, max over y of x y: the gradient is (y, −x)."""
    gradient = lambda p: tf.stack([p[1], -p[0]])  # noqa: E731
    start, apart = [1.0, 1.0], math.sqrt(2)
    found = played(OptimisticSGD(0.5), gradient, start, 60)
    assert np.linalg.norm(found) < 0.01 * apart
    plain = played(OptimisticSGD(0.5, beta=0.0), gradient, start, 60)
    assert np.linalg.norm(plain) == pytest.approx(apart * 1.25**30, rel=1e-6)


def test_the_first_optimistic_step_is_one_of_gradient_descent_whatever_beta_is():
    gs = draw(1)
    for d, g in zip(moved(OptimisticSGD(ETA, alpha=0.5, beta=7.0), [gs]), gs, strict=True):
        np.testing.assert_allclose(d, -ETA * 0.5 * g, **EXACT)


# Small states.


def test_sm3_bounds_the_sums_of_adagrad_and_keeps_one_number_per_line():
    grads = [[g] for g in np.random.default_rng(4).normal(size=(8, 4, 3, 2))]
    total = np.zeros((4, 3, 2))
    for now, (g,) in zip(steps(SM3(), [np.zeros((4, 3, 2))], grads), grads, strict=True):
        total += g**2
        bounds = [now.slots[0][name].numpy() for name in ("v0", "v1", "v2")]
        assert [bound.shape for bound in bounds] == [(4,), (3,), (2,)]
        for axis, bound in enumerate(bounds):
            others = tuple({0, 1, 2} - {axis})
            assert np.all(bound >= total.max(others) * (1 - 1e-12))
    assert np.any(bounds[0] > total.max((1, 2)) * 1.01), "they are bounds, and not the sums"


def test_sm3_of_a_vector_is_adagrad():
    grads = np.random.default_rng(5).normal(size=(8, 6))
    expected = -ETA * np.cumsum(grads / np.sqrt(np.cumsum(grads**2, 0)), 0)
    np.testing.assert_allclose(path(SM3(ETA, momentum=0.0), np.zeros(6), grads), expected, **EXACT)


def test_sm3_of_gradients_alike_along_all_axes_but_one_is_adagrad():
    lines = np.random.default_rng(6).normal(size=(8, 4, 1))
    grads = np.broadcast_to(lines, (8, 4, 3))
    expected = -ETA * np.cumsum(grads / np.sqrt(np.cumsum(grads**2, 0)), 0)
    ours = path(SM3(ETA, momentum=0.0), np.zeros((4, 3)), grads)
    np.testing.assert_allclose(ours, expected, **EXACT)


# Hessians.


def observed(rule, start, grads, estimates):
    """As `path`, with an estimate, or None, after each step."""
    p, dtype, after = tf.constant(start, tf.float64), tf.float64, []
    slots = started(rule.init(p), p, dtype)
    for at, (g, e) in enumerate(zip(grads, estimates, strict=True)):
        h = seen(numbers(rule, at, dtype))
        p, slots = step(rule, p, tf.constant(g), slots, h)
        slots = slots if e is None else rule.observe(p, tf.constant(e), namespace(slots), h)
        after.append(p.numpy())
    return np.array(after)


def test_sophia_with_estimates_now_and_then_is_the_paper():
    rng = np.random.default_rng(7)
    grads = rng.normal(size=(12, 6))
    estimates = [rng.normal(1.0, size=6) if at % 3 == 0 else None for at in range(12)]
    rule = Sophia(ETA, 0.0, gamma=0.5)
    names = ("beta_1", "beta_2", "epsilon")
    options = {name: as_float32(getattr(Sophia, name)) for name in names}
    ours = observed(rule, np.zeros(6), grads, estimates)
    theirs = signs.sophia(
        np.zeros(6), grads, learning_rate=ETA, gamma=0.5, estimates=estimates, **options
    )
    np.testing.assert_allclose(ours[-1], theirs, rtol=1e-9)
    each = np.abs(np.diff(ours, axis=0))
    assert each.max() <= ETA * (1 + 1e-9) and each.min() < 0.9 * ETA


def test_sophia_that_knows_the_hessian_of_a_quadratic_is_there_in_one_step():
    A, start = np.array([0.01, 1.0, 100.0]), np.array([0.5, -1.0, 0.75])
    rule = Sophia(1.0, 0.0, beta_1=0.0, beta_2=0.0, gamma=1.0)
    _, after = observed(rule, start, [np.zeros(3), A * start], [A, None])
    np.testing.assert_allclose(after, 0.0, atol=1e-12)


def test_sophia_takes_steps_of_sign_where_the_curvature_is_unknown_or_negative():
    g = np.array([2.0, -1e-6, 3.0])
    rule = Sophia(ETA, 0.0, beta_1=0.0)
    after = observed(rule, np.zeros(3), [g, g], [np.array([-1.0, -100.0, 0.0]), None])
    np.testing.assert_allclose(after, -ETA * np.outer([1, 2], np.sign(g)), rtol=1e-9)


# The loss as a measurement.


def filtered(rule, starts, grads, losses):
    """Yields values, slots and shared scalars after each step; each has a loss."""
    dtype = tf.float64
    values = [tf.constant(p, dtype) for p in starts]
    slots, shared = [started(rule.init(p), p, dtype) for p in values], shared_of(rule, dtype)
    for at, (gs, loss) in enumerate(zip(grads, losses, strict=True)):
        variables = [
            (p, tf.constant(g, dtype), namespace(s))
            for p, g, s in zip(values, gs, slots, strict=True)
        ]
        h = numbers(rule, at, dtype)
        shared |= dict(loss=tf.constant(loss, dtype))
        h, shared = combined(rule, h, shared, variables)
        h = seen(h)
        values, slots = zip(*(rule.step(p, g, s, h) for p, g, s in variables), strict=True)
        yield SimpleNamespace(values=values, slots=slots, shared=shared)


def flat(arrays):
    return np.concatenate([np.ravel(x) for x in arrays])


@pytest.mark.parametrize("rule,reference", [(KOALAV, signs.koala_v), (KOALAM, signs.koala_m)])
def test_koala_of_several_variables_is_the_paper_for_all_of_them_as_one(rule, reference):
    grads, losses = [draw(seed) for seed in range(1, 9)], np.linspace(4.0, 1.0, 8)
    run = dict(learning_rate=0.5, weight_decay=0.25)
    own = {n: each for n, each in rule.declared.items() if n not in Optimizer.declared}
    options = {n: as_float32(x.default) if x.live else x.default for n, x in own.items()}
    *_, now = filtered(rule(**run, target=0.5), draw(0), grads, losses)
    run |= options | dict(target=0.5, losses=losses)
    theirs = reference(flat(draw(0)), [flat(gs) for gs in grads], **run)
    np.testing.assert_allclose(flat(now.values), theirs, rtol=1e-9)


def test_koala_v_that_is_sure_of_the_loss_takes_polyak_s_step():
    start, A = np.array([3.0, -1.0]), np.array([1.0, 4.0])
    loss, g = 2.0 + 0.5 * np.sum(A * start**2), A * start
    rule = KOALAV(q=2.0**40, target=2.0)
    *_, now = filtered(rule, [start], [[g]], [loss])
    np.testing.assert_allclose(now.values[0], start - (loss - 2) / np.sum(g**2) * g, rtol=1e-6)


def test_the_scale_of_the_loss_does_not_matter_to_koala_v():
    grads, losses = [draw(seed) for seed in range(1, 6)], np.linspace(4.0, 1.0, 5)
    rule = KOALAV(alpha_r=0.0)
    *_, ours = filtered(rule, draw(0), grads, losses)
    for c in (1e-3, 1e3):
        *_, scaled = filtered(rule, draw(0), [[c * g for g in gs] for gs in grads], c * losses)
        moves = [flat(now.values) - flat(draw(0)) for now in (ours, scaled)]
        np.testing.assert_allclose(moves[1], moves[0], rtol=1e-9)


def test_the_variances_of_koala_m_stay_those_of_something():
    grads, losses = [draw(seed) for seed in range(1, 20)], np.linspace(4.0, 0.1, 19)
    for now in filtered(KOALAM(), draw(0), grads, losses):
        P = {name: float(x) for name, x in now.shared.items()}
        assert P["P_xx"] > 0 and P["P_vv"] > 0 and P["P_xv"] ** 2 <= P["P_xx"] * P["P_vv"]


@pytest.mark.parametrize("rule", [KOALAV, KOALAM])
def test_koala_stands_still_where_gradient_and_loss_are_zero(rule):
    zero = [[np.zeros(shape) for shape in SHAPES]] * 3
    *_, now = filtered(rule(alpha_r=0.0), draw(0), zero, [0.0] * 3)
    np.testing.assert_array_equal(flat(now.values), flat(draw(0)))
    assert all(np.isfinite(float(x)) for x in now.shared.values())


# Noise.


def noise(rule, count, shape=(4000,), seed=0):
    """What a rule adds to gradients of zero, each step's apart, with the seed of a variable."""
    p, g = tf.zeros(shape), tf.zeros(shape)
    slots, each = dict(seed=tf.constant(seed, tf.int32)), []
    for at in range(count):
        after, slots = step(rule, p, g, slots, seen(numbers(rule, at)))
        each.append((p - after).numpy() / ETA)
    return each


def test_the_variance_of_the_noise_falls_with_the_power_of_the_step():
    for t, drawn in enumerate(noise(NoisySGD(ETA, eta=4.0, gamma=0.5), 4), 1):
        assert np.var(drawn) == pytest.approx(4.0 / t**0.5, rel=0.1)
        assert np.mean(drawn) == pytest.approx(0.0, abs=0.1)


def test_each_step_and_variable_has_noise_of_its_own_and_the_same_in_each_run():
    first, second = noise(NoisySGD(ETA), 2)
    (other,) = noise(NoisySGD(ETA), 1, seed=1)
    (again,) = noise(NoisySGD(ETA), 1)
    np.testing.assert_array_equal(again, first)
    for unlike in (second, other):
        assert abs(np.corrcoef(first, unlike)[0, 1]) < 0.1


def test_noise_is_added_to_the_gradient():
    p, g, slots = tf.zeros([5]), tf.range(5.0), dict(seed=tf.constant(0))
    rule = NoisySGD(ETA)
    with_g, without = (step(rule, p, x, slots, seen(numbers(rule)))[0] for x in (g, tf.zeros([5])))
    np.testing.assert_allclose(with_g - without, -ETA * g, atol=1e-6)
