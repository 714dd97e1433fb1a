"""Training under each strategy gives the weights of one device; docs/distributed.md is run."""

import os
import pathlib
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import mirrored

from tf_decoupled.experiments import app, data, strategies, train
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.train import Run, Training
from tf_decoupled.testing import tpu

DOCUMENT = (pathlib.Path(__file__).parent.parent / "docs" / "distributed.md").read_text()
SHELL = re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)
SECONDS = 120
RUN = Run(
    "SGDW", model="mlp", epochs=2, batch_size=16, examples=100, arguments=("momentum=0.5",), seed=3
)


@pytest.fixture(scope="module")
def dataset():
    return data.load("fashion_mnist_small")


@pytest.fixture(name="mirrored")
def the_mirrored_strategy_of_this_process():
    return mirrored()


def weights(folder):
    """Every number of the last checkpoint in `folder`."""
    reader = tf.train.load_checkpoint(str(folder / "checkpoints"))
    found = {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()}
    return {n: v for n, v in found.items() if isinstance(v, (np.ndarray, np.generic))}


def assert_equal_but_for_rounding(ours, expected):
    assert ours.keys() == expected.keys() and len(expected) > 8
    for name, right in expected.items():
        np.testing.assert_allclose(ours[name], right, rtol=1e-5, atol=2e-6, err_msg=name)


def trained(run, dataset, strategy, augmented=False):
    """What each epoch reported, and every variable at the end."""
    keras.utils.clear_session(free_memory=False)
    training = Training(run, dataset, strategy)
    training.loop.augmented = augmented
    epochs = [training.loop.epoch(run.seed, e, run.batch_size) for e in range(run.epochs)]
    optimizer = training.loop.optimizer
    named = {v.path: v.numpy() for v in training.model.variables} | optimizer.get_state()
    assert training.loop.traces == 1
    return epochs, named


# Two replicas in this process


@pytest.mark.parametrize("augmented", [False, True])
def test_two_replicas_end_where_one_device_does(dataset, mirrored, augmented):
    (epochs, ours), (expected_epochs, expected) = (
        trained(RUN, dataset, strategy, augmented) for strategy in (mirrored, None)
    )
    np.testing.assert_allclose(epochs, expected_epochs, rtol=1e-5)
    assert_equal_but_for_rounding(ours, expected)


def test_two_emulated_tpu_cores_end_where_one_device_does_and_have_every_kernel(dataset):
    strategy = tpu.EmulatedTPUStrategy(2)
    epochs, ours = trained(RUN, dataset, strategy)
    expected_epochs, expected = trained(RUN, dataset, None)
    np.testing.assert_allclose(epochs, expected_epochs, rtol=1e-5)
    assert_equal_but_for_rounding(ours, expected)
    cluster = strategy.clusters[-1]
    assert not cluster.without_kernel()
    assert cluster.count("CrossReplicaSum")["float32"] == 4


def test_the_replicas_see_together_the_images_of_one_device(dataset, mirrored):
    training = Training(RUN, dataset, mirrored)
    x = tf.reshape(tf.range(12), (6, 2))
    parts = mirrored.experimental_distribute_values_from_function(
        lambda context: strategies.share(x, context)
    )
    parts = mirrored.experimental_local_results(parts)
    assert [len(part) for part in parts] == [3, 3]
    np.testing.assert_array_equal(tf.concat(parts, 0), x)
    assert training.loop.strategy is mirrored


def test_a_run_continues_on_other_devices_and_exports_the_same(dataset, mirrored, tmp_path):
    def stop(epoch):
        raise KeyboardInterrupt

    ours, expected = tmp_path / "ours", tmp_path / "expected"
    with pytest.raises(KeyboardInterrupt):
        train.train(RUN, ours, report=stop)
    train.train(RUN, ours, ours / "exported", strategy=mirrored)
    train.train(RUN, expected, expected / "exported")
    assert_equal_but_for_rounding(weights(ours), weights(expected))
    first, second = (
        tf.saved_model.load(str(out / "exported")).signatures["serve"](
            images=tf.constant(dataset.test.images[:4])
        )["logits"]
        for out in (ours, expected)
    )
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


