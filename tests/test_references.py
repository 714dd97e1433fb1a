"""The references themselves, against what can be worked out by hand."""

import numpy as np
import pytest
import references as ref

RULES = [ref.adamw, ref.adam, ref.rmsprop, ref.sgdw, ref.sgd, ref.lion, ref.lamb, ref.adafactor]

random = np.random.default_rng(0)
THETA = random.normal(size=[4, 3])
GRADS = list(random.normal(size=[5, 4, 3]))
RATES = [0.1, 0.2, 0.2, 0.1, 0.05]


def test_a_run_does_not_change_its_arguments_and_repeats():
    theta, grads, run = THETA.copy(), [g.copy() for g in GRADS], dict(learning_rate=RATES)
    for rule in (*RULES, ref.lookahead):
        first = rule(theta, grads, weight_decay=0.1, **run)
        np.testing.assert_array_equal(first, rule(theta, grads, weight_decay=0.1, **run))
        np.testing.assert_array_equal(theta, THETA)
        np.testing.assert_array_equal(grads, GRADS)


@pytest.mark.parametrize(
    ("coupling", "factors"),
    [
        ("learning_rate", [0.1, 0.2, 0.2, 0.1, 0.05]),
        ("schedule", [0.25, 0.5, 0.5, 0.25, 0.125]),
        ("independent", [1, 1, 1, 1, 1]),
        ("corrected", [0.025, 0.1, 0.1, 0.025, 0.00625]),
    ],
)
def test_zero_gradients_leave_the_decay_alone(coupling, factors):
    zeros = [np.zeros([4, 3])] * 5
    decays = [0.1, 0.2, 0.3, 0.4, 0.5]
    options = dict(learning_rate=RATES, weight_decay=decays, coupling=coupling, base=0.4)
    wanted = THETA * np.prod(1 - np.array(factors) * decays)
    for rule in RULES:
        if rule is not ref.lamb:  # whose ratio scales the decay
            np.testing.assert_allclose(rule(THETA, zeros, **options), wanted, rtol=1e-12)


def test_the_first_step_of_adam_has_the_length_of_the_rate():
    for options in ({}, {"amsgrad": True}, {"epsilon_hat": True}):
        after = ref.adamw(THETA, GRADS[:1], learning_rate=0.1, epsilon=1e-12, **options)
        np.testing.assert_allclose(after, THETA - 0.1 * np.sign(GRADS[0]), atol=1e-8)


def test_amsgrad_keeps_the_largest_raw_second_moment():
    big, small, options = 2.0, 0.5, dict(beta_1=0.0, beta_2=0.5, epsilon=0.0)
    after = ref.adamw([0.0], [[big], [small]], learning_rate=1.0, amsgrad=True, **options)
    # v = 2, then 1.125: the maximum is 2, corrected by 1 − 0.5² = 0.75.
    np.testing.assert_allclose(after, -1.0 - small / np.sqrt(2 / 0.75), rtol=1e-12)


def test_adam_without_beta_1_is_rmsprop_with_bias_correction():
    rms = ref.rmsprop(THETA, GRADS, learning_rate=RATES)
    adam = ref.adamw(THETA, GRADS, learning_rate=RATES, beta_1=0.0)
    np.testing.assert_allclose(adam, rms, rtol=1e-12)


def test_l2_is_decoupled_decay_only_for_plain_gradient_descent():
    l2, decoupled = dict(l2=0.1), dict(weight_decay=0.1)
    run = dict(learning_rate=0.2)
    plain = ref.sgd(THETA, GRADS, **l2, **run)
    np.testing.assert_allclose(plain, ref.sgdw(THETA, GRADS, momentum=0.0, **decoupled, **run))
    gap = ref.adam(THETA, GRADS, **l2, **run) - ref.adamw(THETA, GRADS, **decoupled, **run)
    assert np.abs(gap).min() > 1e-6


def test_nesterov_looks_one_step_ahead():
    run = dict(learning_rate=[1.0, 0.5], momentum=0.5)
    assert ref.sgdw([0.0], [[1.0], [1.0]], **run) == -(1.0 + 1.0)
    assert ref.sgdw([0.0], [[1.0], [1.0]], nesterov=True, **run) == -(1.5 + 0.5 * 1.0 + 0.5)


def test_lion_steps_by_the_rate_in_every_direction():
    after = ref.lion(THETA, GRADS[:1], learning_rate=0.1)
    np.testing.assert_array_equal(after, THETA - 0.1 * np.sign(GRADS[0]))


def test_lamb_steps_by_the_rate_times_the_norm():
    after = ref.lamb(THETA, GRADS[:1], learning_rate=0.1, weight_decay=0.3)
    assert np.linalg.norm(after - THETA) == pytest.approx(0.1 * np.linalg.norm(THETA))
    from_zero = ref.lamb([0.0, 0.0], [[1.0, -2.0]], learning_rate=0.1)
    np.testing.assert_allclose(from_zero, [-0.1, 0.1], rtol=1e-5)


def test_adafactor_is_exact_for_a_gradient_of_rank_one():
    g = np.outer([1.0, -2.0, 3.0], [0.5, -1.0])
    after = ref.adafactor(np.full([3, 2], 2.0), [g], learning_rate=0.01)
    np.testing.assert_allclose(after, 2.0 - 2.0 * 0.01 * np.sign(g), rtol=1e-12)
    small = ref.adafactor([0.0, 0.0], [[5.0, -5.0]], learning_rate=0.01)
    np.testing.assert_allclose(small, [-1e-5, 1e-5], rtol=1e-12)


def test_adafactor_with_sums_as_in_the_paper_is_the_same():
    g, theta = GRADS[0], THETA
    square = g**2 + 1e-30
    v = np.outer(square.sum(1), square.sum(0)) / square.sum()
    u = g / np.sqrt(v)
    u /= max(1, np.sqrt(np.mean(u**2)))
    wanted = theta - np.sqrt(np.mean(theta**2)) * 0.01 * u
    np.testing.assert_allclose(ref.adafactor(theta, [g], learning_rate=0.01), wanted, rtol=1e-12)


def test_adafactor_factors_each_matrix_of_a_stack():
    stack, grads = np.stack([THETA, THETA]), [np.stack([g, g]) for g in GRADS]
    one = ref.adafactor(THETA, GRADS, learning_rate=RATES)
    np.testing.assert_allclose(ref.adafactor(stack, grads, learning_rate=RATES), [one, one])


def test_lookahead_with_alpha_1_is_its_inner_rule():
    run = dict(learning_rate=RATES, weight_decay=0.1)
    for inner in RULES:
        ahead = ref.lookahead(THETA, GRADS, inner=inner, k=2, alpha=1.0, **run)
        np.testing.assert_allclose(ahead, inner(THETA, GRADS, **run), rtol=1e-12)


def test_lookahead_goes_part_of_the_way_every_k_steps():
    run = dict(learning_rate=1.0, inner=ref.sgd, k=2, alpha=0.5)
    ahead = [ref.lookahead([8.0], [[1.0]] * n, **run).item() for n in range(1, 6)]
    assert ahead == [7.0, 7.0, 6.0, 6.0, 5.0]


def test_normalized_decay_is_the_rate_over_the_root_of_the_number_of_updates():
    assert ref.normalized_decay(0.05, 100, 2500, 4) == pytest.approx(0.005)
