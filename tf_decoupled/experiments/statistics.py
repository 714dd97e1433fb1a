"""What the maps of a sweep say, each number with a 95 % interval over the seeds.

Notation: e_s(α, λ) is the error with seed s, and L(α, λ) the mean of log e_s over the seeds. Maps
have axes [..., seed, α, λ]; those in front belong to independent sweeps.

Every number is a function of whole seeds, and `jackknife` computes it again without each of them:
what is chosen, the best cell or the best λ, is chosen again, so that its luck is in the interval.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tf_decoupled.experiments.grid import Cell, Settings, cell
from tf_decoupled.experiments.results import DIVERGED, Outcome

LEVEL = 0.95
FEWEST = 3  # seeds of an interval: of two, one is left when the other is left out


class Map(NamedTuple):
    """Errors of one form and schedule, [..., seed, α, λ]; NaN in a run that diverged."""

    alphas: np.ndarray
    lambdas: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def seeds(self) -> int:
        return self.test.shape[-3]

    def without(self, seed: int) -> "Map":
        validation, test = (np.delete(e, seed, axis=-3) for e in (self.validation, self.test))
        return self._replace(validation=validation, test=test)


class Estimate(NamedTuple):
    """A number, and the interval that covers it in 95 % of all sweeps; NaN where unknown."""

    value: float
    low: float
    high: float


def error_map(settings: Settings, outcomes: dict[Cell, Outcome], form: str, schedule: str) -> Map:
    """Of the seeds whose grid is whole; of an unfinished sweep without one, of all seeds."""
    lambdas = settings.lambdas(form)
    found = [
        [
            [outcomes.get(cell(form, schedule, a, lam, s), DIVERGED) for lam in lambdas]
            for a in settings.alphas
        ]
        for s in whole_seeds(settings, outcomes) or settings.seeds
    ]
    errors = np.array(found)[..., 1:]
    return Map(np.array(settings.alphas), np.array(lambdas), errors[..., 0], errors[..., 1])


def whole_seeds(settings: Settings, outcomes: dict[Cell, Outcome]) -> list[int]:
    missing = {c.seed for c in settings.cells() if c not in outcomes}
    return [s for s in settings.seeds if s not in missing]


def ranking(errors: Map) -> list[tuple[int, int]]:
    """Cells from the smallest mean validation error up, by position; ties in order.

    Without those that diverged with a seed.
    """
    validation = errors.validation.mean(-3)
    order = np.argsort(validation, axis=None, kind="stable")
    positions = [tuple(map(int, np.unravel_index(i, validation.shape))) for i in order]
    return [p for p in positions if not np.isnan(validation[p])]


# The numbers. Cells that diverged with one seed are in none of them.


def tuned_error(errors: Map) -> np.ndarray:
    """The test error [...] to expect of a cell that one seed's validation errors chose.

    Each seed chooses its best cell; the other seeds tell that cell's test error.
    """
    usable = _everywhere(np.isfinite(errors.test))
    if errors.seeds < 2 or not usable.any():
        return np.full(errors.test.shape[:-3], np.nan)
    validation, test = (e[..., usable] for e in (errors.validation, errors.test))
    chosen = validation.argmin(-1)[..., None, :]
    judged = np.take_along_axis(test, chosen, -1)  # [..., seed that tells, seed that chose]
    return judged[..., ~np.eye(errors.seeds, dtype=bool)].mean(-1)


def r2(errors: Map) -> np.ndarray:
    """R² [...] of the least squares fit L(α, λ) ≈ f(α) + g(λ) over the cells with λ > 0.

    The axis is log λ, and at λ = 0 the two forms are the same run. 1 where α and λ can be tuned one
    after the other. NaN where there is nothing to explain: no more cells than parameters.
    """
    log_e, rows, columns = _log_errors(errors)
    design = np.hstack([_indicators(rows), _indicators(columns)])
    if len(rows) <= np.linalg.matrix_rank(design):
        return np.full(log_e.shape[:-1], np.nan)
    residual = log_e - log_e @ (design @ np.linalg.pinv(design))
    total = log_e - log_e.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # a map of equal errors
        return 1 - (residual**2).sum(-1) / (total**2).sum(-1)


def drift(errors: Map) -> np.ndarray:
    """d [...]: by how many doublings the best λ moves per doubling of α. NaN without a valley."""
    return valley(errors)[1]


def valley(errors: Map) -> tuple[np.ndarray, np.ndarray]:
    """m and d [...] of the least squares fit L ≈ f(α) + c (log₂ λ − m − d log₂ α)² with λ > 0.

    So the best λ of a rate is 2^m α^d. NaN where no c > 0 fits: the map isn't a valley along λ.
    """
    log_e, rows, columns = _log_errors(errors)
    a, x = np.log2(errors.alphas)[rows], np.log2(errors.lambdas[errors.lambdas > 0])[columns]
    centre = a.mean() if len(a) else 0.0
    a = a - centre
    design = np.column_stack([_indicators(rows), x, a * x, x**2])
    nothing = np.full(log_e.shape[:-1], np.nan)
    if np.linalg.matrix_rank(design) < len(set(rows)) + 3:
        return nothing, nothing
    b, slope, c = np.moveaxis(log_e @ np.linalg.pinv(design).T, -1, 0)[-3:]
    c = np.where(c > 0, c, np.nan)
    d = -slope / (2 * c)
    return -b / (2 * c) - d * centre, d


def _log_errors(errors: Map) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """L [..., cell] of the cells with λ > 0, and the row and the column of each."""
    test = errors.test[..., errors.lambdas > 0]
    usable = _everywhere(test > 0)
    return np.log(test[..., usable]).mean(-2), *np.nonzero(usable)


def _everywhere(condition: np.ndarray) -> np.ndarray:
    """Whether it holds with every seed, [α, λ]."""
    return condition.all(axis=tuple(range(condition.ndim - 2)))


def _indicators(groups: np.ndarray) -> np.ndarray:
    return (groups[:, None] == np.unique(groups)).astype(float)


# Their intervals.


def jackknife(statistic: Callable[..., np.ndarray], *maps: Map) -> Estimate:
    """`statistic(*maps)` without its bias of first order, and Student's interval over the seeds.

    With T of all n seeds and T₍ₛ₎ without seed s, the pseudo-values n T − (n − 1) T₍ₛ₎ are treated
    as independent: their mean is the value, their standard error and n − 1 degrees of freedom give
    the interval. Several maps have the same seeds, and lose each together. NaN where T or one of
    T₍ₛ₎ is, and with fewer than three seeds; T itself with one.

    Tukey, "Bias and confidence in not-quite large samples", 1958.
    """
    whole = statistic(*maps)
    seeds = maps[0].seeds
    if seeds < FEWEST:
        unknown = np.full_like(whole, np.nan)
        return Estimate(whole, unknown, unknown)
    parts = np.stack([statistic(*(m.without(s) for m in maps)) for s in range(seeds)])
    pseudo = seeds * whole - (seeds - 1) * parts
    value = pseudo.mean(0)
    half = student(seeds - 1) * pseudo.std(0, ddof=1) / np.sqrt(seeds)
    return Estimate(value, value - half, value + half)


def student(freedom: int) -> float:
    """What |t| of so many degrees of freedom stays below in 95 % of all cases.

    With t = √n tan θ the density is proportional to cosⁿ⁻¹ θ, which is summed up.
    """
    theta = np.linspace(0, np.pi / 2, 100_001)
    density = np.cos(theta) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return float(np.sqrt(freedom) * np.tan(np.interp(LEVEL * below[-1], below, theta)))
