"""How each peer is run beside ours, and the page that tells what differs.

    python tests/peers/peer.py > docs/peers.md

A row says both sides as one writes them. Both begin at the same values in float64 and take 50 steps
along gradients that depend on where they are, so that no difference stays hidden. The peers are
imported when they are run: the page is made without them.
"""

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(1, os.path.join(os.path.dirname(__file__), ".."))

import keras
import numpy as np
import pure
import pytest
import tensorflow as tf

import tf_decoupled as td

STEPS = 50
SHAPES = ((4, 3), (5,), ())
MATRICES = ((4, 3), (3, 6))
SQUARES = ((4, 4), (5, 5))
VECTORS = ((5,), ())
EXACT = 1e-9

Values = list[np.ndarray]
Gradients = Callable[[Values, int], Values]

PEERS = {
    "test_peer_keras": "Keras",
    "test_peer_optax": "optax",
    "test_peer_torch": "PyTorch",
    "test_peer_pytorch_optimizer": "pytorch_optimizer",
}
PAGE = """\
# Beside other libraries

`tests/peers/` runs each optimizer beside those of Keras, optax, PyTorch and pytorch_optimizer for
50 steps in float64, at the arguments that make the formulas equal. {equal} of {rows} pairs agree up
to rounding, or an ε. These are the others: both sides as they were run, the largest difference of
the two paths that the tests let through, relative to 1 + |θ|, and what it comes from. Keras is
compared in more depth in [Differences from Keras](differences-from-keras.md).
"""


class Row(NamedTuple):
    """One pair: both sides as one writes them, and how far apart the paths may be, and why.

    ours: an expression in the names of `td`. theirs: in those of the peer; PyTorch's and
    pytorch_optimizer's take `params`. tolerance: of |a − b| / (1 + |b|) at any step. difference:
    what remains, as the page says it; "" where that is rounding, or an ε.
    """

    ours: str
    theirs: str
    tolerance: float = EXACT
    difference: str = ""
    shapes: tuple[tuple[int, ...], ...] = SHAPES

    @property
    def name(self) -> str:
        return self.ours


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Hyperparameters and Keras's variables in float64: 0.999 is then the same on both sides."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(before)


def begin(shapes: tuple[tuple[int, ...], ...]) -> Values:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in shapes]


def gradients(values: Values, t: int) -> Values:
    """Noise that agrees in part from step to step, and the slope of a parabola."""
    rng = np.random.default_rng(t + 1)
    return [0.3 * np.asarray(p) + rng.normal(0.2, size=np.shape(p)) for p in values]


def ours(row: Row) -> list[Values]:
    """The values after each step, by the pure rule. Skips where it isn't in this version."""
    try:
        rule = eval(row.ours, dict(vars(td)))
    except NameError as error:
        pytest.skip(f"not in this version: {error}")
    values = begin(row.shapes)
    path: list[Values] = [values]

    def grads() -> Iterator[Values]:
        for t in range(STEPS):
            yield gradients(path[-1], t)

    for now in pure.steps(rule, values, grads()):
        path.append([p.numpy() for p in now.values])
    return path[1:]


def apart(row: Row, run: Callable[[str, Values, Gradients], Iterator[Values]]) -> float:
    """The largest difference at any step, relative to 1 + |θ|."""
    with in_float64():
        path = ours(row)
        theirs = list(run(row.theirs, begin(row.shapes), gradients))
    moved = [np.max(np.abs(a - b)) for a, b in zip(path[-1], begin(row.shapes), strict=True)]
    assert len(path) == len(theirs) == STEPS
    assert max(moved) > 100 * EXACT, f"it hardly moves, so this shows nothing: {moved}"
    return max(
        float(np.max(np.abs(a - b) / (1 + np.abs(b))))
        for one, other in zip(path, theirs, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def assert_equal_paths(row: Row, run: Callable[[str, Values, Gradients], Iterator[Values]]) -> None:
    """Both sides of a row are as far apart as it says."""
    found = apart(row, run)
    assert found <= row.tolerance, f"{found:.1e} apart"
    # What the page tells is still there.
    assert not row.difference or found > 0.1 * row.tolerance, f"{found:.1e} apart only"


def installed(name: str) -> Any:
    """The peer, or a skip that says it is missing."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install 'tf_decoupled[peers]'")
    return importlib.import_module(name)


def run_torch(theirs: str, start: Values, gradients: Gradients, **names: Any) -> Iterator[Values]:
    """PyTorch's optimizers, and others of their kind."""
    torch = installed("torch")
    params = [torch.nn.Parameter(torch.tensor(p, dtype=torch.float64)) for p in start]
    optimizer = eval(theirs, dict(torch=torch, params=params, **names))
    if hasattr(optimizer, "train"):  # schedule-free ones
        optimizer.train()
    for t in range(STEPS):
        now = [p.detach().numpy().copy() for p in params]
        for p, g in zip(params, gradients(now, t), strict=True):
            p.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        yield [p.detach().numpy().copy() for p in params]


def run_keras(theirs: str, start: Values, gradients: Gradients) -> Iterator[Values]:
    """Keras's optimizers, on variables of float64."""
    variables = [keras.Variable(p, dtype="float64") for p in start]
    optimizer = eval(theirs, dict(vars(keras.optimizers)))
    optimizer.build(variables)
    step = tf.function(lambda *grads: optimizer.apply(grads, variables), autograph=False)
    for t in range(STEPS):
        grads = gradients([v.numpy() for v in variables], t)
        step(*(tf.constant(g, tf.float64) for g in grads))
        yield [v.numpy() for v in variables]


def tables() -> dict[str, list[Row]]:
    return {peer: importlib.import_module(name).ROWS for name, peer in PEERS.items()}


def page() -> str:
    """docs/peers.md: every row with a difference."""
    rows = tables()
    every = [row for each in rows.values() for row in each]
    equal = sum(not row.difference for row in every)
    lines = [PAGE.format(equal=equal, rows=len(every))]
    for peer, each in rows.items():
        differing = [row for row in each if row.difference]
        lines += [f"## {peer}", ""]
        lines += ["| here | there | apart by at most | because |", "|---|---|---|---|"]
        lines += [
            f"| `{row.ours}` | `{row.theirs}` | {row.tolerance:.0e} | {row.difference} |"
            for row in differing
        ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
