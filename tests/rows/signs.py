"""Signs, steps relative to norms, optimistic and positive-negative momentum, and few slots."""

from references import signs

import tf_decoupled as td
from rows.row import BETA, EPSILON, LARGEST, SWITCH, Case, like


def bounds(shape):
    """The momentum, and one vector per axis; of a scalar one number."""
    axes = {f"v{i}": (n,) for i, n in enumerate(shape)}
    return dict(m=shape) | (axes or dict(v0=()))


CASES = [
    Case(
        name="NovoGrad",
        optimizer=td.NovoGrad,
        reference=signs.novograd,
        slots=lambda shape: dict(m=shape, v=()),
        ranges=dict(beta_1=BETA, beta_2=BETA, epsilon=EPSILON),
        scale_free=dict(epsilon=0.0),
    ),
    Case(
        name="LARS",
        optimizer=td.LARS,
        reference=signs.lars,
        slots=like("m"),
        options=dict(trust_coefficient=1.0),  # for a rate of 0.01
        ranges=dict(momentum=BETA, trust_coefficient=(1e-3, 1.0), l2=(0.0, 1.0)),
        largest_gradient=1e38,
        rescales=True,
        scale_free={},
    ),
    Case(
        name="Fromage",
        optimizer=td.Fromage,
        reference=signs.fromage,
        slots=like(),
        decays_apart=False,
        entries_apart=False,
        largest_gradient=1e38,
        rescales=True,
        scale_free={},
    ),
    Case(
        name="PNM",
        optimizer=td.PNM,
        reference=signs.pnm,
        slots=like("m", "older"),
        ranges=dict(beta_1=BETA, beta_0=(0.0, 2.0)),
        largest_gradient=LARGEST,
        proportional=True,
    ),
    Case(
        name="AdaPNM",
        optimizer=td.AdaPNM,
        reference=signs.adapnm,
        slots=like("m", "older", "v", "v_max"),
        ranges=dict(beta_1=BETA, beta_2=BETA, beta_0=(0.0, 2.0), epsilon=EPSILON, amsgrad=SWITCH),
        scale_free=dict(epsilon=0.0),
    ),
    Case(
        name="Signum",
        optimizer=td.Signum,
        reference=signs.signum,
        slots=like("m"),
        ranges=dict(momentum=BETA),
        largest_gradient=LARGEST,
        jumps=True,
        scale_free={},
        lazy={},
    ),
    Case(
        name="GeneralizedSignSGD",
        optimizer=td.GeneralizedSignSGD,
        reference=signs.generalized_sign_sgd,
        slots=like("m", "v"),
        ranges=dict(beta_1=BETA, beta_2=BETA, epsilon=EPSILON, use_bias_correction=SWITCH),
        scale_free=dict(epsilon=0.0),
    ),
    Case(
        name="OptimisticSGD",
        optimizer=td.OptimisticSGD,
        reference=signs.optimistic_sgd,
        slots=lambda shape: dict(before=shape, begun=()),
        ranges=dict(alpha=(0.0, 2.0), beta=(0.0, 2.0)),
        largest_gradient=1e38,
        proportional=True,
    ),
    Case(
        name="SM3",
        optimizer=td.SM3,
        reference=signs.sm3,
        slots=bounds,
        ranges=dict(momentum=BETA, epsilon=(1e-20, 1.0)),
        scale_free=dict(epsilon=0.0),
    ),
]
