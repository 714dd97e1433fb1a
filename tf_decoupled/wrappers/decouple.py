"""Decoupled weight decay for the optimizer classes of Keras."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Annotated, Any

import keras
import tensorflow as tf

from tf_decoupled import masks
from tf_decoupled.engine import decay, registry, replicas
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.hyperparameters import Hyperparameter, Scalar, resolve, serialize
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import tf_variable
from tf_decoupled.schedules.schedule import Schedule

ADDED = ("decay_coupling", "decay_mask", "base_learning_rate")  # to Keras's own arguments


class DecoupledDecay:
    """Mixed into a Keras optimizer class by `decouple`: θ ← (Keras's step of θ) − δ(θ).

    δ reads θ from before the step, so rules that look at θ see what they see without decay.
    """

    keras_class: type
    decay_variable: Any = None
    weight_decay = Hyperparameter("weight_decay", Scalar, 0.0)

    def __init__(self, *args: Any, **kwargs: Any):
        added = {name: kwargs.pop(name, None) for name in ADDED}
        bound = inspect.signature(self.keras_class).bind(*args, **kwargs)
        bound.apply_defaults()
        self._check(bound.arguments)
        super().__init__(*args, **kwargs)
        given = {name: bound.arguments[name] for name in ("learning_rate", "weight_decay")}
        given = decay.interpret(given | added)
        # A variable attribute is Keras's way to have it saved with the state.
        self.decay_variable = vars(DecoupledDecay)["weight_decay"].bind(given["weight_decay"], self)
        self.given = SimpleNamespace(**given | {"weight_decay": self.decay_variable})
        self.given.decay_mask = masks.as_mask(given["decay_mask"])
        self.decaying = SimpleNamespace(refs=frozenset())

    def _check(self, given: Mapping[str, Any]) -> None:
        """Raises for what Keras's class takes and can't have here."""
        rate = given["learning_rate"]
        if isinstance(rate, Schedule) and any(each.kept is not None for _, each in rate.tree()):
            raise TypeError(
                f"{type(self).__name__} saves nothing that a schedule remembers, as Plateau does: "
                f"take an optimizer of this library. Received: learning_rate={rate!r}"
            )
        default = inspect.signature(self.keras_class).parameters.get("adam_weight_decay")
        if default is not None and given["adam_weight_decay"] != default.default:
            raise TypeError(
                f"{type(self).__name__} has one decay for all variables, `weight_decay`. "
                "td.Partition has one for each member: td.Partition([(mask, td.Muon()), (None, "
                f"td.AdamW())]). Received: adam_weight_decay={given['adam_weight_decay']!r}"
            )

    def build(self, variables: Sequence) -> None:
        if self.built:
            return
        mask = self.given.decay_mask
        masks.settle(mask, variables)
        decaying = [tf_variable(v) for v in variables if masks.decide(mask, v).decays]
        self.decaying.refs = frozenset(
            c.ref() for v in decaying for c in (v, *replicas.components(v))
        )
        super().exclude_from_weight_decay(var_list=list(variables))  # from Keras's own decay
        super().build(variables)

    def update_step(self, gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
        if tf_variable(variable).ref() not in self.decaying.refs:
            super().update_step(gradient, variable, learning_rate)
            return
        θ = tf.identity(variable)
        super().update_step(gradient, variable, learning_rate)
        variable.assign_sub(tf.cast(self.decay_at(learning_rate), θ.dtype) * θ)

    def holder_of(self, name: str) -> Any:
        return self

    def check_assigned(self, name: str, value: Any, replaced: bool = False) -> None:
        """Any decay may follow another, and before the build replace another kind."""
        if replaced:
            decay.check_replaced(vars(self.given), name, value)

    @property
    def variables(self) -> list:
        """Keras's, without that of a decay which was replaced before the build."""
        old = self.decay_variable
        return [v for v in super().variables if v is not old or v is self.given.weight_decay]

    def decay_at(self, learning_rate: Any) -> tf.Tensor:
        """κ_t of this step, in float32."""
        base = self.given.base_learning_rate
        base = decay.base_rate(self.given.learning_rate) if base is None else base
        λ = tf.cast(resolve(self.given.weight_decay, self.iterations), tf.float32)
        coupling = decay.coupling(self.given.decay_coupling, self.given.weight_decay)
        return decay.COUPLINGS[coupling](tf.cast(learning_rate, tf.float32), base, λ)

    def exclude_from_weight_decay(
        self, var_list: Sequence | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """As in Keras, but it raises once built, calls add up, and it is saved with the mask."""
        masks.exclude_more(self, self.given, var_list, var_names)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return config | {n: serialize(getattr(self.given, n)) for n in ("weight_decay", *ADDED)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Any:
        load = functools.partial(
            keras.saving.deserialize_keras_object, custom_objects=custom_objects
        )
        return cls(**{k: load(v) if isinstance(v, dict) else v for k, v in config.items()})

    def __reduce__(self) -> tuple:
        """As Keras copies and pickles optimizers; the class is made again from Keras's."""
        return registry.copied(self._reduced)

    def _reduced(self) -> tuple:
        load, saved = super().__reduce__()
        # Keras's is a method of the class, that which scikeras puts in its place a function.
        is_method = getattr(load, "__self__", None) is type(self)
        return _loaded, (self.keras_class, load.__name__ if is_method else load, saved)


def _loaded(keras_class: type, load: str | Callable, saved: tuple) -> Any:
    cls = decouple(keras_class)
    return (getattr(cls, load) if isinstance(load, str) else load)(*saved)


def _keras_class(where: Where, value: Any) -> type:
    if not (inspect.isclass(value) and issubclass(value, keras.optimizers.Optimizer)):
        raise TypeError(
            "`decouple` needs a Keras optimizer class, as tf.keras.optimizers.RMSprop (the class, "
            f"not an instance). Received: {where.name}={value!r}"
        )
    return value


KerasClass = Annotated[type[keras.optimizers.Optimizer], _keras_class]


@checked
@functools.cache
def decouple(keras_class: KerasClass) -> type[keras.optimizers.Optimizer]:
    """A subclass of a Keras optimizer class, with decoupled weight decay.

        RMSpropW = td.decouple(tf.keras.optimizers.RMSprop)
        opt = RMSpropW(1e-3, weight_decay=0.01, decay_mask=td.masks.matrices)

    It takes the class's own arguments, and `weight_decay` (live), `decay_coupling`, `decay_mask`
    and `base_learning_rate` as `td.Optimizer` does. All else stays Keras's: its state layout, its
    accumulation and clipping, and one op at a time where Keras doesn't use XLA. For a class of
    your own, call `decouple` before loading a model that uses it; Keras's are known on import.

    Raises TypeError for what is no Keras optimizer class, for this library's own (their decay is
    decoupled already) and for Keras's wrappers around other optimizers.
    """
    if issubclass(keras_class, (Optimizer, DecoupledDecay)):
        raise TypeError(
            f"{keras_class.__name__} has decoupled weight decay already: pass `weight_decay=`. "
            f"Received: keras_class={keras_class!r}"
        )
    if not _has_own_decay(keras_class):
        raise TypeError(
            f"{keras_class.__name__} has no rate and decay of its own: decouple the class of the "
            f"optimizer inside it. Received: keras_class={keras_class!r}"
        )
    name = f"Decoupled{keras_class.__name__}"
    body = {"keras_class": keras_class, "__doc__": f"{keras_class.__name__}, decoupled."}
    cls = type(name, (DecoupledDecay, keras_class), body)
    if keras_class.__module__.partition(".")[0] != "keras":
        cls.__module__ = keras_class.__module__
    return registry.register(cls, "tf_decoupled")


def _has_own_decay(keras_class: type) -> bool:
    parameters = inspect.signature(keras_class).parameters
    return "inner_optimizer" not in parameters and {"learning_rate", "weight_decay"} <= {
        *parameters
    }


# Keras's own are made on import, and stand here by name, so that files and pickles find them.
for _name, _class in vars(keras.optimizers).items():
    if inspect.isclass(_class) and _class.__name__ == _name and _has_own_decay(_class):
        globals()[f"Decoupled{_name}"] = decouple(_class)
