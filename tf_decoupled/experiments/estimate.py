"""What a sweep will take, measured before it starts: time and memory of one worker."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from tf_decoupled.experiments import data
from tf_decoupled.experiments.cells import first
from tf_decoupled.experiments.grid import Settings
from tf_decoupled.experiments.worker import Pool

BATCHES, EPOCHS = 2, 3
UNITS = ((365.25 * 86400, "years"), (86400, "days"), (3600, "h"), (60, "min"), (1, "s"))
KEPT = 9  # bytes of a pixel in a worker: as it is read, as float32, and as float32 in TensorFlow


class Estimate(NamedTuple):
    """Seconds of an update, and bytes of a worker with all data."""

    update: float
    memory: float


def measure(
    settings: Settings,
    dataset: data.Dataset,
    pool: Callable[[Settings, data.Dataset, int], Pool] = Pool,
) -> Estimate:
    """Times one worker at a few updates, once it has traced them; its memory is the most it had."""
    few = first(dataset, BATCHES * settings.batch_size)
    few = few._replace(validation=first(dataset, 1).validation, test=first(dataset, 1).test)
    cells = settings.cells()[:1]
    with pool(replace(settings, epochs=EPOCHS, examples=None), few, 1) as running:
        list(running.compute(cells))  # traces
        start = time.perf_counter()
        list(running.compute(cells))
        seconds = time.perf_counter() - start
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    most *= 1 if sys.platform == "darwin" else 1024
    splits = (dataset.train, dataset.validation, dataset.test)
    return Estimate(seconds / (BATCHES * EPOCHS), most + KEPT * sum(s.images.size for s in splits))


def in_words(
    found: Estimate, settings: Settings, dataset: data.Dataset, missing: int, workers: int
) -> str:
    examples = min(len(dataset.train.labels), settings.examples or len(dataset.train.labels))
    updates = examples // settings.batch_size
    run = settings.epochs * updates * found.update
    runs = f"{missing} runs are missing: {spoken(missing * run / workers)} with {workers} workers"
    return (
        f"Estimated from {BATCHES * EPOCHS} updates of one worker: {spoken(found.update)} an "
        f"update, {spoken(updates * found.update)} an epoch of {updates}, {spoken(run)} a run.\n"
        f"{runs}, each with {found.memory / 1e9:.1f} GB of memory."
    )


def spoken(seconds: float) -> str:
    """ "1.5 h": in the largest unit of which it is at least one."""
    size, name = next((unit for unit in UNITS if seconds >= unit[0]), UNITS[-1])
    number = seconds / size
    return f"{number:{'.0f' if number >= 10 else '.2g'}} {name}"
