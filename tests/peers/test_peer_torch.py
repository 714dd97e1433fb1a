"""The same steps as PyTorch's optimizers."""

import peer
import pytest
from peer import SQUARES, Row

ROWS = [
    Row(
        "AMSGradW(0.01, weight_decay=0.1)",
        "torch.optim.AdamW(params, 0.01, weight_decay=0.1, amsgrad=True)",
    ),
    Row("Adam(0.01, l2=0.1)", "torch.optim.Adam(params, 0.01, weight_decay=0.1)"),
    Row(
        "NAdamW(0.01, weight_decay=0.1)",
        "torch.optim.NAdam(params, 0.01, weight_decay=0.1, decoupled_weight_decay=True)",
    ),
    Row(
        "RAdam(0.001, weight_decay=0.1)",
        "torch.optim.RAdam(params, 0.001, weight_decay=0.1, decoupled_weight_decay=True)",
        0.001,
        "PyTorch rectifies from ρ > 5 on, the paper from ρ > 4: one step later with β₂ = 0.999",
    ),
    Row("AdaMaxW(0.01, weight_decay=0.0)", "torch.optim.Adamax(params, 0.01)", 1e-6),
    Row("AdadeltaW(1.0, rho=0.9, weight_decay=0.0)", "torch.optim.Adadelta(params, 1.0)"),
    Row("AdagradW(0.1, weight_decay=0.0)", "torch.optim.Adagrad(params, 0.1)"),
    Row(
        "RMSpropW(0.01, weight_decay=0.0, rho=0.99, momentum=0.9, epsilon=0.0)",
        "torch.optim.RMSprop(params, 0.01, momentum=0.9, eps=0.0)",
    ),
    Row(
        "RMSpropW(0.01, weight_decay=0.0, rho=0.99, centered=True)",
        "torch.optim.RMSprop(params, 0.01, eps=1e-7, centered=True)",
        0.001,
        "PyTorch adds ε to the root, Keras and this inside of it",
    ),
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
        "PyTorch computes Newton–Schulz in bfloat16; it takes matrices as [out, in], and so scales "
        "others than these, which are square, by another factor",
        shapes=SQUARES,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_fifty_steps_are_those_of_pytorch(row):
    peer.assert_equal_paths(row, peer.run_torch)
