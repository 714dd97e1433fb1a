"""The summary of a sweep in words and numbers, for a terminal."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tf_decoupled.experiments import statistics
from tf_decoupled.experiments.grid import OPTIMIZERS, Cell, Settings
from tf_decoupled.experiments.results import Outcome
from tf_decoupled.experiments.statistics import Estimate, Map, jackknife

FORMS = ("coupled", "decoupled")
WIDTHS = (23, 28, 28, 0)


class Measure(NamedTuple):
    """A number of a map: its row in the table, and what a difference of it between forms means.

    It is shown `scale` times as large, and with its sign where it is `signed`. `claim` has the
    names of the form with the larger number, {more}, and of the other one, {less}.
    """

    label: str
    statistic: Callable[[Map], np.ndarray]
    claim: str
    scale: float = 1.0
    signed: bool = False


MEASURES = (
    Measure("tuned test error, %", statistics.tuned_error, "{less} ends below {more}", scale=100.0),
    Measure("R² of f(α) + g(λ)", statistics.r2, "the map of {more} is the more separable"),
    Measure(
        "drift of the best λ",
        statistics.drift,
        "as α doubles, the best λ of {more} and of {less} move differently",
        signed=True,
    ),
)


class Comparison(NamedTuple):
    """One measure of both forms, and of the decoupled less the coupled one."""

    measure: Measure
    coupled: Estimate
    decoupled: Estimate
    difference: Estimate

    def numbers(self) -> tuple[str, str, str]:
        """The three as text: value [low, high]."""
        signed = self.measure.signed
        return self._text(self.coupled, signed), self._text(self.decoupled, signed), self._gap()

    def in_words(self, names: dict[str, str], seeds: int) -> str:
        """What the difference says, or that it says nothing."""
        subject = self.measure.label.partition(",")[0].capitalize()
        if seeds < statistics.FEWEST:
            return f"{subject}: no interval without {statistics.FEWEST} seeds: nothing is claimed."
        if math.isnan(self.difference.value):
            return f"{subject}: not known of both forms: nothing is claimed."
        if not self.difference.differs_from_zero:
            return f"{subject}: {seeds} seeds can't tell the forms apart ({self._gap()})."
        less, more = names.values() if self.difference.value > 0 else [*names.values()][::-1]
        return f"{subject}: {self.measure.claim.format(more=more, less=less)} ({self._gap()})."

    def _gap(self) -> str:
        return self._text(self.difference, signed=True)

    def _text(self, estimate: Estimate, signed: bool) -> str:
        value, low, high = (f"{self.measure.scale * x:{'+' * signed}.2f}" for x in estimate)
        if math.isnan(estimate.value):
            return "-"
        return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def compare(maps: Sequence[Map]) -> list[Comparison]:
    """All measures of the map of the coupled form and of the decoupled one, of the same seeds."""

    def difference(measure: Measure) -> Estimate:
        return jackknife(lambda a, b: measure.statistic(b) - measure.statistic(a), *maps)

    return [
        Comparison(each, *(jackknife(each.statistic, m) for m in maps), difference(each))
        for each in MEASURES
    ]


LEGEND = """\
Tuned: each seed chooses its cell by validation, the other seeds tell that cell's test error.
Drift: by how many doublings the best λ moves as α doubles.
In brackets: 95 % intervals over the seeds, the choices included. Nothing is claimed of a
difference, the second form's number less the first's, whose interval holds 0."""


def summary(settings: Settings, outcomes: dict[Cell, Outcome]) -> str:
    """One table and what it says for every schedule."""
    parts = [heading(settings)]
    for schedule in settings.schedules:
        parts += ["", *_schedule(settings, outcomes, schedule)]
    parts += ["", LEGEND]
    grid = [outcomes[c] for c in settings.cells() if c in outcomes]
    if diverged := sum(outcome.diverged for outcome in grid):
        parts.append(f"{diverged} of {len(grid)} cells diverged: they are in no statistic.")
    return "\n".join(parts)


def heading(settings: Settings) -> str:
    """What was run, in one line."""
    names = OPTIMIZERS[settings.optimizer]
    seeds = f"{len(settings.seeds)} seed" + "s" * (len(settings.seeds) > 1)
    return (
        f"{names['coupled']} and {names['decoupled']}: {settings.dataset}, {settings.model}, "
        f"{settings.epochs} epochs, batch size {settings.batch_size}, {seeds}"
    )


def _schedule(settings: Settings, outcomes: dict[Cell, Outcome], schedule: str) -> list[str]:
    names = OPTIMIZERS[settings.optimizer]
    maps = [statistics.error_map(settings, outcomes, form, schedule) for form in FORMS]
    rows = [
        (f"{schedule} schedule", *names.values(), "difference"),
        ("best cell (validation)", *map(_best_cell, maps), ""),
    ]
    words = []
    for found in compare(maps):
        rows.append((found.measure.label, *found.numbers()))
        words.append(found.in_words(names, maps[0].seeds))
    table = [
        "".join(f"{value:{width}}" for value, width in zip(row, WIDTHS, strict=True))
        for row in rows
    ]
    return [*(line.rstrip() for line in table), "", *words]


def _best_cell(errors: Map) -> str:
    ranked = statistics.ranking(errors)
    if not ranked:
        return "all diverged"
    row, column = ranked[0]
    edges = row in (0, len(errors.alphas) - 1) or column == len(errors.lambdas) - 1
    return f"α {errors.alphas[row]:.4g}, λ {errors.lambdas[column]:.4g}" + " (edge)" * edges
