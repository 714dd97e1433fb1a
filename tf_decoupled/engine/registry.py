"""What Keras finds again when it loads: classes by a name of their own; others get a warning."""

import inspect
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import keras

# While an object is copied: what others wrote, by its name for Keras. None while one is saved.
_taken_along: ContextVar[dict[str, Any] | None] = ContextVar("taken_along", default=None)


def register(cls: type, package: str, before: str | None = None) -> type:
    """Registers a class of this library under `package`, any other under its whole module.

    Those of `tf_decoupled.addons`, whose names it shares, are of that package. So namesakes in two
    modules don't take each other's place, and a class that is defined again, as in a notebook,
    takes its own. What was saved as a class of the package `before` is found too.
    """
    if cls.__module__.startswith("tf_decoupled.addons."):
        package = "tf_decoupled.addons"
    if cls.__module__.partition(".")[0] == "tf_decoupled":
        return keras.saving.register_keras_serializable(package)(cls)
    known, old = keras.saving.get_custom_objects(), f"{before or package}>{cls.__name__}"
    if old not in known or known[old].__module__ == cls.__module__:
        known[old] = cls
    return keras.saving.register_keras_serializable(cls.__module__)(cls)


def serialize(value: Any) -> Any:
    """The value by Keras's scheme; a warning for what it won't find when it loads."""
    if (taken := _taken_along.get()) is not None:
        _take_along(value, taken)
    elif callable(value) and not _is_known(value):
        _warn(getattr(value, "__name__", type(value).__name__))
    if not _is_lambda(value):
        return keras.saving.serialize_keras_object(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says the same, without the cure
        return keras.saving.serialize_keras_object(value)


def _warn(name: str) -> None:
    is_lambda = name == "<lambda>"
    needs = "`safe_mode=False`" if is_lambda else f"`custom_objects={{{name!r}: {name}}}`"
    warnings.warn(
        f"{'A lambda' if is_lambda else f'`{name}`'} is saved, and is not registered with Keras: "
        f"loading needs {needs}. Instead, "
        f"{'write a function and decorate it' if is_lambda else 'decorate it'} with "
        "`@keras.saving.register_keras_serializable()`.",
        stacklevel=4,
    )


def copied(reduce: Callable[[], tuple]) -> tuple:
    """What `__reduce__` returns: Keras's, with the functions and classes that are others'.

    Keras copies and pickles by way of a file, where it finds what is registered in that process.
    """
    taken: dict[str, Any] = {}
    token = _taken_along.set(taken)
    try:
        load, saved = reduce()
    finally:
        _taken_along.reset(token)
    return _loaded_with, (taken, load, saved)


def _loaded_with(taken: dict[str, Any], load: Callable, saved: tuple) -> Any:
    with keras.saving.custom_object_scope(taken):
        return load(*saved)


def _take_along(value: Any, taken: dict[str, Any]) -> None:
    kind = _kind(value)
    is_own = kind.__module__.partition(".")[0] in ("keras", "tf_decoupled")
    if is_own or _is_lambda(value) or not (callable(value) or hasattr(value, "get_config")):
        return
    name = keras.saving.get_registered_name(kind)
    if name != kind.__name__ and "<locals>" in kind.__qualname__:
        return  # no pickle finds it, but Keras does, in this process
    if taken.setdefault(name, kind) is not kind:
        raise ValueError(
            f"Two that are called `{name}` can't be copied together. Decorate them with "
            "`@keras.saving.register_keras_serializable()`, each with a `name` of its own. "
            f"Received: {taken[name]!r} and {kind!r}"
        )


def _is_lambda(value: Any) -> bool:
    return getattr(value, "__name__", None) == "<lambda>"


def _kind(value: Any) -> Any:
    """What Keras looks for by its name: a function, or an object's class."""
    return value if inspect.isfunction(value) else type(value)


def _is_known(value: Any) -> bool:
    kind = _kind(value)
    registered = keras.saving.get_registered_name(kind) != kind.__name__
    return registered or kind.__module__.partition(".")[0] == "keras"
