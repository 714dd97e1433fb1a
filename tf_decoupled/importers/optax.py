"""From optax: the state of an optimizer that goes on where a chain of transforms stands."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_decoupled.engine.checking import checked
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.persistence.naming import aligned_paths
from tf_decoupled.engine.state import Cell
from tf_decoupled.importers.layouts import LayoutOrNone
from tf_decoupled.importers.naming import Names, NamesOrNone, check_told, names_there
from tf_decoupled.importers.optax_files import state_of
from tf_decoupled.importers.optax_states import Read
from tf_decoupled.importers.resuming import (
    Count,
    Flag,
    Rate,
    for_each_cell,
    one_count,
    rule_of,
    times_rate,
    whole_state,
    with_variance,
)
from tf_decoupled.optimizers.adadelta import AdadeltaW
from tf_decoupled.optimizers.adagrad import AdagradW
from tf_decoupled.optimizers.adamax import AdaMaxW
from tf_decoupled.optimizers.adamw import AdamW
from tf_decoupled.optimizers.lamb import LAMB
from tf_decoupled.optimizers.lion import Lion
from tf_decoupled.optimizers.nadamw import NAdamW
from tf_decoupled.optimizers.radam import RAdam
from tf_decoupled.optimizers.rmsprop import RMSpropW
from tf_decoupled.optimizers.sgdw import SGDW

MOMENTS = {"mu": "m", "nu": "v"}
SLOTS = {
    AdamW: MOMENTS,
    SGDW: {"trace": "m"},
    RMSpropW: {"nu": "v", "mu": "a", "trace": "m"},
    AdagradW: {"sum_of_squares": "n"},
    AdadeltaW: {"e_g": "squares", "e_x": "steps"},
    AdaMaxW: {"mu": "m", "nu": "n"},
    NAdamW: MOMENTS,
    RAdam: MOMENTS,
    LAMB: MOMENTS,
    Lion: {"mu": "m"},
}
ROOT = "params/"  # what flax puts around its parameters
SHOWN = 8  # names in an error


@checked
def optax_state(
    state: Any,
    optimizer: Optimizer,
    names: NamesOrNone = None,
    *,
    layout: LayoutOrNone = None,
    trace_holds_rate: Flag = None,
    learning_rate: Rate = None,
    iterations: Count = None,
) -> dict[str, np.ndarray]:
    """The state of an optimizer of optax under the names of `optimizer`: for `set_state`.

        opt = td.AdamW(1e-3, 0.1)
        opt.build(model.trainable_variables)
        opt.set_state(td.importers.optax_state(opt_state, opt))

    A state of optax has arrays and counts only. Hyperparameters are not imported but for an
    injected `learning_rate`: make the optimizer with those that take the same steps.

        optax                     here
        adam, adamw               td.Adam, td.AdamW
        sgd                       td.SGD
        rmsprop                   td.RMSpropW, ε as in optax
        adagrad, adadelta         td.Adagrad, td.AdadeltaW
        adamax                    td.AdaMaxW; ε joins the maximum there, the sum here
        nadam, nadamw             td.NAdamW(momentum_decay=10_000.0)
        radam(threshold=4.0)      td.RAdam
        lamb, lion                td.LAMB, td.Lion

    Chains, masks, `multi_transform` and `inject_hyperparams` are looked through, and schedules
    leave their count. Other transforms with a state, amsgrad among them, are refused by name; flax
    doesn't write names, and there the fields tell.

    Args:
        state: what `init` and `update` return, in person (jax is not needed); or a file of it:
            `.pkl` or `.pickle`, of which nothing is run and only arrays, containers and optax's
            states are taken; or `.msgpack`, as `flax.serialization.to_bytes` writes it, which
            needs the package msgpack. A mapping in a file may have it as "opt_state".
        optimizer: a built one of ours, of the classes above, or of the same rule with other
            defaults.
        names: the path of each variable in optax's tree, as "Dense_0/kernel", by path here; a
            callable path -> path, too. Without, trees fit if their paths end as those here; if
            they are flat and all shapes come in the same order; or if no two shapes are equal.
        layout: (variable, array) -> array in the variable's layout, as for equinox, whose kernels
            are (out, in). Without, arrays are taken as they are, as flax and haiku have them.
        trace_holds_rate: whether the rate stands before the trace of momentum in its chain, as in
            `rmsprop`, or after it, as in `sgd`, where the chain doesn't tell.
        learning_rate: η of the next step, by which a trace that doesn't hold it is multiplied; by
            default the injected one, or that of `optimizer`. Needed if a schedule computes it
            here: momentum then goes on exactly for one step, as ours holds the rate.
        iterations: the updates done, where nothing counts them; by default those of `optimizer`.

    Raises ValueError for states that are unknown, for counts that differ, and for parameters that
    can't be told apart; state that doesn't fit is left to `set_state`.
    """
    rule = rule_of(optimizer, SLOTS)
    read = Read(state_of(state))
    slots = _slots(read, optimizer, SLOTS[rule], names, layout)
    updates = one_count(read.counts, iterations, int(optimizer.iterations.numpy()))
    rate = read.numbers.get("learning_rate") if learning_rate is None else learning_rate
    if read.inside:
        if _holds_rate(read, trace_holds_rate):  # and the sign of a descent
            slots = {name: -a if name.endswith(":m") else a for name, a in slots.items()}
        else:
            slots = times_rate(optimizer, slots, rate, told=learning_rate is not None)
    if rule is NAdamW:
        slots |= for_each_cell(optimizer, "product", _product(optimizer, updates))
    return whole_state(optimizer, with_variance(optimizer, slots), updates, rate)


def _slots(
    read: Read,
    optimizer: Optimizer,
    own: Mapping[str, str],
    names: Names | None,
    layout: Callable | None,
) -> dict[str, np.ndarray]:
    """Arrays named as ours; what no variable takes keeps its name there."""
    shapes = {path: a.shape for tree in read.trees.values() for path, a in tree.items()}
    cells = _matched(shapes, list(optimizer.cells), names) if shapes else {}
    slots = {}
    for field, tree in read.trees.items():
        for path, array in tree.items():
            if path not in cells or field not in own:
                slots[f"{path}:{field}"] = array
                continue
            cell = cells[path]
            array = array if layout is None else np.asarray(layout(cell.variable, array))
            slots[f"{cell.path}:{own[field]}"] = array
    return slots


def _matched(
    shapes: Mapping[str, tuple[int, ...]], cells: Sequence[Cell], names: Names | None
) -> dict[str, Cell]:
    """The cell of each of optax's paths: told, or by names, order or shapes that leave no doubt."""
    if names is not None:
        there = names_there([cell.path for cell in cells], names, "optax")
        check_told(there.values(), shapes, "optax's tree")
        return {there[cell.path]: cell for cell in cells}
    by_path = {cell.path: cell for cell in cells}
    plain = {path.removeprefix(ROOT): path for path in shapes}
    pairs = {path: path for path in plain.keys() & by_path.keys()}
    pairs |= aligned_paths(plain, by_path)
    if len(plain) == len(shapes) == len(pairs):
        return {plain[path]: by_path[here] for path, here in pairs.items()}
    ours, theirs = [tuple(cell.variable.shape) for cell in cells], list(shapes.values())
    # jax sorts the keys of a dict as text: "10" before "2".
    flat = sorted((p for p in shapes if "/" not in p and p.isdecimal()), key=int)
    if len(flat) == len(shapes) and ours == [shapes[path] for path in flat]:
        return dict(zip(flat, cells, strict=True))
    if len(set(theirs)) == len(theirs) and sorted(ours) == sorted(theirs):
        return {path: cells[ours.index(shape)] for path, shape in shapes.items()}
    raise ValueError(
        "Which of optax's parameters is which variable can't be told from paths, order or shapes. "
        'Pass `names=`, a mapping as {"net/dense/kernel": "Dense_0/kernel"}; where axes are in '
        "another order, as (out, in), `layout=` as well. "
        f"Received: {_some(shapes)} for {_some(dict(zip(by_path, ours, strict=True)))}"
    )


def _some(shapes: Mapping[str, tuple[int, ...]]) -> str:
    shown = [f"{path} {shape}" for path, shape in list(shapes.items())[:SHOWN]]
    return ", ".join(shown) + (", ..." if len(shapes) > SHOWN else "")


def _holds_rate(read: Read, told: bool | None) -> bool:
    found = {told} if told is not None else set(read.inside)
    if len(found) > 1 or None in found:
        raise ValueError(
            "Whether momentum holds the rate can't be told: transforms without a state stand on "
            "both sides of its trace. Pass `trace_holds_rate=`, True if the rate is applied before "
            "the trace. Received: a state with "
            f"{len(read.inside)} {'traces' if len(read.inside) > 1 else 'trace'}"
        )
    return found.pop()


def _product(optimizer: NAdamW, updates: int) -> float:
    """Π of Nadam's μ, which is β₁ᵗ in optax: there is no ψ."""
    if float(optimizer.momentum_decay) < 1000:
        raise ValueError(
            "optax's Nadam has its whole momentum from the start: make the optimizer with "
            f"`momentum_decay=10_000.0`. Received: {float(optimizer.momentum_decay):g}"
        )
    return float(optimizer.beta_1) ** updates
