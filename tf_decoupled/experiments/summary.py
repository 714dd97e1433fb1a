"""The summary of a sweep in words and numbers, for a terminal."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tf_decoupled.experiments import statistics
from tf_decoupled.experiments.grid import Cell, Settings
from tf_decoupled.experiments.results import Outcome
from tf_decoupled.experiments.statistics import Estimate, Map, jackknife

FORMS = ("coupled", "decoupled")
WIDTHS = (23, 28, 28, 0)


class Measure(NamedTuple):
    """A number of a map: its row in the table, and what a difference of it between forms means.

    It is shown `scale` times as large, and with its sign where it is `signed`. `claim` has the
    names of the form with the larger number, {more}, and of the other one, {less}. No map's number
    is above `most`, and so no interval is.
    """

    label: str
    statistic: Callable[[Map], np.ndarray]
    claim: str
    scale: float = 1.0
    signed: bool = False
    most: float = math.inf


MEASURES = (
    Measure("tuned test error, %", statistics.tuned_error, "{less} ends below {more}", scale=100.0),
    Measure(
        "R² of f(α) + g(λ)", statistics.r2, "the map of {more} is the more separable", most=1.0
    ),
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
        return self._text(self.coupled, signed), self._text(self.decoupled, signed), self.gap

    @property
    def gap(self) -> str:
        """The difference as text, with its sign."""
        return self._text(self.difference, signed=True)

    @property
    def verdict(self) -> int:
        """1 or -1 where the decoupled form's number is larger or smaller; 0: can't be told."""
        return int(self.difference.low > 0) - int(self.difference.high < 0)

    def in_words(self, names: dict[str, str], seeds: int) -> str:
        """What the difference says, or that it says nothing."""
        subject = self.measure.label.partition(",")[0].capitalize()
        if seeds < statistics.FEWEST:
            return f"{subject}: no interval without {statistics.FEWEST} seeds: nothing is claimed."
        if math.isnan(self.difference.value):
            return f"{subject}: not known of both forms: nothing is claimed."
        if not self.verdict:
            return f"{subject}: {seeds} seeds can't tell the forms apart ({self.gap})."
        less, more = names.values() if self.verdict > 0 else [*names.values()][::-1]
        return f"{subject}: {self.measure.claim.format(more=more, less=less)} ({self.gap})."

    def _text(self, estimate: Estimate, signed: bool) -> str:
        value, low, high = (f"{self.measure.scale * x:{'+' * signed}.2f}" for x in estimate)
        if math.isnan(estimate.value):
            return "-"
        return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def compare(maps: Sequence[Map]) -> list[Comparison]:
    """All measures of the map of the coupled form and of the decoupled one, of the same seeds."""

    def compared(measure: Measure) -> Comparison:
        of = measure.statistic
        alone = (np.minimum(jackknife(of, each), measure.most) for each in maps)
        difference = jackknife(lambda a, b: of(b) - of(a), *maps)
        return Comparison(measure, *(Estimate(*each) for each in alone), difference)

    return [compared(each) for each in MEASURES]


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
    names = _titles(settings)
    seeds = f"{len(settings.seeds)} seed" + "s" * (len(settings.seeds) > 1)
    return (
        f"{names['coupled']} and {names['decoupled']}: {settings.dataset}, {settings.model}, "
        f"{settings.epochs} epochs, batch size {settings.batch_size}, {seeds}"
    )


def _titles(settings: Settings) -> dict[str, str]:
    return {name: form.title for name, form in settings.forms.items()}


def _schedule(settings: Settings, outcomes: dict[Cell, Outcome], schedule: str) -> list[str]:
    names = _titles(settings)
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
