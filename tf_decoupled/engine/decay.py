"""How much a variable decays in one step: δ(θ) = κ_t θ, with θ the value before the step.

    coupling            κ_t                         whose convention
    "learning_rate"     lr_t λ_t                    Keras, PyTorch, optax, Hugging Face
    "schedule"          (lr_t / base) λ_t           Loshchilov & Hutter, algorithms 1 and 2
    "independent"       λ_t                         TensorFlow Addons
    "corrected"         (lr_t² / base) λ_t          AdamC, timm

`base` is the schedule's peak, or the constructor's learning rate, so lr_t / base is the paper's
schedule multiplier η_t.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.hyperparameters import Hyperparameter, is_variable
from tf_decoupled.schedules import peak_of

COUPLINGS: dict[str, Callable[..., tf.Tensor]] = {
    "learning_rate": lambda lr, base, λ: lr * λ,
    "schedule": lambda lr, base, λ: lr / base * λ,
    "independent": lambda lr, base, λ: λ,
    "corrected": lambda lr, base, λ: lr * (lr / base) * λ,
}
WRITTEN = {  # the same, as `print(optimizer)` shows it
    "learning_rate": "lr λ θ",
    "schedule": "(lr / base) λ θ",
    "independent": "λ θ",
    "corrected": "(lr² / base) λ θ",
}
NEED_BASE = ("schedule", "corrected")


def interpret(given: dict[str, Any]) -> dict[str, Any]:
    """The constructor's arguments with the base filled in; raises where they don't fit."""
    λ = 0.0 if given["weight_decay"] is None else given["weight_decay"]
    name, base = coupling(given["decay_coupling"], λ), given["base_learning_rate"]
    derived = base_rate(given["learning_rate"]) if base is None else base
    check_base(name, derived, given["learning_rate"])
    if not callable(given["learning_rate"]):
        base = derived  # a number, which must outlive later assignments to the rate
    return given | dict(weight_decay=λ, base_learning_rate=base)


def check_replaced(given: Mapping[str, Any], name: str, value: Any) -> None:
    """Raises where another kind of decay brings a coupling that divides by an unknown base."""
    if name == "weight_decay":
        base = given["base_learning_rate"]
        base = base_rate(given["learning_rate"]) if base is None else base
        base = base.numpy().item() if is_variable(base) else base
        check_base(coupling(given["decay_coupling"], value), base, given["learning_rate"])


class Coupling(Hyperparameter):
    """`decay_coupling`: None, the default, goes with the decay that there is, also a later one."""

    def present(self, given: Any, iterations: Any) -> str:
        return coupling(given.decay_coupling, given.weight_decay)


def coupling(name: str | None, weight_decay: Any) -> str:
    """The coupling's name, checked; None chooses the paper's for a `NormalizedDecay`."""
    if name is None:
        return "schedule" if isinstance(weight_decay, NormalizedDecay) else "learning_rate"
    if not isinstance(name, str) or name not in COUPLINGS:
        raise ValueError(
            f"`decay_coupling` must be one of {', '.join(map(repr, COUPLINGS))}. "
            f"Received: decay_coupling={name!r}"
        )
    return name


def base_rate(learning_rate: Any) -> Any:
    """The rate of which lr_t is a multiple: a number or tensor, or None where it can't be known."""
    if isinstance(learning_rate, (int, float)):
        return float(learning_rate)
    try:
        return peak_of(learning_rate) if isinstance(learning_rate, LearningRateSchedule) else None
    except AttributeError:
        return None


def check_base(name: str, base: Any, learning_rate: Any) -> None:
    """Raises where the coupling divides by a base that is unknown or zero."""
    if name not in NEED_BASE or (base is not None and not _is_zero(base)):
        return
    raise ValueError(
        f"`decay_coupling={name!r}` divides the learning rate by its base, the schedule's peak, "
        f"which is {'zero' if base is not None else 'not known'} here. Pass "
        f"`base_learning_rate=`. Received: learning_rate={learning_rate!r}"
    )


def _is_zero(base: Any) -> bool:
    return isinstance(base, (int, float)) and base == 0


def _restarts(where: Where, value: Any) -> Any:
    if inspect.isclass(value) or not hasattr(value, "cycle_length"):
        words = "a td.schedules.CosineRestarts, whose cycles have a length"
        where.refuse(TypeError, words, value)
    return value


POSITIVE = "a positive number"
Rate = Annotated[float, kinds.limit(POSITIVE, lambda x: x >= 0, POSITIVE)]  # it may be 0
Size = Annotated[float, kinds.limit(POSITIVE, lambda x: x > 0, POSITIVE)]
Restarts = Annotated[Any, kinds.optional(_restarts)]


@keras.saving.register_keras_serializable("tf_decoupled")
class NormalizedDecay(LearningRateSchedule):
    """A weight decay that keeps its meaning when the length of training changes.

        λ = rate · √(b / (B T))

    b: batch size, B: training examples per epoch, T: epochs, so λ = rate / √(number of updates).
    With `restarts=CosineRestarts(...)`, T is the length of the current restart (AdamWR, SGDWR).
    Its natural coupling, and default, is "schedule": θ loses η_t λ θ a step.

    Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019, section 3 and appendix B.1.
    arXiv:1711.05101
    """

    @checked
    def __init__(
        self,
        rate: Rate,
        batch_size: Size,
        train_size: Size,
        epochs: Size = None,
        *,
        restarts: Restarts = None,
    ):
        if (epochs is None) == (restarts is None):
            raise ValueError(
                "NormalizedDecay needs the length of training: either `epochs=`, or `restarts=` "
                f"for that of each restart. Received: epochs={epochs!r}, restarts={restarts!r}"
            )
        self.rate, self.batch_size, self.train_size = rate, batch_size, train_size
        self.epochs, self.restarts = epochs, restarts

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        b, B = float(self.batch_size), float(self.train_size)
        if self.restarts is None:
            return tf.constant(self.rate * math.sqrt(b / (B * self.epochs)), tf.float32)
        T = self.restarts.cycle_length(step) * (b / B)
        return self.rate * tf.sqrt(b / (B * T))

    def get_config(self) -> dict[str, Any]:
        return dict(
            rate=self.rate,
            batch_size=self.batch_size,
            train_size=self.train_size,
            epochs=self.epochs,
            restarts=keras.saving.serialize_keras_object(self.restarts),
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "NormalizedDecay":
        restarts = keras.saving.deserialize_keras_object(config["restarts"])
        return cls(**{**config, "restarts": restarts})