def test_a_batch_that_cannot_be_shared_out_is_an_input_error(dataset, mirrored):
    with pytest.raises(InputError, match="a multiple of their number 2"):
        Training(replace(RUN, batch_size=17), dataset, mirrored)


# What is refused


def test_two_replicas_take_two_logical_cpus_where_no_gpu_is():
    devices = strategies.make("mirrored", 2).extended.worker_devices
    assert [device.rpartition("device:")[2] for device in devices] == ["CPU:0", "CPU:1"]


def test_two_runs_of_a_process_sum_each_their_own(mirrored):
    def ones():
        return tf.distribute.get_replica_context().all_reduce("SUM", tf.constant(1.0))

    first, second = (strategies.make("mirrored", 2) for _ in range(2))
    assert strategies.agree(first, 3)
    sums = tf.function(lambda: second.run(ones), autograph=False)()
    assert [float(total) for total in second.experimental_local_results(sums)] == [2, 2]


def test_the_strategy_none_is_no_strategy():
    assert strategies.make("none") is tf.distribute.get_strategy()
    assert strategies.is_chief(tf.distribute.get_strategy())


@pytest.mark.parametrize(
    "name, replicas, words",
    [
        ("horovod", None, "Unknown strategy 'horovod'. Known: none, mirrored, multiworker,"),
        ("none", 2, "replicas is of the strategy mirrored.* Received: 2 for none"),
        ("mirrored", 0, "replicas must be at least 1. Received: 0"),
        ("mirrored", 3, "replicas must be at most the 2 CPUs. Received: 3"),
        ("mirrored", None, "finds no GPU. To try it without, --replicas=2"),
    ],
)
def test_a_strategy_that_cannot_be_is_an_input_error(name, replicas, words):
    with pytest.raises(InputError, match=words):
        strategies.make(name, replicas)


@pytest.mark.parametrize("name", ["multiworker", "parameter_server"])
@pytest.mark.parametrize(
    "config",
    [
        None,
        "worker 0",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"evaluator": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}',
    ],
)
def test_a_cluster_that_is_missing_or_wrong_is_answered_with_a_right_one(name, config, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InputError, match=f"{name} needs TF_CONFIG") as raised:
        strategies.make(name)
    assert str(raised.value).endswith(f"Received: {config or 'none'}")
    example = re.search(r"TF_CONFIG='(.*?)'", str(raised.value))[1]
    monkeypatch.setenv("TF_CONFIG", example)
    assert strategies._resolver(name).task_id == 0


@pytest.mark.parametrize(
    "address, words",
    [
        (None, "finds no TPU on this machine"),
        ("local", "finds no TPU on this machine"),
        ("my-tpu", r"must be local or grpc://host:port\. Received: my-tpu"),
        ("grpc://127.0.0.1:1", "No TPU answers at TPU_NAME=grpc://127.0.0.1:1"),
    ],
)
def test_without_a_tpu_there_is_one_line(address, words, monkeypatch, tmp_path):
    monkeypatch.delenv("TPU_NAME", raising=False)
    monkeypatch.setattr(strategies, "TPU_DEVICES", (f"{tmp_path.name}*",))
    if address is not None:
        monkeypatch.setenv("TPU_NAME", address)
    with pytest.raises(InputError, match=words):
        strategies.make("tpu")


# Processes of their own


def environment():
    own = {n: v for n, v in os.environ.items() if n not in ("TF_CONFIG", "TPU_NAME")}
    return own | {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}


def addresses_made_free(blocks):
    """The document's shell blocks with ports of this machine that nobody uses."""
    names = sorted(set(re.findall(r"localhost:\d+", "".join(blocks))))
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    free = {name: f"localhost:{port}" for name, port in zip(names, ports, strict=True)}
    return [re.sub(r"localhost:\d+", lambda match: free[match[0]], block) for block in blocks]


