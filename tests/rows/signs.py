"""Signs, steps relative to norms, optimistic and positive-negative momentum, and few slots."""

from references import signs

import tf_decoupled as td
from rows.row import BETA, EPSILON, LARGEST, SWITCH, Case, like


def bounds(shape):
    """The momentum, and one vector per axis; of a scalar one number."""
    axes = {f"v{i}": (n,) for i, n in enumerate(shape)}
    return dict(m=shape) | (axes or dict(v0=()))


KOALA = dict(  # with a loss of 1 at every step, so that alpha_r is of no consequence
    learning_rate=1.0,
    together=True,
    entries_apart=False,  # under gradients of 1e18 nothing moves by as much as float32 holds
)

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
    Case(
        name="NoisySGD",
        optimizer=td.NoisySGD,
        reference=signs.noisy_sgd,
        slots=lambda shape: dict(seed=()),
        options=dict(eta=0.0),  # its numbers are in tests/test_signs.py
        letters=dict(eta=None, gamma=None),
        largest_gradient=LARGEST,
        proportional=True,
    ),
    Case(
        name="Sophia",  # until the first estimate
        optimizer=td.Sophia,
        reference=signs.sophia,
        slots=like("m", "h"),
        ranges=dict(beta_1=BETA, epsilon=EPSILON),
        largest_gradient=LARGEST,
        jumps=True,
    ),
    Case(
        name="KOALAV",
        optimizer=td.KOALAV,
        reference=signs.koala_v,
        slots=like(),
        ranges=dict(sigma=(0.1, 10.0), q=(0.0, 2.0), target=(0.0, 0.9)),
        **KOALA,
    ),
    Case(
        name="KOALAM",
        optimizer=td.KOALAM,
        reference=signs.koala_m,
        slots=like("v", "mean"),
        ranges=dict(
            sw=(0.01, 1.0),
            sv=(0.01, 1.0),
            a=BETA,
            qw=(0.001, 0.1),
            qv=(0.0, 0.1),
            target=(0.0, 0.9),
        ),
        values=("mean",),
        **KOALA,
    ),
]
