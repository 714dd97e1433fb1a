"""A concern: one thing that happens around a rule, whole in one file.

    class Clipping(Concern):
        clipnorm: Positive = None                 an argument of every optimizer

        def before(self, step): ...               what it does at one point of a step

A step asks each active concern, in the order of the optimizer's `concerns`:

    around    may hold gradients back, and go on at another call
    before    changes all gradients of an update; it, `enter` and `leave` run inside of XLA
    enter     changes what is read of one block, the last concern first
    leave     changes what is written to it
    after     changes the counters
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, NoReturn

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Hyperparameter, declared_in
from tf_decoupled.engine.state import Slots


class Counter(NamedTuple):
    """A number of the whole optimizer: how it starts, and what its attribute is without it."""

    start: float = 0
    dtype: str = "int64"
    absent: Any = None


def public(method: Callable) -> Callable:
    """Makes a concern's method one of every optimizer."""
    method.public = True
    return method


class Concern:
    """What the engine does around every rule for one reason.

    declared: its arguments, from annotated class attributes as an optimizer's. counters: all that
    it may ask for, by name. `self.optimizer` has the arguments and the counters as attributes.
    """

    declared: ClassVar[dict[str, Hyperparameter]] = {}
    counters: ClassVar[dict[str, Counter]] = {}
    needs_finite_gradients = False  # whether a step with a NaN in a gradient must change nothing
    of_whole_arrays: ClassVar[tuple[str, ...]] = ()  # arguments that single rows won't do for
    keeps_rows = False  # whether what it keeps is of single rows, and sparse gradients stay sparse

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls.declared = declared_in(cls)

    def __init__(self, optimizer: Any):
        self.optimizer = optimizer

    @classmethod
    def interpret(cls, given: dict[str, Any], optimizer: type) -> dict[str, Any]:
        """The optimizer's arguments with defaults filled in; raises where they don't fit."""
        return given

    def check_assigned(self, name: str, value: Any, replaced: bool) -> None:
        """Raises where an argument can't become this; `replaced`: by something of another kind."""

    @classmethod
    def needs_whole_arrays(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments for which single rows of a variable won't do."""
        return {name: given[name] for name in cls.of_whole_arrays if cls.asked(given)}

    @classmethod
    def asked(cls, given: Mapping[str, Any]) -> bool:
        """Whether the arguments ask for it; a concern that doesn't say is always active."""
        return True

    @property
    def active(self) -> bool:
        return self.asked(vars(self.optimizer.given))

    def wanted(self) -> Mapping[str, Counter]:
        """The counters that the arguments ask for."""
        return self.counters if self.active else {}

    def slots(self, cell: Any) -> Slots:
        """What it keeps beside a variable."""
        return {}

    def mapped(self) -> Any:
        """What tells functions of a user's that `before` maps over a stack; None for no such."""
        return None

    def numbers(self) -> dict[str, tf.Tensor]:
        """What `before`, `enter` and `leave` need of counters: `step.numbers`."""
        return {}

    def building(self) -> None:
        """What is to be found out at the build, before slots are made."""

    def restored(self, numbers: Mapping[str, Any]) -> None:
        """What the saved numbers say, before they are loaded."""

    def see_loss(self, loss: tf.Tensor) -> None:
        """Sees the loss of a model before it is scaled and differentiated."""

    def around(self, update: Callable[[list], None]) -> Callable[[list], None]:
        """`update`, or what calls it at another time; both take pairs of key and gradient."""
        return update

    def before(self, step: Any) -> None:
        """Changes `part.g` of the parts, or `step.accept`; `step.results` go to `after`."""

    def enter(self, part: Any, step: Any) -> None:
        """Changes `part.p`, `part.g` or `part.s` before the rule sees them."""

    def leave(self, part: Any, step: Any) -> None:
        """Changes `part.p` before it is written, and adds its slots' values to `part.new`."""

    def after(self, taken: tf.Tensor, results: dict[str, tf.Tensor]) -> None:
        """Assigns the counters; `taken`: whether the step was not skipped."""

    def evaluation(self, part: Any) -> tf.Tensor | None:
        """What the variable is for evaluation, if this concern says so."""
        return None

    def finalize(self, variables: Sequence) -> None:
        """What is to be done with variables at the end of `fit`."""


def refuse_replacing(optimizer: Any, name: str, value: Any) -> NoReturn:
    """Raises for an argument that decides what the optimizer keeps or counts."""
    raise TypeError(
        f"`{name}` shapes the optimizer and can only get another number. Make another "
        f"{type(optimizer).__name__}. Received: {name}={value!r}"
    )


class Concerns:
    """The concerns of one optimizer, in their order."""

    def __init__(self, classes: Sequence[type[Concern]], optimizer: Any):
        self.all = [concern(optimizer) for concern in classes]

    def __iter__(self) -> Iterator[Concern]:
        """Those that are active."""
        return (concern for concern in self.all if concern.active)

    def numbers(self) -> dict[str, tf.Tensor]:
        """What they need of counters, by name."""
        return {name: number for each in self for name, number in each.numbers().items()}

    def of(self, cls: type[Concern]) -> Concern:
        return next(concern for concern in self.all if isinstance(concern, cls))


def documented(text: str, concerns: Sequence[type[Concern]]) -> str:
    """An optimizer's docstring with what the concerns say of their arguments, before the last."""
    told = []
    for concern in concerns:
        _, args, own = inspect.cleandoc(concern.__doc__ or "").partition("Args:\n")
        told += [f"    {line}" if line else "" for line in own.rstrip().split("\n")] if args else []
    before, last, after = (text or "").partition("        jit_compile:")
    return before + "\n".join(told) + "\n" + last + after


def join(optimizer: type, concern: type[Concern]) -> dict[str, Hyperparameter]:
    """Gives an optimizer class a concern's methods and attributes; returns its arguments."""
    for name, counter in concern.counters.items():
        setattr(optimizer, name, counter.absent)
    for name, hyperparameter in concern.declared.items():
        setattr(optimizer, name, hyperparameter)
    for name, method in inspect.getmembers(concern, lambda m: getattr(m, "public", False)):
        setattr(optimizer, name, _of_concern(concern, name, method))
    return concern.declared


def _of_concern(concern: type[Concern], name: str, method: Callable) -> Callable:
    @functools.wraps(method)
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.order.of(concern), name)(*args, **kwargs)

    return forward
