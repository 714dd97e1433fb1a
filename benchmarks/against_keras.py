"""The same few lines on the installed Keras and on tf_decoupled: what each of them gives.

    python benchmarks/against_keras.py

Prints a Markdown table, one row per case. A cell is what the run returned: a number, or the class
and the first words of an error or a warning. What is right stands in the first column.
"""

import os
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf

import tf_decoupled as td

WORDS = 60  # characters of an error's message
# What Keras puts around the message of an error inside a layer, and terminal colours.
WRAPPING = r"Exception encountered when calling \S+\.|\x1b\[\d*m"
PLUMBING = ("Placeholder", "NoOp", "Identity", "Const")

Outcome = tuple[str, bool]  # the text of a cell, and whether that is right


class Library(NamedTuple):
    """What the two libraries name differently, and the replicas to run on."""

    strategy: tf.distribute.Strategy
    AdamW: Callable[..., keras.optimizers.Optimizer]
    SGD: Callable[..., keras.optimizers.Optimizer]
    LAMB: Callable[..., keras.optimizers.Optimizer]
    Adafactor: Callable[..., keras.optimizers.Optimizer]
    guarded: Callable[[], keras.optimizers.Optimizer]  # skips steps that aren't finite
    CosineRestarts: Callable[..., Any]
    average: Callable[[list[float], float], float]  # of the values after each update, momentum


def of_keras(strategy: tf.distribute.Strategy) -> Library:
    k = keras.optimizers

    def average(history: list[float], momentum: float) -> float:
        a = history[0]
        for value in history[1:]:
            a = momentum * a + (1 - momentum) * value
        return a

    return Library(
        strategy,
        AdamW=k.AdamW,
        SGD=k.SGD,
        LAMB=k.Lamb,
        Adafactor=k.Adafactor,
        guarded=lambda: k.LossScaleOptimizer(k.Adam(1.0)),
        CosineRestarts=k.schedules.CosineDecayRestarts,
        average=average,
    )


def of_tf_decoupled(strategy: tf.distribute.Strategy) -> Library:
    def average(history: list[float], momentum: float) -> float:
        weights = momentum ** np.arange(len(history))[::-1]
        return float(np.average(history, weights=weights))

    return Library(
        strategy,
        AdamW=td.AdamW,
        SGD=td.SGD,
        LAMB=td.LAMB,
        Adafactor=td.Adafactor,
        guarded=lambda: td.Adam(1.0, skip_nonfinite=True),
        CosineRestarts=td.schedules.CosineRestarts,
        average=average,
    )


# What the rows share.


def zeros(shape: tuple[int, ...], name: str = "v", dtype: str = "float32") -> keras.Variable:
    return keras.Variable(np.zeros(shape), dtype=dtype, name=name)


def number(value: float, right: float, tolerance: float = 1e-6) -> Outcome:
    return f"{value + 0.0:.4g}", bool(abs(value - right) <= tolerance)


def words(error: BaseException) -> str:
    """The class and the first words, in one line that doesn't break a table."""
    message = re.sub(WRAPPING, "", str(error)).replace("|", "/")
    return f"{type(error).__name__}: {' '.join(message.split())[:WORDS].rstrip()}"


def traced(optimizer: keras.optimizers.Optimizer, variables: list) -> Callable:
    """A step in a graph, the optimizer built before."""
    optimizer.build(variables)
    return tf.function(lambda *grads: optimizer.apply(grads, variables), autograph=False)


def weight_on_replicas(
    library: Library, make: Callable, grads: list[tuple[float, float]], build: bool = True
) -> float:
    """A weight that was 0, after steps with the gradients of (replica 0, replica 1)."""
    strategy = library.strategy
    with strategy.scope():
        v, optimizer = zeros((1,)), make()
        if build:
            optimizer.build([v])

    def apply(first, second):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([tf.where(tf.equal(replica, 0), first, second)], [v])

    step = tf.function(lambda *pair: strategy.run(apply, pair), autograph=False)
    for first, second in grads:
        step(tf.constant([first]), tf.constant([second]))
    return float(v.numpy()[0])


# The rows.


def bfloat16_weights(library: Library) -> Outcome:
    v = zeros((4,), dtype="bfloat16")
    step = traced(library.AdamW(0.01, weight_decay=0.0), [v])
    for _ in range(40):
        step(tf.ones(4, tf.bfloat16))
    change = np.abs(np.asarray(v.numpy(), "float32")).max()
    return number(float(change), 0.4, tolerance=0.002)


