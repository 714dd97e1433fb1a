"""The numbers that a sweep reports, on maps whose answer is known."""

import math

import numpy as np
import pytest

from tf_decoupled.experiments import statistics
from tf_decoupled.experiments.grid import Settings, cell
from tf_decoupled.experiments.results import DIVERGED, Outcome
from tf_decoupled.experiments.statistics import Estimate, Map, jackknife
from tf_decoupled.experiments.summary import FORMS, MEASURES, Comparison, compare, summary

ALPHAS = (0.001, 0.002, 0.004, 0.008, 0.016)
LAMBDAS = (0.0, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)
SEEDS = (0, 1, 2, 3)


def settings(**given):
    return Settings(**dict(alphas=ALPHAS, l2s=LAMBDAS, weight_decays=LAMBDAS, seeds=SEEDS) | given)


def valley(slope, depth=0.02):
    """log e is a parabola in log λ; its bottom moves by `slope` doublings per doubling of α."""

    def error(form, alpha, lam):
        if lam == 0:
            return 0.2
        return 0.1 * math.exp(
            depth * (math.log2(lam / 0.07) - slope * math.log2(alpha / 0.004)) ** 2
        )

    return error


def outcomes_of(settings, error, noise=0.0):
    """Outcomes of the whole grid: error(form, α, λ) times noise, on test and on validation."""
    random, found = np.random.default_rng(0), {}
    for each in settings.cells():
        e = error("coupled" if each.form == "both" else each.form, each.alpha, each.lam)
        found[each] = Outcome(0.1, *(e * np.exp(noise * random.normal(size=2))))
    return found


def one_map(log_e, alphas=None, lambdas=None, seeds=1):
    """The map of errors exp(log_e) [α, λ], alike with all seeds; α and λ go up by factor 2."""
    rows, columns = np.shape(log_e)
    errors = np.broadcast_to(np.exp(log_e), (seeds, rows, columns))
    return Map(
        2.0 ** np.arange(rows) if alphas is None else np.array(alphas),
        2.0 ** np.arange(columns) if lambdas is None else np.array(lambdas),
        errors,
        errors,
    )


# R².


def test_an_additive_map_is_explained_wholly():
    random = np.random.default_rng(0)
    log_e = random.normal(size=(5, 1)) + random.normal(size=(1, 6))
    assert statistics.r2(one_map(log_e)) == pytest.approx(1, abs=1e-12)


def test_an_additive_map_with_holes_is_explained_wholly():
    random = np.random.default_rng(0)
    log_e = random.normal(size=(5, 1)) + random.normal(size=(1, 6))
    log_e[1, 2] = log_e[4, 5] = log_e[0, 0] = np.nan
    log_e[3] = np.nan
    assert statistics.r2(one_map(log_e)) == pytest.approx(1, abs=1e-12)


def test_the_fit_of_a_whole_map_is_the_two_way_analysis_of_variance():
    log_e = np.random.default_rng(1).normal(size=(4, 7))
    rows, columns = log_e.mean(1, keepdims=True), log_e.mean(0, keepdims=True)
    left = log_e - rows - columns + log_e.mean()
    assert statistics.r2(one_map(log_e)) == pytest.approx(1 - left.var() / log_e.var(), abs=1e-12)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1)])
def test_a_single_row_or_column_has_neither_r2_nor_drift(shape):
    assert np.isnan(statistics.r2(one_map(np.ones(shape))))
    assert np.isnan(statistics.drift(one_map(np.ones(shape))))


# Drift.


@pytest.mark.parametrize("slope", [-1.0, -0.5, 0.0, 0.5])
def test_the_line_of_the_best_lambda_is_the_bottom_of_the_valley(slope):
    chosen = settings()
    errors = statistics.error_map(chosen, outcomes_of(chosen, valley(slope)), "decoupled", "cosine")
    at, found = statistics.valley(errors)
    assert found == pytest.approx(slope, abs=1e-9)
    assert 2 ** (at + found * math.log2(0.004)) == pytest.approx(0.07)
    assert (statistics.r2(errors) == pytest.approx(1)) == (slope == 0)


def test_what_the_rate_alone_does_to_the_error_does_not_move_the_drift():
    a, x = np.arange(4.0)[:, None], np.arange(5.0)
    bottom = (x - 2 + 0.7 * a) ** 2
    errors = one_map(0.1 * bottom + np.array([[3.0], [-1.0], [0.2], [8.0]]))
    assert statistics.drift(errors) == pytest.approx(-0.7)


def test_a_map_that_is_no_valley_has_no_drift():
    errors = one_map(-((np.arange(5.0) - np.arange(4.0)[:, None]) ** 2))
    assert np.isnan(statistics.drift(errors))


def test_lambda_zero_is_in_neither_r2_nor_drift():
    chosen = settings()
    found = outcomes_of(chosen, valley(0.3))
    errors = statistics.error_map(chosen, found, "decoupled", "cosine")
    changed = errors._replace(test=errors.test.copy())
    changed.test[..., 0] = np.random.default_rng(0).uniform(0.1, 0.9, len(ALPHAS))
    assert statistics.r2(errors) == statistics.r2(changed)
    assert statistics.drift(errors) == statistics.drift(changed)


