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
    """How far each step goes from the one before, in units of the rate."""
    start = np.zeros(np.shape(grads[0])) if start is None else start
    path = [start] + [now.values[0] for now in steps(rule, [start], [[g] for g in grads], **options)]
    return [(after - before) / rule.learning_rate for before, after in zip(path, path[1:])]


def close(a, b, tolerance=1e-9):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def random_gradients(count, shape=(4, 3), seed=0):
    return list(np.random.default_rng(seed).normal(size=(count, *shape)))


@pytest.mark.parametrize(
    "rule,length",
    [
        (td.RAdam(), np.abs(G)),
        (td.AdEMAMix(epsilon=0.0), 1 + 5 * 1e-4),
        (td.AdEMAMix(epsilon=0.0, fast_average=False), 1 + 5 * 1e-4),
        (td.StableAdamW(epsilon=0.0), 1),
        (td.ADOPT(), 0),
        (td.AdaBelief(epsilon=0.0), 1 / 0.9),
        (td.Adan(epsilon=0.0), 1),
        (td.DiffGrad(epsilon=0.0), 1 / (1 + np.exp(-np.abs(G)))),
        (td.ACProp(), np.abs(G)),
        (td.Yogi(epsilon=0.0, initial_accumulator_value=1e-30), 1),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, td.Optimizer) else "",
)
def test_the_first_step_has_its_closed_form(rule, length):
    (first,) = moves(rule, G)
    close(first, -length * np.sign(G), 1e-6)


@pytest.mark.parametrize(
    "rule",
    [td.AdEMAMix(alpha=0.0, epsilon=1e-3), td.StableAdamW(beta_2=0.999, weight_decay=0.1)],
    ids=lambda rule: type(rule).__name__,
)
def test_where_nothing_is_left_of_the_variant_it_is_adamw(rule):
    start = random_gradients(1)[0]
    grads = 12 * [[start]] if isinstance(rule, td.StableAdamW) else [[g] for g in random_gradients(12)]
    adamw = td.AdamW(weight_decay=rule.weight_decay, epsilon=rule.epsilon)
    close(last(rule, [start], grads).values[0], last(adamw, [start], grads).values[0])


# RAdam.


def test_radam_is_sgd_with_momentum_for_four_steps_and_then_shorter_than_adam():
    grads = random_gradients(6)
    ours, adam = moves(td.RAdam(), *grads), moves(td.AdamW(weight_decay=0.0), *grads)
    m = 0.0
    for t, g in enumerate(grads[:4], 1):
        m = 0.9 * m + 0.1 * g
        close(ours[t - 1], -m / (1 - 0.9**t), 1e-6)
    for t in (4, 5):
        shares = ours[t] / adam[t]
        assert np.ptp(shares) < 1e-6 and 0 < shares.max() < 0.05


def test_radam_ends_as_adam():
    grads = random_gradients(2)
    ours = moves(td.RAdam(beta_2=0.99), *grads, first=10_000)
    close(ours, moves(td.AdamW(beta_2=0.99, weight_decay=0.0), *grads, first=10_000))


@pytest.mark.parametrize("beta_2", [0.0, 0.5, 0.6])
def test_radam_without_a_memory_of_squares_is_sgd_for_ever(beta_2):
    for first in (0, 4, LATE):
        close(moves(td.RAdam(beta_1=0.0, beta_2=beta_2), G, first=first), [-G])


def test_radam_begins_at_the_fifth_step_also_where_float32_is_short_of_digits():
    rule = td.RAdam(beta_1=0.0, beta_2=0.99999)
    path = moves(rule, *[100 * G] * 5, dtype=tf.float32)
    close(path[:4], 4 * [-100 * G], 1e-5)
    assert np.abs(path[4]).max() < 0.1


# AdEMAMix.


def slow_share(t, **options):
    """1 − β₃(t): what the slow average takes of a first gradient of 1."""
    rule = td.AdEMAMix(**options)
    return float(last(rule, [np.zeros(())], [[1.0]], first=t - 1).slots[0]["m2"])


def test_the_half_life_of_the_slow_average_grows_along_a_line():
    halves = [math.log(0.5) / math.log1p(-slow_share(t, beta_3_warmup=200.0)) for t in range(1, 202)]
    ends = math.log(0.5) / math.log(0.9), math.log(0.5) / math.log(0.9999)
    close(halves[:200], np.linspace(*ends, 201)[1:], 1e-3)
    assert halves[200] == halves[199]


def test_warm_ups_begin_with_adam_and_end_with_the_numbers_given():
    rule = td.AdEMAMix(alpha_warmup=100.0, beta_3_warmup=100.0, epsilon=0.0)
    share = slow_share(1, beta_3_warmup=100.0)
    close(moves(rule, G), [-(1 + 0.05 * share) * np.sign(G)], 1e-6)
    grads = random_gradients(3)
    close(moves(rule, *grads, first=99), moves(td.AdEMAMix(epsilon=0.0), *grads, first=99))


