"""Hyperparameters: declared as annotated class attributes, live after tracing, saved by name.

    class Lion(Optimizer):
        beta_1: Beta = 0.9

makes `beta_1` an argument of the constructor, an entry of `get_config` and an attribute that can
be read and assigned. A number is kept in a variable, so assigning acts at the next step without
a new trace; a schedule is called with the number of updates done.
"""

import contextlib
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeAlias, get_args, get_origin

import keras
import numpy as np
import tensorflow as tf

from tf_decoupled.engine import arguments, registry
from tf_decoupled.math import one_minus_power

Schedule: TypeAlias = keras.optimizers.schedules.LearningRateSchedule
_Live: TypeAlias = float | Schedule | Callable[[], Any] | tf.Variable | keras.Variable | None

Scalar = Annotated[_Live, "a finite number >= 0"]
Positive = Annotated[_Live, "a number > 0"]
Beta = Annotated[_Live, "a number in [0, 1)"]
Steps = Annotated[_Live, "an integer >= 1"]
Growth = Annotated[_Live, "a number >= 1"]

# Numbers that shape the traced step, or that stored values are in terms of: never changed.
Count = Annotated[int, "an integer >= 1"]
Whole = Annotated[int, "an integer >= 0"]
Constant = Annotated[float, "a finite number > 0"]
Fraction = Annotated[float, "a number in (0, 1)"]
Initial = Annotated[float, "a finite number >= 0"]
NonPositive = Annotated[float, "a finite number <= 0"]

_HOLDS: dict[Any, Callable[[float], bool]] = {
    Scalar: lambda x: 0 <= x < math.inf,
    Positive: lambda x: x > 0,
    Beta: lambda x: 0 <= x < 1,
    Steps: lambda x: x >= 1 and float(x).is_integer(),
    Growth: lambda x: x >= 1,
}
_FIXED: dict[Any, Callable[[float], bool]] = {
    Count: _HOLDS[Steps],
    Whole: lambda x: x >= 0 and float(x).is_integer(),
    Constant: lambda x: 0 < x < math.inf,
    Fraction: lambda x: 0 < x < 1,
    Initial: _HOLDS[Scalar],
    NonPositive: lambda x: -math.inf < x <= 0,
}


