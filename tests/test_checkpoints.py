"""Checkpoints survive a kill at any moment, and a preempted run goes on from them exactly.

Run as a script, this file is the processes that are killed: TensorFlow is imported once, and each
of them is forked from there, before the first of its threads runs.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("GCE_METADATA_IP", "localhost:1")  # which the preemption handler asks

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import small_data, small_model

import tf_decoupled as td

KILLS = 50
STEPS = 6


def forked(function, *arguments):
    """The id of a process that runs `function(*arguments, tell)`, and the file of what it tells."""
    reader, writer = os.pipe()
    if process := os.fork():
        os.close(writer)
        return process, os.fdopen(reader)

    def tell(*line):
        os.write(writer, f"{json.dumps(line)}\n".encode())

    try:
        function(*arguments, tell)
    except BaseException as error:
        tell("raised", repr(error))
    finally:
        os._exit(0)


def save_forever(folder, tell):
    """Restores, tells which number all variables hold, and saves the numbers that follow."""
    model = keras.Sequential([keras.layers.Input((256,)), keras.layers.Dense(256)])
    optimizer = td.Lookahead(td.AdamW(0.1))
    optimizer.build(model.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=2)
    slots = [v for v in optimizer.variables if len(v.shape)]  # a rate of 17 would be refused
    variables, number = [*model.variables, *slots, optimizer.iterations], 0
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint).assert_consumed()
        (number,) = {int(n) for v in variables for n in np.unique(v.numpy())}
    tell("restored", number)
    while True:
        number += 1
        for v in variables:
            v.assign(tf.fill(v.shape, tf.cast(number, v.dtype)))
        tell("saving", number)
        manager.save()
        tell("saved", number)


def kill_while_saving(folder):
    """Prints what each killed process told: one JSON list of lines per process."""
    rng, duration = random.Random(0), 0.05
    for _ in range(KILLS):
        process, lines = forked(save_forever, folder)
        told = [lines.readline()]
        for _ in range(rng.randrange(4)):
            told.append(lines.readline())
            begun = time.monotonic()
            told.append(lines.readline())
            duration = time.monotonic() - begun
        told.append(lines.readline())
        time.sleep(rng.uniform(0, 1.2 * duration))  # seconds into a save
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        print(json.dumps([json.loads(line) for line in [*told, *lines] if line]), flush=True)


def train_until_preempted(folder, ports, worker, preempted_at, tell):
    """Trains to STEPS updates on one batch per worker and update, from what `folder` holds.

    The first worker gets a SIGTERM before the update that follows `preempted_at`. Tells where it
    began, each loss, and what weights and slots are at the end.
    """
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    task = {"type": "worker", "index": worker}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    strategy = tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(
            implementation=tf.distribute.experimental.CommunicationImplementation.RING
        )
    )
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = small_model()
        optimizer = td.Lookahead(td.AdamW(td.schedules.Cosine(0.1, 20), clipnorm=0.5))
        optimizer.build(model.trainable_variables)
    handler = tf.distribute.experimental.PreemptionCheckpointHandler(
        strategy.cluster_resolver,
        tf.train.Checkpoint(model=model, optimizer=optimizer),
        folder,
        tf.distribute.experimental.TerminationConfig(exit_fn=lambda: sys.exit("preempted")),
    )

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - tf.reduce_sum(x, 1, True)) ** 2)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    train = tf.function(lambda x: strategy.run(step, (x,)), autograph=False)
    updates = int(optimizer.iterations.numpy())
    tell("began", updates)
    while updates < STEPS:
        if worker == 0 and updates == preempted_at:
            os.kill(os.getpid(), signal.SIGTERM)
        x = np.random.default_rng([updates, worker]).normal(size=(8, 4)).astype("float32")
        loss = handler.run(train, tf.constant(x))
        updates = int(optimizer.iterations.numpy())
        tell("loss", updates, float(loss))
    # Without the statistics of the normalization: each worker has its own, and one is saved.
    tell("ended", [v.numpy().tolist() for v in model.trainable_variables + optimizer.variables])


def preempt_and_restart(folder, workers):
    """Prints what each worker told: of a whole run, of one that is preempted, of its restart."""
    for name, preempted_at in [("whole", None), ("preempted", 3), ("preempted", None)]:
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(int(workers))]
            for free in sockets:
                free.bind(("localhost", 0))
            ports = [free.getsockname()[1] for free in sockets]
        run = (train_until_preempted, os.path.join(folder, name), ports)
        processes = [forked(*run, worker, preempted_at) for worker in range(int(workers))]
        told = [[json.loads(line) for line in lines] for _, lines in processes]
        for process, _ in processes:
            os.waitpid(process, 0)
        print(json.dumps(told), flush=True)


def told_by(function, *arguments):
    """What this file prints as a script that calls `function(*arguments)`."""
    command = [sys.executable, __file__, function.__name__, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.slow
def test_a_process_killed_while_it_saves_leaves_the_last_checkpoint_whole(tmp_path):
    runs = told_by(kill_while_saving, tmp_path / "checkpoints")
    assert len(runs) == KILLS
    assert sum(run[-1][0] == "saving" for run in runs) > KILLS / 2, "kills hit between the saves"
    expected = {0}
    for run in runs:
        kind, restored = run[0]
        assert kind == "restored", run
        assert restored in expected
        saved = max([restored, *(number for kind, number in run if kind == "saved")])
        expected = {saved, run[-1][1]}  # the save that was hit may be complete, or not count


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_preempted_run_saves_and_its_restart_ends_as_if_nothing_had_been(workers, tmp_path):
    whole, preempted, restarted = told_by(preempt_and_restart, tmp_path, workers)
    for all_of_it, before, after in zip(whole, preempted, restarted, strict=True):
        assert before[-1] == ["raised", "SystemExit('preempted')"]
        _, updates = after[0]
        assert 3 <= updates < STEPS
        assert before[1:-1] == all_of_it[1 : 1 + updates]
        assert after[1:] == all_of_it[1 + updates :]


def compiled(optimizer, dtype):
    keras.utils.clear_session(free_memory=False)
    layers = [
        keras.layers.Input((4,)),
        keras.layers.Dense(8, "relu", name="hidden", dtype=dtype),
        keras.layers.Dropout(0.5, seed=1),
        keras.layers.Dense(1, name="head"),
    ]
    model = keras.Sequential(layers)
    model.compile(optimizer(), "mse")
    return model


def checkpoint_of(model):
    """With what Keras's dropout draws from, which a checkpoint of the model leaves out."""
    weights = {id(v) for v in model.weights}
    seeds = [v.value for v in model.variables if id(v) not in weights]
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer, seeds=seeds)


