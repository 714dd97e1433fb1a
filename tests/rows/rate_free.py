"""Methods that find their own rate."""

from references.rate_free import cocob, dadapt_adamw, dog, dowg, prodigy

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
DOG = dict(
    optimizer=td.DoG,
    reference=dog,
    letters=dict(layerwise=None, averaging=None, gamma=None),
    learning_rate=1.0,
    scale_free=dict(epsilon=0.0),
)
DOG_RANGES = dict(reps_rel=(1e-3, 0.1), epsilon=EPSILON)


def layerwise(shape):
    """Norms of the variable's own, and its average."""
    numbers = dict.fromkeys(("distance", "squares", "count"), ())
    return like("start", "mean", "trained")(shape) | numbers


CASES = [
    Case(name="Prodigy", **PRODIGY),
    Case(
        name="Prodigy-bias_correction",
        **PRODIGY | dict(options=dict(d0=0.01, use_bias_correction=True)),
    ),
    Case(
        name="DAdaptAdamW",
        optimizer=td.DAdaptAdamW,
        reference=dadapt_adamw,
        slots=like("m", "v", "s"),
        # Gradients that don't come from a function let d grow for ever.
        options=dict(d0=0.01, growth_rate=1.003),
        ranges=dict(
            beta_1=BETA,
            beta_2=BETA,
            epsilon=EPSILON,
            d0=(1e-3, 0.1),
            growth_rate=(1.01, 2.0),
            use_bias_correction=SWITCH,
        ),
        learning_rate=1.0,
        together=True,
        decays_apart=False,
        scale_free=dict(epsilon=0.0),
    ),
    Case(
        name="DoG",
        slots=like("start"),
        options=dict(reps_rel=0.01),
        ranges=DOG_RANGES,
        together=True,
        **DOG,
    ),
    Case(
        name="DoG-layerwise",
        slots=layerwise,
        options=dict(reps_rel=0.01, layerwise=True, averaging=True),
        ranges=DOG_RANGES | dict(gamma=(0.0, 16.0)),
        values=("mean", "trained"),
        **DOG,
    ),
    Case(
        name="DoWG",
        optimizer=td.DoWG,
        reference=dowg,
        slots=like("start"),
        ranges=dict(init_estim_sq_dist=(1e-4, 0.1), epsilon=EPSILON),
        learning_rate=1.0,
        together=True,
        scale_free=dict(epsilon=0.0),
    ),
    Case(
        name="COCOB",
        optimizer=td.COCOB,
        reference=cocob,
        slots=like("largest", "travelled", "reward", "against", "w"),
        ranges=dict(alpha=(1.0, 1000.0), epsilon=EPSILON),
        learning_rate=1.0,
        largest_gradient=1e36,
        scale_free=dict(epsilon=1e-30),
        lazy={},
    ),
]
