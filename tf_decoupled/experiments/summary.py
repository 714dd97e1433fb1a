"""The summary of a sweep in words and numbers, for a terminal."""

import math

from tf_decoupled.experiments import statistics
from tf_decoupled.experiments.grid import OPTIMIZERS, Cell, Settings
from tf_decoupled.experiments.results import Outcome
from tf_decoupled.experiments.statistics import Best, Estimate, Separability

FORMS = ("coupled", "decoupled")
LABEL_WIDTH, COLUMN_WIDTH = 26, 36


def summary(settings: Settings, outcomes: dict[Cell, Outcome]) -> str:
    """One table and what it says for every schedule."""
    seed_noise = statistics.noise(settings, outcomes)
    parts = [heading(settings)]
    for schedule in settings.schedules:
        parts += _schedule(settings, outcomes, schedule, seed_noise)
    if diverged := sum(outcome.diverged for outcome in outcomes.values()):
        parts.append(f"{diverged} of {len(outcomes)} cells diverged: they are in no statistic.")
    return "\n".join(parts)


def heading(settings: Settings) -> str:
    """What was run, in one line: also the title of the figure."""
    names = OPTIMIZERS[settings.optimizer]
    seeds = f"{len(settings.seeds)} seed" + "s" * (len(settings.seeds) > 1)
    if settings.best_seeds:
        seeds += f" ({len(settings.seeds + settings.best_seeds)} for the best cells)"
    return (
        f"{names['coupled']} and {names['decoupled']}: {settings.dataset}, {settings.model}, "
        f"{settings.epochs} epochs, batch size {settings.batch_size}, {seeds}"
    )


def _schedule(
    settings: Settings, outcomes: dict[Cell, Outcome], schedule: str, seed_noise: float | None
) -> list[str]:
    names = OPTIMIZERS[settings.optimizer]
    best = {form: statistics.best(settings, outcomes, form, schedule) for form in FORMS}
    maps = {form: statistics.error_map(settings, outcomes, form, schedule) for form in FORMS}
    fits = {
        form: statistics.separability(
            maps[form], seed_noise, len(settings.seeds), statistics.test_images(settings)
        )
        for form in FORMS
    }
    rows = [
        (f"{schedule} schedule", [names[form] for form in FORMS]),
        ("best cell (validation)", [_cell(best[form]) for form in FORMS]),
        ("its test error", [_error(best[form]) for form in FORMS]),
        ("R² of f(α) + g(λ)", [_estimate(fits[form].r2, ".3f") for form in FORMS]),
        ("  leaves unexplained", [_residual(fits[form]) for form in FORMS]),
        ("drift of the best λ", [_estimate(fits[form].drift, "+.2f") for form in FORMS]),
        ("  best λ at an edge", [f"{f.edges} of {f.rows} rates" for f in fits.values()]),
    ]
    table = [
        f"{label:{LABEL_WIDTH}}" + "".join(f"{value:{COLUMN_WIDTH}}" for value in values)
        for label, values in rows
    ]
    return ["", *(line.rstrip() for line in table), "", *_words(names, best, fits)]


def _cell(best: Best | None) -> str:
    if best is None:
        return "all diverged"
    return f"α = {best.alpha:.4g}, λ = {best.lam:.4g}" + " (edge)" * best.at_edge


def _error(best: Best | None) -> str:
    if best is None:
        return "-"
    source = f"{best.seeds} seeds" if best.seeds > 1 else "1 seed, binomial"
    return f"{100 * best.test.value:.2f} ± {100 * best.test.error:.2f} % ({source})"


def _residual(fit: Separability) -> str:
    return "-" if math.isnan(fit.residual) else f"{100 * fit.residual:.1f} %"


def _estimate(estimate: Estimate, digits: str) -> str:
    """`digits` is the format of the number: ".3f", or "+.2f" with its sign."""
    if math.isnan(estimate.value):
        return "not enough cells"
    return f"{estimate.value:{digits}} ± {estimate.error:{digits.lstrip('+')}}"


def _words(
    names: dict[str, str], best: dict[str, Best | None], fits: dict[str, Separability]
) -> list[str]:
    """What the numbers say about the two forms, and where they don't tell them apart."""
    words = []
    if all(best.values()):
        words += _best_in_words(names, best)
    r2 = {form: fits[form].r2 for form in FORMS}
    words.append(_compared(names, r2, ".3f", "R²: the map of {} is the more separable"))
    steady = {
        form: Estimate(-abs(fits[form].drift.value), fits[form].drift.error) for form in FORMS
    }
    words.append(_compared(names, steady, ".2f", "Drift: the best λ of {} depends less on α"))
    words += [
        "Drift is in doublings of λ per doubling of α. ± is one standard error: over seeds, or",
        "binomial where there is one seed.",
    ]
    return words


def _best_in_words(names: dict[str, str], best: dict[str, Best]) -> list[str]:
    """The two best cells; luck chose them, too, and how far isn't in their standard errors."""
    if best["coupled"].lam == best["decoupled"].lam == 0:
        return ["Best cells: both at λ = 0, where the two forms are the same."]
    errors = [
        f"{100 * best[form].test.value:.2f} ± {100 * best[form].test.error:.2f} % with "
        f"{names[form]}"
        for form in FORMS
    ]
    return [
        f"Best cells: {', '.join(errors)}.",
        "  The ± leaves out how a cell was chosen, so no difference is claimed.",
    ]


def _compared(names: dict[str, str], values: dict[str, Estimate], digits: str, claim: str) -> str:
    """`claim` about the form with the larger value, or that the difference is within the noise."""
    coupled, decoupled = (values[form] for form in FORMS)
    gap = statistics.difference(decoupled, coupled)
    if math.isnan(gap.value):
        return f"{claim.partition(':')[0]}: not enough cells to compare."
    by = f"{abs(gap.value):{digits}} ± {gap.error:{digits}}"
    if statistics.within_noise(decoupled, coupled):
        return f"{claim.partition(':')[0]}: no difference beyond the noise ({by})."
    return claim.format(names["decoupled" if gap.value > 0 else "coupled"]) + f" (by {by})."
