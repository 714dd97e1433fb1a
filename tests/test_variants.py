"""Adam's variants: first steps in closed form, and what each is made for."""

import math

import numpy as np
import pytest
import tensorflow as tf
from pure import last, steps

import tf_decoupled as td

LATE = 1000  # so many steps were done before a variable's first gradient
G = np.array([[0.5, -2.0, 3.0], [-0.1, 1.0, -4.0]])


def moves(rule, *grads, start=None, **options):
    """How far each step leads from where the one before did, in units of the rate."""
    start = np.zeros(np.shape(grads[0])) if start is None else start
    path = [now.values[0].numpy() for now in steps(rule, [start], [[g] for g in grads], **options)]
    return np.diff([start, *path], axis=0) / np.asarray(rule.learning_rate)


def slots(rule, *grads, **options):
    """The slots after some gradients."""
    return last(rule, [np.zeros(np.shape(grads[0]))], [[g] for g in grads], **options).slots[0]


def adam(**options):
    return td.AdamW(weight_decay=0.0, **options)


def close(a, b, tolerance=1e-6):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def random_gradients(count, shape=(4, 3), seed=0):
    return list(np.random.default_rng(seed).normal(size=(count, *shape)))


@pytest.mark.parametrize(
    "rule,options,length",
    [
        (td.RAdam, {}, np.abs(G)),
        (td.AdEMAMix, dict(epsilon=0.0), 1 + 5 * 1e-4),
        (td.StableAdamW, dict(epsilon=0.0), 1),
        (td.ADOPT, {}, 0),
        (td.AdaBelief, dict(epsilon=0.0), 1 / 0.9),
        (td.Yogi, dict(epsilon=0.0, initial_accumulator_value=1e-30), 1),
        (td.Adan, dict(epsilon=0.0), 1),
        (td.DiffGrad, dict(epsilon=0.0), 1 / (1 + np.exp(-np.abs(G)))),
        (td.ACProp, {}, np.abs(G)),
    ],
)
def test_the_first_step_has_its_closed_form(rule, options, length):
    close(moves(rule(**options), G), [-length * np.sign(G)])


# RAdam.


def test_radam_is_sgd_with_momentum_for_four_steps_and_then_far_shorter_than_adam():
    grads = random_gradients(6)
    ours, theirs = moves(td.RAdam(), *grads), moves(adam(), *grads)
    m = 0.0
    for t, g in enumerate(grads[:4], 1):
        m = 0.9 * m + 0.1 * g
        close(ours[t - 1], -m / (1 - 0.9**t))
    shares = ours[4:] / theirs[4:]
    assert np.ptp(shares, axis=(1, 2)).max() < 1e-6 and 0 < shares.min() < shares.max() < 0.05


def test_radam_ends_as_adam():
    grads = random_gradients(2)
    ours = moves(td.RAdam(beta_2=0.99), *grads, first=10_000)
    close(ours, moves(adam(beta_2=0.99), *grads, first=10_000))


@pytest.mark.parametrize("beta_2", [0.0, 0.5, 0.59])
@pytest.mark.parametrize("first", [0, 4, LATE])
def test_radam_without_a_memory_of_squares_is_sgd_for_ever(beta_2, first):
    close(moves(td.RAdam(beta_1=0.0, beta_2=beta_2), G, first=first), [-G])


@pytest.mark.parametrize("beta_2", [0.999, 0.9999, 0.99999])
def test_radam_begins_at_the_fifth_step_also_where_float32_is_short_of_digits(beta_2):
    path = moves(td.RAdam(beta_1=0.0, beta_2=beta_2), *[100 * G] * 5, dtype=tf.float32)
    close(path[:4], 4 * [-100 * G], 1e-4)
    assert 0 < np.abs(path[4]).max() < 0.1


# AdEMAMix.


def test_ademamix_with_nothing_of_the_slow_average_is_adamw():
    start, grads = G, [[g] for g in random_gradients(9, G.shape)]
    options = dict(weight_decay=0.1, epsilon=1e-3)
    ours = last(td.AdEMAMix(alpha=0.0, **options), [start], grads)
    close(ours.values[0], last(td.AdamW(**options), [start], grads).values[0], 1e-12)


def slow_share(t, **options):
    """1 − β₃(t): what the slow average takes of a first gradient of 1."""
    return float(slots(td.AdEMAMix(**options), 1.0, first=t - 1)["m2"])


def test_the_half_life_of_the_slow_average_grows_along_a_line():
    half = lambda share: math.log(0.5) / math.log1p(-share)  # noqa: E731
    for t in (1, 50, 150, 200, 300):
        wanted = half(0.1) + min(1.0, t / 200) * (half(1e-4) - half(0.1))
        assert half(slow_share(t, beta_3_warmup=200.0)) == pytest.approx(wanted, rel=1e-3)


