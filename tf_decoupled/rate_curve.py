"""What the learning-rate range test finds: losses over rates, a suggestion, a picture."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 5  # rates of which a curve can be made


@dataclass(frozen=True, repr=False, eq=False)
class RateCurve:
    """What `find_lr` found: `rates` [n], and the loss of the batch that was stepped with each.

    smoothed [n]: the mean of each loss and its neighbours, 5 % of all rates to each side.
    suggestion: the rate at which the smoothed loss falls fastest over log(rate), among those that
    have all their neighbours and come before its minimum; None where it falls no further than
    twice the scatter of the losses around it, as noise alone may.
    minimum: the rate of the smallest smoothed loss. Training at it is on the edge: a tenth of it
    is another usual choice.
    diverged: whether the losses ended the test, before the highest rate.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float | None
    minimum: float
    diverged: bool

    @classmethod
    def of(
        cls, rates: np.ndarray, losses: Sequence[float], near: int, diverged: bool
    ) -> "RateCurve":
        """The curve of these losses, each smoothed with `near` ones to each side."""
        n, losses = len(losses), np.asarray(losses)
        if n < FEWEST:
            raise ValueError(
                f"The loss diverged after {n} rates, too few for a curve: begin lower. "
                f"Received: lowest={rates[0]:g}, the first rate"
            )
        smoothed = np.array([losses[max(i - near, 0) : i + near + 1].mean() for i in range(n)])
        least = int(np.argmin(smoothed))
        slopes = np.gradient(smoothed, np.log(rates))[near : least + 1]
        scatter = np.std((losses - smoothed)[: least + 1])
        falls = len(slopes) and smoothed[near : least + 1].max() - smoothed.min() > 2 * scatter
        suggestion = float(rates[near + np.argmin(slopes)]) if falls else None
        return cls(rates, losses, smoothed, suggestion, float(rates[least]), diverged)

    def __repr__(self) -> str:
        end = "where it diverged" if self.diverged else "without divergence"
        suggestion = None if self.suggestion is None else float(f"{self.suggestion:.3g}")
        return (
            f"RateCurve(suggestion={suggestion}, minimum={self.minimum:.3g}, {len(self.rates)} "
            f"rates from {self.rates[0]:.3g} to {self.rates[-1]:.3g}, {end})"
        )

    def plot(self, path: str | os.PathLike) -> None:
        """Draws the losses over the rates into a file; its ending says the format, as ".png"."""
        from matplotlib.figure import Figure  # here: it takes longer to import than all of `td`

        figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
        ax = figure.subplots()
        ax.plot(self.rates, self.losses, ".", color="0.7", markersize=4, label="loss of a batch")
        ax.plot(self.rates, self.smoothed, color="C0", linewidth=2, label="smoothed")
        if self.suggestion is not None:
            told = f"steepest fall: {self.suggestion:.3g}"
            ax.axvline(self.suggestion, color="C3", linestyle="--", label=told)
        low, high = self.losses.min(), self.smoothed[: np.argmin(self.smoothed) + 1].max()
        room = 0.15 * (high - low) or 1.0
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(low - room, high + room))
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
        figure.savefig(path)
