"""An optimizer from what is typed: its name, and texts like "weight_decay=0.1"."""

import ast
import contextlib
import numbers
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tf_decoupled as td
from tf_decoupled.experiments.errors import InputError

OPTIMIZERS = {
    name: value
    for name, value in vars(td).items()
    if isinstance(value, type)
    and issubclass(value, td.Optimizer)
    and value is not td.Optimizer
    and not issubclass(value, (td.Wrapper, td.Partition))
}


MOMENTUM = 0.9


class Form(NamedTuple):
    """One way in which an optimizer decays: its class, the argument, and what it is called."""

    title: str
    optimizer: type[td.Optimizer]
    decay: str


# What a map compares; of all other optimizers it shows the decoupled form alone.
PAIRS = {
    "adam": {
        "coupled": Form("Adam + L2", td.Adam, "l2"),
        "decoupled": Form("AdamW", td.AdamW, "weight_decay"),
    },
    "sgd": {
        "coupled": Form("SGD + L2", td.SGD, "l2"),
        "decoupled": Form("SGDW", td.SGDW, "weight_decay"),
    },
    "lars": {
        "coupled": Form("LARS + L2", td.LARS, "l2"),
        "decoupled": Form("LARS", td.LARS, "weight_decay"),
    },
}


def swept(name: str) -> str:
    """What a sweep calls the optimizer `name`: a key of `PAIRS`, or the name of a class.

    Capitals don't count, except where they alone tell two classes apart. Raises `InputError`.
    """
    for key, pair in PAIRS.items():
        if name.lower() in (key, *(form.optimizer.__name__.lower() for form in pair.values())):
            return key
    found = [each for each in OPTIMIZERS if each.lower() == name.lower()]
    if name in found or len(found) == 1:
        return name if name in found else found[0]
    if found:
        raise InputError(f"The optimizer must be {' or '.join(found)}. Received: {name!r}")
    known = list(dict.fromkeys([*PAIRS, *(k for k in OPTIMIZERS if k.lower() not in PAIRS)]))
    raise InputError(
        f"Unknown optimizer {name!r}. Known: {', '.join(known)}. Those that go around others can't "
        "be swept."
    )


def forms(name: str) -> dict[str, Form]:
    """The forms of what `swept` returns: coupled and decoupled, or decoupled alone."""
    return PAIRS.get(name) or {"decoupled": Form(name, OPTIMIZERS[name], "weight_decay")}


def in_form(name: str, form: str, texts: Sequence[str], rate: Any, coupling: str) -> td.Optimizer:
    """The optimizer in one form, its decay still 0. Both forms decay the same: the kernels."""
    chosen = forms(name)[form]
    given = {"momentum": MOMENTUM} if name == "sgd" else {}
    given |= arguments(chosen.optimizer.__name__, ["learning_rate=1.0", *texts])
    for of_the_grid in ("learning_rate", "weight_decay", "l2", "decay_coupling"):
        if any(text.partition("=")[0].strip() == of_the_grid for text in texts):
            raise InputError(f"{of_the_grid} is what a sweep sets itself: leave it out of --set.")
    given |= {"learning_rate": rate, chosen.decay: 0.0}
    if form == "decoupled":
        given["decay_coupling"] = coupling
    with asked(chosen.title):
        return chosen.optimizer(**given)


@contextlib.contextmanager
def asked(name: str) -> Iterator[None]:
    """Turns what an optimizer says about its arguments into an `InputError` with its name."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"{name}: {error}") from error


def arguments(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """The arguments of the optimizer `name`: Python literals, masks by name, a rate at least.

    What isn't a literal is a string. `decay_mask` is `matrices` unless given. Raises `InputError`.
    """
    declared = OPTIMIZERS[name].declared
    found = {"decay_mask": "matrices"} | dict(map(_argument, texts))
    unknown = [argument for argument in found if argument not in declared]
    if unknown:
        raise InputError(f"{name} has no argument {unknown[0]!r}. Known: {', '.join(declared)}.")
    rate = found.setdefault("learning_rate", declared["learning_rate"].default)
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real):
        raise InputError(
            f"{name} needs a rate for its schedule: --set learning_rate=0.01. Received: {rate!r}"
        )
    if isinstance(found["decay_mask"], str):
        found["decay_mask"] = _mask(found["decay_mask"])
    return found


def _argument(text: str) -> tuple[str, Any]:
    """ "name=value" as a name and a Python literal; what isn't a literal is a string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"An argument looks like name=value. Received: {text!r}")
    try:
        return name.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return name.strip(), value.strip()


def _mask(name: str) -> td.masks.Mask:
    try:
        return td.masks.named(name)
    except ValueError as error:
        raise InputError(str(error)) from error
