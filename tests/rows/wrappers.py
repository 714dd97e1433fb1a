"""Rules around rules."""

import references

import tf_decoupled as td
from rows import adam, momentum
from rows.row import EPSILON, Case, around


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
        slots=lambda shape: around(inner, "z")(shape) | dict(mean_weight=(), steps=()),
        options=options,
        inner=inner,
        ranges=dict(beta=(0.1, 0.98), weight_power=(0.0, 2.0), r=(0.0, 2.0)),
        decays_apart=False,
        values=("z",),
        entries_apart=inner.entries_apart,
        largest_gradient=inner.largest_gradient,
        scale_free=inner.scale_free,
    )


def iterate_average(name, inner, slots, **options):
    ranges = dict(start_averaging=(1, 3), average_period=(1, 4))
    ranges |= dict(window=(1, 4)) if options.get("window") else {}
    return Case(
        name=name,
        optimizer=td.IterateAverage,
        reference=references.iterate_average,
        slots=slots,
        options=options,
        inner=inner,
        ranges=ranges,
        decays_apart=inner.decays_apart,
        values=("mean", "latest", "trained"),
        entries_apart=inner.entries_apart,
        largest_gradient=inner.largest_gradient,
        proportional=inner.proportional,
        scale_free=inner.scale_free,
    )


def averaged(inner, **more):
    """Slots of a mean: those of `more` and of a number beside the variable's."""
    beside = around(inner, "trained")
    return lambda shape: beside(shape) | dict(count=()) | {n: f(shape) for n, f in more.items()}


def mechanic(name, inner, **options):
    moved = around(inner, "delta")
    return Case(
        name=name,
        optimizer=td.Mechanic,
        reference=references.mechanic,
        slots=lambda shape: moved(shape) | dict(scale=()),
        options=options,
        inner=inner,
        ranges=dict(s_init=(1e-3, 0.1), s_decay=(0.0, 0.1), epsilon=EPSILON),
        learning_rate=inner.learning_rate,
        together=True,
        decays_apart=False,
        values=("delta",),
        entries_apart=inner.entries_apart,
        largest_gradient=inner.largest_gradient,
    )


SGDW = Case(name="SGDW", **momentum.SGDW)
TWICE = lookahead("Lookahead-SGDW", SGDW, sync_period=2)

CASES = [
    lookahead("Lookahead-AdamW", adam.CASES[0], sync_period=3),
    lookahead("Lookahead-Lookahead-SGDW", TWICE, sync_period=3, slow_step_size=0.8),
    schedule_free("ScheduleFree-AdamW", Case(name="", options=dict(beta_1=0.0), **adam.ADAMW)),
    mechanic("Mechanic-AdamW", Case(name="", learning_rate=1.0, **adam.ADAMW), s_init=1e-3),
    iterate_average(
        "IterateAverage-AdamW",
        adam.CASES[0],
        averaged(adam.CASES[0], mean=lambda shape: shape),
        start_averaging=2,
        average_period=2,
    ),
    iterate_average(
        "IterateAverage-SGDW",
        SGDW,
        averaged(SGDW, latest=lambda shape: (3, *shape)),
        window=3,
    ),
]
