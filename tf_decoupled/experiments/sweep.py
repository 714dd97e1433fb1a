"""The sweep: computes what the CSV doesn't hold yet, then draws and sums up."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from tf_decoupled.experiments import data, estimate, figures, optimizers, ranking, tasks
from tf_decoupled.experiments.cells import first
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.grid import Cell, Settings, check_updates
from tf_decoupled.experiments.results import Outcome, Results, read
from tf_decoupled.experiments.summary import summary
from tf_decoupled.experiments.worker import Pool

FEW = 8  # examples, to try a model with


def sweep(
    settings: Settings,
    out: Path,
    workers: int | None = None,
    pool: Callable[[Settings, data.Dataset, int], Pool] = Pool,
    estimated: bool = False,
) -> Path:
    """Computes the cells that `out` doesn't hold yet; writes CSV and PNG, and prints a summary.

    Returns the path of the PNG. `workers`: processes, by default one per core, and one where there
    is a GPU. `estimated`: measures first what the sweep will take, and says so. What is finished is
    in the CSV whatever happens after. Raises `InputError`, and `worker.WorkerError`.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1. Received: {workers}")
    dataset = tasks.load(settings.dataset, settings.data_dir)
    settings = _checked(settings, dataset)
    with Results(out / f"{settings.optimizer}.csv", settings) as results:
        if results.note:
            print(results.note)
        if missing := _missing(settings, results.outcomes):
            count = min(workers or default_workers(), len(missing))
            if estimated:
                found = estimate.measure(settings, dataset, pool)
                print(estimate.in_words(found, settings, dataset, len(missing), count), flush=True)
            with pool(settings, dataset, count) as running:
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
    if picture == path:
        raise InputError(f"{path} would be overwritten by its picture: call the numbers .csv.")
    figures.draw(settings, outcomes, picture)
    said = summary if len(settings.forms) > 1 else ranking.summary
    print(said(settings, outcomes))
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


def _checked(settings: Settings, dataset: data.Dataset) -> Settings:
    """The settings, with what only the data and the model know, before a process is started."""
    model, _ = tasks.network(settings.model, data.standardise(first(dataset, FEW)))
    examples = min(len(dataset.train.labels), settings.examples or len(dataset.train.labels))
    if settings.batch_size > examples:
        raise InputError(
            f"batch_size must be at most the {examples} training images of {dataset.name}. "
            f"Received: {settings.batch_size}"
        )
    check_updates(settings.epochs * (examples // settings.batch_size))
    for form in settings.forms:
        optimizers.in_form(settings.optimizer, form, settings.arguments, 1.0, settings.coupling)
    return replace(settings, fingerprint=tasks.fingerprint(dataset, model))
