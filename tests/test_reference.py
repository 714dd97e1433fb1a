"""Every optimizer equals its paper, written in float64 NumPy."""

import numpy as np
import pytest
from cases import CASES, SHAPES, gradients, run, variables

import tf_decoupled as td

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
COUPLINGS = ("learning_rate", "schedule", "independent", "corrected")
DECAY = {"learning_rate": 0.3, "schedule": 0.003, "independent": 0.003, "corrected": 0.3}


def expected(case, grads, **options):
    start = [v.numpy() for v in variables()]
    columns = zip(start, zip(*grads, strict=True), strict=True)
    return [
        case.reference(
            p, list(g), **{"learning_rate": case.learning_rate, **case.options, **options}
        )
        for p, g in columns
    ]


def check(case, ours, theirs, tolerance):
    for shape, a, b in zip(SHAPES, ours, theirs, strict=True):
        np.testing.assert_allclose(
            a, b, rtol=tolerance, atol=tolerance, err_msg=f"{case.name} {shape}"
        )


@every
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_ten_steps_equal_the_paper_for_every_coupling(case, coupling):
    grads, λ = gradients(steps=10), DECAY[coupling]
    optimizer = case.make(weight_decay=λ, decay_coupling=coupling)
    ours = run(optimizer, variables(), grads, graph=True)
    check(case, ours, expected(case, grads, weight_decay=λ, coupling=coupling), 2e-6)


@every
def test_a_thousand_steps_equal_the_paper(case):
    grads = gradients(steps=1000)
    ours = run(case.make(weight_decay=0.1), variables(), grads, graph=True)
    theirs = expected(case, grads, weight_decay=0.1)
    if case.name != "Lion":
        return check(case, ours, theirs, 2e-5)
    # The sign of a sum that float32 can't tell from zero moves a weight by two whole steps.
    errors = np.concatenate([np.abs(a - b).ravel() for a, b in zip(ours, theirs, strict=True)])
    assert np.mean(errors > 2e-5) < 0.05
    assert np.max(errors) < 4 * case.learning_rate


@every
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_schedule_equals_its_numbers_by_hand(case, coupling):
    steps, grads, λ = 8, gradients(steps=8), DECAY[coupling]
    schedule = td.schedules.Cosine(case.learning_rate, 10, alpha=0.1)
    ours = run(
        case.make(learning_rate=schedule, weight_decay=λ, decay_coupling=coupling),
        variables(),
        grads,
        graph=True,
    )
    rates = [float(schedule(step)) for step in range(steps)]
    base = case.learning_rate
    options = dict(learning_rate=rates, weight_decay=λ, coupling=coupling, base=base)
    check(case, ours, expected(case, grads, **options), 5e-6)
