"""How a function is called: what a wrong call is told, and how a call is written."""

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from keras.optimizers.schedules import LearningRateSchedule

# Names that other libraries and other versions of Keras have.
INSTEAD = {
    "lr": "The rate is called `learning_rate`.",
    "decay": "Keras's old `decay=1e-4`, beside a rate of 0.1, is "
    "`learning_rate=td.schedules.InverseTime(0.1, 1, 1e-4)`. Weight decay is called "
    "`weight_decay`.",
    "wd": "It is called `weight_decay`.",
    "weight_decay_rate": "It is called `weight_decay`.",
    "schedule_decay": "Give `learning_rate` a schedule, such as td.schedules.Exponential.",
    "betas": "They are called `beta_1` and `beta_2`.",
    "eps": "It is called `epsilon`.",
    "max_grad_norm": "It is called `global_clipnorm`.",
    "gradient_transformers": "They are called `gradient_transforms`, a list of td.transforms.",
    "use_locking": "A step is one computation; leave it out.",
    "gradient_aggregator": "Replicas' gradients are summed before all else; leave it out.",
    "is_legacy_optimizer": "Keras 2 wrote it into configurations; leave it out.",
}

OF_INNER = "It is an argument of the optimizer that is wrapped: give it to that one."


def bind(
    cls: type, args: Sequence, kwargs: Mapping[str, Any], of_inner: Collection[str] = ()
) -> dict[str, Any]:
    """A constructor's arguments by name, defaults included; TypeError for a wrong call.

    `of_inner`: arguments of the optimizer inside of a wrapper.
    """
    told = INSTEAD | dict.fromkeys(of_inner, OF_INNER)
    return dict(bound(cls.__name__, inspect.signature(cls), args, kwargs, told).arguments)


def bound(
    name: str,
    signature: inspect.Signature,
    args: Sequence,
    kwargs: Mapping[str, Any],
    instead: Mapping[str, str] = MappingProxyType({}),
) -> inspect.BoundArguments:
    """The arguments of a call, defaults included; TypeError says what a wrong call should be.

    `instead`: what is said of names that are known to be wrong.
    """
    parameters = signature.parameters
    kinds = {p.kind for p in parameters.values()}
    first = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(args) > len(first) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        raise TypeError(
            f"{name} takes {len(first)} positional argument{'s' * (len(first) != 1)}"
            f"{', ' * bool(first)}{_quoted(first)}. Give all others by name. Received: "
            f"{call(name, args, kwargs)}"
        )
    passes_on = inspect.Parameter.VAR_KEYWORD in kinds  # to another, whose names aren't known here
    own = {n: v for n, v in kwargs.items() if not passes_on or nearest(n, parameters, 0.9)}
    check_names(name, own, parameters, instead)
    try:
        arguments = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}: {error}. Received: {call(name, args, kwargs)}") from None
    arguments.apply_defaults()
    return arguments


def check_names(
    who: str,
    given: Mapping[str, Any],
    known: Collection[str],
    instead: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Raises TypeError for an argument that isn't known, with what it should be.

    `instead`: what is said of names that are known to be wrong.
    """
    for name, value in given.items():
        if name not in known:
            raise TypeError(
                f"{who} got an unexpected keyword argument {name!r}. "
                f"{instead.get(name) or _suggested(name, known)} Received: {name}={value!r}"
            )


def takes(function: Callable, count: int) -> bool:
    """Whether a function can be called with so many arguments, as far as it says."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # one of another language's
        return True
    return True


def _suggested(name: str, known: Collection[str]) -> str:
    if not known:
        return "It takes no arguments."
    similar = nearest(name, known, 0.6)
    return f"Did you mean `{similar}`?" if similar else f"Known are {_quoted(known)}."


def nearest(name: str, known: Collection[str], cutoff: float) -> str | None:
    """The known name that is most like this one, if one is like it."""
    return next(iter(difflib.get_close_matches(name, known, 1, cutoff)), None)


def call(name: str, args: Iterable, kwargs: Mapping[str, Any]) -> str:
    """The call as one writes it: "AdamW(0.1, beta_1=0.8)"."""
    named = [f"{name}={shown(value)}" for name, value in kwargs.items()]
    return f"{name}({', '.join([*map(shown, args), *named])})"


def shown(value: Any) -> str:
    """A value as one writes it, objects with a configuration as the call that makes them."""
    if inspect.isfunction(value):
        return value.__name__
    if isinstance(value, (list, tuple)):  # TensorFlow keeps such in wrappers with names of its own
        inside = ", ".join(map(shown, value))
        if value.__class__ is not tuple:
            return f"[{inside}]"
        return f"({inside}{',' * (len(value) == 1)})"
    if isinstance(value, dict) and "class_name" in value:
        return _made_of(value["class_name"], value["config"])
    if isinstance(value, LearningRateSchedule) or type(value).__repr__ is object.__repr__:
        try:
            return _made_of(type(value).__name__, value.get_config())
        except (AttributeError, NotImplementedError):
            return f"{type(value).__name__}(...)"
    return repr(value)


def _made_of(name: str, config: Any) -> str:
    if not isinstance(config, dict):
        return str(config)
    told = {k: v for k, v in config.items() if k != "name" and v is not None}
    return call(name, (), told)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
