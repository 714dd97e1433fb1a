"""From Keras 3: an optimizer that goes on where one of Keras's stands, or its state alone."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import keras
import numpy as np

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import checked
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import tf_variable
from tf_decoupled.importers.keras_rules import CLASSES, KEEPERS, SLOTS, arguments, in_our_terms
from tf_decoupled.importers.keras_sources import load, optimizer_of, read
from tf_decoupled.importers.naming import aligned
from tf_decoupled.importers.resuming import build, resume, rule_of, whole_state

HALF_ULP = 2.0**-24  # of a float32


Variables = Annotated[Sequence | None, kinds.optional(kinds.variables)]


@checked
def from_keras(source: Any, variables: Variables = None, **changed: Any) -> Optimizer:
    """The optimizer that goes on where one of Keras 3 stands: our class of the same name.

        model = keras.models.load_model("begun.keras")
        model.compile(td.importers.from_keras(model), "mse")

    Adam, AdamW, SGD, RMSprop, Adagrad, Adadelta, Adamax, Nadam, Ftrl, Lion, Adafactor and Lamb.
    Taken over are all hyperparameters: rate (a number or a schedule), decay and what
    `exclude_from_weight_decay` left out of it, clips, averages, accumulation and loss scale. ε
    stands where Keras adds it (`epsilon_hat=True`), and Adafactor's rate is the smaller of Keras's
    and 1/√t. The optimizer is built. A Keras optimizer that isn't lends its hyperparameters. A file
    doesn't say what `exclude_from_weight_decay` left out, as Keras doesn't save it; `decay_mask=`
    does.

    Args:
        source: a compiled model, an optimizer, or the path of a `.keras` file.
        variables: those that the optimizer is for; by default those that a model trains.
        changed: arguments of the optimizer in place of Keras's, as `decay_mask=` or, for a callable
            rate, `learning_rate=`.

    Raises TypeError for other classes; ValueError for what can't go on exactly (a group of
    gradients half accumulated; a schedule of micro-steps; an average so young that its bias
    correction, which Keras's lacks, still counts; a decay of Adafactor, Ftrl or Lamb, which is
    another one here, unless `weight_decay=` says what it is to be) and for state that doesn't fit,
    listed.
    """
    loaded = load(source) if isinstance(source, (str, os.PathLike)) else source
    theirs = optimizer_of(loaded)
    if variables is None and not isinstance(source, keras.Model):
        raise ValueError(
            "`variables` must be given, those that the optimizer is for, unless the source is a "
            f"model. Received: source={source!r}, variables=None"
        )
    variables = list(source.trainable_variables) if variables is None else variables
    optimizer = CLASSES[type(theirs)](**arguments(theirs, changed))
    left_out = [] if "decay_mask" in changed else _not_decaying(theirs, variables)
    build(optimizer, variables, left_out)
    if theirs.built:
        resume(optimizer, keras_state(loaded, optimizer))
    return optimizer


@checked
def keras_state(source: Any, optimizer: Optimizer) -> dict[str, np.ndarray]:
    """The state of a Keras 3 optimizer under the names of `optimizer`: for `set_state`.

    Slots, `iterations` and the rate, where it is a number on both sides, are the source's; all
    else stays as it is in `optimizer`. Slots are found by the paths of their variables. Only a
    `.weights.h5` file has none: there they are read in the order in which Keras keeps them for the
    variables of `optimizer`. Hyperparameters but the rate are not: those of `optimizer` stay.

    Args:
        source: a compiled model; an optimizer on the same variables; the path of a `.keras` or
            `.weights.h5` file; or the prefix of a `tf.train.Checkpoint` with one Keras optimizer
            in it.
        optimizer: a built one of ours, of the classes that `from_keras` makes, or of those with a
            decay and the authors' defaults: `td.AdamW`, `td.RMSpropW`, `td.LAMB`, ...

    Raises as `from_keras` does, but for state that doesn't fit: that is left to `set_state`.
    """
    rule_of(optimizer, KEEPERS)
    found = read(source, optimizer)
    arrays = dict(found.arrays)
    calls, rate = int(arrays.pop("iteration")), arrays.pop("learning_rate", None)
    slots = aligned(_by_path(arrays, found.paths), [cell.path for cell in optimizer.cells])
    sums = [slots.pop(name) for name in list(slots) if name.endswith(":gradient_sum")]
    updates = _updates(calls, found.calls_per_update, sums)
    averages = [name for name in slots if name.endswith(":average")]
    if averages and optimizer.use_ema and updates:
        _check_averages(float(optimizer.ema_momentum), updates, accumulated=bool(sums))
    else:  # of nothing, or for nothing
        slots = {name: a for name, a in slots.items() if name not in averages}
    return whole_state(optimizer, in_our_terms(optimizer, slots), updates, rate)


def _not_decaying(theirs: keras.optimizers.Optimizer, variables: list) -> list:
    """What `exclude_from_weight_decay` left out: Keras tells it through one private method only."""
    if not hasattr(theirs, "_use_weight_decay"):
        raise NotImplementedError(
            f"Keras {keras.__version__} doesn't tell which variables decay. Pass `decay_mask=`."
        )
    return [v for v in variables if not theirs._use_weight_decay(tf_variable(v))]


def _updates(calls: int, k: int | None, sums: Sequence[np.ndarray]) -> int:
    """`iterations` from Keras's number of calls, k to an update, at the end of a group only."""
    if not sums:
        return calls
    if k is None or calls % k or any(np.any(total) for total in sums):
        raise ValueError(
            "Accumulated gradients can't be imported in the middle of a group. Import where one "
            "ends, into an optimizer with the same `gradient_accumulation_steps`. "
            f"Received: {calls} micro-steps, {k} to an update"
        )
    return calls // k


def _check_averages(β: float, updates: int, accumulated: bool) -> None:
    """Raises if Keras's averages would go on differently here.

    Both are a ← β_t a + (1 − β_t) θ, here with β_t = β (1 − βᵗ⁻¹) / (1 − βᵗ): equal to Keras's β in
    float32 once βᵗ ≤ 2⁻²⁴. Keras's count micro-steps.
    """
    if accumulated or β**updates > HALF_ULP:
        raise ValueError(
            "Keras's averages have no bias correction and count micro-steps: they go on exactly "
            "where gradients don't accumulate, after t updates with ema_momentumᵗ ≤ 2⁻²⁴. "
            "`use_ema=False` leaves them behind. "
            f"Received: t={updates}, ema_momentum={β:g}, accumulated={accumulated}"
        )


def _by_path(arrays: Mapping[str, np.ndarray], paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays named as ours: "dense/kernel:m" for "dense_kernel_momentum"; others keep their name.

    Keras joins a path by underscores, and writes "w_0" for a bare `tf.Variable` "w".
    """
    ours: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        flat = path.replace("/", "_")
        for theirs, name in SLOTS.items():
            ours[f"{flat}_{theirs}"].append(f"{path}:{name}")
            ours[f"{flat}_0_{theirs}"].append(f"{path}:{name}")
    unclear = {name: ours[name] for name in arrays if len(ours[name]) > 1}
    if unclear:
        raise ValueError(
            f"Keras's names fit more than one variable: {unclear}. Name the layers apart."
        )
    return {(ours[name] or [name])[0]: array for name, array in arrays.items()}
