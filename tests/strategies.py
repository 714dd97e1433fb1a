"""Rows and features under any strategy, in this process or, run as a program, in its own.

    python strategies.py STRATEGY START END

reads the states in START, trains every row and feature from there, and writes to END. All rows with
one feature are steps of one graph.
"""

import json
import os
import socket
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf
from cases import CASES, gradients, tell_loss
from probes import PROBES, leading, nested, scaled

import tf_decoupled as td

STEPS, POISONED = 10, 6
FEATURES = {
    "plain": dict(),
    "together": dict(
        gradient_accumulation_steps=2,
        global_clipnorm=0.5,
        use_ema=True,
        ema_momentum=0.9,
        ema_overwrite_frequency=2,
        loss_scale=td.DynamicLossScale(initial_scale=8.0, growth_steps=2),
    ),
    "bfloat16": dict(clipnorm=0.5, gradient_accumulation_steps=1, skip_nonfinite=True),
    "sparse": dict(clipvalue=0.05, loss_scale=4.0),
}
ROWS = [(case, feature) for feature in FEATURES for case in PROBES]
ROWS += [(case, "together") for case in CASES[:1]]  # `test_whole` has all on two replicas


# Features that a strategy doesn't have: TensorFlow has no broadcast of bfloat16 between the CPUs of
# workers; four replicas differ from two by their number only, which enters sums of gradients, with
# slots of any shape, and the sums of a rule.
LEFT_OUT = {"multiworker": {"bfloat16"}, "mirrored-4": {"plain", "bfloat16"}}
RULES = {"mirrored-4": (scaled, nested, leading)}


def rows_of(strategy):
    rows = [row for row in ROWS if row[1] not in LEFT_OUT.get(strategy, ())]
    return [row for row in rows if strategy not in RULES or row[0] in RULES[strategy]]


def built(strategy, case, feature):
    """Variables and optimizer of one row."""
    rng = np.random.default_rng(0)
    with strategy.scope():
        trainable = [
            keras.Variable(rng.normal(size=shape), dtype=dtype_of(feature), name=f"v{i}")
            for i, shape in enumerate(case.shapes)
        ]
        optimizer = case.make(weight_decay=0.1, jit_compile=False, **FEATURES[feature])
        optimizer.build(trainable)
    return trainable, optimizer


def dtype_of(feature):
    return "bfloat16" if feature == "bfloat16" else "float32"


def step_of(strategy, trainings, feature):
    """A step of all trainings: a list of gradients for each, of which each replica gets its share,
    and a number that the last replica adds to them."""

    def on_one(grads, poison):
        context = tf.distribute.get_replica_context()
        last = context.replica_id_in_sync_group == context.num_replicas_in_sync - 1
        for (trainable, optimizer), gs in zip(trainings, grads, strict=True):
            scale = optimizer.scale_loss(tf.constant(1.0)) / context.num_replicas_in_sync
            tell_loss(optimizer, 1.0 / context.num_replicas_in_sync)
            gs = [g * scale + tf.where(last, poison, 0.0) for g in gs]
            gs = [twice(g) if feature == "sparse" else tf.cast(g, dtype_of(feature)) for g in gs]
            optimizer.apply(gs, trainable)

    def step(grads, poison):
        strategy.run(on_one, (grads, poison))

    alone = strategy is tf.distribute.get_strategy()
    return step if alone else tf.function(step, autograph=False)


def twice(g):
    """The gradient as slices of which there are two per row."""
    if not g.shape.rank:
        return g
    rows = tf.range(g.shape[0])
    values, indices = tf.concat([g / 4, g * 3 / 4], 0), tf.concat([rows, rows], 0)
    return tf.IndexedSlices(values, indices, tf.constant(tuple(g.shape)))


def train(strategy, rows, steps, start=None, finish=None):
    """{(case name, feature): state} after `steps`, a range, from the states `start`.

    `finish` waits for what a step has begun.
    """
    states = {}
    for feature in FEATURES:
        cases = [case for case, its in rows if its == feature]
        begin = start and [start[case.name, feature] for case in cases]
        ends = train_together(strategy, cases, feature, steps, begin, finish)
        states |= {(case.name, feature): end for case, end in zip(cases, ends, strict=True)}
    return states


def train_together(strategy, cases, feature, steps, start=None, finish=None):
    """The state of each case after `steps`: arrays by name."""
    keras.utils.clear_session(free_memory=False)
    trainings = [built(strategy, case, feature) for case in cases]
    for (trainable, optimizer), state in zip(trainings, start or [None] * len(cases), strict=True):
        if state is not None:
            optimizer.set_state({k: v for k, v in state.items() if not k.startswith("=")})
            for v in trainable:
                v.assign(state[f"={v.name}"])
    step = step_of(strategy, trainings, feature)
    everything = [gradients(case.shapes, steps=max(steps) + 1) for case in cases]
    for t in steps if cases else ():
        gs = [[tf.constant(g) for g in grads[t]] for grads in everything]
        poison = tf.constant(np.inf if feature == "together" and t == POISONED else 0.0, tf.float32)
        if finish is None:
            step(gs, poison)
        else:
            finish(step, (gs, poison))
    return [
        optimizer.get_state()
        | {f"={v.name}": tf.cast(v.value, tf.float32).numpy() for v in trainable}
        for trainable, optimizer in trainings
    ]


def save(path, states):
    """Writes {(case name, feature): state}."""
    np.savez(path, **{json.dumps([*row, k]): v for row, s in states.items() for k, v in s.items()})


def load(path):
    states = {}
    with np.load(path) as stored:
        for key in stored.files:
            case, feature, name = json.loads(key)
            states.setdefault((case, feature), {})[name] = stored[key]
    return states


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("localhost", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def parameter_servers():
    """The strategy on two workers and two servers in this process, and how to run a step."""
    addresses = [f"localhost:{port}" for port in free_ports(4)]
    cluster = tf.train.ClusterSpec({"worker": addresses[:2], "ps": addresses[2:]})
    servers = [
        tf.distribute.Server(cluster, job_name=job, task_index=i, protocol="grpc")
        for job in ("worker", "ps")
        for i in range(2)
    ]
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc")
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)

    def finish(step, args):
        coordinator.schedule(step, args=args)
        coordinator.join()

    finish.servers = servers  # kept alive
    return strategy, finish


def logical_cpus(count):
    (cpu,) = tf.config.list_physical_devices("CPU")
    devices = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(cpu, devices)
    return [f"CPU:{i}" for i in range(count)]


def strategy_named(name):
    """A strategy, and how to run a step where calling it isn't enough."""
    kind, _, count = name.partition("-")
    if kind == "mirrored":
        return tf.distribute.MirroredStrategy(logical_cpus(int(count))), None
    if kind == "multiworker":  # TF_CONFIG says who
        return tf.distribute.MultiWorkerMirroredStrategy(), None
    os.environ.pop("TF_CONFIG")
    return parameter_servers()


def main(name, start, end):
    (strategy, finish), states = strategy_named(name), load(start)
    states = train(strategy, rows_of(name), range(STEPS // 2, STEPS), states, finish)
    save(end, states)
    print("done", flush=True)
    os._exit(0)  # servers and collectives would keep the process alive


if __name__ == "__main__":
    main(*sys.argv[1:])
