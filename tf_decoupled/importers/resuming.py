"""The optimizer that goes on: which ones can, how they are built, and their state made whole."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from tf_decoupled.engine import kinds
from tf_decoupled.engine.hyperparameters import is_variable
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.optimizers.rmsprop import RMSpropW
from tf_decoupled.optimizers.sgdw import SGDW

Flag = Annotated[bool | None, kinds.optional(kinds.flag)]
Count = Annotated[int | None, kinds.optional(kinds.whole("an integer >= 0", 0))]
Rate = Annotated[
    float | None, kinds.optional(kinds.limit("a finite number >= 0", lambda x: x >= 0))
]


def rule_of(optimizer: Any, rules: Iterable[type[Optimizer]]) -> type[Optimizer]:
    """The one of these rules that the optimizer is. Raises TypeError for all others."""
    rules = list(rules)
    found = next((rule for rule in rules if isinstance(optimizer, rule)), None)
    if found is None or not optimizer.built:
        raise TypeError(
            f"From here, state is imported into {_names(rules)}, nothing around them, once built: "
            "`opt.build(model.trainable_variables)`. "
            f"Received: optimizer={optimizer!r}, built={getattr(optimizer, 'built', None)}"
        )
    return found


def _names(rules: Sequence[type[Optimizer]]) -> str:
    """The public names of the rules, and of those with other defaults made from them."""
    own = [rule for rule in rules for rule in (rule, *rule.__subclasses__())]
    names = [f"td.{rule.__name__}" for rule in own if rule.__module__.startswith("tf_decoupled.")]
    return ", ".join(sorted(set(names), key=str.lower))


def build(optimizer: Optimizer, variables: Sequence, left_out: Sequence) -> None:
    """Builds, with `left_out` not decaying; without any, the mask decides."""
    if left_out:
        optimizer.exclude_from_weight_decay(var_list=left_out)
    optimizer.build(variables)
    excluded = [cell.path for cell in optimizer.cells if not cell.decays]
    if left_out and len(excluded) != len(left_out):
        raise ValueError(
            "Paths are too alike to tell those that decay from those that don't. Pass "
            f"`decay_mask=`. Received: {len(left_out)} that don't, which fit all of {excluded}"
        )


def resume(optimizer: Optimizer, state: Mapping[str, np.ndarray]) -> None:
    """Loads a state, but no hyperparameters: they were given to the constructor."""
    own = optimizer.hyperparameter_variables()
    optimizer.set_state({**state, **{name: variable.numpy() for name, variable in own.items()}})


def refuse_unless_told(
    changed: Mapping[str, Any], argument: str, differs: bool, why: str, received: str
) -> None:
    """Raises for what would go on otherwise here, unless the caller says what it is to be."""
    if differs and argument not in changed:
        raise ValueError(
            f"{why} This can't be taken over exactly: pass `{argument}=`, what it is to be here. "
            f"Received: {received}"
        )


def whole_state(
    optimizer: Optimizer, slots: Mapping[str, np.ndarray], updates: int, rate: float | None
) -> dict[str, np.ndarray]:
    """The imported slots, count and rate; all else, but for slots that count, as it is."""
    idle = {"m"} if without_momentum(optimizer) else set()
    needed = {
        f"{cell.path}:{name}" for cell in optimizer.cells for name in cell.slots if name not in idle
    }
    if updates and needed and not slots:
        raise ValueError(
            "There are no slots to import, as of SGD without momentum. "
            f"Received: {updates} updates for a {type(optimizer).__name__} that needs slots"
        )
    state = {name: a for name, a in optimizer.get_state().items() if name not in needed}
    state["iterations"] = np.int64(updates)
    if rate is not None and "learning_rate" in state:
        state["learning_rate"] = np.float32(rate)
    return state | {name: np.asarray(array, np.float32) for name, array in slots.items()}


def without_momentum(optimizer: Optimizer) -> bool:
    """Whether the optimizer has a slot m that doesn't count."""
    return isinstance(optimizer, (SGDW, RMSpropW)) and float(optimizer.momentum) == 0.0


def with_variance(optimizer: Optimizer, slots: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """v of a centered RMSprop from the mean square: v − a². Elsewhere the slots as they are."""
    if not (isinstance(optimizer, RMSpropW) and optimizer.centered):
        return slots
    changed = {}
    for cell in optimizer.cells:
        v, a = slots.get(f"{cell.path}:v"), slots.get(f"{cell.path}:a")
        if v is not None and a is not None:
            changed[f"{cell.path}:v"] = np.maximum(v - np.square(a), 0)
    return slots | changed


def for_each_cell(optimizer: Optimizer, slot: str, value: Any) -> dict[str, np.ndarray]:
    """One value of all variables as that of each."""
    return {f"{cell.path}:{slot}": np.asarray(value, np.float32) for cell in optimizer.cells}


def times_rate(
    optimizer: Optimizer, slots: Mapping[str, np.ndarray], rate: float | None, told: bool
) -> dict[str, np.ndarray]:
    """Momentum that doesn't hold the rate, multiplied by η of the next step, as ours holds it."""
    if without_momentum(optimizer):
        return dict(slots)
    if not (told or is_variable(optimizer.given.learning_rate)):
        raise ValueError(
            "That momentum doesn't hold the learning rate, ours does, and under a schedule the two "
            "go on differently after the next step. To accept that, pass the rate of the next "
            "step, `learning_rate=`. "
            f"Received: learning_rate={optimizer.given.learning_rate!r}"
        )
    η = float(optimizer.learning_rate) if rate is None else rate
    return {name: η * a if name.endswith(":m") else a for name, a in slots.items()}


def one_count(counts: Mapping[str, int], iterations: int | None, own: int) -> int:
    """The number of updates that all counters agree about; without any, our own."""
    values = {*counts.values(), *(() if iterations is None else (iterations,))}
    if len(values) > 1:
        raise ValueError(
            "One number of updates, `iterations`, corrects the bias of all averages here, so all "
            "parameters must have made the same number of steps. Received: "
            f"{dict(counts)}, iterations={iterations}"
        )
    return values.pop() if values else own
