"""Addons' decoupled decay for other classes."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import keras

from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.wrappers.decouple import decouple


def _optimizer_class(where: Where, value: Any) -> type:
    if not inspect.isclass(value) or not issubclass(value, keras.optimizers.Optimizer):
        where.refuse(TypeError, "an optimizer class, as tf.keras.optimizers.RMSprop", value)
    return value


@checked
def extend_with_decoupled_weight_decay(
    base_optimizer: Annotated[type, _optimizer_class],
) -> Callable[..., Any]:
    """What makes optimizers of a class with Addons' decay: θ loses λ θ a step.

        RMSpropW = td.addons.extend_with_decoupled_weight_decay(tf.keras.optimizers.RMSprop)
        opt = RMSpropW(weight_decay=1e-4, learning_rate=1e-3)

    `weight_decay` comes first, all others by name, `exclude_from_weight_decay` among them. It makes
    objects of `td.decouple(base_optimizer)`, or of the class itself if it is this library's. For a
    class to derive from take that one.

    Raises TypeError as `td.decouple` does.
    """
    own = issubclass(base_optimizer, Optimizer)
    return functools.partial(_extended, base_optimizer if own else decouple(base_optimizer))


def _extended(
    cls: type, weight_decay: Any, *, exclude_from_weight_decay: list | None = None, **kwargs: Any
) -> Any:
    given = dict(decay_coupling="independent") | kwargs
    optimizer = cls(weight_decay=weight_decay, **given)
    if exclude_from_weight_decay:
        optimizer.exclude_from_weight_decay(var_names=exclude_from_weight_decay)
    return optimizer


class DecoupledWeightDecayExtension:
    """Can't be derived from any more: it says what to write instead."""

    def __init_subclass__(cls, **kwargs: Any):
        base = next((b for b in cls.__bases__ if b is not DecoupledWeightDecayExtension), None)
        name = "an optimizer class" if base is None else f"tf.keras.optimizers.{base.__name__}"
        raise TypeError(
            "DecoupledWeightDecayExtension can't be mixed into Keras 3's optimizers. Write "
            f"`td.addons.extend_with_decoupled_weight_decay({name})`, or, to derive from it, "
            f"`td.decouple({name})` with `decay_coupling='independent'`. Received: "
            f"{cls.__name__}({', '.join(b.__name__ for b in cls.__bases__)})"
        )
