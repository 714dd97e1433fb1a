"""The states of optax's transforms: what is in each, and what a whole tree of them says.

A state is a named tuple. Where flax has written it, it is a mapping of the same fields, and a chain
is one of "0", "1", ...; the class is told by the fields then.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

FIELDS = {
    "EmptyState": (),
    "ScaleState": (),
    "IdentityState": (),
    "MaskedNode": (),
    "ScaleByScheduleState": ("count",),
    "WeightDecaySchedule": ("count",),
    "WrappedScheduleState": ("count",),
    "ScaleByAdamState": ("count", "mu", "nu"),
    "ScaleByLionState": ("count", "mu"),
    "ScaleByRmsState": ("nu",),
    "ScaleByRStdDevState": ("mu", "nu"),
    "ScaleByRssState": ("sum_of_squares",),
    "ScaleByAdaDeltaState": ("e_g", "e_x"),
    "TraceState": ("trace",),
    "MaskedState": ("inner_state",),
    "PartitionState": ("inner_states",),
    "MultiTransformState": ("inner_states",),
    "InjectHyperparamsState": ("count", "hyperparams", "inner_state"),
    "InjectStatefulHyperparamsState": (
        *("count", "hyperparams", "hyperparams_states", "inner_state"),
    ),
}
AROUND = ("inner_state", "inner_states")  # fields with states in them
TREES = ("mu", "nu", "sum_of_squares", "e_g", "e_x", "trace")  # fields shaped as the parameters
KNOWN = {frozenset(fields) for fields in FIELDS.values()}


class Read:
    """What a state says.

    trees: the arrays of each field, by path in the tree of parameters. counts: by where they stand.
    numbers: injected hyperparameters. inside: for each trace, whether it holds the rate; None where
    that can't be told.
    """

    def __init__(self, state: Any):
        self.trees: dict[str, dict[str, np.ndarray]] = {}
        self.counts: dict[str, int] = {}
        self.numbers: dict[str, float] = {}
        self.inside: list[bool | None] = []
        self._visit(state, "state")

    def _visit(self, state: Any, where: str, before: Sequence = (), after: Sequence = ()) -> None:
        parts = _chain(state)
        if parts is None:
            fields = _fields(state, where)
            if "trace" in fields:
                self.inside.append(_holds_rate(before, after))
            self._take(fields, where)
            return
        for i, part in enumerate(parts):
            self._visit(part, f"{where}[{i}]", parts[:i], parts[i + 1 :])

    def _take(self, fields: Mapping[str, Any], where: str) -> None:
        if "count" in fields:
            self.counts[f"{where}.count"] = _integer(fields["count"], f"{where}.count")
        for name, value in fields.get("hyperparams", {}).items():
            if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf":
                self.numbers[name] = float(value)
        if "inner_state" in fields:
            self._visit(fields["inner_state"], f"{where}.inner_state")
        for label, inner in fields.get("inner_states", {}).items():
            self._visit(inner, f"{where}.inner_states[{label!r}]")
        for name in TREES:
            if name in fields:
                self._add(name, dict(leaves(fields[name])), where)

    def _add(self, field: str, arrays: Mapping[str, np.ndarray], where: str) -> None:
        there = self.trees.setdefault(field, {})
        if again := there.keys() & arrays.keys():
            raise ValueError(
                "Two transforms keep the same of one parameter, and here there is one rule. Pass "
                f"the part of the state that is to be imported. Received: {field!r} again at "
                f"{where} for {sorted(again)[:3]}"
            )
        there.update(arrays)


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Pairs of path and array of a tree of parameters; what a mask left out has none."""
    inside = _entries(tree)
    if inside is None:
        array = np.asarray(tree)
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise ValueError(
                "Parameters must be arrays in mappings, lists and tuples. Received: "
                f"{type(tree).__name__} at {path!r}"
            )
        yield path, array
        return
    for name, each in inside.items():
        yield from leaves(each, f"{path}/{name}" if path else str(name))


def _entries(tree: Any) -> Mapping[str, Any] | None:
    """The parts of a container by name; None for a leaf."""
    if tree is None:
        return {}
    if isinstance(tree, Mapping):
        return tree
    if hasattr(tree, "_asdict"):
        return tree._asdict()
    if isinstance(tree, (list, tuple)):
        return {str(i): each for i, each in enumerate(tree)}
    return None


def _chain(state: Any) -> list | None:
    """The states of a chain; None for what is none."""
    if isinstance(state, Mapping) and state and state.keys() == set(map(str, range(len(state)))):
        return [state[str(i)] for i in range(len(state))]
    plain = isinstance(state, (list, tuple)) and not hasattr(state, "_asdict")
    return list(state) if plain else None


def _fields(state: Any, where: str) -> Mapping[str, Any]:
    """The fields of one state, which must be a known one."""
    fields, name = _entries(state), type(state).__name__
    named = hasattr(state, "_asdict")
    if fields is None or (frozenset(fields) not in KNOWN) or (named and name not in FIELDS):
        others = sorted({each.removeprefix("ScaleBy").removesuffix("State") for each in FIELDS})
        said = name if named or fields is None else f"a mapping of {sorted(map(str, fields))}"
        raise ValueError(
            f"This state of optax has no counterpart here. Known are those of {', '.join(others)}, "
            f"and chains of them. Received: {said} at {where}"
        )
    return fields


def _integer(value: Any, where: str) -> int:
    array = np.asarray(value)
    if array.shape or array.dtype.kind not in "iu":
        raise ValueError(f"A count must be one integer. Received: {value!r} at {where}")
    return int(array)


def _holds_rate(before: Sequence, after: Sequence) -> bool | None:
    """Whether the rate stands before a trace, and so in it; None where that can't be told.

    The state of a rate is empty, as that of other transforms is, or counts for its schedule.
    """
    for could_be in (_is_schedule, _may_be_rate):
        there, then = any(map(could_be, before)), any(map(could_be, after))
        if there != then:
            return there
    return None


def _is_schedule(state: Any) -> bool:
    return type(state).__name__ == "ScaleByScheduleState"


def _may_be_rate(state: Any) -> bool:
    parts, entries = _chain(state), _entries(state)
    if parts is not None:
        return any(map(_may_be_rate, parts))
    return entries is not None and entries.keys() <= {"count"}