def test_warm_ups_begin_near_adam_and_end_with_the_numbers_given():
    rule = td.AdEMAMix(alpha_warmup=100.0, beta_3_warmup=100.0, epsilon=0.0)
    share = slow_share(1, beta_3_warmup=100.0)
    close(moves(rule, G), [-(1 + 0.05 * share) * np.sign(G)])
    grads = random_gradients(3)
    close(moves(rule, *grads, first=99), moves(td.AdEMAMix(epsilon=0.0), *grads, first=99))


def test_beta_1_of_zero_is_the_form_without_a_fast_average():
    grads, options = random_gradients(5), dict(beta_1=0.0, alpha_warmup=3.0, beta_3_warmup=4.0)
    without = td.AdEMAMix(fast_average=False, **options)
    close(moves(td.AdEMAMix(**options), *grads), moves(without, *grads))
    assert set(slots(without, *grads)) == {"m2", "v"}


def test_the_slow_average_remembers_what_adam_has_forgotten():
    grads, options = [100 * G] + 30 * [0.01 * np.abs(G)], dict(beta_1=0.5, beta_2=0.9)
    ours, theirs = (moves(rule(**options), *grads) for rule in (td.AdEMAMix, adam))
    assert np.all(theirs[-1] < 0)
    np.testing.assert_array_equal(np.sign(ours[-1]), -np.sign(G))


# StableAdamW.


@pytest.mark.parametrize("factor", [1.0, 0.7])
def test_stable_adamw_is_adamw_while_the_gradient_does_not_grow(factor):
    grads, options = [[factor**k * G] for k in range(9)], dict(beta_2=0.99, weight_decay=0.1)
    ours = last(td.StableAdamW(**options), [G], grads)
    close(ours.values[0], last(td.AdamW(**options), [G], grads).values[0], 1e-12)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_stable_steps_are_never_longer_than_the_rate_in_their_root_mean_square(dtype):
    grads = random_gradients(20)
    for spike in (3, 11, 12):
        grads[spike] = 1e3 * grads[spike]
    path = moves(td.StableAdamW(beta_1=0.0, weight_decay=0.0), *grads, dtype=dtype)
    lengths = np.sqrt(np.mean(np.square(path), axis=(1, 2)))
    assert lengths.max() < 1 + 1e-3
    close(lengths[[0, 3, 11]], 1.0, 1e-3)


def test_a_spike_shortens_the_decay_with_the_step():
    start, grads = np.ones(G.shape), [G] * 10 + [100 * G]
    decaying, without = (td.StableAdamW(weight_decay=λ) for λ in (1.0, 0.0))
    before = last(decaying, [start], [[g] for g in grads[:-1]]).values[0].numpy()
    decayed, plain = (moves(rule, *grads, start=start)[-1] for rule in (decaying, without))
    shares = (plain - decayed) / before
    close(shares, plain / moves(adam(beta_2=0.99), *grads, start=start)[-1])
    assert shares.min() > 0.2 and shares.max() < 0.5


# ADOPT.


@pytest.mark.parametrize("first", [0, LATE])
def test_a_variable_s_first_gradient_only_fills_v_whenever_it_comes(first):
    now = last(td.ADOPT(), [G], [[G]], first=first)
    np.testing.assert_array_equal(now.values[0], G)
    np.testing.assert_array_equal(now.slots[0]["m"], 0 * G)
    np.testing.assert_array_equal(now.slots[0]["v"], G * G)
    close(moves(td.ADOPT(), G, G, first=first)[1], -0.1 * np.sign(G))


def test_adopt_clips_the_k_th_step_to_the_fourth_root_of_k():
    path = moves(td.ADOPT(beta_1=0.0), *[1e3**k * G for k in range(6)])
    close(path, [-(k**0.25) * np.sign(G) for k in range(6)])


@pytest.mark.parametrize(
    "rule,options", [(td.ADOPT, dict(beta_1=0.0, beta_2=0.5)), (td.ACProp, {})]
)
def test_the_divisor_is_of_the_gradients_before(rule, options):
    earlier = random_gradients(4, seed=1)
    small = 0.1 * np.abs(earlier[0])  # nothing is clipped
    once, twice = (moves(rule(**options), *earlier, c * small)[-1] for c in (1, 2))
    close(twice, 2 * once)


# AdaBelief and ACProp.


def test_adabelief_divides_equal_gradients_by_epsilon_only():
    path = moves(td.AdaBelief(beta_1=0.5, beta_2=0.5, epsilon=1e-4), *[G] * 40)
    close(path[-1], -G / (math.sqrt(2e-4) + 1e-4))


def test_adabelief_divides_by_what_is_left_without_the_mean():
    grads, options = 30 * [G, -G], dict(beta_1=0.5, beta_2=0.8)
    # m swings between ± ⅓ g, so that g − m is ± ⅔ g.
    ours, theirs = moves(td.AdaBelief(**options), *grads)[-1], moves(adam(**options), *grads)[-1]
    close(ours / theirs, np.full(G.shape, 1.5), 1e-4)


@pytest.mark.parametrize("first", [0, LATE])
def test_acprop_s_first_step_is_the_gradient_and_its_second_is_scaled(first):
    close(moves(td.ACProp(), G, G, first=first), [-G, -np.sign(G) / 0.9])


# Yogi.


