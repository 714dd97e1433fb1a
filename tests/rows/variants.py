"""Adam's variants."""

from references.variants import (
    acprop,
    adabelief,
    adan,
    ademamix,
    adopt,
    amos,
    diffgrad,
    radam,
    stable_adamw,
    yogi,
)

import tf_decoupled as td
from rows.row import BETA, EPSILON, SWITCH, Case, like

BETAS = dict(beta_1=BETA, beta_2=BETA, epsilon=EPSILON)
ADEMAMIX = dict(
    optimizer=td.AdEMAMix,
    reference=ademamix,
    ranges=BETAS
    | dict(
        beta_3=BETA,
        alpha=(0.0, 10.0),
        alpha_warmup=(1.0, 20.0),
        beta_3_warmup=(1.0, 20.0),
    ),
    scale_free=dict(epsilon=0.0),
)


def and_a_number(*names):
    """Slots of the variable's shape, and a number for each variable, the last of them."""
    return lambda shape: like(*names)(shape) | {names[-1]: ()}


def columns(shape):
    """One number for each column of a kernel; one for a vector."""
    one_each = (*[1] * (len(shape) - 1), shape[-1]) if len(shape) > 1 else (1,) * len(shape)
    return dict(v=one_each, b=one_each)


CASES = [
    Case(
        name="RAdam",
        optimizer=td.RAdam,
        reference=radam,
        slots=like("m", "v"),
        ranges=BETAS,
        proportional=True,
    ),
    Case(
        name="AdEMAMix",
        slots=like("m1", "m2", "v"),
        options=dict(alpha_warmup=12.0, beta_3_warmup=9.0),
        **ADEMAMIX,
    ),
    Case(
        name="AdEMAMix-slow",
        slots=like("m2", "v"),
        options=dict(fast_average=False, beta_3_warmup=9.0),
        **ADEMAMIX,
    ),
    Case(
        name="StableAdamW",
        optimizer=td.StableAdamW,
        reference=stable_adamw,
        slots=like("m", "v"),
        ranges=BETAS,
        scale_free=dict(epsilon=0.0),
    ),
    Case(
        name="ADOPT",
        optimizer=td.ADOPT,
        reference=adopt,
        slots=and_a_number("m", "v", "k"),
        ranges=BETAS,
        scale_free=dict(epsilon=0.0),
    ),
    Case(
        name="AdaBelief",
        optimizer=td.AdaBelief,
        reference=adabelief,
        slots=like("m", "s"),
        ranges=BETAS,
        scale_free=dict(epsilon=0.0),
    ),
    Case(
        name="Yogi",
        optimizer=td.Yogi,
        reference=yogi,
        slots=like("m", "v"),
        ranges=BETAS | dict(initial_accumulator_value=(1e-8, 1.0)),
        scale_free=dict(epsilon=0.0, initial_accumulator_value=1e-30),
    ),
    Case(
        name="Adan",
        optimizer=td.Adan,
        reference=adan,
        options=dict(weight_decay=0.1),  # without decay `proximal` is of no consequence
        slots=and_a_number("m", "v", "n", "before", "begun"),
        ranges=BETAS | dict(beta_3=BETA, proximal=SWITCH),
        decays_apart=False,
        scale_free=dict(epsilon=0.0),
    ),
    Case(
        name="DiffGrad",
        optimizer=td.DiffGrad,
        reference=diffgrad,
        slots=like("m", "v", "before"),
        ranges=BETAS,
    ),
    Case(
        name="ACProp",
        optimizer=td.ACProp,
        reference=acprop,
        slots=and_a_number("m", "s", "k"),
        ranges=BETAS,
        proportional=True,
    ),
    Case(
        name="Amos",
        optimizer=td.Amos,
        reference=amos,
        slots=columns,
        ranges=dict(
            eta=(0.1, 2.0),
            beta=BETA,
            zeta=(0.0, 1.0),
            slices=("columns", "rows"),
            epsilon=EPSILON,
        ),
        entries_apart=False,
        scale_free={},
    ),
]