def test_beta_1_of_zero_is_the_form_without_a_fast_average():
    grads = random_gradients(5)
    options = dict(beta_1=0.0, alpha_warmup=3.0, beta_3_warmup=4.0)
    without = moves(td.AdEMAMix(fast_average=False, **options), *grads)
    close(moves(td.AdEMAMix(**options), *grads), without)
    assert set(td.AdEMAMix(fast_average=False).init(tf.zeros([2]))) == {"m2", "v"}


def test_the_slow_average_remembers_what_adam_has_forgotten():
    grads = [100 * G] + 300 * [0.01 * np.abs(G)]
    ours, adam = moves(td.AdEMAMix(beta_3=0.999), *grads), moves(td.AdamW(weight_decay=0.0), *grads)
    assert np.all(adam[-1] <= 0) and np.all(np.sign(ours[-1]) == -np.sign(G))


# StableAdamW.


def test_stable_steps_are_never_longer_than_the_rate_in_their_root_mean_square():
    grads = random_gradients(20)
    for spike in (3, 11, 12):
        grads[spike] = 1e3 * grads[spike]
    for dtype in (tf.float32, tf.float64):
        path = moves(td.StableAdamW(beta_1=0.0, weight_decay=0.0), *grads, dtype=dtype)
        lengths = [np.sqrt(np.mean(np.square(move))) for move in path]
        assert max(lengths) < 1 + 1e-3 and np.median(lengths) > 0.5


def test_a_spike_shortens_the_decay_with_the_step():
    start, grads = np.ones((2, 3)), [G] * 10 + [100 * G]
    decayed, plain = (
        moves(td.StableAdamW(weight_decay=λ), *grads, start=start)[-1] for λ in (1.0, 0.0)
    )
    before = last(td.StableAdamW(weight_decay=1.0), [start], [[g] for g in grads[:-1]]).values[0]
    shares = (plain - decayed) / before
    close(shares, np.full((2, 3), shares[0, 0]), 1e-6)
    usual = moves(td.AdamW(weight_decay=0.0, beta_2=0.99), *grads, start=start)[-1]
    close(shares, plain / usual, 1e-3)
    assert shares.max() < 0.5


# ADOPT.


@pytest.mark.parametrize("first", [0, LATE])
def test_adopt_s_first_gradient_only_fills_v_whenever_it_comes(first):
    now = last(td.ADOPT(), [G], [[G]], first=first)
    np.testing.assert_array_equal(now.values[0], G)
    np.testing.assert_array_equal(now.slots[0]["m"], 0 * G)
    np.testing.assert_array_equal(now.slots[0]["v"], G * G)
    close(moves(td.ADOPT(), G, G, first=first)[1], -0.1 * np.sign(G))


def test_adopt_clips_the_k_th_step_to_the_fourth_root_of_k():
    path = moves(td.ADOPT(beta_1=0.0), *[1e3**k * G for k in range(6)])
    for k, move in enumerate(path):
        close(move, -(k**0.25) * np.sign(G))


def test_adopt_divides_by_what_was_there_before_the_gradient():
    once, twice = (moves(td.ADOPT(beta_1=0.0), G, G, c * G)[2] for c in (0.3, 0.6))
    close(twice, 2 * once)


# AdaBelief and ACProp.


def test_adabelief_divides_equal_gradients_by_epsilon_only():
    *_, end = moves(td.AdaBelief(epsilon=1e-8), *[G] * 20_000)
    close(end, -G / math.sqrt(1e-8 / 0.001), 1e-3)


def test_adabelief_is_adam_where_gradients_have_no_mean():
    grads = 300 * [G, -G]
    ours, adam = moves(td.AdaBelief(beta_1=0.5), *grads), moves(td.AdamW(weight_decay=0, beta_1=0.5), *grads)
    # m swings between ± ⅓ g, so that g − m is ⅔ g: steps are 1½ times as long.
    close(ours[-1] / adam[-1], np.full(G.shape, 1.5), 1e-2)


@pytest.mark.parametrize("first", [0, LATE])
def test_acprop_s_first_step_is_the_gradient_and_its_second_is_scaled(first):
    path = moves(td.ACProp(), G, G, first=first)
    close(path[0], -G)
    close(path[1], -np.sign(G) / 0.9, 1e-6)


def test_acprop_divides_by_what_was_there_before_the_gradient():
    once, twice = (moves(td.ACProp(), *random_gradients(4), c * np.ones((4, 3)))[4] for c in (1, 2))
    close(twice, 2 * once)


# Yogi.


def test_yogi_s_second_moment_moves_by_a_share_of_the_squared_gradient():
    grads = random_gradients(30)
    grads[3] = 1e3 * grads[3]
    path = [now.slots[0]["v"].numpy() for now in steps(td.Yogi(), [G], [[g[:2]] for g in grads])]
    for before, after, g in zip(path, path[1:], grads[1:], strict=False):
        rises = before < g[:2] ** 2
        close(after - before, np.where(rises, 1, -1) * 0.001 * g[:2] ** 2, 1e-6)
        assert np.all(after > 0)


