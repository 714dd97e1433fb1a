"""The time of one AdamW step on ResNet-50's variables: ours beside Keras's, in one run.

    python benchmarks/step_time.py

Prints the median step inside a plain tf.function and inside a jit_compile=True one, as GB/s of the
28 bytes per parameter that an Adam step must move (read θ, g, m, v; write θ, m, v), and Keras's
time over ours. Steps of the two alternate, so that both meet the same machine.
"""

import math
import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

import tf_decoupled as td

STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
STEPS = 40


def resnet50_shapes() -> list[tuple[int, ...]]:
    """The 161 trainable tensors of ResNet-50 (He et al., 2016), convolutions without bias."""
    convolutions, inputs = [(7, 7, 3, 64)], 64
    for blocks, width in STAGES:
        for block in range(blocks):
            convolutions += [(1, 1, inputs, width), (3, 3, width, width), (1, 1, width, 4 * width)]
            convolutions += [(1, 1, inputs, 4 * width)] if block == 0 else []
            inputs = 4 * width
    norms = [shape[-1:] for shape in convolutions for _ in ("gamma", "beta")]
    return [*convolutions, *norms, (2048, 1000), (1000,)]


def training_step(optimizer: keras.optimizers.Optimizer, shapes: list, jit_compile: bool):
    """A traced step of `optimizer` on variables of its own."""
    variables = [keras.Variable(tf.random.normal(shape)) for shape in shapes]
    optimizer.build(variables)
    return tf.function(lambda grads: optimizer.apply(grads, variables), jit_compile=jit_compile)


def median_steps(steps: dict, grads: list) -> dict[str, float]:
    """The median seconds of each step, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in steps.items():
        start = time.perf_counter()
        step(grads)
        print(
            f"  {name}: first step, with tracing and compiling, {time.perf_counter() - start:.1f} s"
        )
    for _ in range(STEPS):
        for name, step in steps.items():
            start = time.perf_counter()
            step(grads)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    tf.random.set_seed(0)
    shapes = resnet50_shapes()
    parameters = sum(math.prod(shape) for shape in shapes)
    print(f"ResNet-50: {len(shapes)} tensors, {parameters / 1e6:.1f} M parameters")
    grads = [tf.random.normal(shape) for shape in shapes]
    for jit_compile in (False, True):
        print(f"inside tf.function(jit_compile={jit_compile})")
        steps = {
            "td.AdamW": training_step(td.AdamW(), shapes, jit_compile),
            "tf.keras AdamW": training_step(keras.optimizers.AdamW(), shapes, jit_compile),
        }
        medians = median_steps(steps, grads)
        for name, seconds in medians.items():
            rate = 28 * parameters / seconds / 1e9
            print(f"  {name:15} {seconds * 1e3:7.1f} ms   {rate:5.1f} GB/s")
        print(f"  Keras / ours    {medians['tf.keras AdamW'] / medians['td.AdamW']:7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
