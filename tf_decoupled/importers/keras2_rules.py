"""Keras 2's optimizers and ours: which is which, by what names, and what differs."""

from collections.abc import Mapping
from typing import Any

import keras

from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.importers.resuming import refuse_unless_told
from tf_decoupled.optimizers.adadelta import Adadelta, AdadeltaW
from tf_decoupled.optimizers.adagrad import AdagradW
from tf_decoupled.optimizers.adam import Adam
from tf_decoupled.optimizers.adamax import Adamax, AdaMaxW
from tf_decoupled.optimizers.adamw import AdamW
from tf_decoupled.optimizers.ftrl import Ftrl
from tf_decoupled.optimizers.lamb import LAMB
from tf_decoupled.optimizers.nadamw import Nadam, NAdamW
from tf_decoupled.optimizers.rmsprop import RMSprop, RMSpropW
from tf_decoupled.optimizers.sgd import SGD
from tf_decoupled.optimizers.sgdw import SGDW
from tf_decoupled.schedules import InverseTime

SLOTS = {
    AdamW: {"m": "m", "v": "v", "vhat": "v_max"},
    SGDW: {"momentum": "m"},
    RMSpropW: {"rms": "v", "momentum": "m", "mg": "a"},
    AdagradW: {"accumulator": "n"},
    AdadeltaW: {"accum_grad": "squares", "accum_var": "steps"},
    AdaMaxW: {"m": "m", "v": "n"},
    NAdamW: {"m": "m", "v": "v"},
    Ftrl: {"accumulator": "n", "linear": "z"},
    LAMB: {"m": "m", "v": "v"},
}
CLASSES = {
    **{cls.__name__: cls for cls in (Adam, SGD, RMSprop, Adadelta, Adamax, Nadam, Ftrl)},
    "Adagrad": AdagradW,
    **{f"Addons>{cls.__name__}": cls for cls in (AdamW, SGDW, LAMB)},
}
INDEPENDENT = (AdamW, SGDW)  # of Addons: θ ← (1 − λ) θ, whatever the rate is


def counterpart(name: str, config: dict[str, Any], changed: Mapping) -> Optimizer:
    """Our optimizer for a class and a config of Keras 2, and for the caller's arguments."""
    if name not in CLASSES or "is_legacy_optimizer" in config:
        raise ValueError(
            f"Of Keras 2, {', '.join(CLASSES)} of `keras.optimizers.legacy` and of Addons can be "
            "imported; the newer optimizers of Keras 2.11 and later, and other classes, step and "
            f"save otherwise. Received: {name!r} with {sorted(config)}"
        )
    cls, arguments = CLASSES[name], dict(config)
    arguments.pop("name", None)
    arguments["learning_rate"] = _rate(cls, arguments, changed)
    if cls is Adam or cls is AdamW:
        arguments["epsilon_hat"] = True
    if cls is AdagradW:
        arguments["weight_decay"] = 0.0
    if cls is RMSprop:
        why = "Without momentum, Keras 2's RMSprop adds ε to the root, ours inside of it."
        outside = not arguments["momentum"] and arguments["epsilon"] != 0
        refuse_unless_told(changed, "epsilon", outside, why, f"RMSprop with {config}")
    if name.startswith("Addons>"):
        arguments |= _addons(cls, arguments)
    return cls(**arguments | dict(changed))


def _rate(cls: type, arguments: dict[str, Any], changed: Mapping) -> Any:
    """The rate, a number or a schedule. Nadam's `decay` is of its momentum."""
    rate, decay = arguments.pop("learning_rate"), arguments.pop("decay", 0.0)
    if cls is Nadam:
        arguments["momentum_decay"] = decay
        return rate
    if "learning_rate" in changed:
        return None
    if not isinstance(rate, Mapping):
        return InverseTime(rate, 1, decay) if decay else rate
    schedule = _schedule(rate)
    why = "A schedule that `decay` shrinks is none that Keras 3 has."
    refuse_unless_told(changed, "learning_rate", bool(decay), why, f"{rate!r}, decay={decay}")
    return schedule


def _schedule(rate: Mapping) -> keras.optimizers.schedules.LearningRateSchedule:
    """Keras 2's schedule in Keras 3, which has the same but that all have a name."""
    config = {name: value for name, value in rate.get("config", {}).items() if name != "name"}
    try:
        found = keras.optimizers.schedules.deserialize({**rate, "config": config})
    except (TypeError, ValueError):
        found = None
    if not isinstance(found, keras.optimizers.schedules.LearningRateSchedule):
        raise ValueError(
            f"Keras 3 doesn't know this schedule: pass `learning_rate=`. Received: {rate!r}"
        )
    return found


def _addons(cls: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Addons' decay. Pops what has another name here."""
    plain = arguments.pop("exclude_from_weight_decay", None)
    adapted = arguments.pop("exclude_from_layer_adaptation", None)
    if adapted:
        raise ValueError(
            "LAMB adapts the rate of all variables here. To accept that, load "
            "`td.importers.keras2_state` into an optimizer of your own. Received: "
            f"exclude_from_layer_adaptation={adapted}, by default those that don't decay"
        )
    own = dict(decay_mask=list(plain)) if plain else {}
    return own | (dict(decay_coupling="independent") if cls in INDEPENDENT else {})
