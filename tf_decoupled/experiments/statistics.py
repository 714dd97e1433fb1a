"""What the map of test errors says: best cells, separability, drift of the best decay.

Notation: e(α, λ) is the mean error over the seeds of the grid.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tf_decoupled.experiments.grid import Cell, Settings, cell
from tf_decoupled.experiments.results import Outcome

SIMULATIONS = 400
# Two standard errors: what is closer is said to be within the noise.
NOISE = 2.0


class Map(NamedTuple):
    """Errors of one form and schedule, [α, λ]: means over the grid's seeds, NaN if one diverged."""

    alphas: np.ndarray
    lambdas: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float


class Best(NamedTuple):
    """The cell with the smallest validation error, and its test error over all its seeds.

    Its standard error is that of the mean over `seeds`; with one seed it is the binomial one of
    `images` test images, which knows nothing of what another seed would give.
    """

    alpha: float
    lam: float
    test: Estimate
    seeds: int
    at_edge: bool


class Separability(NamedTuple):
    """How well log e(α, λ) ≈ f(α) + g(λ) fits, and how log₂ of the best λ moves per doubling of α.

    `residual` is the root mean square of what the fit leaves, relative to the error. `edges` of
    the `rows` best λ lie at an edge of the grid: the drift may then be larger than measured.
    """

    r2: Estimate
    residual: float
    drift: Estimate
    edges: int
    rows: int


def error_map(settings: Settings, outcomes: dict[Cell, Outcome], form: str, schedule: str) -> Map:
    lambdas = settings.lambdas(form)

    def means(pick: Callable[[Outcome], float]) -> np.ndarray:
        return np.array(
            [
                [
                    np.mean(
                        [
                            pick(outcomes[cell(form, schedule, alpha, lam, seed)])
                            if cell(form, schedule, alpha, lam, seed) in outcomes
                            else math.nan
                            for seed in settings.seeds
                        ]
                    )
                    for lam in lambdas
                ]
                for alpha in settings.alphas
            ]
        )

    return Map(
        np.array(settings.alphas),
        np.array(lambdas),
        means(lambda outcome: outcome.validation_error),
        means(lambda outcome: outcome.test_error),
    )


def ranking(validation: np.ndarray) -> list[tuple[int, int]]:
    """Positions in the map from the smallest validation error up; NaN left out, ties in order."""
    order = np.argsort(validation, axis=None, kind="stable")
    positions = [tuple(map(int, np.unravel_index(i, validation.shape))) for i in order]
    return [p for p in positions if not np.isnan(validation[p])]


def best(
    settings: Settings, outcomes: dict[Cell, Outcome], form: str, schedule: str
) -> Best | None:
    """The best cell by the validation error of the grid's seeds; None where every cell diverged."""
    errors = error_map(settings, outcomes, form, schedule)
    ranked = ranking(errors.validation)
    if not ranked:
        return None
    row, column = ranked[0]
    alpha, lam = settings.alphas[row], settings.lambdas(form)[column]
    tests = _tests(settings, outcomes, form, schedule, alpha, lam)
    at_edge = row in (0, len(errors.alphas) - 1) or column == len(errors.lambdas) - 1
    return Best(alpha, lam, _mean(tests, test_images(settings)), len(tests), at_edge)


def _tests(
    settings: Settings,
    outcomes: dict[Cell, Outcome],
    form: str,
    schedule: str,
    alpha: float,
    lam: float,
) -> np.ndarray:
    """Test errors of a cell with every seed that it has; a diverged one counts as NaN."""
    cells = [cell(form, schedule, alpha, lam, s) for s in settings.seeds + settings.best_seeds]
    return np.array([outcomes[c].test_error for c in cells if c in outcomes])


def _mean(errors: np.ndarray, images: int) -> Estimate:
    mean = float(errors.mean())
    if len(errors) > 1:
        return Estimate(mean, float(errors.std(ddof=1) / math.sqrt(len(errors))))
    return Estimate(mean, math.sqrt(mean * (1 - mean) / images))


def test_images(settings: Settings) -> int:
    """Every dataset here has 10,000 test images."""
    return min(settings.examples or 10_000, 10_000)


def noise(settings: Settings, outcomes: dict[Cell, Outcome]) -> float | None:
    """Standard deviation of log e over seeds, pooled over the best cells; None with one seed."""
    variances = []
    for schedule in settings.schedules:
        for form in ("coupled", "decoupled"):
            if chosen := best(settings, outcomes, form, schedule):
                tests = _tests(settings, outcomes, form, schedule, chosen.alpha, chosen.lam)
                if len(tests) > 1 and (tests > 0).all():
                    variances.append(np.log(tests).var(ddof=1))
    return float(np.sqrt(np.mean(variances))) if variances else None


