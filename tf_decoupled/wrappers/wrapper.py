"""Wrapper: what rules around other rules share."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from tf_decoupled.hyperparameters import Hyperparameter
from tf_decoupled.optimizer import Optimizer
from tf_decoupled.state import Cell


class Forwarded(Hyperparameter):
    """A shared hyperparameter of a wrapper: the wrapped optimizer's own."""

    def __get__(self, owner, cls=None):
        if owner is None or "given" not in vars(owner):
            return self.default
        return getattr(owner.innermost(), self.name)

    def __set__(self, owner, value) -> None:
        if "given" in vars(owner):
            setattr(owner.inner, self.name, value)


class Wrapper(Optimizer):
    """A rule around a rule: `Lookahead(AdamW(1e-3))`.

    The wrapped optimizer is never built. It lends its pure `init` and `step`, its hyperparameters
    (`h.inner`, live as ever) and its rate, decay, mask and clips; its slots are kept among the
    wrapper's (`s.inner`). A subclass overrides `init` and `step`.
    """

    declared: ClassVar = {}
    positional: ClassVar[int] = 1
    inner: Optimizer = None

    @classmethod
    def interpret(cls, given: dict[str, Any]) -> dict[str, Any]:
        inner = given["inner"]
        if not isinstance(inner, Optimizer):
            raise TypeError(
                "A wrapper goes around an optimizer of this library, `Lookahead(AdamW(1e-3))`. "
                f"Received: {inner!r}"
            )
        if inner.sparse != "exact":
            raise ValueError(
                'A wrapper steps whole variables: wrap an optimizer with `sparse="exact"`. '
                f"Received: {type(inner).__name__}(sparse={inner.sparse!r})"
            )
        if inner.built:
            raise ValueError(
                f"The wrapped {type(inner).__name__} has been built, with slots of its own that "
                "would be left behind. Wrap a fresh one."
            )
        return given

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for optimizer in wrapped(self):
            optimizer.updates = self.updates  # what a schedule shows there must be of this step

    def innermost(self) -> Optimizer:
        return self.inner.innermost()

    def hyperparameters_at(self, step: Any) -> dict[str, Any]:
        inner = self.inner.hyperparameters_at(step)
        return inner | self.live_hyperparameters_at(step) | {"inner": inner}

    def hyperparameters_of(self, cell: Cell, h: dict[str, Any]) -> dict[str, Any]:
        inner = self.inner.hyperparameters_of(cell, h["inner"])
        own = {name: h[name] for name in self.declared if name in h}
        return super().hyperparameters_of(cell, h | inner | own | {"inner": inner})

    def build(self, variables: Sequence) -> None:
        super().build(variables)
        for optimizer in wrapped(self):
            optimizer.built = True

    def live_hyperparameters(self) -> dict[str, tuple[Any, Hyperparameter]]:
        inner = self.inner.live_hyperparameters()
        return super().live_hyperparameters() | {f"inner/{k}": v for k, v in inner.items()}

    def kind(self) -> str:
        return f"{super().kind()}({self.inner.kind()})"


def wrapped(optimizer: Optimizer) -> Iterator[Optimizer]:
    """The optimizers inside a wrapper, from the outside in."""
    while isinstance(optimizer, Wrapper):
        optimizer = optimizer.inner
        yield optimizer


for _name, _hyperparameter in Optimizer.declared.items():
    _forwarded = Forwarded(_name, _hyperparameter.kind, _hyperparameter.default)
    setattr(Wrapper, _name, _forwarded)
