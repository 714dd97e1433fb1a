"""The time of one optimizer step: ours beside Keras's, optax's and PyTorch's.

    python benchmarks/step_time.py                         # everything: takes long
    python benchmarks/step_time.py resnet50 small_2000     # only these
    python benchmarks/step_time.py resnet50 --modes plain  # only inside a plain tf.function

Prints a table per workload and mode. How it is measured:

- Step: the median of 40. The contestants of a table take turns in one process, so that all meet
  the same machine. PyTorch's have a process of their own: its threads may spin on.
  GB/s counts the 28 bytes per parameter that Adam must move (read θ, g, m, v; write θ, m, v).
- First step: with tracing and compiling, the optimizer built before; each contestant in a fresh
  process. Peak: the most memory of that process, with Python, the libraries, θ, g and the slots.
- "Keras / it" is Keras's time over the contestant's: above 1 is faster than Keras.
- Gradients are captured by the step, on the device of each replica, as a backward pass in the same
  graph would hand them over. As arguments of a tf.function, 2,000 of them alone cost 40 ms.

optax and PyTorch are measured where they are installed. optax is compiled as a whole, with
donated buffers, and stands beside the steps that are; PyTorch runs eagerly, beside the plain ones.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

# The libraries are imported where they are used: each process loads only what it measures, and one
# that starts another hands its own peak on, as far as Linux tells.

Shapes = list[tuple[int, ...]]
Step = Callable[[], Any]

STEPS = 40
REPLICAS = ["CPU:0", "CPU:1"]
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
PLAIN, WHOLE, MIRRORED = "plain", "compiled", "mirrored"
MODES = {
    PLAIN: "inside tf.function",
    WHOLE: "inside tf.function(jit_compile=True)",
    MIRRORED: "MirroredStrategy on 2 logical CPUs",
}
ALL = tuple(MODES)


# The variables of each workload.


def resnet50_shapes() -> Shapes:
    """The 161 trainable tensors of ResNet-50 (He et al., 2016), convolutions without bias."""
    convolutions, inputs = [(7, 7, 3, 64)], 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            convolutions += [(1, 1, inputs, width), (3, 3, width, width), (1, 1, width, 4 * width)]
            convolutions += [(1, 1, inputs, 4 * width)] if block == 0 else []
            inputs = 4 * width
    norms = [shape[-1:] for shape in convolutions for _ in ("gamma", "beta")]
    return [*convolutions, *norms, (2048, 1000), (1000,)]


def bert_base_shapes() -> Shapes:
    """The 199 tensors of BERT-base, uncased (Devlin et al., 2019), two of them the pooler's."""
    d, norm = 768, [(768,), (768,)]
    attention = [(d, d), (d,)] * 4  # queries, keys, values, output
    layer = [*attention, *norm, (d, 4 * d), (4 * d,), (4 * d, d), (d,), *norm]
    return [(30522, d), (512, d), (2, d), *norm, *layer * 12, (d, d), (d,)]


def efficientnet_b7_shapes() -> Shapes:
    """The 711 trainable tensors of EfficientNet-B7 (Tan & Le, 2019), as Keras builds it."""

    def convolution(*shape: int, channels: int) -> Shapes:
        return [shape, (channels,), (channels,)]  # with the norm that follows

    shapes, inputs = convolution(3, 3, 3, 64, channels=64), 64
    stages = ((3, 4, 32), (3, 7, 48), (5, 7, 80), (3, 10, 160), (5, 10, 224), (5, 13, 384))
    for kernel, blocks, outputs in (*stages, (3, 4, 640)):
        for _ in range(blocks):
            first_stage = outputs == 32
            width, squeezed = inputs * (1 if first_stage else 6), inputs // 4
            if not first_stage:
                shapes += convolution(1, 1, inputs, width, channels=width)
            shapes += convolution(kernel, kernel, width, 1, channels=width)
            shapes += [(1, 1, width, squeezed), (squeezed,), (1, 1, squeezed, width), (width,)]
            shapes += convolution(1, 1, width, outputs, channels=outputs)
            inputs = outputs
    return [*shapes, *convolution(1, 1, 640, 2560, channels=2560), (2560, 1000), (1000,)]


