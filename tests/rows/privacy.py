"""Differential privacy."""

from references.privacy import dpsgd

import tf_decoupled as td
from rows.row import BETA, LARGEST, Case

CASES = [
    Case(
        name="DPSGD",
        optimizer=td.DPSGD,
        reference=dpsgd,
        slots=lambda shape: dict(m=shape, seed=()),
        options=dict(lot_size=64.0, momentum=0.5),
        ranges=dict(
            momentum=BETA,
            clip_norm=(0.1, 4.0),
            noise_multiplier=(0.0, 2.0),
            lot_size=(1.0, 8.0),
            seed=(2, 1000),
        ),
        random=True,
        decays_apart=False,
        entries_apart=False,
        largest_gradient=LARGEST,
        proportional=True,
    ),
]