def test_yogi_s_second_moment_moves_by_a_share_of_the_squared_gradient():
    grads = random_gradients(30)
    grads[3] = 1e3 * grads[3]
    path = [now.slots[0]["v"] for now in steps(td.Yogi(), [0 * grads[0]], [[g] for g in grads])]
    for before, after, g in zip([1e-6, *path], path, grads, strict=False):
        close((after - before) / g**2, np.where(before < g**2, 0.001, -0.001))


def test_yogi_forgets_a_burst_more_slowly_than_adam():
    grads = [1e3 * G] + 30 * [G]
    burst = 0.1 * np.square(grads[0])
    assert np.all(slots(td.Yogi(beta_2=0.9), *grads)["v"] > 0.99 * burst)
    assert np.all(slots(adam(beta_2=0.9), *grads)["v"] < 0.1 * burst)


# Adan.


@pytest.mark.parametrize("first", [0, LATE])
def test_adan_sees_no_change_in_a_variable_s_first_gradient(first):
    after = slots(td.Adan(), G, first=first)
    np.testing.assert_array_equal(after["v"], 0 * G)
    np.testing.assert_array_equal(after["before"], G)
    close(after["n"], 0.01 * G * G)
    after = slots(td.Adan(), G, 3 * G, first=first)
    close(after["v"], 0.08 * 2 * G)
    close(after["n"], (0.99 * 0.01 + 0.01 * (3 + 0.92 * 2) ** 2) * G * G)


def test_adan_is_adam_while_the_gradient_stays_the_same():
    close(moves(td.Adan(epsilon=0.0), *[G] * 5), 5 * [-np.sign(G)])


def test_adan_turns_before_the_gradient_does():
    grads, options = [2.5 * G, 1.5 * G, 0.5 * G], dict(beta_1=0.0)
    np.testing.assert_array_equal(np.sign(moves(td.Adan(**options), *grads)[-1]), np.sign(G))
    np.testing.assert_array_equal(np.sign(moves(adam(**options), *grads)[-1]), -np.sign(G))


def test_adan_s_decay_divides_and_without_prox_subtracts():
    for proximal, left in ((True, 1.5**-3), (False, 0.5**3)):
        rule = td.Adan(0.5, weight_decay=1.0, proximal=proximal)
        close(last(rule, [G], 3 * [[0 * G]]).values[0], left * G)


# diffGrad.


def test_diffgrad_takes_half_of_adam_s_step_until_the_gradient_changes():
    path = moves(td.DiffGrad(epsilon=0.0), G, G, G, 100 + G)
    close(path[1:3], 2 * [-0.5 * np.sign(G)])
    close(path[3], moves(adam(epsilon=0.0), G, G, G, 100 + G)[3])


# Amos.


@pytest.mark.parametrize("slices,axis", [("columns", 0), ("rows", 1)])
def test_amos_steps_each_slice_by_its_scale_and_draws_it_back(slices, axis):
    start, rule = random_gradients(1, G.shape)[0], td.Amos(0.1, slices=slices)
    now = last(rule, [start], [[G]])
    sizes = np.sqrt(np.mean(G**2, axis, keepdims=True))
    scaled = G / sizes / math.sqrt(G.shape[axis])
    close(now.values[0], start - 0.1 * scaled - 0.5 * 0.1**2 * start)
    close(now.slots[0]["v"], 0.001 * sizes**2)
    close(now.slots[0]["b"], np.full(sizes.shape, 0.01))


def test_amos_takes_half_as_the_scale_of_vectors_and_scalars():
    for g in (np.array([3.0, -3.0]), np.array(-7.0)):
        close(moves(td.Amos(0.1), g), [-0.5 * np.sign(g)])


def test_rows_of_an_embedding_without_gradient_stay():
    g, rule = np.array([[1.0, -2.0], [0.0, 0.0], [3.0, 4.0]]), td.Amos(0.1, slices="rows")
    after = last(rule, [np.ones((3, 2))], 3 * [[g]]).values[0].numpy()
    np.testing.assert_array_equal(after[1], 1.0)
    assert np.all(after[[0, 2]] != 1)


@pytest.mark.parametrize("scale", [0.1, 3.0])
@pytest.mark.parametrize("start", [0.0, 5.0])
def test_amos_leads_weights_to_their_scale(scale, start):
    grads = [[g] for g in random_gradients(50, (40, 30))]
    rule = td.Amos(0.5, eta=scale, zeta=0.0, beta=0.9)
    end = last(rule, [np.full((40, 30), start * scale)], grads).values[0]
    assert 0.9 * scale < np.sqrt(np.mean(np.square(end))) < 1.15 * scale


def test_amos_slows_down_by_itself_unless_zeta_is_zero():
    grads = random_gradients(50)
    for zeta, least, most in ((0.0, 0.7, 1.4), (1.0, 0.0, 0.3)):
        lengths = np.abs(moves(td.Amos(0.5, zeta=zeta, beta=0.9), *grads)).mean((1, 2))
        assert least < lengths[-10:].mean() / lengths[:10].mean() < most