def repeated_rows(library: Library) -> Outcome:
    rng = np.random.default_rng(0)
    start, indices = rng.normal(size=(4, 2)), tf.constant([0, 1, 1, 1])
    sparse, dense = (keras.Variable(start, dtype="float32", name="v") for _ in range(2))
    sparse_step, dense_step = (traced(library.AdamW(0.01), [v]) for v in (sparse, dense))
    for _ in range(3):
        rows = tf.constant(rng.normal(size=(4, 2)), tf.float32)
        sparse_step(tf.IndexedSlices(rows, indices, tf.constant([4, 2])))
        dense_step(tf.math.unsorted_segment_sum(rows, indices, 4))
    return number(float(np.abs(sparse.numpy() - dense.numpy()).max()), 0.0)


def accumulation_on_replicas(library: Library) -> Outcome:
    def make():
        return library.SGD(1.0, gradient_accumulation_steps=2)

    return number(weight_on_replicas(library, make, [(1.0, 2.0), (3.0, 4.0)]), -5.0)


def clip_on_replicas(library: Library) -> Outcome:
    value = weight_on_replicas(library, lambda: library.SGD(1.0, clipnorm=1.0), [(30.0, -9.0)])
    return number(value, -1.0)


def infinity_on_one_replica(library: Library) -> Outcome:
    return number(weight_on_replicas(library, library.guarded, [(1.0, float("inf"))]), 0.0)


def averages_on_replicas(library: Library) -> Outcome:
    def make():
        return library.SGD(1.0, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)

    expected = library.average([-1.0, -2.0], 0.5)
    return number(weight_on_replicas(library, make, [(0.5, 0.5)] * 2) / expected, 1.0)


def averages_with_accumulation(library: Library) -> Outcome:
    v = zeros((1,))
    shared = dict(use_ema=True, ema_momentum=0.5)
    optimizer = library.SGD(1.0, gradient_accumulation_steps=2, **shared)
    step = traced(optimizer, [v])
    for g in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
        step(tf.constant([g]))
    optimizer.finalize_variable_values([v])
    return number(float(v.numpy()[0]) / library.average([-1.5, -5.0, -10.5], 0.5), 1.0)


def length_of_a_lamb_step(library: Library) -> Outcome:
    start = np.random.default_rng(0).normal(size=16).astype("float32")
    v = keras.Variable(start, name="v")
    traced(library.LAMB(0.1, weight_decay=1.0), [v])(tf.constant(start[::-1].copy()))
    ratio = np.linalg.norm(v.numpy() - start) / (0.1 * np.linalg.norm(start))
    return number(float(ratio), 1.0, tolerance=1e-4)


def state_of_adafactor(library: Library) -> Outcome:
    optimizer = library.Adafactor()
    optimizer.build([zeros((256, 512))])
    floats = sum(int(np.prod(v.shape)) for v in optimizer.variables if len(v.shape))
    return f"{floats:,}", floats == 256 + 512


def exclusion_in_a_copy(library: Library) -> Outcome:
    original = library.AdamW(1.0, weight_decay=0.5)
    original.exclude_from_weight_decay(var_names=["bias"])
    copy = type(original).from_config(original.get_config())
    kernel, bias = keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="bias")
    traced(copy, [kernel, bias])(tf.zeros(1), tf.zeros(1))
    return number(float(bias.numpy()[0]), 1.0)


def decay_after_the_trace(library: Library) -> Outcome:
    v, optimizer = keras.Variable([1.0], name="v"), library.AdamW(1.0, weight_decay=0.5)
    step = traced(optimizer, [v])
    step(tf.zeros(1))
    before = v.numpy()[0]
    optimizer.weight_decay = 0.0
    step(tf.zeros(1))
    return number(float(v.numpy()[0] - before), 0.0)


def layer_unfrozen(library: Library) -> Outcome:
    x = np.ones((8, 3), "float32")
    hidden, head = keras.layers.Dense(4, name="hidden"), keras.layers.Dense(1, name="head")
    model = keras.Sequential([keras.layers.Input((3,)), hidden, head])
    optimizer = library.AdamW(0.01)
    for trainable in (False, True):
        hidden.trainable = trainable
        before = hidden.kernel.numpy()
        model.compile(optimizer, "mse")
        model.fit(x, x[:, :1], batch_size=8, verbose=0)
    return number(np.count_nonzero(hidden.kernel.numpy() != before), 12)


def state_in_another_order(library: Library) -> Outcome:
    def trained(variables, steps):
        optimizer = library.AdamW()
        optimizer.build(variables)
        for _ in range(steps):
            optimizer.apply([tf.constant(v.numpy()) for v in variables], variables)
        return optimizer

    def moments(optimizer):
        slots = [v for v in optimizer.variables if v.path.endswith(("_momentum", "_m"))]
        return [v.numpy().tolist() for v in slots if len(v.shape)]

    variables = [keras.Variable(value, name="w") for value in ([1.0, 2.0], [3.0, 4.0])]
    saved, store = trained(variables, 2), {}
    saved.save_own_variables(store)
    again = trained([keras.Variable(v.numpy(), name="w") for v in reversed(variables)], 0)
    again.load_own_variables(store)
    pairs = zip(moments(again), reversed(moments(saved)), strict=True)
    return number(sum(a == b for a, b in pairs), 2)


