"""Sums, means and largest values of squared gradients, and what their authors put around them."""

from references import classic as papers

import tf_decoupled as td
from rows.adam import ADAMW
from rows.row import BETA, EPSILON, LARGEST, SWITCH, Case, like

START = (0.01, 1.0)
STRENGTH = (0.0, 0.1)

NADAM = dict(
    reference=papers.nadamw,
    slots=lambda shape: dict(m=shape, v=shape, product=()),
    letters=dict(momentum_decay="psi"),
    ranges=dict(beta_1=BETA, beta_2=BETA, epsilon=EPSILON, momentum_decay=(0.001, 2.0)),
    scale_free=dict(epsilon=0.0),
)
ADAGRAD = dict(
    slots=like("n"),
    letters=dict(initial_accumulator_value="initial"),
    ranges=dict(initial_accumulator_value=(0.0, 1.0), epsilon=EPSILON),
    scale_free=dict(initial_accumulator_value=0.0, epsilon=0.0),
    lazy={},
)
RMSPROP = dict(
    reference=papers.rmspropw,
    slots=like("m", "v"),
    ranges=dict(rho=BETA, momentum=BETA, epsilon=EPSILON, centered=SWITCH),
    scale_free=dict(epsilon=0.0),
    lazy={},
)
ADAMAX = dict(
    reference=papers.adamaxw,
    slots=like("m", "n"),
    ranges=dict(beta_1=BETA, beta_2=BETA, epsilon=EPSILON),
    largest_gradient=LARGEST,
    scale_free=dict(epsilon=0.0),
    lazy=dict(beta_1=0.0),
)
ADADELTA = dict(
    reference=papers.adadeltaw,
    slots=like("squares", "steps"),
    ranges=dict(rho=BETA, epsilon=EPSILON),
    learning_rate=1.0,
    lazy={},
)
LETTERS = dict(
    initial_accumulator_value="initial",
    l1_regularization_strength="l1",
    l2_regularization_strength="l2",
)
FTRL = dict(
    letters=LETTERS
    | dict(learning_rate_power="power", l2_shrinkage_regularization_strength="shrinkage"),
    ranges=dict(
        learning_rate_power=(-0.8, -0.2),
        initial_accumulator_value=START,
        l1_regularization_strength=STRENGTH,
        l2_regularization_strength=STRENGTH,
        l2_shrinkage_regularization_strength=STRENGTH,
        beta=(0.0, 1.0),
    ),
    scale_free=dict(initial_accumulator_value=0.0),
)
CONDITIONAL = dict(
    optimizer=td.ConditionalGradient,
    reference=papers.conditional_gradient,
    slots=like(),
    letters=dict(lambda_="radius", ord="norm", power_steps="rounds"),
    decays_apart=False,
    entries_apart=False,
)
RADIUS = dict(lambda_=(0.1, 3.0), ord=("fro", "nuclear"))

CASES = [
    Case(name="NAdamW", optimizer=td.NAdamW, **NADAM),
    Case(name="Nadam", optimizer=td.Nadam, **NADAM),
    Case(
        name="AMSGradW",
        **ADAMW | dict(optimizer=td.AMSGradW, slots=like("m", "v", "v_max")),
    ),
    Case(name="AdagradW", optimizer=td.AdagradW, reference=papers.adagradw, **ADAGRAD),
    Case(name="Adagrad", optimizer=td.Adagrad, reference=papers.adagrad, **ADAGRAD),
    Case(
        name="RowwiseAdagrad",
        optimizer=td.RowwiseAdagrad,
        reference=papers.rowwise_adagrad,
        **ADAGRAD | dict(slots=lambda shape: dict(n=shape[:1])),
    ),
    Case(name="RMSpropW", optimizer=td.RMSpropW, **RMSPROP),
    Case(
        name="RMSprop-centered",
        optimizer=td.RMSprop,
        options=dict(centered=True, momentum=0.5),
        **RMSPROP | dict(slots=like("m", "v", "a")),
    ),
    Case(name="AdaMaxW", optimizer=td.AdaMaxW, **ADAMAX),
    Case(name="Adamax", optimizer=td.Adamax, **ADAMAX),
    Case(name="AdadeltaW", optimizer=td.AdadeltaW, **ADADELTA),
    Case(name="Adadelta", optimizer=td.Adadelta, **ADADELTA),
    Case(
        name="FtrlW",
        optimizer=td.FtrlW,
        reference=papers.ftrlw,
        slots=like("n", "w"),
        values=("w",),
        **FTRL,
    ),
    Case(
        name="Ftrl",
        optimizer=td.Ftrl,
        reference=papers.ftrl,
        slots=like("n", "z"),
        values=("z",),
        decays_apart=False,  # z starts at 0, as if the variable had
        entries_apart=False,
        **FTRL,
    ),
    Case(
        name="ProximalAdagrad",
        optimizer=td.ProximalAdagrad,
        reference=papers.proximal_adagrad,
        slots=like("n"),
        options=dict(l1_regularization_strength=0.02, l2_regularization_strength=0.05),
        letters=LETTERS,
        ranges=dict(
            initial_accumulator_value=START,
            l1_regularization_strength=STRENGTH,
            l2_regularization_strength=STRENGTH,
        ),
        decays_apart=False,
        entries_apart=False,
        scale_free=dict(
            initial_accumulator_value=0.0,
            l1_regularization_strength=0.0,
            l2_regularization_strength=0.0,
        ),
    ),
    Case(
        name="ConditionalGradient",
        options=dict(lambda_=3.0),
        ranges=RADIUS | dict(epsilon=EPSILON),
        largest_gradient=1e37,  # the norm of six such
        scale_free=dict(epsilon=0.0),
        **CONDITIONAL,
    ),
    Case(
        name="ConditionalGradient-nuclear",
        options=dict(lambda_=3.0, ord="nuclear", power_steps=4),
        ranges=RADIUS | dict(power_steps=(1, 8)),
        largest_gradient=1e37,
        rescales=True,
        scale_free={},
        **CONDITIONAL,
    ),
]