# The error of what is chosen.


def test_each_seed_chooses_by_validation_and_the_others_test():
    validation = np.array([[[0.1, 0.2]], [[0.3, 0.2]], [[0.3, 0.1]]])
    test = np.array([[[0.01, 0.02]], [[0.04, 0.08]], [[0.16, 0.32]]])
    errors = Map(np.array([0.1]), np.array([0.0, 0.1]), validation, test)
    expected = np.mean([0.04, 0.16, 0.02, 0.32, 0.02, 0.08])
    assert statistics.tuned_error(errors) == pytest.approx(expected)


def test_the_luck_of_a_choice_does_not_lower_the_error_that_is_reported():
    """Of cells that are all alike the best looks better than it is; not so to other seeds."""
    errors = 0.2 * np.exp(0.05 * np.random.default_rng(0).normal(size=(2000, 4, 5, 5)))
    alike = Map(np.array(ALPHAS), np.array(LAMBDAS[:5]), errors, errors)
    assert statistics.tuned_error(alike).mean() == pytest.approx(0.2, abs=0.001)
    assert errors.mean(1).min((-1, -2)).mean() < 0.192


def test_a_cell_that_diverged_with_one_seed_is_in_no_number():
    chosen = settings()
    found = outcomes_of(chosen, valley(0.3), noise=0.05)
    lost = cell("decoupled", "cosine", 0.004, 0.05, 2)
    diverged = statistics.error_map(chosen, found | {lost: DIVERGED}, "decoupled", "cosine")
    for seed in SEEDS:
        found[lost._replace(seed=seed)] = DIVERGED
    everywhere = statistics.error_map(chosen, found, "decoupled", "cosine")
    for measure in MEASURES:
        assert measure.statistic(diverged) == measure.statistic(everywhere)
        assert np.isfinite(measure.statistic(diverged))


def test_ranking_is_by_mean_validation_and_leaves_out_what_diverged():
    validation = np.array([[[0.3, np.nan], [0.1, 0.2]], [[0.3, 0.1], [0.2, 0.3]]])
    errors = Map(np.ones(2), np.ones(2), validation, validation)
    assert statistics.ranking(errors) == [(1, 0), (1, 1), (0, 0)]


# Intervals.

AXES = np.log2(ALPHAS) - np.log2(0.004), np.log2(LAMBDAS[1:6]) - np.log2(0.05)
SHARED, OWN_TEST, OWN_VALIDATION = 0.01, 0.035, 0.05  # of log e: per seed; per cell


def simulated(log_e, shared, random):
    """Sweeps of the noise-free log_e [α, λ]; the luck of a seed, `shared`, is all its cells'."""
    noise = [
        shared + own * random.standard_normal((*shared.shape[:2], *log_e.shape))
        for own in (OWN_VALIDATION, OWN_TEST)
    ]
    errors = (np.exp(log_e + each) for each in noise)
    return Map(np.array(ALPHAS), np.array(LAMBDAS[1:6]), *errors)


def truth(measure, log_e, random):
    """The number without noise; for the error, the mean of cells that one seed's luck chose."""
    if measure.statistic is not statistics.tuned_error:
        return measure.statistic(one_map(log_e, ALPHAS, LAMBDAS[1:6]))
    lucky = log_e + OWN_VALIDATION * random.standard_normal((50_000, *log_e.shape))
    chosen = lucky.reshape(50_000, -1).argmin(-1)
    return np.exp(log_e.ravel()[chosen] + (SHARED**2 + OWN_TEST**2) / 2).mean()


def surface(slope, depth):
    a, x = AXES[0][:, None], AXES[1]
    return np.log(0.15) + 0.01 * (a - 0.5) ** 2 + depth * (x - slope * a - 0.3) ** 2


@pytest.mark.parametrize("depth", [0.01, 0.03])
@pytest.mark.parametrize("slope", [-1.0, -0.2])
@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_intervals_hold_the_truth_in_90_to_99_of_100_sweeps(seeds, slope, depth):
    """Each number that a summary prints: of a form, and of the difference of two forms.

    Both forms have equally good best cells, and are one surface where the slopes are equal.
    """
    random = np.random.default_rng(0)
    shared = SHARED * random.standard_normal((1000, seeds, 1, 1))
    logs = surface(slope, depth), surface(-0.2, depth)
    maps = [simulated(log_e, shared, random) for log_e in logs]
    for found in compare(maps):
        first, second = (truth(found.measure, log_e, random) for log_e in logs)
        for (_, low, high), value in zip(found[1:], (first, second, second - first), strict=True):
            known = np.isfinite(low)
            held = (low[known] <= value) & (value <= high[known])
            assert known.mean() > 0.95
            assert 0.90 <= held.mean() <= 0.99