def build_inside_the_step(library: Library) -> Outcome:
    value = weight_on_replicas(library, lambda: library.AdamW(1.0), [(1.0, 2.0)], build=False)
    return number(value, -1.0)


def rate_before_a_restart(library: Library) -> Outcome:
    schedule = library.CosineRestarts(1.0, 1000, t_mul=2.0)  # restarts at 1000 · (2¹² − 1)
    return number(float(schedule(tf.constant(4_094_999, tf.int64))), 0.0)


def operations_per_variable(library: Library) -> Outcome:
    def operations(count):
        trainable = [zeros((129, 128), f"v{i}") for i in range(count)]
        step = traced(library.AdamW(), trainable)
        graph = step.get_concrete_function(*[tf.ones((129, 128))] * count).graph
        return sum(op.type not in PLUMBING for op in graph.get_operations())

    return number((operations(20) - operations(10)) / 10, 0.0)


class Row(NamedTuple):
    """One line of the table: what is done, and the function that does it."""

    what: str
    run: Callable[[Library], Outcome]

    @property
    def name(self) -> str:
        return self.run.__name__


REPLICAS = "on 2 replicas, in a graph: "

ROWS = [
    Row(
        "bfloat16 weights, 40 AdamW steps of 0.01: the largest change of a weight (right: 0.4)",
        bfloat16_weights,
    ),
    Row(
        "sparse gradient with repeated rows against the same, dense: the largest difference after "
        "3 AdamW steps (right: 0)",
        repeated_rows,
    ),
    Row(
        REPLICAS + "`gradient_accumulation_steps=2`, gradients 1 and 2, then 3 and 4: the step of "
        "SGD (right: −5)",
        accumulation_on_replicas,
    ),
    Row(
        REPLICAS + "`clipnorm=1`, gradients 30 and −9: the step of SGD (right: −1)",
        clip_on_replicas,
    ),
    Row(
        REPLICAS + "gradients 1 and inf, to be skipped (`LossScaleOptimizer`; "
        "`skip_nonfinite=True`): the weight, which was 0 (right: 0)",
        infinity_on_one_replica,
    ),
    Row(
        REPLICAS + "`ema_overwrite_frequency=2`, 2 steps: the weight over its average, computed "
        "in NumPy (right: 1)",
        averages_on_replicas,
    ),
    Row(
        "`use_ema` and `gradient_accumulation_steps=2`, 6 calls: the average over that of the 3 "
        "updates, computed in NumPy (right: 1)",
        averages_with_accumulation,
    ),
    Row(
        "LAMB with `weight_decay=1`: the length of a step over learning_rate · ‖θ‖ (right: 1)",
        length_of_a_lamb_step,
    ),
    Row("Adafactor: floats of state for a 256 × 512 matrix (right: 768)", state_of_adafactor),
    Row(
        '`exclude_from_weight_decay(var_names=["bias"])`, then `from_config(get_config())`: a bias '
        "of 1 after a step with gradient 0 (right: 1)",
        exclusion_in_a_copy,
    ),
    Row(
        "`weight_decay = 0` assigned after tracing: the step that gradient 0 makes (right: 0)",
        decay_after_the_trace,
    ),
    Row(
        "a layer unfrozen, and `fit` with the same optimizer: how many of its kernel's 12 weights "
        "change (right: 12)",
        layer_unfrozen,
    ),
    Row(
        "2 variables of one shape, saved, and restored in another order: how many get their own "
        "moments back (right: 2)",
        state_in_another_order,
    ),
    Row(
        REPLICAS + "built in its first step: the step of AdamW, rate 1 (right: −1)",
        build_inside_the_step,
    ),
    Row(
        "cosine restarts, T₀ = 1000, t_mul = 2: the rate at step 4,094,999, the last before a "
        "restart (right: 0)",
        rate_before_a_restart,
    ),
    Row(
        "a traced AdamW step, 129 × 128: graph operations per variable outside of the compiled one "
        "(right: 0)",
        operations_per_variable,
    ),
]


def outcome(row: Row, library: Library) -> Outcome:
    """What the row gives, from fixed seeds and names; an error is a text, and isn't right."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    try:
        return row.run(library)
    except Exception as error:  # whatever it is, it is what the library gives
        return words(error), False


def main() -> int:
    tf.get_logger().setLevel("ERROR")
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    libraries = of_keras(strategy), of_tf_decoupled(strategy)
    print(f"| what is done | Keras {keras.__version__} | tf_decoupled {td.__version__} |")
    print("|---|---|---|")
    for row in ROWS:
        cells = [outcome(row, library)[0] for library in libraries]
        print("|", " | ".join([row.what, *cells]), "|", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
