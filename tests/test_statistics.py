"""The numbers that a sweep reports, on maps whose answer is known."""

import math

import numpy as np
import pytest

from tf_decoupled.experiments import statistics
from tf_decoupled.experiments.grid import Settings, cell
from tf_decoupled.experiments.results import DIVERGED, Outcome
from tf_decoupled.experiments.statistics import Estimate, Map
from tf_decoupled.experiments.summary import summary

ALPHAS = (0.001, 0.002, 0.004, 0.008, 0.016)
LAMBDAS = (0.0, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)


def outcomes_of(settings, error, shift=0.0):
    """Outcomes of the whole grid whose errors are error(form, α, λ), and `shift` on validation."""
    found = {}
    for each in settings.cells():
        e = error("coupled" if each.form == "both" else each.form, each.alpha, each.lam)
        found[each] = Outcome(0.1, e + shift, e)
    return found


def settings(**given):
    return Settings(**dict(alphas=ALPHAS, l2s=LAMBDAS, weight_decays=LAMBDAS) | given)


def valley(slope):
    """log e is a parabola in log λ; its bottom moves by `slope` doublings per doubling of α."""

    def error(form, alpha, lam):
        if lam == 0:
            return 0.2
        return 0.1 * math.exp(
            0.02 * (math.log2(lam / 0.07) - slope * math.log2(alpha / 0.004)) ** 2
        )

    return error


def test_an_additive_map_is_explained_wholly():
    random = np.random.default_rng(0)
    log_e = random.normal(size=(5, 1)) + random.normal(size=(1, 6))
    r2, residual = statistics.additive_fit(log_e)
    assert r2 == pytest.approx(1, abs=1e-12)
    assert residual == pytest.approx(0, abs=1e-12)


def test_an_additive_map_with_holes_is_explained_wholly():
    random = np.random.default_rng(0)
    log_e = random.normal(size=(5, 1)) + random.normal(size=(1, 6))
    log_e[1, 2] = log_e[4, 5] = log_e[0, 0] = np.nan
    log_e[3] = np.nan
    assert statistics.additive_fit(log_e)[0] == pytest.approx(1, abs=1e-12)


def test_the_fit_of_a_whole_map_is_the_two_way_analysis_of_variance():
    log_e = np.random.default_rng(1).normal(size=(4, 7))
    rows, columns = log_e.mean(1, keepdims=True), log_e.mean(0, keepdims=True)
    left = log_e - rows - columns + log_e.mean()
    r2, residual = statistics.additive_fit(log_e)
    assert r2 == pytest.approx(1 - left.var() / log_e.var(), abs=1e-12)
    assert residual == pytest.approx(np.sqrt((left**2).mean()), abs=1e-12)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1)])
def test_a_single_row_or_column_explains_nothing(shape):
    assert np.isnan(statistics.additive_fit(np.ones(shape))).all()


@pytest.mark.parametrize("slope", [-1.0, -0.5, 0.0, 0.5])
def test_the_drift_of_a_valley_is_its_slope(slope):
    chosen = settings(alphas=(0.002, 0.004, 0.008))
    errors = statistics.error_map(chosen, outcomes_of(chosen, valley(slope)), "decoupled", "cosine")
    fit = statistics.separability(errors, 0.001, 1, 10_000)
    assert fit.drift.value == pytest.approx(slope, abs=1e-6)
    assert fit.edges == 0
    assert (fit.r2.value == pytest.approx(1)) == (slope == 0)


def test_lambda_zero_is_in_no_separability():
    chosen = settings()
    found = outcomes_of(chosen, valley(0.3))
    errors = statistics.error_map(chosen, found, "decoupled", "cosine")
    changed = errors._replace(test=errors.test.copy())
    changed.test[:, 0] = np.random.default_rng(0).uniform(0.1, 0.9, len(ALPHAS))
    fits = [statistics.separability(each, 0.01, 1, 10_000) for each in (errors, changed)]
    assert fits[0] == fits[1]


def test_a_best_lambda_at_the_edge_is_counted_and_kept():
    log_e = np.log([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.3, 0.1, 0.2]])
    found, edges = statistics.best_lambdas(np.array([0.0, 1.0, 2.0]), log_e)
    assert edges == 2
    assert list(found[:2]) == [0, 2]
    assert 1 < found[2] < 1.5


def test_a_row_that_diverged_has_no_best_lambda():
    found, _ = statistics.best_lambdas(np.arange(3.0), np.full((1, 3), np.nan))
    assert np.isnan(found).all()
    assert math.isnan(statistics.drift(np.arange(2.0), np.array([np.nan, 1.0])))


def test_one_outlying_rate_does_not_move_the_drift():
    log_best = np.array([0.0, 0.0, 0.0, 0.0, 4.0])
    assert statistics.drift(np.arange(5.0), log_best) == 0


def test_more_noise_makes_less_certain_estimates():
    chosen = settings()
    errors = statistics.error_map(chosen, outcomes_of(chosen, valley(-1)), "coupled", "cosine")
    quiet, loud = (statistics.separability(errors, s, 1, 10_000) for s in (0.001, 0.05))
    assert quiet.r2.error < loud.r2.error
    assert quiet.drift.error < loud.drift.error


