"""Gradient descent, momentum and signs."""

from references.momentum import lion, sgd, sgdw

import tf_decoupled as td
from rows.row import BETA, LARGEST, SWITCH, Case, like

SGD = dict(
    slots=like("m"),
    ranges=dict(momentum=BETA, nesterov=SWITCH),
    largest_gradient=LARGEST,
    proportional=True,
    lazy={},
)
SGDW = dict(optimizer=td.SGDW, reference=sgdw, **SGD)

CASES = [
    Case(name="SGDW", **SGDW),
    Case(name="SGDW-nesterov", options=dict(nesterov=True, momentum=0.7), **SGDW),
    Case(
        name="SGD-l2",
        optimizer=td.SGD,
        reference=sgd,
        options=dict(l2=0.05, momentum=0.5),
        decays_apart=False,
        entries_apart=False,
        **SGD | dict(ranges=SGD["ranges"] | dict(l2=(0.0, 1.0)), lazy=dict(l2=0.0)),
    ),
    Case(
        name="Lion",
        optimizer=td.Lion,
        reference=lion,
        slots=like("m"),
        ranges=dict(beta_1=BETA, beta_2=BETA),
        largest_gradient=LARGEST,
        jumps=True,
        scale_free={},
        lazy={},
    ),
]
