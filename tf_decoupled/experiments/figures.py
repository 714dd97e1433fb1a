"""The heat maps of a sweep, laid out as figures 1 and 2 of the paper."""

import io
import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tf_decoupled.experiments import statistics
from tf_decoupled.experiments.files import replace
from tf_decoupled.experiments.grid import Cell, Settings
from tf_decoupled.experiments.results import Outcome
from tf_decoupled.experiments.statistics import Map

CIRCLED = 5
# Colours are shared by all panels; errors above this multiple of the smallest one share the last.
COLOUR_RANGE = 1.4
COLOURS = "viridis_r"
LINE = "#d6336c"
GAP = 0.35
CELL = 0.55  # inches
SCHEDULE_TITLES = {
    "fixed": "fixed learning rate",
    "drop": "step-drop learning rate",
    "cosine": "cosine annealing",
    "restarts": "warm restarts",
}
LAMBDA_LABELS = {"coupled": "L2 factor λ", "decoupled": "weight decay λ"}


def draw(settings: Settings, outcomes: dict[Cell, Outcome], path: Path) -> None:
    """Writes the PNG of one optimizer. Raises `InputError` where `path` can't be written."""
    picture = io.BytesIO()
    heat_maps(settings, outcomes).savefig(picture, format="png")
    replace(path, picture.getvalue())


