"""The way of each optimizer down Rosenbrock's valley and through Rastrigin's hollows.

    python benchmarks/paths.py            # docs/rosenbrock.png and docs/rastrigin.png: minutes
    python benchmarks/paths.py --only "*adam*" --out .

Each is drawn at the best of twelve rates around its default, constant or falling as in
which_optimizer.py: the one that ends lowest. Two dimensions look like nothing that is trained.
"""

import argparse
import math
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from small_problems import PROBLEMS, Problem, Values, starts
from which_optimizer import Contestant, names, trained

DOCS = pathlib.Path(__file__).parents[1] / "docs"

RATES, LOWER, COLUMNS = 12, 5, 8


def rastrigin(steps: int, seeds: int) -> tuple[Callable, Callable]:
    def loss(values: Values, t: tf.Tensor | None = None) -> tf.Tensor:
        x = values[0] - tf.constant([0.6, -0.4])  # no minimum at 0
        return 20 + tf.reduce_sum(x**2 - 10 * tf.cos(2 * math.pi * x), 1)

    return loss, loss


def problem(make: Callable, start: tuple[float, float], steps: int) -> Problem:
    return Problem("", lambda rng: [np.array(start)], make, steps, RATES, LOWER, seeds=1)


# With the part of the plane that is drawn: left, right, bottom, top.
FUNCTIONS = {
    "rosenbrock": (problem(PROBLEMS["rosenbrock"].make, (-1.2, 1.0), 200), (-1.8, 1.8, -0.8, 2.2)),
    "rastrigin": (problem(rastrigin, (-2.2, 3.3), 200), (-4.0, 4.0, -4.0, 4.0)),
}


def path(name: str, problem: Problem) -> np.ndarray | None:
    """[steps, 2] at the best rate; None for what doesn't step vectors."""
    values = starts(problem, RATES, [0])
    contestant = Contestant(name)
    if not contestant.fits([v[0] for v in values]):
        return None
    factors = tf.constant(4.0 ** (np.arange(RATES) - LOWER), tf.float32)
    scores, paths = (x.numpy() for x in trained(contestant, problem, values, factors))
    return paths[:, np.argmin(np.where(np.isfinite(scores), scores, np.inf))]


def draw(function: str, paths: dict[str, np.ndarray], file: pathlib.Path) -> None:
    from matplotlib.figure import Figure
    from PIL import Image

    problem, (left, right, bottom, top) = FUNCTIONS[function]
    x, y = np.meshgrid(np.linspace(left, right, 120), np.linspace(bottom, top, 120))
    loss, _ = problem.make(0, 1)
    z = loss([tf.constant(np.stack([x.ravel(), y.ravel()], 1), tf.float32)]).numpy()
    z = np.log10(z.reshape(x.shape) + 1e-2)
    rows = math.ceil(len(paths) / COLUMNS)
    size = (1.15 * min(COLUMNS, len(paths)), 1.25 * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, min(COLUMNS, len(paths)), squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, (name, steps) in zip(axes, paths.items(), strict=False):
        ax.contourf(x, y, z, 8, cmap="Blues_r", alpha=0.7)
        ax.plot(*steps.T, color="tab:red", linewidth=0.8)
        ax.plot(*steps[0], "o", *steps[-1], "s", color="black", markersize=2)
        ax.set(xlim=(left, right), ylim=(bottom, top))
        ax.set_title(name, fontsize=6, pad=2)
    figure.savefig(file, dpi=100)
    with Image.open(file) as image:
        image.convert("RGB").quantize(48).save(file, optimize=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=["*"], help="names, or patterns: *adam*")
    parser.add_argument("--out", default=str(DOCS), help="folder of the pictures")
    given = parser.parse_args(arguments)
    for function, (problem, _) in FUNCTIONS.items():
        found = {name: path(name, problem) for name in names(given.only)}
        found = {name: each for name, each in found.items() if each is not None}
        file = pathlib.Path(given.out) / f"{function}.png"
        draw(function, dict(sorted(found.items(), key=lambda each: each[0].lower())), file)
        print(f"{file}: {len(found)} paths, {file.stat().st_size // 1024} KiB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
