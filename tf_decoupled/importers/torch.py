"""From PyTorch: an optimizer that goes on where Adam, AdamW or SGD stands, or its state alone."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from tf_decoupled.engine import arguments, kinds
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.hyperparameters import is_variable
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Cell
from tf_decoupled.importers.layouts import torch_layout
from tf_decoupled.importers.resuming import build, check, resume, whole_state, without_momentum
from tf_decoupled.importers.torch_groups import (
    counterpart,
    options,
    parameter_names,
    state_dict_of_torch,
)
from tf_decoupled.masks import path_of
from tf_decoupled.optimizers.sgdw import SGDW

SLOTS = {"exp_avg": "m", "exp_avg_sq": "v", "max_exp_avg_sq": "v_max", "momentum_buffer": "m"}


def _names(where: Where, value: Any) -> Any:
    is_function = callable(value) and not inspect.isclass(value) and arguments.takes(value, 1)
    if not isinstance(value, Mapping) and not is_function:
        where.refuse(TypeError, "a mapping from path to PyTorch's name, or a callable", value)
    return value


StateDict = Annotated[Mapping[str, Any], state_dict_of_torch]
Names = Annotated[Mapping[str, str] | Callable[[str], str], _names]
Parameters = Annotated[
    Sequence[str] | None, kinds.optional(kinds.sequence(kinds.text, "a list of strings"))
]
Layout = Annotated[
    Callable[[Any, np.ndarray], np.ndarray],
    kinds.function(2, "a callable (variable, array) -> array"),
]
Flag = Annotated[bool | None, kinds.optional(kinds.flag)]
Count = Annotated[int | None, kinds.optional(kinds.whole("an integer >= 0", 0))]
Rate = Annotated[
    float | None, kinds.optional(kinds.limit("a finite number >= 0", lambda x: x >= 0))
]
Variables = Annotated[Sequence, kinds.variables]


@checked
def from_torch(
    state_dict: StateDict,
    variables: Variables,
    names: Names,
    *,
    parameters: Parameters = None,
    layout: Layout = torch_layout,
    decoupled: Flag = None,
    iterations: Count = None,
    **changed: Any,
) -> Optimizer:
    """The optimizer that goes on where a PyTorch Adam, AdamW or SGD stands.

    Its `param_groups` give the hyperparameters: AdamW's decay is decoupled (`td.AdamW`), Adam's and
    SGD's is L2 (`td.Adam(l2=)`, `td.SGD(l2=)`), and groups without decay are left out of it. The
    optimizer is built. The rate is the number that it was last; a schedule is for
    `learning_rate=`, under which momentum goes on exactly for one step: PyTorch's doesn't hold
    the rate, ours does.

    Args:
        state_dict: `optimizer.state_dict()`: "state" and "param_groups", arrays of any kind that
            `np.asarray` takes.
        variables: those that the optimizer is for, which have the trained values already.
        names, parameters, layout, iterations: see `torch_state`.
        decoupled: True for AdamW, False for Adam, where decay is not 0 and the file, written by
            PyTorch before 2.6, doesn't say.
        changed: arguments of the optimizer in place of PyTorch's.

    Raises ValueError for groups that differ in more than whether they decay, for `dampening`,
    `maximize` and options unknown here, and as `torch_state` does; state that doesn't fit is
    listed.
    """
    if "param_groups" not in state_dict:
        raise ValueError(
            "Hyperparameters stand in the `param_groups` of a whole state_dict. Make the optimizer "
            "and load `td.importers.torch_state`. "
            "Received: `state_dict`, a mapping with the keys "
            f"{sorted(map(str, state_dict))[:5]}"
        )
    groups, by_key = state_dict["param_groups"], parameter_names(state_dict, parameters)
    common, λ = options(groups)
    cls, given = counterpart(common, λ, decoupled)
    optimizer = cls(**{**given, **changed})
    plain = {by_key[key] for g in groups if float(g["weight_decay"]) != λ for key in g["params"]}
    torch_names = _torch_names([path_of(v) for v in variables], names)
    left_out = [v for v in variables if torch_names[path_of(v)] in plain]
    build(optimizer, variables, [] if "decay_mask" in changed else left_out)
    if state_dict["state"]:
        scheduled = callable(changed.get("learning_rate"))
        told = dict(learning_rate=common["lr"] if scheduled else float(optimizer.learning_rate))
        told |= dict(parameters=parameters, layout=layout, iterations=iterations)
        resume(optimizer, torch_state(state_dict, optimizer, names, **told))
    return optimizer


@checked
def torch_state(
    state_dict: StateDict,
    optimizer: Optimizer,
    names: Names,
    *,
    parameters: Parameters = None,
    layout: Layout = torch_layout,
    learning_rate: Rate = None,
    iterations: Count = None,
) -> dict[str, np.ndarray]:
    """The state of a PyTorch Adam, AdamW or SGD under the names of `optimizer`: for `set_state`.

        names = {"net/fc1/kernel": "fc1.weight", "net/fc1/bias": "fc1.bias"}
        opt.set_state(td.importers.torch_state(state_dict, opt, names))

    Slots, steps and the rate, where it is a number here too, are PyTorch's; all else stays as it
    is in `optimizer`.

    Args:
        state_dict: entries by parameter name, `{"fc1.weight": {"step": 10, "exp_avg": array,
            "exp_avg_sq": array}}`, or all of `optimizer.state_dict()`, entries by number.
        optimizer: a built `td.AdamW`, `td.Adam`, `td.SGDW` or `td.SGD`.
        names: PyTorch's name of each variable, by path; a callable path -> name, too.
        parameters: the names in the order in which PyTorch's optimizer got them, where entries
            are numbered and `param_groups` have no "param_names".
        layout: (variable, array) -> array in the variable's layout.
        learning_rate: η of the next step, by which momentum buffers are multiplied; by default
            that of `param_groups`, or of `optimizer`. Needed if a schedule computes it here:
            momentum then goes on exactly for one step, as ours holds the rate.
        iterations: the updates done, which SGD doesn't count; by default those of `optimizer`.

    Raises ValueError for parameters with different steps, groups as in `from_torch`, and variables
    without a name; state that doesn't fit is left to `set_state`.
    """
    check(optimizer)
    by_key = parameter_names(state_dict, parameters)
    entries = state_dict["state"] if "param_groups" in state_dict else state_dict
    entries = {by_key.get(key, str(key)): entry for key, entry in entries.items()}
    torch_names = _torch_names([cell.path for cell in optimizer.cells], names)
    cells = {torch_names[cell.path]: cell for cell in optimizer.cells}
    slots = _slots(entries, cells, layout)
    steps = {name: int(entry["step"]) for name, entry in entries.items() if "step" in entry}
    updates = _updates(steps, iterations, int(optimizer.iterations.numpy()))
    rate = learning_rate
    if rate is None and "param_groups" in state_dict:
        rate = options(state_dict["param_groups"])[0]["lr"]
    if isinstance(optimizer, SGDW) and not without_momentum(optimizer):
        η = _rate_of_momentum(optimizer, rate, told=learning_rate is not None)
        slots = {name: η * a if name.endswith(":m") else a for name, a in slots.items()}
    return whole_state(optimizer, slots, updates, rate)


def _slots(
    entries: Mapping[str, Mapping], cells: Mapping[str, Cell], layout: Callable
) -> dict[str, np.ndarray]:
    """Arrays named as ours; what no variable takes keeps its name there."""
    slots = {}
    for name, entry in entries.items():
        for key, value in entry.items():
            if value is None or (key == "step" and name in cells):
                continue
            array = np.asarray(value)
            if name in cells and key in SLOTS:
                cell = cells[name]
                slots[f"{cell.path}:{SLOTS[key]}"] = np.asarray(layout(cell.variable, array))
            else:
                slots[f"{name}:{key}"] = array
    return slots


def _torch_names(paths: Sequence[str], names: Any) -> dict[str, str]:
    """PyTorch's name of each path; all must have one, of their own."""
    found = {path: names(path) if callable(names) else names.get(path) for path in paths}
    texts = all(isinstance(name, str) for name in found.values())
    if not texts or len(set(found.values())) < len(found):
        raise ValueError(
            f"`names` must give each variable a PyTorch name of its own. Received: {found}"
        )
    return found


def _updates(steps: Mapping[str, int], iterations: int | None, own: int) -> int:
    counts = {*steps.values(), *(() if iterations is None else (iterations,))}
    if len(counts) > 1:
        raise ValueError(
            "One number of updates, `iterations`, corrects the bias of all averages here, so all "
            "parameters must have made the same number of steps. Received: "
            f"{steps}, iterations={iterations}"
        )
    return counts.pop() if counts else own


def _rate_of_momentum(optimizer: Optimizer, rate: float | None, told: bool) -> float:
    """η of the next step, which stands inside of our momentum."""
    if not (told or is_variable(optimizer.given.learning_rate)):
        raise ValueError(
            "PyTorch's momentum doesn't hold the learning rate, ours does, and under a schedule "
            "the two go on differently after the next step. To accept that, pass the rate of the "
            "next step, `learning_rate=`. "
            f"Received: learning_rate={optimizer.given.learning_rate!r}"
        )
    return float(optimizer.learning_rate) if rate is None else rate
