"""A row of the table: the optimizer, its paper, and what tests ask of it alone."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

import tf_decoupled as td

BETA, EPSILON, SWITCH = (0.0, 0.999), (1e-7, 1.0), (False, True)
LARGEST = float(np.finfo("float32").max)

SHAPES = [(3, 4), (5,), (), (2, 3, 2)]
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A row: the optimizer, its paper in float64, and all that tests ask of this row alone.

    `name`, `optimizer`, `options` and `inner`, the row of the wrapped rule, say how it is made.
    `reference` is its function in `references`, and `letters` what arguments are called there; None
    for one that the paper hasn't.
    `slots` gives the names and shapes of the slots of a variable.
    `ranges` are the least and the largest value of each argument that may be any; of booleans both,
    of words all.
    """

    name: str
    optimizer: type[td.Optimizer]
    reference: Callable[..., np.ndarray] | None = None
    slots: Callable[[Shape], dict[str, Shape]]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    inner: "Case | None" = None
    letters: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, tuple] = dataclasses.field(default_factory=dict)
    learning_rate: float = 0.01

    # Variables of fewer axes are refused.
    least_rank: int = 0

    # It sums over all variables, and so does its reference: they are one to it.
    together: bool = False
    # Where gradients are zero, θ ← (1 − κ) θ: no ratio, estimate or slow weights around the decay.
    decays_apart: bool = True
    # An entry of which each gradient was zero doesn't move, whatever its neighbours' are.
    entries_apart: bool = True
    # Slots that are values of the variable, and so decay with it.
    values: tuple[str, ...] = ()
    # The largest gradient with which it follows its paper in float32: squares up to 3e38.
    largest_gradient: float = 1e17
    # A step is as long as its gradient, and what float32 drops of it is a share of that.
    proportional: bool = False
    # A step is as long whatever the gradient is, also where float32 can hardly hold that.
    rescales: bool = False
    # The direction jumps where float32 can't tell a sum from zero.
    jumps: bool = False
    # It draws random numbers, other ones for each variable's path.
    random: bool = False
    # With these options the size of all gradients is of no consequence; None: it always counts.
    scale_free: Mapping[str, Any] | None = None
    # With these options `sparse="lazy"` is exact; None: it is refused.
    lazy: Mapping[str, Any] | None = None

    def make(self, **arguments: Any) -> td.Optimizer:
        """The optimizer; a wrapper's shared arguments go to the rule that it wraps."""
        if self.inner is None:
            rate = dict(learning_rate=self.learning_rate)
            return self.optimizer(**{**rate, **self.options, **arguments})
        own = {n: arguments.pop(n) for n in list(arguments) if n in self.own_arguments()}
        return self.optimizer(self.inner.make(**arguments), **{**self.options, **own})

    def takes(self, shapes) -> list[Shape]:
        """Those of the shapes that it can step."""
        return [shape for shape in shapes if len(shape) >= self.least_rank]

    @property
    def shapes(self) -> list[Shape]:
        return self.takes(SHAPES)

    def own_arguments(self) -> list[str]:
        """What the class declares beside the arguments that all optimizers share."""
        return [n for n in self.optimizer.declared if n not in (*td.Optimizer.declared, "inner")]

    def all_options(self) -> dict[str, Any]:
        """The options of the row and of those that it wraps."""
        return {**(self.inner.all_options() if self.inner else {}), **self.options}

    def paper(self, optimizer: td.Optimizer, h: SimpleNamespace | None = None) -> dict[str, Any]:
        """The reference's options: the numbers in `h`, as float32 holds them, or as declared."""
        options = {}
        for name in self.own_arguments():
            live = optimizer.declared[name].live
            value = getattr(h, name) if live and h else getattr(optimizer, name)
            letter = self.letters.get(name, name)
            options |= {letter: np.asarray(value).item() if live else value} if letter else {}
        if self.inner is not None:
            inner = self.inner.paper(optimizer.inner, h and h.inner)
            options["inner"] = SimpleNamespace(
                rule=functools.partial(self.inner.reference.rule, **inner)
            )
        return options

    def expected(self, optimizer, start, grads, h=None, **options) -> list[np.ndarray]:
        """Where the paper leads the variables: `start` and each step's `grads` are lists."""
        options = {"learning_rate": self.learning_rate, **self.paper(optimizer, h), **options}
        if self.together:
            sizes = np.cumsum([np.size(p) for p in start])[:-1]
            one = lambda arrays: np.concatenate([np.ravel(x) for x in arrays])  # noqa: E731
            after = np.split(self.reference(one(start), list(map(one, grads)), **options), sizes)
            return [np.reshape(x, np.shape(p)) for x, p in zip(after, start, strict=True)]
        columns = zip(*grads, strict=True)
        return [
            self.reference(p, list(column), **options)
            for p, column in zip(start, columns, strict=True)
        ]


def like(*names):
    """Slots of the variable's shape."""
    return lambda shape: dict.fromkeys(names, shape)


def around(case, *names):
    """Slots of the variable's shape, around those of another row."""
    inner = lambda shape: {f"inner/{name}": each for name, each in case.slots(shape).items()}  # noqa: E731
    return lambda shape: like(*names)(shape) | inner(shape)


def factored(shape):
    """One row and one column per matrix; vectors and scalars whole."""
    if len(shape) < 2:
        return dict(v=shape)
    return dict(r=shape[:-1], c=(*shape[:-2], shape[-1]))
