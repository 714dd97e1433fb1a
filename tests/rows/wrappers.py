"""Rules around rules."""

import references

import tf_decoupled as td
from rows import adam, momentum
from rows.row import Case, around


def lookahead(name, inner, **options):
    return Case(
        name=name,
        optimizer=td.Lookahead,
        reference=references.lookahead,
        slots=around(inner, "slow"),
        options=options,
        inner=inner,
        letters=dict(sync_period="k", slow_step_size="alpha"),
        ranges=dict(sync_period=(1, 4), slow_step_size=(0.0, 1.0)),
        decays_apart=False,
        entries_apart=inner.entries_apart,
        largest_gradient=inner.largest_gradient,
        proportional=inner.proportional,
        rescales=inner.rescales,
        jumps=inner.jumps,
        scale_free=inner.scale_free,
    )


def schedule_free(name, inner, **options):
    return Case(
        name=name,
        optimizer=td.ScheduleFree,
        reference=references.schedule_free,
        slots=around(inner, "z"),
        options=options,
        inner=inner,
        ranges=dict(beta=(0.1, 0.98), weight_power=(0.0, 2.0), r=(0.0, 2.0)),
        decays_apart=False,
        values=("z",),
        entries_apart=inner.entries_apart,
        largest_gradient=inner.largest_gradient,
        scale_free=inner.scale_free,
    )


SGDW = next(case for case in momentum.CASES if case.name == "SGDW")
TWICE = lookahead("Lookahead-SGDW", SGDW, sync_period=2)

CASES = [
    lookahead("Lookahead-AdamW", adam.CASES[0], sync_period=3),
    lookahead("Lookahead-Lookahead-SGDW", TWICE, sync_period=3, slow_step_size=0.8),
    schedule_free("ScheduleFree-AdamW", Case(name="", options=dict(beta_1=0.0), **adam.ADAMW)),
]