@pytest.mark.parametrize(
    "optimizer,dtype",
    [
        (lambda: td.Lookahead(td.AdamW(td.schedules.Cosine(0.01, 50)), sync_period=2), "float32"),
        (lambda: td.LAMB(0.01, use_ema=True, gradient_accumulation_steps=2), "bfloat16"),
    ],
    ids=["a wrapper", "masters, averages and half an accumulation"],
)
def test_each_checkpoint_that_is_kept_resumes_bit_for_bit_in_a_new_model(
    optimizer, dtype, tmp_path
):
    model, data = compiled(optimizer, dtype), small_data()
    manager = tf.train.CheckpointManager(checkpoint_of(model), tmp_path, max_to_keep=2)
    for _ in range(5):
        model.train_on_batch(*data)
        manager.save()
    model.train_on_batch(*data)
    assert len(list(tmp_path.glob("*.index"))) == len(manager.checkpoints) == 2
    for batches, path in zip([2, 1], manager.checkpoints, strict=True):
        keras.utils.set_random_seed(7)
        again = compiled(optimizer, dtype)
        checkpoint_of(again).restore(path)
        for _ in range(batches):
            again.train_on_batch(*data)
        for a, b in zip(model.variables, again.variables, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
        expected, found = model.optimizer.get_state(), again.optimizer.get_state()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