def test_yogi_forgets_a_burst_more_slowly_than_adam():
    grads = [[1e3 * G]] + 3000 * [[G]]
    yogi, adam = (last(rule, [G], grads).slots[0]["v"] for rule in (td.Yogi(), td.AdamW()))
    assert np.all(yogi > 0.99 * 1e3 * G * G) and np.all(adam < 0.1 * 1e3 * G * G)


# Adan.


@pytest.mark.parametrize("first", [0, LATE])
def test_adan_sees_no_change_in_a_variable_s_first_gradient(first):
    now = last(td.Adan(), [G], [[G]], first=first)
    np.testing.assert_array_equal(now.slots[0]["v"], 0 * G)
    np.testing.assert_array_equal(now.slots[0]["before"], G)
    close(now.slots[0]["n"], 0.01 * G * G)


def test_adan_is_adam_while_the_gradient_stays_the_same():
    close(moves(td.Adan(epsilon=0.0), *[G] * 5), 5 * [-np.sign(G)])


def test_adan_looks_ahead_along_the_change_of_the_gradient():
    rising, falling = (moves(td.Adan(), G, c * G)[1] for c in (1.5, 0.5))
    assert np.all(np.abs(rising) > 1) and np.all(np.sign(falling) == np.sign(G))


def test_adan_s_decay_divides_and_without_prox_subtracts():
    zeros = 3 * [[np.zeros_like(G)]]
    for proximal, left in ((True, 1.5**-3), (False, 0.5**3)):
        rule = td.Adan(0.5, weight_decay=1.0, proximal=proximal)
        close(last(rule, [G], zeros).values[0], left * G)


# diffGrad.


def test_diffgrad_takes_half_of_adam_s_step_while_the_gradient_stays_the_same():
    path = moves(td.DiffGrad(epsilon=0.0), G, G, G, 100 + G)
    close(path[1:3], 2 * [-0.5 * np.sign(G)])
    adam = moves(td.AdamW(epsilon=0.0, weight_decay=0.0), G, G, G, 100 + G)
    close(path[3], adam[3])


# Amos.


@pytest.mark.parametrize("slices,axis", [("columns", 0), ("rows", 1)])
def test_amos_steps_each_slice_by_its_scale_and_draws_it_back(slices, axis):
    start = random_gradients(1, (2, 3), seed=1)[0]
    rule = td.Amos(0.1, slices=slices)
    now = last(rule, [start], [[G]])
    sizes = np.sqrt(np.mean(G**2, axis, keepdims=True))
    wanted = start - 0.1 / math.sqrt(G.shape[axis]) * G / sizes - 0.5 * 0.1**2 * start
    close(now.values[0], wanted, 1e-6)
    assert now.slots[0]["v"].shape == now.slots[0]["b"].shape == sizes.shape
    close(now.slots[0]["b"], np.full(sizes.shape, 0.01), 1e-6)


def test_rows_of_an_embedding_without_gradient_stay():
    g = np.array([[1.0, -2.0], [0.0, 0.0], [3.0, 4.0]])
    after = last(td.Amos(0.1, slices="rows"), [np.ones((3, 2))], [[g]] * 3).values[0].numpy()
    np.testing.assert_array_equal(after[1], np.ones(2))
    assert np.all(after[[0, 2]] != 1)


def test_amos_leads_weights_to_their_scale():
    rng = np.random.default_rng(0)
    grads = [[rng.normal(size=(40, 30))] for _ in range(80)]
    for scale in (0.1, 3.0):
        rule = td.Amos(0.4, eta=scale, zeta=0.0, beta=0.9)
        for start in (0.0, 5 * scale):
            end = last(rule, [np.full((40, 30), start)], grads).values[0]
            assert 0.9 * scale < np.sqrt(np.mean(np.square(end))) < 1.15 * scale


def test_amos_slows_down_by_itself_unless_zeta_is_zero():
    grads = [g for g in random_gradients(60)]
    lengths = {}
    for zeta in (0.0, 1.0):
        path = moves(td.Amos(0.5, zeta=zeta, beta=0.9), *grads)
        lengths[zeta] = [np.linalg.norm(move) for move in path]
    assert np.mean(lengths[0.0][-20:]) > 0.7 * np.mean(lengths[0.0][:20])
    assert np.mean(lengths[1.0][-20:]) < 0.3 * np.mean(lengths[1.0][:20])


def test_amos_takes_half_as_the_scale_of_vectors_and_scalars():
    for g in (np.array([3.0, -3.0]), np.array(-7.0)):
        close(moves(td.Amos(0.1), g), [-0.5 * np.sign(g)], 1e-6)
