"""The same steps as Keras's optimizers."""

import peer
import pytest
from peer import MATRICES, Row

FLOAT32 = 3e-6  # some of Keras's constants are rounded to it, also beside float64 variables

ROWS = [
    Row(
        "AdamW(0.01, weight_decay=0.1, epsilon=1e-7, epsilon_hat=True)",
        "AdamW(0.01, weight_decay=0.1, epsilon=1e-7)",
    ),
    Row(
        "AMSGradW(0.01, weight_decay=0.1, epsilon=1e-7, epsilon_hat=True)",
        "AdamW(0.01, weight_decay=0.1, epsilon=1e-7, amsgrad=True)",
    ),
    Row("Adadelta(1.0)", "Adadelta(1.0)"),
    Row("Adagrad(0.1)", "Adagrad(0.1)"),
    Row("Adamax(0.01)", "Adamax(0.01)"),
    Row("Nadam(0.01)", "Nadam(0.01)"),
    Row("RMSprop(0.01, momentum=0.9)", "RMSprop(0.01, momentum=0.9)"),
    Row("RMSprop(0.01, centered=True)", "RMSprop(0.01, centered=True)"),
    Row(
        "Ftrl(0.1, l1_regularization_strength=0.1, l2_regularization_strength=0.2, "
        "l2_shrinkage_regularization_strength=0.3, beta=0.4)",
        "Ftrl(0.1, l1_regularization_strength=0.1, l2_regularization_strength=0.2, "
        "l2_shrinkage_regularization_strength=0.3, beta=0.4)",
    ),
    Row("SGD(0.01, momentum=0.9)", "SGD(0.01, momentum=0.9)"),
    Row("SGDW(0.01, weight_decay=0.1, nesterov=True)", "SGD(0.01, 0.9, True, weight_decay=0.1)"),
    Row("Lion(0.01, weight_decay=0.1)", "Lion(0.01, weight_decay=0.1)"),
    Row("LAMB(0.01, weight_decay=0.0)", "Lamb(0.01, epsilon=1e-6)"),
    Row(
        "LAMB(0.01, weight_decay=0.1)",
        "Lamb(0.01, epsilon=1e-6, weight_decay=0.1)",
        0.05,
        "Keras decays outside of the trust ratio",
    ),
    Row("Adafactor(0.01)", "Adafactor(0.01, relative_step=False)"),
    Row(
        'Muon(0.01, scale="match_rms_adamw")',
        "Muon(0.01, weight_decay=0.0)",
        1e-6,
        shapes=MATRICES,
    ),
    Row(
        "ScheduleFree(AdamW(0.01, weight_decay=0.0, beta_1=0.0))",
        "ScheduleFreeAdamW(0.01)",
        0.02,
        "Keras reads z after its step where it recovers the x of before: its average is another",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_fifty_steps_are_those_of_keras(row):
    peer.assert_equal_paths(row._replace(tolerance=max(row.tolerance, FLOAT32)), peer.run_keras)
