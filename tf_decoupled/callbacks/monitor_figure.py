"""The figure of a Monitor: a panel for each quantity, a line for each part of the model."""

import os
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLUMNS, WIDTH, HEIGHT = 2, 5.5, 3.2  # of panels; of one in inches
NAMED = 10  # lines of a panel that the legend names; of more of them, evenly spread ones
LINEAR = ("learning_rate", "weight_decay", "skipped_steps", "decay")


def draw(
    updates: np.ndarray, panels: Mapping[str, Mapping[str, np.ndarray]], png: str | os.PathLike
) -> None:
    """Writes the PNG. `panels`: by quantity the numbers of each part over updates; "" is all."""
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(columns * WIDTH, rows * HEIGHT), dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (quantity, parts) in zip(axes, panels.items(), strict=False):
        _panel(ax, quantity, updates, parts)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    figure.savefig(png, format="png")


def _panel(ax: Axes, quantity: str, updates: np.ndarray, parts: Mapping[str, np.ndarray]) -> None:
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.95, max(len(parts), 2)))
    named = np.linspace(0, len(parts) - 1, min(NAMED, len(parts))).round().astype(int)
    marker = "o" if len(updates) < 30 else None
    for i, (part, values) in enumerate(parts.items()):
        label = part if i in named else None
        ax.plot(updates, values, color=colours[i], label=label, marker=marker, ms=2.5, lw=1)
    if quantity not in LINEAR and any((values > 0).any() for values in parts.values()):
        ax.set_yscale("log")
    ax.set_title(quantity.replace("_", " "), fontsize=10)
    ax.set_xlabel("update", fontsize=8)
    ax.tick_params(which="both", labelsize=8)
    ax.grid(alpha=0.3)
    if any(parts):
        some = f"{len(named)} of {len(parts)}" if len(parts) > len(named) else None
        beside = dict(loc="center left", bbox_to_anchor=(1, 0.5))
        ax.legend(fontsize=6, title=some, title_fontsize=6, **beside)
