"""On emulated TPU cores each optimizer does what it does on one device."""

import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from cases import asks_for_loss
from trained import ROWS, Training, rows_on

RUNS = [(replicas, row) for replicas in (1, 2, 4) for row in rows_on(replicas)]
pytestmark = pytest.mark.slow
every = pytest.mark.parametrize("replicas, row", RUNS)
LAST_BIT = {"float32": 5e-6, "bfloat16": 2.0**-7}


def assert_equal_but_for_rounding(ours, expected, dtype):
    assert ours.keys() == expected.keys() and ours.keys()
    for name, right in expected.items():
        tolerance = LAST_BIT[dtype] if name.startswith("model ") else LAST_BIT["float32"]
        for replica in ours[name]:
            np.testing.assert_allclose(replica, right[0], tolerance, tolerance, err_msg=name)


@every
def test_every_replica_ends_where_one_device_does(emulated, replicas, row):
    ours, expected = (np.load(f"{emulated(n, row)}.npz") for n in (replicas, 0))
    assert {len(parts) for name, parts in ours.items() if name.startswith("model ")} == {replicas}
    assert_equal_but_for_rounding(dict(ours), dict(expected), ROWS[row].dtype)


def facts(emulated, replicas, row):
    return json.loads(pathlib.Path(f"{emulated(replicas, row)}.json").read_text())


@every
def test_every_operation_of_the_step_has_a_tpu_kernel(emulated, replicas, row):
    found = facts(emulated, replicas, row)
    assert not found["without_kernel"]


@every
def test_the_step_sums_each_gradient_once_and_exchanges_nothing_else(emulated, replicas, row):
    found = facts(emulated, replicas, row)
    told = asks_for_loss(ROWS[row].make())  # the loss is summed, too
    sums = {"float32": len(ROWS[row].shapes) + told} if replicas > 1 else {}
    assert (found["sums"], found["exchanges"]) == (sums, {})


@every
def test_the_step_has_no_float64(emulated, replicas, row):
    assert not facts(emulated, replicas, row)["float64"]


@pytest.mark.tpu
@pytest.mark.skipif("TF_DECOUPLED_TPU" not in os.environ, reason="set TF_DECOUPLED_TPU")
@pytest.mark.parametrize("row", ROWS)
def test_a_real_tpu_ends_where_one_device_does(row):
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(
        os.environ["TF_DECOUPLED_TPU"]
    )
    ours = Training(ROWS[row], tf.distribute.TPUStrategy(resolver))
    expected = Training(ROWS[row], tf.distribute.get_strategy())
    ours.run()
    expected.run()
    assert_equal_but_for_rounding(ours.values(), expected.values(), ROWS[row].dtype)
