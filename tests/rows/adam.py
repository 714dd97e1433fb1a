"""Adam and its relatives."""

from references.adam import adafactor, adam, adamw, lamb

import tf_decoupled as td
from rows.row import BETA, EPSILON, SWITCH, Case, factored, like

ADAM = dict(
    slots=like("m", "v"),
    ranges=dict(beta_1=BETA, beta_2=BETA, epsilon=EPSILON),
    scale_free=dict(epsilon=0.0),
)
ADAMW = dict(
    optimizer=td.AdamW,
    reference=adamw,
    lazy=dict(beta_1=0.0),
    **ADAM | dict(ranges=ADAM["ranges"] | dict(amsgrad=SWITCH, epsilon_hat=SWITCH)),
)

LAMB = dict(reference=lamb, decays_apart=False, rescales=True, **ADAM)

CASES = [
    Case(name="AdamW", **ADAMW),
    Case(
        name="AdamW-amsgrad",
        options=dict(amsgrad=True),
        **ADAMW | dict(slots=like("m", "v", "v_max")),
    ),
    Case(name="AdamW-epsilon_hat", options=dict(epsilon_hat=True, epsilon=1e-7), **ADAMW),
    Case(
        name="Adam-l2",
        optimizer=td.Adam,
        reference=adam,
        options=dict(l2=0.05),
        decays_apart=False,
        entries_apart=False,
        lazy=dict(l2=0.0, beta_1=0.0),
        **ADAM
        | dict(ranges=ADAM["ranges"] | dict(l2=(0.0, 1.0)), scale_free=dict(epsilon=0.0, l2=0.0)),
    ),
    Case(name="LAMB", optimizer=td.LAMB, **LAMB),
    Case(name="Lamb", optimizer=td.Lamb, **LAMB),
    Case(
        name="Adafactor",
        optimizer=td.Adafactor,
        reference=adafactor,
        slots=factored,
        letters=dict(clip_threshold="threshold"),
        ranges=dict(
            epsilon_1=(1e-20, 1.0),
            epsilon_2=EPSILON,
            clip_threshold=(0.1, 4.0),
            decay_exponent=(0.1, 2.0),
        ),
        largest_gradient=1e3,  # it divides the rows' squares, plus 1e-30, by their mean
        scale_free=dict(epsilon_1=0.0),
    ),
]
