"""Methods that find their own rate."""

from references.rate_free import prodigy

import tf_decoupled as td
from rows.row import BETA, EPSILON, SWITCH, Case, like

PRODIGY = dict(
    optimizer=td.Prodigy,
    reference=prodigy,
    slots=like("m", "v", "s", "start"),
    options=dict(d0=0.01),  # float32 holds what steps of 1e-6 move to few digits only
    ranges=dict(
        beta_1=BETA,
        beta_2=BETA,
        epsilon=EPSILON,
        d0=(1e-3, 0.1),
        d_coef=(0.5, 2.0),
        growth_rate=(1.01, 2.0),
        use_bias_correction=SWITCH,
        safeguard_warmup=SWITCH,
    ),
    learning_rate=1.0,
    together=True,
    decays_apart=False,
    scale_free=dict(epsilon=0.0),
)


CASES = [
    Case(name="Prodigy", **PRODIGY),
    Case(
        name="Prodigy-bias_correction",
        **PRODIGY | dict(options=dict(d0=0.01, use_bias_correction=True)),
    ),
]
