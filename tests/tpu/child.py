"""A process of its own for each number of replicas: `child.py REPLICAS FOLDER`; 0 for no strategy.

For each row it leaves in FOLDER the values after the steps (`.npz`), facts about the traced step
(`.json`), its program (`.program`), and `.done`. 8 replicas are only traced; 2 not compiled.
"""

import json
import os
import pathlib
import pickle
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf
from trained import BIG, Training, rows_on

from tf_decoupled.engine import replicas as engine
from tf_decoupled.testing import tpu

TRACED_ONLY, NOT_COMPILED = 8, 2


def record(cluster: tpu.Cluster, assigned: int, kept: int, stem: str, compiles: bool) -> None:
    """What the tests ask of a traced step."""
    facts = {
        "sums": cluster.count("CrossReplicaSum"),
        "exchanges": cluster.count("AllToAll"),
        "without_kernel": cluster.without_kernel(),
        "float64": cluster.using("float64"),
        "assigned": assigned,
        "kept": kept,
    }
    pathlib.Path(f"{stem}.json").write_text(json.dumps(facts))
    if compiles and engine.host_compiles():
        pathlib.Path(f"{stem}.program").write_bytes(pickle.dumps(cluster.program()))


def main(replicas: int, folder: str) -> None:
    emulated = tpu.EmulatedTPUStrategy(replicas) if replicas else None
    for name, row in (rows_on(replicas) | ({"big": BIG} if replicas == 1 else {})).items():
        training, stem = Training(row, emulated or tf.distribute.get_strategy()), f"{folder}/{name}"
        start, end = training.values(), {}
        if replicas == TRACED_ONLY or row is BIG:
            emulated.trace(training.apply, (training.gradients(steps=1)[0],))
        else:
            training.run()
            end = training.values()
            np.savez(f"{stem}.npz", **end)
        if emulated:
            assigned = len(training.state())
            kept = sum(np.array_equal(start[name], value) for name, value in end.items())
            record(emulated.clusters[-1], assigned, kept, stem, compiles=replicas != NOT_COMPILED)
        pathlib.Path(f"{stem}.done").touch()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