class Hyperparameter:
    """A declared argument, as the class attribute through which instances read and assign it."""

    def __init__(self, name: str, kind: Any, default: Any):
        self.name, self.kind, self.default = name, kind, default
        self.live = kind in _HOLDS

    @property
    def dtype(self) -> str:
        """How the number is stored: as Keras's `floatx`, if that is float64."""
        if self.kind in (Steps, Count, Whole):
            return "int64"
        return "float64" if keras.config.floatx() == "float64" else "float32"

    def __get__(self, owner, cls=None):
        if owner is None or "given" not in vars(owner):
            return self.default
        owner = owner.holder_of(self.name)
        return self.present(owner.given, owner.iterations)

    def present(self, given: Any, iterations: Any) -> Any:
        """The argument after so many updates, as its owner's attribute shows it."""
        value = getattr(given, self.name)
        return resolve(value, iterations) if self.live and callable(value) else value

    def __set__(self, owner, value) -> None:
        if "given" not in vars(owner):
            return  # Keras's constructor speaks of its own defaults; ours come after it.
        owner = owner.holder_of(self.name)
        given = getattr(owner.given, self.name)
        if not self.live:
            self._refuse(owner, value)
        value = value if tf.is_symbolic_tensor(value) else self.check(value, owner)
        numeric = not (value is None or callable(value))
        if is_variable(given) and numeric:
            owner.check_assigned(self.name, value)
            given.assign(value)
            _remember(given, value)
        elif callable(given) and numeric and not is_variable(value):
            raise TypeError(
                f"`{self.name}` holds {_kind(given)}, which a number does not replace: it would "
                f"be gone without a word. Make another {type(owner).__name__} with a number. "
                f"Received: {self.name}={value!r}"
            )
        elif owner.built:
            raise TypeError(
                f"`{self.name}` was built as {_kind(given)} and can't become {_kind(value)}: the "
                "traced step would not notice. Set it before the first step, or make another "
                f"{type(owner).__name__}. Received: {self.name}={value!r}"
            )
        else:
            value = self.bind(value, owner)
            owner.check_assigned(self.name, value, replaced=True)
            setattr(owner.given, self.name, value)

    def _refuse(self, owner: Any, value: Any) -> NoReturn:
        raise AttributeError(
            f"`{self.name}` shapes the traced step and is fixed at construction. Make another "
            f"{type(owner).__name__}. Received: {self.name}={value!r}"
        )

    def check(self, value: Any, owner: Any) -> Any:
        """The value, a number as Python's own, once it is of the right kind; else one clear error.

        What counts is the number as it will be stored: 1e39 is inf in float32.
        """
        cls = owner if inspect.isclass(owner) else type(owner)
        where = f"Received: {cls.__name__}({self.name}={value!r})"
        if self.kind is bool and not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"`{self.name}` must be True or False. {where}")
        if self.kind in _FIXED or get_origin(self.kind) is Literal:
            return self._check_fixed(value, where)
        optional = value is None and self.default is None
        if not self.live or optional or is_function(value):
            return value
        expected = f"`{self.name}` must be {self.kind.__metadata__[0]}"
        kinds = "a LearningRateSchedule, a zero-argument callable or a scalar variable"
        if is_variable(value):
            dtype = tf.as_dtype(value.dtype)
            if tuple(value.shape) or not (dtype.is_floating or dtype.is_integer):
                raise TypeError(f"{expected}, {kinds}. {where}")
            if tf.executing_eagerly() and not fits(_plain(value), _HOLDS[self.kind], self.dtype):
                raise ValueError(f"{expected}, in {self.dtype}. {where}")
            return value
        number = _plain(value)
        if not is_number(number):
            raise TypeError(f"{expected}, {kinds}. {where}")
        if not fits(number, _HOLDS[self.kind], self.dtype):
            raise ValueError(f"{expected}, in {self.dtype}. {where}")
        return number if isinstance(number, (int, float)) else float(number)

    def _check_fixed(self, value: Any, where: str) -> Any:
        """As `check`, of a number that is never changed or a word out of some."""
        if self.kind not in _FIXED:
            choices = get_args(self.kind)
            if not isinstance(value, str) or value not in choices:
                words = ", ".join(map(repr, choices))
                raise ValueError(f"`{self.name}` must be one of {words}. {where}")
            return value
        expected = f"`{self.name}` must be {self.kind.__metadata__[0]}, and is never changed"
        number = value if is_variable(value) else _plain(value)
        if not is_number(number):
            raise TypeError(f"{expected}: no schedule, callable or variable. {where}")
        if not fits(number, _FIXED[self.kind], self.dtype):
            raise ValueError(f"{expected}. {where}")
        return int(number) if self.kind in (Count, Whole) else float(number)

    def bind(self, value: Any, owner: Any) -> Any:
        """The value as it is kept: a number of a live hyperparameter in a variable of its own."""
        value = self.check(value, owner)
        if not self.live or value is None or callable(value) or is_variable(value):
            return value
        with tf.init_scope():
            variable = keras.Variable(
                value,
                dtype=self.dtype,
                trainable=False,
                aggregation="only_first_replica",
                name=self.name,
            )
        _remember(variable, value)
        return variable


class Declared:
    """Turns a class's annotated defaults into hyperparameters and the constructor's signature.

    `cls.declared` maps each name to its `Hyperparameter`, inherited ones included; `positional`
    of them may be given without a name. Every such class can be saved by Keras.
    """

    declared: ClassVar[dict[str, Hyperparameter]] = {}
    positional: ClassVar[tuple[str, ...]] = ("learning_rate", "weight_decay")

    @classmethod
    def declare(cls, own: Mapping[str, "Hyperparameter"]) -> None:
        """Adds arguments to those that the class has."""
        cls.declared = cls.declared | own
        cls.__signature__ = _signature(cls, own)

    def holder_of(self, name: str) -> Any:
        """Whose argument `self.name` is: this one's, unless a class says otherwise."""
        return self

    @classmethod
    def names(cls) -> list[str]:
        """All that instances have as hyperparameters, a wrapped optimizer's included."""
        members = {
            name: value for each in reversed(cls.__mro__) for name, value in vars(each).items()
        }
        return [name for name, value in members.items() if isinstance(value, Hyperparameter)]

    def __setattr__(self, name: str, value: Any) -> None:
        new = name not in vars(self) and not hasattr(type(self), name)
        if new and "given" in vars(self) and name.isidentifier() and not name.startswith("_"):
            _check_spelling(self, name, value)
        super().__setattr__(name, value)

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls.declare(declared_in(cls))
        if hasattr(cls, "get_config"):  # as an optimizer has; a rule by itself is not saved
            registry.register(cls, "tf_decoupled", before=cls.__module__.partition(".")[0])


