"""From PyTorch: an optimizer that goes on where one of PyTorch's stands, or its state alone."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.hyperparameters import is_variable
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Cell
from tf_decoupled.importers.layouts import Layout, torch_layout
from tf_decoupled.importers.naming import Names, names_there
from tf_decoupled.importers.resuming import (
    Count,
    Flag,
    Rate,
    build,
    one_count,
    resume,
    rule_of,
    times_rate,
    whole_state,
    with_variance,
)
from tf_decoupled.importers.torch_files import state_dict_of
from tf_decoupled.importers.torch_groups import checked_groups, options, parameter_names
from tf_decoupled.importers.torch_rules import SLOTS, check_start, counterpart, factored
from tf_decoupled.masks import path_of
from tf_decoupled.optimizers.rmsprop import RMSpropW
from tf_decoupled.optimizers.sgdw import SGDW


def _state_dict(where: Where, value: Any) -> Mapping[str, Any]:
    return checked_groups(where, state_dict_of(where, value))


StateDict = Annotated[Mapping[str, Any] | str | os.PathLike, _state_dict]
Parameters = Annotated[
    Sequence[str] | None, kinds.optional(kinds.sequence(kinds.text, "a list of strings"))
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
    """The optimizer that goes on where one of PyTorch stands, built.

        names = {"net/fc1/kernel": "fc1.weight", "net/fc1/bias": "fc1.bias"}
        opt = td.importers.from_torch("optimizer.pt", net.trainable_variables, names,
                                      parameters=["fc1.weight", "fc1.bias"])

        PyTorch               here                  what is converted
        AdamW                 td.AdamW              its decay is decoupled
        Adam, SGD             td.Adam, td.SGD       its decay is L2: `l2=`
        RMSprop, Adamax       td.RMSpropW, AdaMaxW  ε stands elsewhere: pass `epsilon=`
        Adagrad, Adadelta     td.AdagradW, ...      `lr_decay` is a schedule, InverseTime
        NAdam                 td.NAdamW             only with a decoupled decay, or none
        RAdam                 td.RAdam              the same, and as RMSprop
        Adafactor             td.Adafactor          λ is in units of the step, "independent"

    The `param_groups` give the hyperparameters; groups without decay are left out of it. The rate
    is the number that it was last; a schedule is for `learning_rate=`, under which momentum goes on
    exactly for one step: PyTorch's doesn't hold the rate, ours does. Adafactor's first ε is a floor
    of v there, 1.4e-14, which is not taken over.

    Args:
        state_dict: `optimizer.state_dict()`: "state" and "param_groups", arrays of any kind that
            `np.asarray` takes; or the path of a file of `torch.save` with it, itself or beside
            others in a mapping. It is read without PyTorch, and nothing in it is run.
        variables: those that the optimizer is for, which have the trained values already.
        names, parameters, layout, iterations: see `torch_state`.
        decoupled: True for AdamW, False for Adam, where decay is not 0 and the file, written by
            PyTorch before 2.6, doesn't say; the same for NAdam and RAdam.
        changed: arguments of the optimizer in place of PyTorch's.

    Raises ValueError for groups that differ in more than whether they decay, for `dampening`,
    `maximize` and options unknown here, for L2 and ε that are another thing here unless
    `weight_decay=` or `epsilon=` says what they are to be, and as `torch_state` does; state that
    doesn't fit is listed.
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
    optimizer = counterpart(common, λ, decoupled, changed)
    plain = {by_key[key] for g in groups if float(g["weight_decay"]) != λ for key in g["params"]}
    torch_names = names_there([path_of(v) for v in variables], names, "PyTorch")
    left_out = [v for v in variables if torch_names[path_of(v)] in plain]
    build(optimizer, variables, [] if "decay_mask" in changed else left_out)
    if state_dict["state"] or iterations is not None:
        number = is_variable(optimizer.given.learning_rate)
        told = dict(learning_rate=float(optimizer.learning_rate) if number else common["lr"])
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
    """The state of a PyTorch optimizer under the names of `optimizer`: for `set_state`.

        names = {"net/fc1/kernel": "fc1.weight", "net/fc1/bias": "fc1.bias"}
        opt.set_state(td.importers.torch_state(state_dict, opt, names))

    Slots, steps and the rate, where it is a number here too, are PyTorch's; all else stays as it
    is in `optimizer`: other hyperparameters are not imported. Which classes belong together, and
    what differs, says `from_torch`.

    Args:
        state_dict: entries by parameter name, `{"fc1.weight": {"step": 10, "exp_avg": array,
            "exp_avg_sq": array}}`, or all of `optimizer.state_dict()`, entries by number; or a
            file, as `from_torch` takes it.
        optimizer: a built one of ours, of the classes that `from_torch` makes, or of the same rule
            with other defaults.
        names: PyTorch's name of each variable, by path; a callable path -> name, too.
        parameters: the names in the order in which PyTorch's optimizer got them, where entries
            are numbered and `param_groups` have no "param_names".
        layout: (variable, array) -> array in the variable's layout.
        learning_rate: η of the next step, by which momentum buffers are multiplied; by default
            that of `param_groups`, or of `optimizer`. Needed if a schedule computes it here:
            momentum then goes on exactly for one step, as ours holds the rate.
        iterations: the updates done, which SGD doesn't count; by default those of `optimizer`.

    Raises ValueError for parameters with different steps, groups as in `from_torch`, variables
    without a name, an RAdam that hasn't rectified yet, and an Adafactor of convolutions; state that
    doesn't fit is left to `set_state`.
    """
    rule = rule_of(optimizer, SLOTS)
    by_key = parameter_names(state_dict, parameters)
    entries = state_dict["state"] if "param_groups" in state_dict else state_dict
    entries = {by_key.get(key, str(key)): entry for key, entry in entries.items()}
    torch_names = names_there([cell.path for cell in optimizer.cells], names, "PyTorch")
    cells = {torch_names[cell.path]: cell for cell in optimizer.cells}
    slots = _slots(entries, cells, SLOTS[rule], layout)
    steps = {name: int(entry["step"]) for name, entry in entries.items() if "step" in entry}
    updates = one_count(steps, iterations, int(optimizer.iterations.numpy()))
    check_start(optimizer, updates)
    rate = learning_rate
    if rate is None and "param_groups" in state_dict:
        rate = options(state_dict["param_groups"])[0]["lr"]
    if isinstance(optimizer, (SGDW, RMSpropW)):
        slots = times_rate(optimizer, slots, rate, told=learning_rate is not None)
    return whole_state(optimizer, with_variance(optimizer, slots), updates, rate)


def _slots(
    entries: Mapping[str, Mapping], cells: Mapping[str, Cell], names: Mapping, layout: Callable
) -> dict[str, np.ndarray]:
    """Arrays named as ours; what no variable takes keeps its name there."""
    slots = {}
    for name, entry in entries.items():
        cell = cells.get(name)
        entry = entry if cell is None else factored(cell, entry, layout)
        for key, value in entry.items():
            if value is None or (key == "step" and cell is not None):
                continue
            array = np.asarray(value)
            if cell is None or key not in names:
                slots[f"{name}:{key}"] = array
                continue
            whole = array.ndim == len(cell.variable.shape)
            array = np.asarray(layout(cell.variable, array)) if whole else array
            slots[f"{cell.path}:{names[key]}"] = array
    return slots
