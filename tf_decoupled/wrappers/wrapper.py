"""Wrapper: what rules around other rules share."""

from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import differs, number_of
from tf_decoupled.engine.optimizer import Optimizer


class Wrapper(Optimizer):
    """A rule around a rule: `Lookahead(AdamW(1e-3))`.

    The wrapped optimizer is never built. It lends its pure functions, its hyperparameters
    (`h.inner`, live as ever) and its rate, decay and mask, which are attributes of the wrapper,
    too; its slots are kept among the wrapper's (`s.inner`). What it was given for the engine, as
    `clipnorm` or `use_ema`, becomes the wrapper's. A subclass overrides `init` and `step`.
    """

    declared: ClassVar = {}
    positional: ClassVar = ("inner",)
    inner: Optimizer = None

    @classmethod
    def interpret_rule(cls, given: dict[str, Any]) -> dict[str, Any]:
        inner = given["inner"]
        if not isinstance(inner, Optimizer):
            raise TypeError(
                "A wrapper goes around an optimizer of this library, `Lookahead(AdamW(1e-3))`. "
                f"Received: inner={inner!r}"
            )
        if not isinstance(inner, Wrapper) and inner.branches()[0][1] is not inner:
            raise TypeError(
                f"{cls.__name__} goes around one rule: wrap the members of a {type(inner).__name__}"
                f", `Partition([(mask, {cls.__name__}(member)), ...])`. Received: inner={inner!r}"
            )
        if inner.sparse != "exact":
            raise ValueError(
                'A wrapper steps whole variables: wrap an optimizer with `sparse="exact"`. '
                f"Received: inner={type(inner).__name__}(sparse={inner.sparse!r})"
            )
        check_fresh(inner, f"The optimizer inside of a {cls.__name__}", f"inner={inner!r}")
        return given | adopted(cls, given, inner)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        let_go(self)

    def tree(self) -> Iterator[tuple[str, Optimizer]]:
        yield "", self
        for place, rule in self.inner.tree():
            yield f"inner/{place}".rstrip("/"), rule

    def innermost(self) -> Optimizer:
        return self.inner.innermost()

    def holder_of(self, name: str) -> Any:
        return self if name in self.declared else self.inner.holder_of(name)

    def rule_at(self, step: tf.Tensor) -> dict[str, Any]:
        inner = self.inner.rule_at(step)
        return inner | self.resolved(self.own_arguments(), step) | {"inner": inner}

    def hyperparameters_of(
        self, block: Any, h: dict[str, Any], scale: Any = None
    ) -> dict[str, Any]:
        given = h["inner"]
        inner = self.inner.hyperparameters_of(block, given, self.scale_of(block, h, scale))
        # Only what the block has changed, as its rate: a wrapper has scalars of its own.
        changed = {
            n: x for n, x in inner.items() if x is not given.get(n) and n not in self.declared
        }
        return h | changed | {"inner": inner, "correction": h["correction"]}

    def refuses(self, p):
        return self.inner.refuses(p)

    def evaluates(self):
        return type(self).evaluation is not Wrapper.evaluation or self.inner.evaluates()

    def evaluation(self, p, s, h):
        return self.inner.evaluation(p, s.inner, h.inner)

    def training(self, x, s, h):
        return self.inner.training(x, s.inner, h.inner)

    def observe(self, p, e, s, h):
        return vars(s) | dict(inner=self.inner.observe(p, e, s.inner, h.inner))

    def kind(self) -> str:
        return f"{super().kind()}({self.inner.kind()})"


Wrapper.declare(Optimizer.engine_arguments)


class Scaled(Wrapper):
    """A wrapper that multiplies rates and leaves the rest to the optimizer inside.

    A subclass says a number of each variable, `measure`, and what that multiplies its rate by,
    `multiplier`.
    """

    def init(self, p):
        return dict(inner=self.inner.init(p))

    def step(self, p, g, s, h):
        p, inner = self.inner.step(p, g, s.inner, h.inner)
        return p, dict(inner=inner)


def check_fresh(inner: Optimizer, what: str, shown: str) -> None:
    """Raises for an optimizer in use: its slots, or its engine's arguments, stand elsewhere."""
    for is_so, why in (
        (inner.is_inside, "is inside of another already, which has its `clipnorm` and the like"),
        (inner.built, "has been built, with slots of its own that would be left behind"),
    ):
        if is_so:
            raise ValueError(f"{what} {why}. Make a fresh one. Received: {shown}")


def adopted(cls: type[Optimizer], given: dict[str, Any], inner: Optimizer) -> dict[str, Any]:
    """The engine's arguments that were given to the inner optimizer; raises for two answers."""
    theirs = {}
    for name, hyperparameter in cls.engine_arguments.items():
        value = number_of(getattr(inner.given, name))
        if not differs(value, hyperparameter.default):
            continue
        if differs(given[name], hyperparameter.default) and differs(given[name], value):
            raise ValueError(
                f"`{name}` was given to {cls.__name__} and to the {type(inner).__name__} inside. "
                f"Give it to {cls.__name__} alone. Received: {given[name]!r} and {value!r}"
            )
        theirs[name] = value
    return theirs


def let_go(optimizer: Optimizer) -> None:
    """Takes from the optimizers inside what is the outermost's: engine arguments and the count."""
    for _, rule in optimizer.rules():
        if rule is not optimizer:
            rule.is_inside = True
            rule.updates = optimizer.updates  # what a schedule shows there must be of this step
            for name, hyperparameter in optimizer.engine_arguments.items():
                setattr(rule.given, name, hyperparameter.default)
