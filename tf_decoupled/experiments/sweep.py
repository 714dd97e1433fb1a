"""The sweep: computes what the CSV doesn't hold yet, then draws and sums up."""

import os
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from tf_decoupled.experiments import data, figures, models
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.grid import Cell, Settings
from tf_decoupled.experiments.results import Outcome, Results, read
from tf_decoupled.experiments.summary import summary
from tf_decoupled.experiments.worker import Pool


def sweep(
    settings: Settings,
    out: Path,
    workers: int | None = None,
    pool: Callable[[Settings, data.Dataset, int], Pool] = Pool,
) -> Path:
    """Computes the cells that `out` doesn't hold yet; writes CSV and PNG, and prints a summary.

    Returns the path of the PNG. `workers`: processes, by default one per core, and one where there
    is a GPU. What is finished is in the CSV whatever happens after. Raises `InputError`, and
    `worker.WorkerError`.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1. Received: {workers}")
    dataset = data.load(settings.dataset, settings.data_dir)
    _check(settings, dataset)
    with Results(out / f"{settings.optimizer}.csv", settings) as results:
        if results.note:
            print(results.note)
        if _missing(settings, results.outcomes):
            with pool(settings, dataset, workers or default_workers()) as running:
                _fill(results, running)
        results.sort(settings.cells())
    return report(settings, results.outcomes, results.path)


def plot(path: Path) -> Path:
    """The figure and the summary again, of the CSV at `path`. Returns the path of the PNG."""
    contents = read(path)
    if contents.half_written:
        print(f"{path}: left out a half-written last line.")
    if missing := _missing(contents.settings, contents.outcomes):
        print(f"{path}: {len(missing)} cells are missing; seeds that lack one count for nothing.")
    return report(contents.settings, contents.outcomes, path)


def report(settings: Settings, outcomes: dict[Cell, Outcome], path: Path) -> Path:
    picture = path.with_suffix(".png")
    figures.draw(settings, outcomes, picture)
    print(summary(settings, outcomes))
    print(f"\nNumbers: {path}\nPicture: {picture}")
    return picture


def default_workers() -> int:
    """One for each core that this process may use; one where there is a GPU, which they'd share."""
    if tf.config.list_physical_devices("GPU"):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _missing(settings: Settings, outcomes: dict[Cell, Outcome]) -> list[Cell]:
    return [c for c in settings.cells() if c not in outcomes]


def _fill(results: Results, running: Pool) -> None:
    missing = _missing(results.settings, results.outcomes)
    total = len(results.settings.cells())
    done = total - len(missing)
    with tqdm(total=total, initial=done, unit="cell", dynamic_ncols=True, smoothing=0.05) as bar:
        for each, outcome in running.compute(missing):
            results.append(each, outcome)
            bar.update()


def _check(settings: Settings, dataset: data.Dataset) -> None:
    """What only the data and the models know to be wrong, before a process is started."""
    models.build(settings.model, dataset.train.images.shape[1:], dataset.classes)
    examples = min(len(dataset.train.labels), settings.examples or len(dataset.train.labels))
    if settings.batch_size > examples:
        raise InputError(
            f"batch_size must be at most the {examples} training images of {dataset.name}. "
            f"Received: {settings.batch_size}"
        )
