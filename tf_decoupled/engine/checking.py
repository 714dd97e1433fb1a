"""How a function's arguments are checked at its call: each as its annotation says.

    @checked
    def linear_scaling(batch_size: Size, new_batch_size: Size, *, learning_rate: Rate): ...

`Size` is Annotated[float, check]. A check gets the place of an argument, for its errors, and the
value. It returns the value, numbers as Python's own, or raises one clear error: see `kinds`.
Optimizers declare their arguments: `hyperparameters`.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypeVar

import tensorflow as tf

from tf_decoupled.engine import arguments

Function = TypeVar("Function", bound=Callable[..., Any])


class Where(NamedTuple):
    """An argument as errors call it. bare: they show what was received without the name."""

    name: str
    owner: str = ""
    bare: bool = False

    def refuse(self, error: type[Exception], words: str, value: Any) -> NoReturn:
        of, given = f" of {self.owner}" if self.owner else "", "" if self.bare else f"{self.name}="
        raise error(f"`{self.name}`{of} must be {words}. Received: {given}{value!r}")

    def at(self, place: Any) -> "Where":
        return self._replace(name=f"{self.name}[{place}]")


Check = Callable[[Where, Any], Any]


def checked(function: Function, owner: str = "", bare: bool = False) -> Function:
    """The function, called once its arguments are what their annotations say; or one clear error.

    A value that is the default itself is not asked about. AutoGraph leaves the function as it is.
    """
    signature = inspect.signature(function)
    is_method = next(iter(signature.parameters), None) == "self"
    parameters = list(signature.parameters.values())[is_method:]
    signature = signature.replace(parameters=parameters)
    checks = {p.name: c for p in parameters for c in getattr(p.annotation, "__metadata__", ())}

    @tf.autograph.experimental.do_not_convert
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        first, args = args[:is_method], args[is_method:]
        name = owner or (type(first[0]) if first else function).__name__
        bound = arguments.bound(name, signature, args, kwargs)
        for argument, value in bound.arguments.items():
            if argument in checks and value is not signature.parameters[argument].default:
                where = Where(argument, owner, bare)
                bound.arguments[argument] = checks[argument](where, value)
        return function(*first, *bound.args, **bound.kwargs)

    return call
