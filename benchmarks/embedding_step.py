"""One AdamW step of an embedding, 1,024 rows of 1,000,000 × 64: sparse="lazy" against "exact".

    python benchmarks/embedding_step.py [ROWS WIDTH SLICES]

The two take turns in a plain tf.function, on the same random rows; the median of a step is
printed, and Keras's AdamW for comparison.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tf_decoupled as td

ROUNDS = 10


def step_of(optimizer, rows, width):
    table = keras.Variable(tf.random.stateless_normal((rows, width), (0, 0)), name="table")
    optimizer.build([table])

    @tf.function(autograph=False)
    def step(values, indices):
        optimizer.apply([tf.IndexedSlices(values, indices, tf.constant([rows, width]))], [table])

    return step


def main(rows=1_000_000, width=64, slices=1_024):
    optimizers = {
        'td.AdamW, sparse="lazy"': td.AdamW(1e-3, sparse="lazy"),
        "td.AdamW": td.AdamW(1e-3),
        "tf.keras AdamW": keras.optimizers.AdamW(1e-3, weight_decay=0.01),
    }
    steps = {name: step_of(optimizer, rows, width) for name, optimizer in optimizers.items()}
    times = {name: [] for name in steps}
    rng = np.random.default_rng(0)
    for turn in range(ROUNDS + 1):
        indices = tf.constant(rng.integers(0, rows, slices), tf.int32)
        values = tf.constant(rng.normal(size=(slices, width)), tf.float32)
        for name, step in steps.items():
            start = time.perf_counter()
            step(values, indices)
            times[name] += [time.perf_counter() - start] if turn else []  # the first one compiles
    print(f"embedding {rows:,} × {width}, {slices:,} rows a step")
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    lazy = next(iter(medians.values()))
    for name, seconds in medians.items():
        print(f"{name:26}{1e3 * seconds:10.2f} ms{seconds / lazy:10.1f} × lazy")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
