"""Methods for matrices."""

from references.matrices import muon

import tf_decoupled as td
from rows.row import BETA, SWITCH, Case, like

MUON = dict(
    optimizer=td.Muon,
    reference=muon,
    slots=like("m"),
    letters=dict(steps="rounds", precise=None),
    ranges=dict(
        momentum=BETA,
        nesterov=SWITCH,
        steps=(1, 5),
        coefficients=("original", "quintic", "polar_express"),
        scale=("original", "match_rms_adamw", "rms_to_rms"),
    ),
    least_rank=2,
    entries_apart=False,
)

CASES = [
    Case(name="Muon", **MUON),
    Case(
        name="Muon-match_rms_adamw",
        options=dict(scale="match_rms_adamw", coefficients="quintic", nesterov=False),
        **MUON,
    ),
]