def test_the_best_cell_is_chosen_by_validation_and_judged_by_test():
    chosen = settings()
    found = outcomes_of(chosen, lambda *_: 0.3)
    lucky, best = (cell("decoupled", "cosine", 0.004, lam, 0) for lam in (0.05, 0.1))
    found[lucky] = Outcome(0.1, 0.29, 0.01)
    found[best] = Outcome(0.1, 0.1, 0.12)
    result = statistics.best(chosen, found, "decoupled", "cosine")
    assert (result.alpha, result.lam, result.test.value) == (0.004, 0.1, 0.12)
    assert result.test.error == pytest.approx(math.sqrt(0.12 * 0.88 / 10_000))
    assert result.seeds == 1


def test_the_best_cell_has_the_standard_error_over_all_its_seeds():
    chosen = settings(best_seeds=(1, 2))
    found = outcomes_of(chosen, lambda *_: 0.3)
    for seed, error in enumerate((0.1, 0.12, 0.17)):
        found[cell("decoupled", "cosine", 0.004, 0.1, seed)] = Outcome(0.1, 0.1, error)
    result = statistics.best(chosen, found, "decoupled", "cosine")
    assert result.test.value == pytest.approx(0.13)
    assert result.test.error == pytest.approx(np.std([0.1, 0.12, 0.17], ddof=1) / math.sqrt(3))
    assert result.seeds == 3


def test_a_map_is_the_mean_over_the_seeds_of_the_grid_alone():
    chosen = settings(seeds=(0, 1), best_seeds=(2,))
    found = outcomes_of(chosen, lambda *_: 0.3)
    for seed, error in enumerate((0.1, 0.2, 0.9)):
        found[cell("coupled", "cosine", 0.001, 0.1, seed)] = Outcome(0.1, 0.1, error)
    errors = statistics.error_map(chosen, found, "coupled", "cosine")
    assert errors.test[0, LAMBDAS.index(0.1)] == pytest.approx(0.15)


def test_forms_within_the_noise_are_said_to_be_so():
    chosen = settings(best_seeds=(1,))
    found = outcomes_of(chosen, valley(0))
    for form, errors in (("coupled", (0.100, 0.104)), ("decoupled", (0.101, 0.102))):
        for seed, error in enumerate(errors):
            found[cell(form, "cosine", 0.004, 0.05, seed)] = Outcome(0.1, 0.05, error)
    said = summary(chosen, found)
    assert "R²: no difference beyond the noise" in said
    assert "Drift: no difference beyond the noise" in said


def test_forms_that_differ_are_said_to_differ_and_how():
    chosen = settings(alphas=(0.002, 0.004, 0.008), best_seeds=(1,))
    found = outcomes_of(
        chosen, lambda form, alpha, lam: valley(-1 if form == "coupled" else 0)(form, alpha, lam)
    )
    for form, errors in (("coupled", (0.1000, 0.1001)), ("decoupled", (0.0900, 0.0901))):
        for seed, error in enumerate(errors):
            found[cell(form, "cosine", 0.004, 0.05, seed)] = Outcome(0.1, 0.05, error)
    said = summary(chosen, found)
    assert "R²: the map of AdamW is the more separable" in said
    assert "Drift: the best λ of AdamW depends less on α" in said
    assert "9.00 ± 0.01 % (2 seeds)" in said.replace("9.01", "9.00")


@pytest.mark.parametrize("coupled,decoupled", [(0.10, 0.09), (0.09, 0.10), (0.10, 0.10)])
def test_no_difference_of_best_cells_is_claimed_as_how_they_were_chosen_is_not_in_the_errors(
    coupled, decoupled
):
    chosen = settings(best_seeds=(1,))
    found = outcomes_of(chosen, valley(0))
    for form, error in (("coupled", coupled), ("decoupled", decoupled)):
        for seed in (0, 1):
            test = error + 0.0001 * seed
            found[cell(form, "cosine", 0.004, 0.05, seed)] = Outcome(0.1, 0.05, test)
    said = " ".join(summary(chosen, found).split())
    assert (
        f"Best cells: {100 * coupled:.2f} ± 0.01 % with Adam + L2, "
        f"{100 * decoupled:.2f} ± 0.01 % with AdamW. The ± leaves out how a cell was chosen, so no "
        "difference is claimed."
    ) in said.replace("9.01", "9.00").replace("10.01", "10.00")
    assert "smaller test error" not in said and "noise (" not in said.partition("R²:")[0]


def test_diverged_cells_are_counted_and_break_nothing():
    chosen = settings()
    found = outcomes_of(chosen, valley(0))
    for each in chosen.cells():
        if each.alpha == 0.016 or (each.form == "coupled" and each.lam >= 0.2):
            found[each] = DIVERGED
    said = summary(chosen, found)
    assert f"{sum(o.diverged for o in found.values())} of {len(found)} cells diverged" in said
    assert "nan" not in said.lower()


def test_a_sweep_that_diverged_wholly_has_a_summary():
    chosen = settings()
    said = summary(chosen, dict.fromkeys(chosen.cells(), DIVERGED))
    assert "all diverged" in said
    assert "not enough cells" in said
    assert "nan" not in said.lower()


def test_a_difference_needs_two_standard_errors():
    assert statistics.within_noise(Estimate(1.0, 0.3), Estimate(0.2, 0.4))
    assert not statistics.within_noise(Estimate(1.0, 0.3), Estimate(-0.1, 0.4))


def test_ranking_leaves_out_what_diverged():
    validation = np.array([[0.3, np.nan], [0.1, 0.2]])
    assert statistics.ranking(validation) == [(1, 0), (1, 1), (0, 0)]
    assert Map._fields == ("alphas", "lambdas", "validation", "test")