class Workload(NamedTuple):
    """Variables to step, with which rule, in which modes, and beside whom."""

    shapes: Callable[[], Shapes]
    rule: str = "AdamW"
    modes: tuple[str, ...] = (PLAIN, WHOLE)
    peers: bool = True


WORKLOADS = {
    "resnet50": Workload(resnet50_shapes, modes=ALL),
    "bert_base": Workload(bert_base_shapes),
    "efficientnet_b7": Workload(efficientnet_b7_shapes),
    "small_2000": Workload(lambda: [(64, 64), (64,)] * 1000, modes=ALL),
    "small_5000": Workload(lambda: [(64, 64), (64,)] * 2500, modes=(PLAIN,), peers=False),
    # No two alike, so each is a block: the most that jit_compile="auto" compiles.
    "apart_1000": Workload(lambda: [(1 + i,) for i in range(1000)], modes=(PLAIN,), peers=False),
    "small_lamb": Workload(lambda: [(64, 64)] * 1000, rule="LAMB"),
    "tiny": Workload(lambda: [(8, 8), (8,)], modes=(PLAIN,)),  # for the test
}


# The contestants.


class Contestant(NamedTuple):
    """What steps by which rule, in which modes; `start` makes a step that returns when done."""

    label: str
    module: str
    name: str
    rule: str
    modes: tuple[str, ...]
    start: Callable[["Contestant", Shapes, str], Step]


def arrays(shapes: Shapes, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)


