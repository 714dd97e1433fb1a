"""What td.callbacks.Monitor costs: a training step with it over one without.

    python benchmarks/monitor_cost.py                  # all models, plain and compiled
    python benchmarks/monitor_cost.py mlp --modes plain

The same model is trained without a Monitor, with one as it comes, and with one that measures
everything for each variable. They take turns step by step in one process, through Keras's own
callbacks, as `fit` calls them; every fifth step is a sample. Medians are printed:

- step: one that is no sample, in ms, and over that without a Monitor.
- sample: what a sampled step takes longer, over the step without a Monitor.
- every=100: the mean of 100 steps, one of them a sample, over those without a Monitor.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tf_decoupled as td

EVERY, OFTEN = 100, 5
MODES = {"plain": False, "compiled": True}
MONITORS: dict[str, Callable[[], list]] = {
    "without": list,
    "Monitor()": lambda: [td.callbacks.Monitor(every=OFTEN)],
    "all, per variable": lambda: [
        td.callbacks.Monitor(td.callbacks.QUANTITIES, per="variable", every=OFTEN)
    ],
}


class Workload(NamedTuple):
    """A model for inputs of a shape and 10 classes, and how it is trained."""

    model: Callable[[], keras.Model]
    inputs: tuple[int, ...]
    batch: int
    steps: int


def mlp(*widths: int) -> keras.Model:
    hidden = [keras.layers.Dense(width, "relu") for width in widths]
    return keras.Sequential([*hidden, keras.layers.Dense(10)])


def resnet50() -> keras.Model:
    settings = dict(weights=None, classes=10, classifier_activation=None)
    return keras.applications.ResNet50(input_shape=(64, 64, 3), **settings)


WORKLOADS = {
    "mlp": Workload(lambda: mlp(512, 512, 512), (784,), batch=128, steps=300),
    "resnet50": Workload(resnet50, (64, 64, 3), batch=8, steps=50),
    "tiny": Workload(lambda: mlp(8), (4,), batch=4, steps=10),  # for the test
}


def trainer(workload: Workload, callbacks: list, jit_compile: bool) -> Callable[[], float]:
    """A function that takes the next step of a training, and returns its seconds."""
    keras.utils.set_random_seed(0)
    model = workload.model()
    x = np.random.default_rng(0).normal(size=(workload.batch, *workload.inputs))
    data = tf.constant(x, tf.float32), tf.range(workload.batch) % 10
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(td.AdamW(1e-4, weight_decay=0.01), loss, jit_compile=jit_compile)
    model.build((None, *workload.inputs))
    calls = keras.callbacks.CallbackList(callbacks, model=model, steps=None, epochs=1)
    model.make_train_function()
    calls.on_train_begin()
    batches, count = iter(tf.data.Dataset.from_tensors(data).repeat()), 0

    def step() -> float:
        nonlocal count
        start = time.perf_counter()
        calls.on_train_batch_begin(count)
        calls.on_train_batch_end(count, model.train_function(batches))
        count += 1
        return time.perf_counter() - start

    return step


def measure(workload: Workload, jit_compile: bool) -> dict[str, tuple[float, float]]:
    """The median seconds of a step that is no sample, and of one that is."""
    steps = {name: trainer(workload, make(), jit_compile) for name, make in MONITORS.items()}
    times: dict[str, list[list[float]]] = {name: [[], []] for name in steps}
    for count in range(1, workload.steps + 1):
        for name, step in steps.items():
            seconds = step()
            if count > OFTEN:  # the first ones trace and compile
                times[name][count % OFTEN == 0].append(seconds)
    return {name: tuple(map(statistics.median, both)) for name, both in times.items()}


def table(name: str, mode: str) -> str:
    """Measures one workload in one mode; Markdown."""
    medians = measure(WORKLOADS[name], MODES[mode])
    plain = medians["without"][0]
    rows = [["", "step ms", "over without", "sample", f"every={EVERY}"], ["---"] * 5]
    for label, (step, sampled) in medians.items():
        extra = 0.0 if label == "without" else (sampled - step) / plain
        mean = step / plain + extra / EVERY
        numbers = f"{1e3 * step:.2f} {step / plain:.3f} {extra:+.2f} {mean:.3f}"
        rows.append([label, *numbers.split()])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main(arguments: list[str] | None = None) -> int:
    known = [name for name in WORKLOADS if name != "tiny"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(known)}; all by default")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(WORKLOADS)):
        parser.error(f"no model is called {unknown[0]!r}; there are {', '.join(known)}")
    for name in given.names or known:
        for mode in given.modes:
            print(f"\n{name}, {mode}\n\n{table(name, mode)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
