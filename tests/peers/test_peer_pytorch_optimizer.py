"""The same steps as the optimizers of the package pytorch_optimizer."""

import peer
import pytest
from peer import Row

ROWS = [
    Row(
        "SGDW(0.01, weight_decay=0.1)",
        "SGDW(params, 0.01, momentum=0.9, weight_decay=0.1, weight_decouple=True)",
    ),
]


def run(theirs, start, gradients):
    library = peer.installed("pytorch_optimizer")
    return peer.run_torch(theirs, start, gradients, **vars(library))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_fifty_steps_are_those_of_pytorch_optimizer(row):
    peer.assert_equal_paths(row, run)