def separability(errors: Map, seed_noise: float | None, seeds: int, images: int) -> Separability:
    """Of the cells with λ > 0: the axis is log λ, and at λ = 0 the two forms are the same run.

    Diverged cells are left out. The standard errors are the standard deviations over simulations
    that add noise to log e: `seed_noise` over √`seeds`, or binomial where there is one seed only.
    """
    positive = errors.lambdas > 0
    log_lambdas, log_alphas = np.log2(errors.lambdas[positive]), np.log2(errors.alphas)
    e = np.where(errors.test > 0, errors.test, math.nan)[:, positive]
    log_e = np.log(e)
    if seed_noise is None:
        scale = np.sqrt((1 - e) / (e * images))
    else:
        scale = np.full_like(e, seed_noise / math.sqrt(seeds))
    random = np.random.default_rng(0)
    simulated = [
        log_e + np.nan_to_num(scale) * random.standard_normal(e.shape) for _ in range(SIMULATIONS)
    ]
    r2, residual = additive_fit(log_e)
    drifts = [drift(log_alphas, best_lambdas(log_lambdas, each)[0]) for each in simulated]
    found, edges = best_lambdas(log_lambdas, log_e)
    return Separability(
        Estimate(r2, float(np.std([additive_fit(each)[0] for each in simulated]))),
        residual,
        Estimate(drift(log_alphas, found), float(np.std(drifts))),
        edges,
        int(np.isfinite(found).sum()),
    )


def additive_fit(log_e: np.ndarray) -> tuple[float, float]:
    """R², and root mean square residual, of the least squares fit log e ≈ f(row) + g(column).

    NaN cells are left out: the fit is the two-way analysis of variance without interaction, by
    indicators. NaN where there is nothing left to explain: no more cells than parameters.
    """
    rows, columns = np.nonzero(np.isfinite(log_e))
    if len(rows) <= max(0, len(set(rows)) + len(set(columns)) - 1):
        return math.nan, math.nan
    design = np.hstack([np.eye(log_e.shape[0])[rows], np.eye(log_e.shape[1])[columns]])
    y = log_e[rows, columns]
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    total = ((y - y.mean()) ** 2).sum()
    r2 = 1 - (residual**2).sum() / total if total > 0 else math.nan
    return float(r2), float(np.sqrt((residual**2).mean()))


def best_lambdas(log_lambdas: np.ndarray, log_e: np.ndarray) -> tuple[np.ndarray, int]:
    """log₂ of the best λ of each row, and how many of them lie at an edge of the grid.

    The vertex of the parabola through the smallest cell and its two neighbours; the cell itself
    where one of those is missing. NaN where the whole row diverged.
    """
    found, edges = [], 0
    for row in log_e:
        if not np.isfinite(row).any():
            found.append(math.nan)
            continue
        i = int(np.nanargmin(row))
        edges += i in (0, len(row) - 1)
        around = slice(i - 1, i + 2)
        if 0 < i < len(row) - 1 and np.isfinite(row[around]).all():
            found.append(_vertex(log_lambdas[around], row[around]))
        else:
            found.append(log_lambdas[i])
    return np.array(found), edges


def _vertex(x: np.ndarray, y: np.ndarray) -> float:
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    if left == right:  # Three equal errors: there is no vertex.
        return float(x[1])
    # Where the slope, linear in x and known in the middle of either interval, is zero.
    a, b = (x[0] + x[1]) / 2, (x[1] + x[2]) / 2
    return float(a - left * (b - a) / (right - left))


def drift(log_alphas: np.ndarray, log_best: np.ndarray) -> float:
    """Theil and Sen's slope: the median over all pairs of rows. NaN with fewer than two rows."""
    known = np.flatnonzero(np.isfinite(log_best))
    slopes = [
        (log_best[j] - log_best[i]) / (log_alphas[j] - log_alphas[i])
        for i in known
        for j in known
        if i < j
    ]
    return float(np.median(slopes)) if slopes else math.nan


def difference(a: Estimate, b: Estimate) -> Estimate:
    return Estimate(a.value - b.value, math.hypot(a.error, b.error))


def within_noise(a: Estimate, b: Estimate) -> bool:
    """Whether a and b differ by less than two standard errors of their difference."""
    gap = difference(a, b)
    return abs(gap.value) < NOISE * gap.error