def declared_in(cls: type) -> dict[str, Hyperparameter]:
    """The hyperparameters of a class's own annotated defaults, now its attributes."""
    own = {
        name: _hyperparameter(name, kind, vars(cls)[name])
        for name, kind in inspect.get_annotations(cls, eval_str=True).items()
        if name in vars(cls) and ClassVar not in (kind, get_origin(kind))
    }
    for name, hyperparameter in own.items():
        setattr(cls, name, hyperparameter)
    return own


def _check_spelling(owner: Declared, name: str, value: Any) -> None:
    """Raises for a new attribute that is a hyperparameter misspelt, or by an old name."""
    if name in arguments.INSTEAD and (is_number(value) or is_variable(value) or callable(value)):
        raise AttributeError(
            f"{type(owner).__name__} has no hyperparameter {name!r}. {arguments.INSTEAD[name]} "
            f"Received: {name}={value!r}"
        )
    similar = _similar(type(owner), name)
    if similar and not isinstance(value, (list, tuple, dict)):  # as Keras's own `momentums`
        raise AttributeError(
            f"{type(owner).__name__} has no hyperparameter {name!r}. Did you mean `{similar}`? "
            f"Received: {name}={value!r}"
        )


@functools.cache  # Keras and the engine give each optimizer a dozen attributes of their own.
def _similar(owner: type[Declared], name: str) -> str | None:
    return arguments.nearest(name, owner.names(), 0.8)


def _hyperparameter(name: str, kind: Any, default: Any) -> Hyperparameter:
    return default if isinstance(default, Hyperparameter) else Hyperparameter(name, kind, default)


def _signature(cls: type[Declared], own: dict[str, Hyperparameter]) -> inspect.Signature:
    """learning_rate, weight_decay, then by name: the class's own, the shared, `name`."""
    first = [name for name in cls.positional if name in cls.declared]
    rest = [name for name in own if name not in first]
    rest += [name for name in cls.declared if name not in first and name not in own]
    kinds = inspect.Parameter
    parameters = [
        kinds(name, kinds.POSITIONAL_OR_KEYWORD, default=cls.declared[name].default)
        for name in first
    ]
    parameters += [kinds(n, kinds.KEYWORD_ONLY, default=cls.declared[n].default) for n in rest]
    return inspect.Signature([*parameters, kinds("name", kinds.KEYWORD_ONLY, default=None)])


def is_variable(value: Any) -> bool:
    return isinstance(value, (tf.Variable, keras.Variable))


def is_function(value: Any) -> bool:
    """Whether it can stand for a number: a schedule, or what can be called without arguments.

    A class is none: its schedule, or what else it makes, is meant.
    """
    if isinstance(value, Schedule):
        return True
    is_one = callable(value) and not (is_variable(value) or inspect.isclass(value))
    return is_one and arguments.takes(value, 0)


def is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def fits(number: Any, holds: Callable[[float], bool], dtype: str = "float32") -> bool:
    """Whether it holds of a number, also as that will be stored: 1e39 is inf in float32."""
    with contextlib.suppress(OverflowError, ValueError), np.errstate(over="ignore"):
        stored = np.dtype(dtype).type(number)
        return bool(stored == stored and holds(number) and holds(stored))
    return False


def _plain(value: Any) -> Any:
    """A scalar array, tensor or variable as Python's own number; anything else as it is.

    A float32 is the shortest decimal that is rounded to it: 0.9, not 0.8999999761581421.
    """
    if is_variable(value) or (tf.is_tensor(value) and hasattr(value, "numpy")):
        value = value.numpy()
    if not isinstance(value, (np.ndarray, np.generic)) or value.ndim:
        return value
    scalar = np.asarray(value)[()]
    return float(str(scalar)) if isinstance(scalar, np.float32) else scalar.item()


def _remember(variable: Any, value: Any) -> None:
    """Notes the number that a variable is given, and may round."""
    if isinstance(variable, keras.Variable):
        variable.as_given = None if tf.is_symbolic_tensor(value) else _plain(value)


