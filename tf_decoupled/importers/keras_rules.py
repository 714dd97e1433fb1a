"""Keras's optimizers and ours: which is which, by what names, and what differs."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.importers.resuming import for_each_cell, refuse_unless_told, with_variance
from tf_decoupled.optimizers.adadelta import Adadelta, AdadeltaW
from tf_decoupled.optimizers.adafactor import Adafactor
from tf_decoupled.optimizers.adagrad import Adagrad, AdagradW
from tf_decoupled.optimizers.adam import Adam
from tf_decoupled.optimizers.adamax import Adamax, AdaMaxW
from tf_decoupled.optimizers.adamw import AdamW
from tf_decoupled.optimizers.ftrl import Ftrl
from tf_decoupled.optimizers.lamb import LAMB, Lamb
from tf_decoupled.optimizers.lion import Lion
from tf_decoupled.optimizers.nadamw import Nadam, NAdamW
from tf_decoupled.optimizers.rmsprop import RMSprop, RMSpropW
from tf_decoupled.optimizers.sgd import SGD
from tf_decoupled.optimizers.sgdw import SGDW
from tf_decoupled.schedules import InverseSquareRoot

OURS = (Adam, AdamW, SGD, RMSprop, Adagrad, Adadelta, Adamax, Nadam, Ftrl, Lion, Adafactor, Lamb)
CLASSES = {getattr(keras.optimizers, ours.__name__): ours for ours in OURS}
# Those who keep the same, with whom `.weights.h5` files are read.
KEEPERS = {
    AdamW: (keras.optimizers.Adam, ("amsgrad",)),
    SGDW: (keras.optimizers.SGD, ("momentum",)),
    RMSpropW: (keras.optimizers.RMSprop, ("momentum", "centered")),
    AdagradW: (keras.optimizers.Adagrad, ()),
    AdadeltaW: (keras.optimizers.Adadelta, ()),
    AdaMaxW: (keras.optimizers.Adamax, ()),
    NAdamW: (keras.optimizers.Nadam, ()),
    Ftrl: (keras.optimizers.Ftrl, ()),
    Lion: (keras.optimizers.Lion, ()),
    Adafactor: (keras.optimizers.Adafactor, ()),
    LAMB: (keras.optimizers.Lamb, ()),
}
SLOTS = {
    "momentum": "m",
    "velocity": "v",
    "velocity_hat": "v_max",
    "average_gradient": "a",
    "accumulator": "n",
    "norm": "n",
    "linear": "z",
    "accumulated_grad": "squares",
    "accumulated_delta_var": "steps",
    "rows": "r",
    "columns": "c",
    "average": "average",
    "gradient_accumulator": "gradient_sum",
}
PRODUCT = "product"  # of Nadam's momenta, one for all variables


def arguments(theirs: keras.optimizers.Optimizer, changed: Mapping) -> dict[str, Any]:
    """Keras's hyperparameters as arguments of ours, and those of the caller in their place."""
    config = theirs.get_config()
    config["weight_decay"] = config["weight_decay"] or 0.0
    rate, k = config["learning_rate"], config["gradient_accumulation_steps"]
    if isinstance(rate, dict) and "learning_rate" not in changed:
        if k or rate["class_name"] in ("function", "__lambda__"):
            raise ValueError(
                "A callable can't be read from a Keras optimizer, and where gradients accumulate "
                "Keras's schedules count micro-steps, ours updates: pass `learning_rate=`. "
                f"Received: {rate!r}"
            )
        config["learning_rate"] = keras.saving.deserialize_keras_object(rate)
    if isinstance(theirs, keras.optimizers.Adam):
        config["epsilon_hat"] = True
    if isinstance(theirs, keras.optimizers.Adafactor):
        config = _adafactor(config, changed)
    _check_decay(theirs, config["weight_decay"], changed)
    return config | changed


def _adafactor(config: dict[str, Any], changed: Mapping) -> dict[str, Any]:
    """Keras takes the smaller of rate and 1/√t, whatever `relative_step` says."""
    rate = config["learning_rate"]
    scheduled = not isinstance(rate, (int, float))
    why = "Keras's Adafactor takes the smaller of its schedule and 1/√t, ours the schedule alone."
    refuse_unless_told(changed, "learning_rate", scheduled, why, f"learning_rate={rate!r}")
    config["decay_exponent"] = -config.pop("beta_2_decay")
    config.pop("relative_step")
    if "learning_rate" not in changed:
        config["learning_rate"] = InverseSquareRoot(rate)
    return config


def _check_decay(theirs: keras.optimizers.Optimizer, λ: float, changed: Mapping) -> None:
    name = type(theirs).__name__
    why = {
        "Adafactor": "Keras shrinks the weights by the rate without 1/√t before it measures them.",
        "Ftrl": "Keras's decay is undone by the next step, ours joins the sum z.",
        "Lamb": "Keras's decay stands outside of the trust ratio, ours inside.",
    }.get(name)
    refuse_unless_told(
        changed, "weight_decay", bool(why and λ), str(why), f"{name}(weight_decay={λ:g})"
    )


def in_our_terms(optimizer: Optimizer, slots: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keras's slots, already under our names, as our rules count them."""
    slots = dict(slots)
    if isinstance(optimizer, SGDW):
        slots = {name: -a if name.endswith(":m") else a for name, a in slots.items()}
    if isinstance(optimizer, NAdamW) and PRODUCT in slots:
        slots |= for_each_cell(optimizer, "product", slots.pop(PRODUCT))
    if isinstance(optimizer, Adafactor):  # Keras keeps places for all three of each
        own = {f"{cell.path}:{name}" for cell in optimizer.cells for name in cell.slots}
        spare = {f"{cell.path}:{name}" for cell in optimizer.cells for name in "rcv"} - own
        slots = {name: a for name, a in slots.items() if name not in spare}
    return with_variance(optimizer, slots)
