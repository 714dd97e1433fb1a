"""The summary of a map that has one form alone: its best cells."""

import numpy as np

from tf_decoupled.experiments.grid import Cell, Settings, cell
from tf_decoupled.experiments.results import Outcome

SHOWN = 5


def summary(settings: Settings, outcomes: dict[Cell, Outcome]) -> str:
    """For every schedule the cells with the smallest validation errors, means over the seeds."""
    (form,) = settings.forms
    seeds = f"{len(settings.seeds)} seed" + "s" * (len(settings.seeds) > 1)
    lines = [
        f"{settings.forms[form].title}: {settings.dataset}, {settings.model}, "
        f"{settings.epochs} epochs, batch size {settings.batch_size}, {seeds}"
    ]
    for schedule in settings.schedules:
        lines += ["", f"{schedule} schedule: the best cells (validation)"]
        lines += _best(settings, outcomes, form, schedule)
    lines += ["", "What was chosen was lucky, too: a new seed's errors are larger."]
    if diverged := sum(outcome.diverged for outcome in outcomes.values()):
        lines.append(f"{diverged} of {len(outcomes)} cells diverged: they are not among these.")
    return "\n".join(lines)


def _best(settings: Settings, outcomes: dict[Cell, Outcome], form: str, schedule: str) -> list[str]:
    found = []
    for alpha in settings.alphas:
        for lam in settings.lambdas(form):
            cells = [cell(form, schedule, alpha, lam, seed) for seed in settings.seeds]
            whole = all(each in outcomes and not outcomes[each].diverged for each in cells)
            if whole:
                validation, test = np.array([outcomes[each][1:] for each in cells]).T
                found.append((validation.mean(), alpha, lam, test))
    found.sort(key=lambda each: each[:3])
    return [_line(settings, form, *each) for each in found[:SHOWN]] or ["  none is whole"]


def _line(
    settings: Settings, form: str, validation: float, alpha: float, lam: float, test: np.ndarray
) -> str:
    spread = f" ± {100 * test.std(ddof=1):.2f} between seeds" if len(test) > 1 else ""
    alphas, lambdas = settings.alphas, settings.lambdas(form)
    edge = alpha in (alphas[0], alphas[-1]) or lam == lambdas[-1]
    return (
        f"  α = {alpha:<10.4g} λ = {lam:<10.4g} validation {100 * validation:.2f} %, "
        f"test {100 * test.mean():.2f} %{spread}" + " (edge)" * edge
    )
