"""Methods for matrices."""

import math

from references.matrices import kron, mars, muon, scion, shampoo, soap

import tf_decoupled as td
from rows.row import BETA, EPSILON, SWITCH, Case, like

MUON = dict(
    optimizer=td.Muon,
    reference=muon,
    slots=like("m"),
    letters=dict(steps="rounds", precise=None),
    ranges=dict(
        momentum=BETA,
        nesterov=SWITCH,
        steps=(1, 5),
        coefficients=("original", "quintic", "polar_express"),
        scale=("original", "match_rms_adamw", "rms_to_rms"),
    ),
    least_rank=2,
    entries_apart=False,
)
GAMMA = dict(gamma=(0.0, 1.0), beta_1=BETA)


def matrix(shape):
    """Rows and columns of a kernel; a vector is one column."""
    return (math.prod(shape[:-1]), shape[-1]) if len(shape) > 1 else (math.prod(shape), 1)


def each_axis(shape):
    """Statistics and a basis for each axis that can be turned, but not of vectors."""
    axes = [(i, n) for i, n in enumerate(shape) if n > 1] if len(shape) > 1 else []
    squares = {f"{name}_{i}": (n, n) for i, n in axes for name in ("gram", "basis")}
    return like("m", "v")(shape) | squares


def each_block(size):
    """Statistics and roots of both sides of each block; of a vector's one side."""

    def slots(shape):
        high, wide = (min(n, size) for n in matrix(shape))
        blocks = tuple(-(-n // size) for n in matrix(shape))
        left = dict.fromkeys(("l", "p_l"), (*blocks, high, high)) if shape else {}
        right = dict.fromkeys(("r", "p_r"), (*blocks, wide, wide)) if len(shape) > 1 else {}
        return like("m", "d")(shape) | left | right

    return slots


def each_side(shape):
    """A full factor for the shorter side, a diagonal one for the longer, and a number for both."""
    sides = dict(enumerate(matrix(shape) if len(shape) > 1 else [math.prod(shape)]))
    full = {i: len(shape) > 1 and 1 < n <= min(matrix(shape)) for i, n in sides.items()}
    factors = {f"q_{i}": (n, n) if full[i] else (n,) for i, n in sides.items()}
    return like("m")(shape) | factors | {f"l_{i}": () for i in sides}


CASES = [
    Case(name="Muon", **MUON),
    Case(
        name="Muon-match_rms_adamw",
        options=dict(scale="match_rms_adamw", coefficients="quintic", nesterov=False),
        **MUON,
    ),
    Case(
        name="MARS",
        optimizer=td.MARS,
        reference=mars,
        slots=like("m", "last", "v"),
        ranges=GAMMA | dict(beta_2=BETA, epsilon=EPSILON),
    ),
    Case(
        name="MARS-lion",
        optimizer=td.MARS,
        reference=mars,
        options=dict(form="lion"),
        slots=like("m", "last"),
        ranges=GAMMA,
        largest_gradient=1e3,  # over the norm, small entries beside large ones are 0 in float32
        jumps=True,
    ),
    Case(
        name="MARS-shampoo",
        optimizer=td.MARS,
        reference=mars,
        options=dict(form="shampoo"),
        slots=like("m", "last"),
        ranges=GAMMA,
        least_rank=2,
        entries_apart=False,
    ),
    Case(
        name="Scion",
        optimizer=td.Scion,
        reference=scion,
        slots=like("d"),
        letters=dict(steps="rounds"),
        ranges=dict(
            norm=("spectral", "sign", "column", "row"),
            scale=(0.1, 10.0),
            momentum=BETA,
            steps=(1, 5),
        ),
        entries_apart=False,
    ),
    Case(
        name="SOAP",
        optimizer=td.SOAP,
        reference=soap,
        options=dict(precondition_frequency=3),
        slots=each_axis,
        letters=dict(
            precondition_frequency="frequency",
            max_precond_dim="longest",
            precondition_1d="vectors",
        ),
        ranges=dict(
            beta_1=BETA,
            beta_2=BETA,
            shampoo_beta=BETA,
            epsilon=EPSILON,
            precondition_frequency=(1, 4),
            max_precond_dim=(1, 4),
        ),
        entries_apart=False,
        scale_free=dict(epsilon=0.0),
    ),
    Case(
        name="Shampoo",
        optimizer=td.Shampoo,
        reference=shampoo,
        options=dict(graft="rmsprop", block_size=3, epsilon=0.1, precondition_frequency=4, steps=9),
        slots=each_block(3),
        letters=dict(precondition_frequency="frequency", block_size="block", steps=None),
        ranges=dict(
            beta_1=BETA,
            beta_2=BETA,
            epsilon=(0.1, 1.0),
            graft=("sgd", "adagrad", "rmsprop"),
            graft_epsilon=EPSILON,
            nesterov=SWITCH,
            block_size=(1, 5),
            precondition_frequency=(1, 4),
        ),
        entries_apart=False,
    ),
    Case(
        name="Kron",
        optimizer=td.Kron,
        reference=kron,
        slots=each_side,
        letters=dict(precondition_frequency="frequency", max_precond_dim="longest"),
        ranges=dict(
            beta_1=BETA,
            precond_lr=(0.01, 0.5),
            precondition_frequency=(1, 4),
            max_precond_dim=(1, 4),
            damping=(1e-5, 0.1),
            max_rms=(0.1, 4.0),
        ),
        entries_apart=False,
        largest_gradient=1e6,  # whitened by what made one of 1e-30 white, it must be held, too
        rescales=True,
        scale_free={},
    ),
]
