"""Every row, and every feature, trains on each strategy as on one device, and moves between.

Each strategy begins with the states that one device had after five steps, and takes five more; one
device goes on from what it saved.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import strategies
import tensorflow as tf
from cases import mirrored, variables
from probes import nested
from strategies import FEATURES, ROWS, STEPS

import tf_decoupled as td
from tf_decoupled.testing import tpu

ONE = tf.distribute.get_strategy
PROGRAM = pathlib.Path(strategies.__file__)


@pytest.fixture(scope="module")
def half_way(tmp_path_factory):
    """The file with each row's state on one device after half of the steps."""
    path = tmp_path_factory.mktemp("states") / "half_way.npz"
    strategies.save(path, strategies.train(ONE(), ROWS, range(STEPS // 2)))
    return path


@pytest.fixture(scope="module")
def all_the_way(half_way):
    """Each row's state on one device after all steps."""
    begin = strategies.load(half_way)
    return strategies.train(ONE(), ROWS, range(STEPS // 2, STEPS), begin)


def run(name, start, end, processes=1):
    """Runs the program in as many processes; returns the first one's states."""
    ports = [f"localhost:{port}" for port in strategies.free_ports(processes)]
    config = {"cluster": {"worker": ports}, "task": {"type": "worker"}}
    with contextlib.ExitStack() as children:
        started = []
        for i in range(processes):
            config["task"]["index"] = i
            path = os.pathsep.join([str(PROGRAM.parent), *sys.path])
            environment = os.environ | {"PYTHONPATH": path, "TF_CONFIG": json.dumps(config)}
            command = [sys.executable, PROGRAM, name, start, end.with_suffix(f".{i}.npz")]
            pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            started.append(subprocess.Popen(command, env=environment, **pipes))
            children.enter_context(started[-1])
            children.callback(started[-1].kill)
        for child in started:
            output, _ = child.communicate(timeout=600)
            assert child.returncode == 0, output[-3000:]
    return strategies.load(end.with_suffix(".0.npz"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,processes",
    [("mirrored-2", 1), ("mirrored-4", 1), ("multiworker", 2), ("parameter_server", 1)],
)
def test_every_row_goes_on_under_the_strategy_and_comes_back(
    name, processes, half_way, all_the_way, tmp_path
):
    rows = strategies.rows_of(name)
    states = run(name, half_way, tmp_path / "end", processes)
    wrong = differences(rows, states, all_the_way)
    together = [row for row in rows if row[1] == "together"]
    back, expected = (
        strategies.train(ONE(), together, range(STEPS, STEPS + 2), begin)
        for begin in (states, all_the_way)
    )
    wrong += [f"{line}, back" for line in differences(together, back, expected)]
    assert not wrong, "\n".join(wrong)


def differences(rows, ours, expected):
    """A line for each array of a row that is not as expected."""
    lines = []
    for case, feature in rows:
        a, b = (states[case.name, feature] for states in (ours, expected))
        assert a.keys() == b.keys()
        for k in a:
            if not np.allclose(a[k], b[k], rtol=1e-6, atol=1e-6, equal_nan=True):
                gap = np.max(np.abs(a[k] - b[k]))
                lines.append(f"{case.name}, {feature}: {k} differs by {gap:.2g}")
    return lines


def test_the_features_really_happen():
    (row,) = [row for row in ROWS if row == (nested, "together")]
    starts = strategies.train(ONE(), [row], range(STEPS // 2))
    ends = strategies.train(ONE(), [row], range(STEPS // 2, STEPS), starts)
    start, end = starts[nested.name, "together"], ends[nested.name, "together"]
    assert (int(end["iterations"]), int(end["skipped_steps"])) == (4, 1)
    assert start["micro_steps"] == 1  # what is saved and moved is in the middle of a group
    assert np.any(start["v0:gradient_sum"]) and "v0:average" in start
    assert (float(start["dynamic_scale"]), float(end["dynamic_scale"])) == (16.0, 8.0)
    assert set(FEATURES) == {"plain", "together", "bfloat16", "sparse"}


def test_an_optimizer_of_another_strategy_than_its_variables_raises():
    with mirrored().scope():
        optimizer, trainable = td.AdamW(), variables()
    with pytest.raises(
        ValueError, match=r"Received: an optimizer of MirroredStrategy for .* of no"
    ):
        optimizer.build(variables())
    td.AdamW().build(trainable)  # plain counters serve every replica of this process


def test_a_tpu_s_variables_need_an_optimizer_of_its_scope():
    with tpu.EmulatedTPUStrategy(2).scope():
        trainable = variables()
    with pytest.raises(ValueError, match=r"an optimizer of no strategy for .* EmulatedTPUStrategy"):
        td.AdamW().build(trainable)