@functools.cache
def mirrored() -> Any:
    """Two replicas; one strategy for all contestants: TensorFlow mixes up the sums of two."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    return tf.distribute.MirroredStrategy(REPLICAS)


def tensorflow_step(contestant: Contestant, shapes: Shapes, mode: str) -> Step:
    import keras
    import tensorflow as tf

    make = getattr(importlib.import_module(contestant.module), contestant.name)
    scope, run, devices = contextlib.nullcontext(), lambda apply: apply(), REPLICAS[:1]
    if mode == MIRRORED:
        strategy, devices = mirrored(), REPLICAS
        scope, run = strategy.scope(), strategy.run
    with scope:
        variables = [keras.Variable(array) for array in arrays(shapes, seed=0)]
        optimizer = make(1e-3, weight_decay=0.01)
        optimizer.build(variables)
    grads = []
    for device in devices:
        with tf.device(device):
            grads.append([tf.constant(array) for array in arrays(shapes, seed=1)])

    def apply() -> None:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply(grads[tf.get_static_value(replica)], variables)

    return tf.function(lambda: run(apply), jit_compile=mode == WHOLE)


def optax_step(contestant: Contestant, shapes: Shapes, mode: str) -> Step:
    import jax
    import optax

    optimizer = getattr(optax, contestant.name)(1e-3, weight_decay=0.01)
    params = [jax.numpy.asarray(array) for array in arrays(shapes, seed=0)]
    grads = [jax.numpy.asarray(array) for array in arrays(shapes, seed=1)]
    kept = [params, optimizer.init(params)]

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def step() -> None:
        kept[:] = jax.block_until_ready(update(*kept, grads))

    return step


def torch_step(contestant: Contestant, shapes: Shapes, mode: str) -> Step:
    import torch

    params = [torch.nn.Parameter(torch.from_numpy(array)) for array in arrays(shapes, seed=0)]
    for param, array in zip(params, arrays(shapes, seed=1), strict=True):
        param.grad = torch.from_numpy(array)
    return torch.optim.AdamW(params, 1e-3, weight_decay=0.01, **{contestant.name: True}).step


CONTESTANTS = [
    Contestant("td.AdamW", "tf_decoupled", "AdamW", "AdamW", ALL, tensorflow_step),
    Contestant("td.LAMB", "tf_decoupled", "LAMB", "LAMB", ALL, tensorflow_step),
    Contestant("tf.keras AdamW", "keras.optimizers", "AdamW", "AdamW", ALL, tensorflow_step),
    Contestant("tf.keras Lamb", "keras.optimizers", "Lamb", "LAMB", ALL, tensorflow_step),
    Contestant("optax.adamw", "optax", "adamw", "AdamW", (WHOLE,), optax_step),
    Contestant("optax.lamb", "optax", "lamb", "LAMB", (WHOLE,), optax_step),
    Contestant("torch AdamW, foreach", "torch", "foreach", "AdamW", (PLAIN,), torch_step),
    Contestant("torch AdamW, fused", "torch", "fused", "AdamW", (PLAIN,), torch_step),
]


def contestants(workload: Workload, mode: str) -> list[Contestant]:
    """Those of the rule and the mode that are installed here; ours is the first."""
    able = [c for c in CONTESTANTS if c.rule == workload.rule and mode in c.modes]
    able = able if workload.peers else able[:1]
    return [c for c in able if importlib.util.find_spec(c.module.partition(".")[0])]


# Measuring, in a process of its own.


def seconds(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def measure(name: str, mode: str, labels: list[str], rounds: int) -> dict[str, Any]:
    """First steps, then medians of `rounds` steps in turns, and the peak of this process."""
    shapes = WORKLOADS[name].shapes()
    chosen = [c for c in CONTESTANTS if c.label in labels]
    steps = {c.label: c.start(c, shapes, mode) for c in chosen}
    first = {label: seconds(step) for label, step in steps.items()}
    times: dict[str, list[float]] = {label: [] for label in steps}
    for _ in range(rounds):
        for label, step in steps.items():
            times[label].append(seconds(step))
    median = {label: statistics.median(values) for label, values in times.items() if values}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, in bytes on macOS
    peak *= 1e-9 if sys.platform == "darwin" else 1024e-9
    return {"first": first, "median": median, "peak": peak}


def measured_apart(*arguments: Any) -> dict[str, Any]:
    """`measure` in a fresh process. One that fails is told, and its numbers are missing."""
    command = [sys.executable, __file__, "--measure", json.dumps(arguments)]
    environment = ENVIRONMENT | os.environ
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    if run.returncode == 0:
        return json.loads(run.stdout.splitlines()[-1])
    why = (run.stderr.strip().splitlines() or ["no message"])[-1]
    print(f"{arguments} failed with {run.returncode}: {why}", flush=True)
    return {"first": {}, "median": {}, "peak": math.nan}


def table(name: str, mode: str, rounds: int) -> str:
    """Measures one workload in one mode; Markdown."""
    workload = WORKLOADS[name]
    labels = [c.label for c in contestants(workload, mode)]
    median: dict[str, float] = {}
    if workload.peers:
        torch = [label for label in labels if label.startswith("torch")]
        for turns in ([label for label in labels if label not in torch], torch):
            median |= measured_apart(name, mode, turns, rounds)["median"] if turns else {}
    alone = {label: measured_apart(name, mode, [label], 0) for label in labels}
    first = {label: alone[label]["first"].get(label, math.nan) for label in labels}
    peer = next((label for label in labels if label.startswith("tf.keras")), "")
    moved = 28 * sum(map(math.prod, workload.shapes()))
    columns = ["contestant", "step ms", "GB/s", "Keras / it", "first step s", "Keras / it"]
    rows = [[*columns, "peak GB"], ["---"] * 7]
    for label in labels:
        step, begun = median.get(label, math.nan), first[label]
        numbers = (1e3 * step, moved / step / 1e9, median.get(peer, math.nan) / step)
        numbers += (begun, first.get(peer, math.nan) / begun, alone[label]["peak"])
        cells = [f"{x:.{d}f}" for x, d in zip(numbers, (1, 1, 2, 1, 2, 2), strict=True)]
        rows.append([label, *(cell.replace("nan", "–") for cell in cells)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [name for name in WORKLOADS if name != "tiny"]
    parser.add_argument("names", nargs="*", help=f"of {', '.join(known)}; all by default")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--quick", action="store_true", help="3 steps in place of 40")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        print(json.dumps(measure(*json.loads(given.measure))))
        return 0
    if unknown := sorted(set(given.names) - set(WORKLOADS)):
        parser.error(f"no workload is called {unknown[0]!r}; there are {', '.join(known)}")
    for name in given.names or known:
        workload = WORKLOADS[name]
        shapes = workload.shapes()
        parameters = sum(map(math.prod, shapes)) / 1e6
        print(f"\n{name}: {len(shapes):,} tensors, {parameters:.1f} M parameters, {workload.rule}")
        for mode in [mode for mode in workload.modes if mode in given.modes]:
            rows = table(name, mode, 3 if given.quick else STEPS)
            print(f"\n{MODES[mode]}\n\n{rows}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