def heat_maps(settings: Settings, outcomes: dict[Cell, Outcome]) -> Figure:
    """A panel for each form and schedule: α upwards, λ to the right, the test error as colour.

    Rows are forms and columns are schedules, as in the paper's figure 1; with one schedule the
    two forms are side by side, as in figure 2. Errors are means over the seeds; the best by
    validation error are circled, and a line goes through the best λ of every α, as fitted.
    """
    panels = [[(f, s) for s in settings.schedules] for f in settings.forms]
    if len(settings.schedules) == 1:
        panels = [[row[0] for row in panels]]
    maps = {
        panel: statistics.error_map(settings, outcomes, *panel) for row in panels for panel in row
    }
    figure = Figure(figsize=_size(settings, panels), dpi=160, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    axes = figure.subplots(len(panels), len(panels[0]), squeeze=False)
    norm = _norm(maps)
    for row, axes_row in zip(panels, axes, strict=True):
        for panel, ax in zip(row, axes_row, strict=True):
            _panel(ax, maps[panel], norm)
            _labels(ax, settings, panel, maps[panel])
        axes_row[0].set_ylabel("initial learning rate α")
    clipped = any((_means(each) > norm.vmax).any() for each in maps.values())
    _colour_bar(figure, axes, norm, extend="max" if clipped else "neither")
    figure.suptitle(_title(settings), fontsize=11, linespacing=1.5)
    return figure


def _title(settings: Settings) -> str:
    names = " and ".join(form.title for form in settings.forms.values())
    seeds = f"mean of {len(settings.seeds)} seeds" if len(settings.seeds) > 1 else "1 seed"
    return (
        f"Test error of {names}\n"
        f"{settings.dataset}, {settings.model}, {settings.epochs} epochs, {seeds}; "
        f"○ the {CIRCLED} best by validation error, line: the best λ"
    )


def _size(settings: Settings, panels: list[list[tuple[str, str]]]) -> tuple[float, float]:
    columns = max(len(settings.l2s), len(settings.weight_decays))
    width = (CELL * (columns + GAP) + 0.9) * len(panels[0]) + 1.2
    return max(width, 7.5), (CELL * len(settings.alphas) + 1.0) * len(panels) + 0.8


def _norm(maps: dict[tuple[str, str], Map]) -> LogNorm:
    errors = np.concatenate([_means(each).ravel() for each in maps.values()])
    errors = errors[np.isfinite(errors) & (errors > 0)]
    if not len(errors):
        return LogNorm(0.01, 1.0)
    low = errors.min()
    return LogNorm(low, max(min(errors.max(), COLOUR_RANGE * low), 1.05 * low))


def _means(errors: Map) -> np.ndarray:
    """Test errors [α, λ]; NaN where a seed diverged."""
    return errors.test.mean(0)


def _columns(lambdas: np.ndarray) -> np.ndarray:
    """Where each λ stands: equal steps, as the axis is logarithmic, and λ = 0 apart on the left."""
    return np.arange(len(lambdas)) + np.where(lambdas > 0, GAP * (lambdas[0] == 0), 0.0)


def _panel(ax: Axes, errors: Map, norm: LogNorm) -> None:
    colours = matplotlib.colormaps[COLOURS]
    columns = _columns(errors.lambdas)
    circled = set(statistics.ranking(errors)[:CIRCLED])
    for (row, column), error in np.ndenumerate(_means(errors)):
        x = columns[column]
        failed = math.isnan(error)
        face = "0.92" if failed else colours(norm(error))
        box = matplotlib.patches.Rectangle((x - 0.5, row - 0.5), 1, 1, facecolor=face)
        box.set(edgecolor="white", linewidth=0.8, hatch="xxx" if failed else None)
        ax.add_patch(box)
        ink = "white" if not failed and norm(error) > 0.45 else "0.1"
        text = "" if failed else f"{100 * error:.1f}"
        number = ax.text(x, row, text, ha="center", va="center", fontsize=7, color=ink)
        number.set_path_effects([withStroke(linewidth=3, foreground=face)])  # above the line
        if (row, column) in circled:
            ring = matplotlib.patches.Ellipse((x, row), 0.8, 0.8, fill=False)
            ring.set(edgecolor="black", linewidth=1.6)
            ax.add_patch(ring)
    _valley(ax, errors, columns)
    ax.set_xlim(-0.5, columns[-1] + 0.5)
    ax.set_ylim(-0.5, len(errors.alphas) - 0.5)
    ax.set_aspect("equal")


def _valley(ax: Axes, errors: Map, columns: np.ndarray) -> None:
    """The line of the best λ, 2^m α^d, as far as it lies within the grid."""
    at, slope = statistics.valley(errors)
    if math.isnan(slope):
        return
    positive, known = errors.lambdas > 0, np.log2(errors.alphas)
    log_alphas = np.linspace(known[0], known[-1], 200)
    x = np.interp(
        at + slope * log_alphas,
        np.log2(errors.lambdas[positive]),
        columns[positive],
        left=math.nan,
        right=math.nan,
    )
    y = np.interp(log_alphas, known, np.arange(len(known)))
    ax.plot(x, y, color=LINE, linewidth=5, alpha=0.6, solid_capstyle="round")


def _labels(ax: Axes, settings: Settings, panel: tuple[str, str], errors: Map) -> None:
    form, schedule = panel
    ax.set_title(f"{settings.forms[form].title}, {SCHEDULE_TITLES[schedule]}", fontsize=10)
    ax.set_xlabel(LAMBDA_LABELS[form])
    ax.set_xticks(_columns(errors.lambdas), [f"{lam:.3g}" for lam in errors.lambdas], fontsize=8)
    ax.set_yticks(range(len(errors.alphas)), [f"{a:.3g}" for a in errors.alphas], fontsize=8)
    if len(errors.lambdas) > 7:
        ax.tick_params(axis="x", labelrotation=45)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _colour_bar(figure: Figure, axes: np.ndarray, norm: LogNorm, extend: str) -> None:
    mapped = matplotlib.cm.ScalarMappable(norm, COLOURS)
    bar = figure.colorbar(mapped, ax=axes, extend=extend, pad=0.02, aspect=25)
    bar.set_label("test error, %")
    bar.ax.yaxis.set_major_locator(FixedLocator(np.geomspace(norm.vmin, norm.vmax, 6)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 * error:.1f}"))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.outline.set_visible(False)
