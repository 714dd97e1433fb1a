"""The same steps as the optimizers of the package pytorch_optimizer."""

import peer
import pytest
from peer import MATRICES, VECTORS, Row

FLOAT32 = 1e-6  # d is found by sums in float32 there

ROWS = [
    Row("SGDW(0.01, weight_decay=0.1)", "SGDW(params, 0.01, 0.9, 0.1)"),
    Row("AdaBelief(0.001, weight_decay=0.1)", "AdaBelief(params, 0.001, weight_decay=0.1)"),
    Row("Adan(0.01, weight_decay=0.1)", "Adan(params, 0.01, weight_decay=0.1)"),
    Row(
        "AdEMAMix(0.01, weight_decay=0.1, alpha_warmup=20.0, beta_3_warmup=20.0)",
        "AdEMAMix(params, 0.01, weight_decay=0.1, weight_decouple=True, t_alpha_beta3=20)",
    ),
    Row("ADOPT(0.01)", "ADOPT(params, 0.01, clip_lambda=lambda step: (step - 1) ** 0.25)"),
    Row(
        "ADOPT(0.01)",
        "ADOPT(params, 0.01)",
        0.01,
        "pytorch_optimizer counts the first call, which doesn't step, in the bound on ĝ: (k + 1)^¼ "
        "where the authors have k^¼",
    ),
    Row("Amos(0.01)", "Amos(params, 0.01)", shapes=VECTORS),
    Row("DiffGrad(0.01, epsilon=1e-16)", "DiffGrad(params, 0.01, eps=1e-16)"),
    Row("Fromage(0.01)", "Fromage(params, 0.01)"),
    Row(
        "LAMB(0.01, weight_decay=0.0)",
        "Lamb(params, 0.01, max_grad_norm=0.0)",
        0.5,
        "m and v aren't corrected for their start, and ‖θ‖ in the ratio is bounded by 10",
    ),
    Row("LARS(1.0, l2=0.1)", "LARS(params, 1.0, weight_decay=0.1)", shapes=MATRICES),
    Row(
        "LARS(1.0)",
        "LARS(params, 1.0)",
        3.0,
        "pytorch_optimizer steps vectors by SGD; here `Partition` does so where it is wanted",
    ),
    Row("Lion(0.01, weight_decay=0.1)", "Lion(params, 0.01, weight_decay=0.1)"),
    Row("Lookahead(SGD(0.1), sync_period=5)", "Lookahead(torch.optim.SGD(params, 0.1))"),
    Row(
        "MARS(0.01, weight_decay=0.1)",
        "MARS(params, 0.01, weight_decay=0.1)",
        tolerance=1e-6,
        shapes=MATRICES,
    ),
    Row('MARS(0.01, form="lion")', 'MARS(params, 0.01, mars_type="lion")', shapes=MATRICES),
    Row("NovoGrad(0.01)", "NovoGrad(params, 0.01)"),
    Row("PNM(0.01, weight_decay=0.1)", "PNM(params, 0.01, weight_decay=0.1)"),
    Row("AdaPNM(0.01, weight_decay=0.1)", "AdaPNM(params, 0.01, weight_decay=0.1)", 1e-6),
    Row("Prodigy(weight_decay=0.1)", "Prodigy(params, weight_decay=0.1)", FLOAT32),
    Row(
        "DAdaptAdamW(weight_decay=0.1)",
        "DAdaptAdam(params, weight_decay=0.1, weight_decouple=True)",
        FLOAT32,
    ),
    Row(
        "RAdam(0.001)",
        "RAdam(params, 0.001, degenerated_to_sgd=True)",
        0.001,
        "pytorch_optimizer rectifies from ρ ≥ 5 on, the paper from ρ > 4: one step later with "
        "β₂ = 0.999; and without the option takes no step before",
    ),
    Row(
        "ScheduleFree(AdamW(0.01, weight_decay=0.1, beta_1=0.0))",
        "ScheduleFreeAdamW(params, 0.01, weight_decay=0.1)",
    ),
    Row("ScheduleFree(SGD(0.1))", "ScheduleFreeSGD(params, 0.1)"),
    Row("Scion(0.01, weight_decay=0.0)", "SCION(params, 0.01)", shapes=((5,), (7,))),
    Row("SM3(0.1)", "SM3(params, 0.1, momentum=0.9)", shapes=((4, 3), (5,))),
    Row(
        "SOAP(0.01, weight_decay=0.0)",
        "SOAP(params, 0.01, weight_decay=0.0)",
        0.1,
        "the authors' code and pytorch_optimizer begin with the eigenvectors of the first "
        "gradient, which they don't step; here the first steps are Adam's",
        shapes=MATRICES,
    ),
    Row(
        "StableAdamW(0.01, weight_decay=0.1)",
        "StableAdamW(params, 0.01, weight_decay=0.1, kahan_sum=False, foreach=False)",
    ),
    Row(
        "Yogi(0.01)",
        "Yogi(params, 0.01)",
        5e-6,
        "pytorch_optimizer starts m at 1e-6, as it does v; here m starts at 0",
    ),
    Row("Signum(0.01)", "SignSGD(params, 0.01)"),
    Row(
        "AdaMaxW(0.01, weight_decay=0.1)",
        "AdaMax(params, 0.01, weight_decay=0.1, weight_decouple=True)",
        1e-6,
    ),
    Row(
        "AdadeltaW(1.0, rho=0.9, weight_decay=0.1)",
        "AdaDelta(params, 1.0, weight_decay=0.1, weight_decouple=True)",
    ),
]


def run(theirs, start, gradients):
    library = peer.installed("pytorch_optimizer")
    return peer.run_torch(theirs, start, gradients, **vars(library))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_fifty_steps_are_those_of_pytorch_optimizer(row):
    peer.assert_equal_paths(row, run)