def together(folder, blocks, servers=()):
    """Runs shell blocks at once, each to its end, and stops the servers then; all outputs."""
    folder.mkdir(exist_ok=True)
    commands = addresses_made_free([*servers, *blocks])
    commands = [c.replace("tf-decoupled ", "python -m tf_decoupled ") for c in commands]
    commands = [c.replace("python ", f"{sys.executable} ") for c in commands]
    files = [folder / f"{i}.log" for i in range(len(commands))]
    processes = []
    try:
        for command, file in zip(commands, files, strict=True):
            options = dict(cwd=folder, env=environment(), start_new_session=True)
            with file.open("w") as log:
                shell = ["bash", "-ec", command]
                processes.append(subprocess.Popen(shell, stdout=log, stderr=log, **options))
        codes = [process.wait(SECONDS) for process in processes[len(servers) :]]
        for process in processes[: len(servers)]:
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(SECONDS) in (-signal.SIGINT, 128 + signal.SIGINT)
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    outputs = [file.read_text() for file in files]
    return codes, outputs


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The weights that the document's run in one process ends with."""
    (block,) = [b for b in SHELL if "--out one" in b]
    folder = tmp_path_factory.mktemp("alone")
    keras.utils.clear_session(free_memory=False)
    app.main(app.parse(shlex.split(block.replace("--out one", f"--out {folder}"))))
    return weights(folder)


@pytest.mark.slow
def test_the_documented_commands_train_two_processes_to_the_weights_of_one(tmp_path, one):
    commands = [b for b in SHELL if "multiworker" in b]
    codes, outputs = together(tmp_path, commands)
    assert codes == [0, 0], outputs
    assert "epoch 3:" in outputs[0] and "Test error" in outputs[0]
    assert "epoch" not in outputs[1] and "Test error" not in outputs[1]
    assert_equal_but_for_rounding(weights(tmp_path / "two"), one)


@pytest.mark.slow
def test_the_documented_script_gives_every_process_the_weights_of_one(tmp_path, monkeypatch):
    (script,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    path = tmp_path / "regression.py"
    path.write_text(script)
    (run,) = [b for b in SHELL if path.name in b]
    configs = [b.partition("tf-decoupled")[0] for b in SHELL if "multiworker" in b]
    blocks = [c + run.replace("model", f"model{i}") for i, c in enumerate(configs)]
    codes, outputs = together(tmp_path, blocks)
    assert codes == [0, 0], outputs
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(sys, "argv", [path.name, str(tmp_path / "alone.keras")])
    alone = runpy.run_path(str(path))["model"].get_weights()
    first, second = (keras.models.load_model(tmp_path / f"model{i}.keras") for i in (0, 1))
    both = first.get_weights(), second.get_weights()
    for ours, others, expected in zip(*both, alone, strict=True):
        np.testing.assert_array_equal(ours, others)
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.slow
def test_the_documented_parameter_server_trains_to_the_weights_of_one_device(tmp_path, one):
    (chief,) = [b for b in SHELL if "parameter_server" in b]
    servers = [chief.replace('"type": "chief"', f'"type": "{role}"') for role in ("ps", "worker")]
    codes, outputs = together(tmp_path, [chief], servers)
    assert codes == [0], outputs
    assert "serves at localhost" in outputs[0] and "epoch 3:" in outputs[2]
    assert_equal_but_for_rounding(weights(tmp_path / "served"), one)


@pytest.mark.slow
def test_processes_that_found_different_checkpoints_are_refused(tmp_path):
    run = Run("SGDW", model="mlp", epochs=1)
    commands = [b.replace("--epochs 3", "--epochs 1") for b in SHELL if "multiworker" in b]
    commands[1] = commands[1].replace("--out two", "--out elsewhere")
    train.train(run, tmp_path / "two")
    codes, outputs = together(tmp_path, commands)
    assert codes == [2, 2], outputs
    for output, done in zip(outputs, (1, 0), strict=True):
        assert f"with {done} epochs done here" in output.splitlines()[-1]


@pytest.mark.slow
def test_a_tpu_that_is_none_is_noticed_within_seconds(tmp_path):
    code = (
        "from tf_decoupled.experiments import strategies\n"
        "strategies.TPU_DEVICES = ('null',)\n"
        "try: strategies.make('tpu')\n"
        "except strategies.InputError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30)
    assert "No TPU at local: TPUs not found in the cluster" in ended.stdout
