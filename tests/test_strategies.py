"""The matrix: every row and feature trains on each strategy as on one device, and moves between.

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
from strategies import FEATURES, ROWS, STEPS

import tf_decoupled as td
from tf_decoupled.testing import tpu

ONE = tf.distribute.get_strategy
PROGRAM = pathlib.Path(strategies.__file__)


@pytest.fixture(scope="module")
def half_way(tmp_path_factory):
    """The file with each row's state on one device after half of the steps."""
    path = tmp_path_factory.mktemp("states") / "half_way.npz"
    steps = range(STEPS // 2)
    strategies.save(path, {(c.name, f): strategies.train(ONE(), c, f, steps) for c, f in ROWS})
    return path


@pytest.fixture(scope="module")
def all_the_way(half_way):
    """Each row's state on one device after all steps."""
    begin, steps = strategies.load(half_way), range(STEPS // 2, STEPS)
    return {(c.name, f): strategies.train(ONE(), c, f, steps, begin[c.name, f]) for c, f in ROWS}


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


@pytest.mark.parametrize(
    "name,processes",
    [("mirrored-2", 1), ("mirrored-4", 1), ("multiworker", 2), ("parameter_server", 1)],
)
def test_every_row_goes_on_under_the_strategy_and_comes_back(
    name, processes, half_way, all_the_way, tmp_path
):
    states, wrong = run(name, half_way, tmp_path / "end", processes), []
    for case, feature in strategies.rows_of(name):
        ours, expected = (s[case.name, feature] for s in (states, all_the_way))
        wrong += differences(f"{case.name}, {feature}", ours, expected)
        if feature == "together":
            ours, expected = (
                strategies.train(ONE(), case, feature, range(STEPS, STEPS + 2), state)
                for state in (ours, expected)
            )
            wrong += differences(f"{case.name}, {feature}, back", ours, expected)
    assert not wrong, "\n".join(wrong)


def differences(row, ours, expected):
    assert ours.keys() == expected.keys()
    return [
        f"{row}: {k} differs by {np.max(np.abs(ours[k] - expected[k])):.2g}"
        for k in ours
        if not np.allclose(ours[k], expected[k], rtol=1e-6, atol=1e-6, equal_nan=True)
    ]


def test_the_features_really_happen(half_way):
    case, _ = ROWS[0]
    start = strategies.load(half_way)[case.name, "together"]
    end = strategies.train(ONE(), case, "together", range(STEPS // 2, STEPS), start)
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
