"""What Keras finds again when it loads: classes by a name of their own; others get a warning."""

import inspect
import warnings
from typing import Any

import keras


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
    if not callable(value) or _is_known(value):
        return keras.saving.serialize_keras_object(value)
    name = getattr(value, "__name__", type(value).__name__)
    is_lambda = name == "<lambda>"
    needs = "`safe_mode=False`" if is_lambda else f"`custom_objects={{{name!r}: {name}}}`"
    warnings.warn(
        f"{'A lambda' if is_lambda else f'`{name}`'} is saved, and is not registered with Keras: "
        f"loading needs {needs}. Instead, "
        f"{'write a function and decorate it' if is_lambda else 'decorate it'} with "
        "`@keras.saving.register_keras_serializable()`.",
        stacklevel=3,
    )
    with warnings.catch_warnings():
        if is_lambda:
            warnings.simplefilter("ignore")  # Keras says the same, without the cure
        return keras.saving.serialize_keras_object(value)


def _is_known(value: Any) -> bool:
    kind = value if inspect.isfunction(value) else type(value)
    registered = keras.saving.get_registered_name(kind) != kind.__name__
    return registered or kind.__module__.partition(".")[0] == "keras"
