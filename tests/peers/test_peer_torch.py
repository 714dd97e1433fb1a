"""The same steps as PyTorch's optimizers."""

import peer
import pytest
from peer import MATRICES, Row

ROWS = [
    Row(
        "AdamW(0.01, weight_decay=0.1, amsgrad=True)",
        "torch.optim.AdamW(params, 0.01, weight_decay=0.1, amsgrad=True)",
    ),
    Row("Adam(0.01, l2=0.1)", "torch.optim.Adam(params, 0.01, weight_decay=0.1)"),
    Row(
        "SGD(0.01, momentum=0.9, nesterov=True, l2=0.1)",
        "torch.optim.SGD(params, 0.01, 0.9, nesterov=True, weight_decay=0.1)",
    ),
    Row(
        "Adafactor(0.01, weight_decay=0.1)",
        "torch.optim.Adafactor(params, 0.01, weight_decay=0.1)",
        1e-6,
    ),
    Row(
        "Muon(0.02)",
        "torch.optim.Muon(params, 0.02, weight_decay=0.0)",
        0.03,
        "PyTorch computes Newton–Schulz in bfloat16",
        shapes=MATRICES,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_fifty_steps_are_those_of_pytorch(row):
    peer.assert_equal_paths(row, peer.run_torch)