def test_no_interval_of_r2_goes_above_1():
    chosen = settings(seeds=(0, 1, 2))
    found = outcomes_of(chosen, valley(0), noise=0.1)
    maps = [statistics.error_map(chosen, found, form, "cosine") for form in FORMS]
    (r2,) = (each for each in compare(maps) if each.measure.statistic is statistics.r2)
    assert r2.decoupled.high == 1 > r2.decoupled.low
    assert jackknife(statistics.r2, maps[1]).high > 1


def test_the_interval_of_a_mean_is_students():
    errors = np.random.default_rng(0).uniform(0.1, 0.2, (6, 1, 1))
    estimate = jackknife(lambda m: m.test.mean((-1, -2, -3)), Map(*np.ones((2, 1)), errors, errors))
    half = 2.5705818 * errors.std(ddof=1) / math.sqrt(6)
    assert estimate == pytest.approx((errors.mean(), errors.mean() - half, errors.mean() + half))


@pytest.mark.parametrize(
    "freedom,t", [(1, 12.706205), (2, 4.302653), (9, 2.262157), (30, 2.042272)]
)
def test_students_t_is_that_of_the_tables(freedom, t):
    assert statistics.student(freedom) == pytest.approx(t, rel=1e-5)


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_have_no_interval(seeds):
    value, low, high = jackknife(statistics.r2, one_map(np.eye(3), seeds=seeds))
    assert value == pytest.approx(float(statistics.r2(one_map(np.eye(3)))))
    assert np.isnan((low, high)).all()


@pytest.mark.parametrize(
    "low,high,verdict", [(0.1, 1.9, 1), (-1.9, -0.1, -1), (-0.1, 2.1, 0), (math.nan, math.nan, 0)]
)
def test_a_difference_needs_an_interval_without_zero(low, high, verdict):
    assert Comparison(MEASURES[0], *[Estimate((low + high) / 2, low, high)] * 3).verdict == verdict


def test_seeds_that_are_not_whole_yet_are_left_out():
    chosen = settings()
    found = outcomes_of(chosen, valley(0.3), noise=0.05)
    whole = statistics.error_map(settings(seeds=(0, 1, 2)), found, "coupled", "cosine")
    del found[cell("decoupled", "cosine", 0.001, 0.1, 3)]
    assert (statistics.error_map(chosen, found, "coupled", "cosine").test == whole.test).all()


# The words.


def words(chosen, found):
    return " ".join(summary(chosen, found).split())


def two_valleys(coupled, decoupled, factor=1.0):
    """AdamW's errors are `factor` times as large."""

    def error(form, alpha, lam):
        slope, times = (coupled, 1.0) if form == "coupled" else (decoupled, factor)
        return times * valley(slope)(form, alpha, lam)

    return error


def test_forms_that_are_alike_are_said_not_to_be_told_apart():
    chosen = settings()
    said = words(chosen, outcomes_of(chosen, two_valleys(-0.3, -0.3), noise=0.03))
    assert said.count("4 seeds can't tell the forms apart") == 3


def test_forms_that_differ_are_said_to_differ_and_how():
    chosen = settings()
    said = words(chosen, outcomes_of(chosen, two_valleys(-1, 0, factor=0.8), noise=0.01))
    assert "Tuned test error: AdamW ends below Adam + L2 (-" in said
    assert "R² of f(α) + g(λ): the map of AdamW is the more separable (+" in said
    assert "the best λ of AdamW and of Adam + L2 move differently (+1.0" in said
    swapped = words(chosen, outcomes_of(chosen, two_valleys(0, -1, factor=1.25), noise=0.01))
    assert "Tuned test error: Adam + L2 ends below AdamW (+" in swapped
    assert "R² of f(α) + g(λ): the map of Adam + L2 is the more separable (-" in swapped


def test_nothing_is_claimed_of_one_seed():
    chosen = settings(seeds=(0,))
    said = words(chosen, outcomes_of(chosen, two_valleys(-1, 0, factor=0.5)))
    assert said.count("no interval without 3 seeds: nothing is claimed") == 3
    assert "drift of the best λ -1.00 +0.00 +1.00" in said.replace("-0.00", "+0.00")


def test_diverged_cells_are_counted_and_break_nothing():
    chosen = settings()
    found = outcomes_of(chosen, valley(0), noise=0.02)
    for each in chosen.cells():
        if each.alpha == 0.016 or (each.form == "coupled" and each.lam >= 0.2):
            found[each] = DIVERGED
    said = summary(chosen, found)
    assert f"{sum(o.diverged for o in found.values())} of {len(found)} cells diverged" in said
    assert "nan" not in said.lower()


@pytest.mark.parametrize("found", [{}, None])
def test_a_sweep_without_a_single_error_has_a_summary(found):
    chosen = settings()
    said = summary(chosen, dict.fromkeys(chosen.cells(), DIVERGED) if found is None else found)
    assert "all diverged" in said
    assert said.count("not known of both forms: nothing is claimed") == 3
    assert "nan" not in said.lower()