def resolve(value: Any, step: tf.Tensor) -> Any:
    """The value at this step: schedules get `step`, the updates done; callables get nothing."""
    if isinstance(value, Schedule):
        return value(step)
    if not callable(value) or is_variable(value):
        return value
    result = value()
    if not tf.executing_eagerly() and not (tf.is_tensor(result) or is_variable(result)):
        raise TypeError(
            "A hyperparameter's callable returned a Python number while a tf.function was traced, "
            "which would freeze it there. Return a tensor or a tf.Variable, or pass the number "
            f"itself and assign it later. Received: {result!r} from {value!r}"
        )
    return result


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    return "a schedule or callable" if callable(value) else "a number"


def serialize(value: Any) -> Any:
    """What `get_config` keeps of a value: numbers as they are now, objects by Keras's scheme.

    A number is as it was given, if that is what the variable still holds, rounded or not.
    """
    if is_variable(value):
        return _present(value)
    return registry.serialize(value)


def number_of(value: Any) -> Any:
    """The number that a variable of ours holds, as it was given; anything else as it is."""
    return _present(value) if getattr(value, "as_given", None) is not None else value


def differs(value: Any, other: Any) -> bool:
    """Whether an argument is another than this; a variable is another than any number."""
    return value is not other and (is_variable(value) or is_variable(other) or value != other)


def _present(variable: Any) -> float | int:
    number, given = _plain(variable), getattr(variable, "as_given", None)
    if not isinstance(number, float) or given is None:
        return number
    return float(given) if np.float32(given) == np.float32(number) else number


def told(owner: "Declared", implied: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an optimizer: its rate, and what differs from its class's defaults.

    `implied`: what arguments that are left out turn into.
    """
    with tf.init_scope():  # variables have values there, also while a step is traced
        names = [name for name in owner.__signature__.parameters if name in owner.declared]
        given = {name: vars(owner.given).get(name) for name in names}
        given = {n: _present(v) if is_variable(v) else v for n, v in given.items()}
        implied = {n: _present(v) if is_variable(v) else v for n, v in implied.items()}
    first = ("learning_rate",) if "learning_rate" in owner.positional else owner.positional
    return {
        name: value
        for name, value in given.items()
        if name in first or (value != owner.declared[name].default and value != implied.get(name))
    }


def written(owner: "Declared", implied: Mapping[str, Any]) -> str:
    """The call that makes an optimizer, with the arguments that are `told`."""
    given = told(owner, implied)
    first = () if "learning_rate" in owner.positional else owner.positional
    return arguments.call(type(owner).__name__, [given.pop(name) for name in first], given)


class Corrections:
    """1 − βᵗ of each hyperparameter β, computed when it is first read: `h.correction.beta_1`.

    All variables of a step share it: XLA would compile every repetition. It is computed outside of
    what is mapped over a stack.
    """

    def __init__(self, h: Mapping[str, Any]):
        self._h = h
        eager = tf.executing_eagerly()
        self._here = tf.init_scope if eager else tf.compat.v1.get_default_graph().as_default

    def __getattr__(self, name: str) -> tf.Tensor:
        if self._h.get(name) is None:
            raise AttributeError(f"There is no hyperparameter {name!r} to correct for.")
        with self._here():
            setattr(self, name, one_minus_power(self._h[name], self._h["t"]))
        return getattr(self, name)


def corrected(h: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a step, and `correction`; those of inner rules likewise."""
    inner = {name: corrected(value) for name, value in h.items() if isinstance(value, dict)}
    return {**h, **inner, "correction": Corrections(h)}


def namespace(tree: dict[str, Any]) -> SimpleNamespace:
    """A nested dict, read with dots."""
    return SimpleNamespace(
        **{k: namespace(v) if isinstance(v, dict) else v for k, v in tree.items()}
    )


def in_precision(h: dict[str, Any], dtype: tf.DType) -> dict[str, Any]:
    """The same with all real numbers in one precision."""

    def cast(value: Any) -> Any:
        if isinstance(value, dict):
            return in_precision(value, dtype)
        real = tf.is_tensor(value) and value.dtype.is_floating
        return tf.cast(value, dtype) if real else value

    return {name: cast(value) for name, value in h.items()}
