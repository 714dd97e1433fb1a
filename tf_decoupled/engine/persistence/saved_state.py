"""How an optimizer is saved: its state as arrays by name, its configuration as plain values.

A state has numbers ("iterations", "learning_rate"), arrays of a variable ("dense/kernel:m"), and
a JSON text about them, by which they find their variables again; in files it is "about", bytes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_decoupled.engine.persistence.naming import Known
from tf_decoupled.engine.state import Cell

ABOUT, UNNAMED = "about", "unnamed/"


class SavedVariable(NamedTuple):
    """What was kept beside one variable, by slot; and the variable, where a checkpoint tells it."""

    known: Known
    slots: Mapping[str, np.ndarray]
    variable: Any = None


class State(NamedTuple):
    """A state, taken apart.

    kind: which rule's slots these are; None if the file doesn't say. given: what the numbers were
    at construction. unnamed: slots of which only the order is known, as from a whole `.h5` file.
    """

    numbers: Mapping[str, np.ndarray]
    variables: Sequence[SavedVariable]
    kind: str | None = None
    given: Mapping[str, Any] | None = None
    unnamed: Sequence[np.ndarray] = ()

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> "State":
        """From arrays by name; of a plain mapping no more is known than the names."""
        about = _read_about(arrays)
        known = {k.path: k for k in (_known(*row) for row in about.get("variables", ()))}
        slots: dict[str, dict[str, np.ndarray]] = {path: {} for path in known}
        for name, value in arrays.items():
            path, colon, slot = name.rpartition(":")
            if colon:
                slots.setdefault(path, {})[slot] = np.asarray(value)
        variables = [SavedVariable(known.get(p, Known(p)), slots[p]) for p in slots]
        numbers = {n: np.asarray(v) for n, v in arrays.items() if ":" not in n and n != ABOUT}
        unnamed = [numbers.pop(f"{UNNAMED}{i}") for i in range(about.get("unnamed", 0))]
        return cls(numbers, variables, about.get("kind"), about.get("given"), unnamed)

    def arrays(self) -> "Arrays":
        """The inverse of `of`."""
        slots = {f"{s.known.path}:{name}": a for s in self.variables for name, a in s.slots.items()}
        variables = [list(saved.known) for saved in self.variables]
        about = {"kind": self.kind, "given": self.given, "variables": variables}
        unnamed = {f"{UNNAMED}{i}": array for i, array in enumerate(self.unnamed)}
        text = json.dumps(about | {"unnamed": len(unnamed)})
        return Arrays({**self.numbers, **slots, **unnamed}, text)

    def in_order_of(self, cells: Iterable[Cell]) -> "State":
        """The same with the unnamed slots as those of these cells, if they are as many."""
        if not self.unnamed:
            return self
        names = [(cell.path, name) for cell in cells for name in cell.stored]
        if len(names) != len(self.unnamed):
            return self._replace(variables=[SavedVariable(Known(""), {})])  # which fits nothing
        slots: dict[str, dict[str, np.ndarray]] = {path: {} for path, _ in names}
        for (path, name), array in zip(names, self.unnamed, strict=True):
            slots[path][name] = array
        return self._replace(variables=[SavedVariable(Known(p), each) for p, each in slots.items()])


class Arrays(dict):
    """The arrays of a state by name, and the JSON text about them."""

    def __init__(self, arrays: Mapping[str, np.ndarray], about: str):
        super().__init__(arrays)
        self.about = about

    def in_file(self) -> dict[str, np.ndarray]:
        """For what holds arrays only."""
        return {**self, ABOUT: np.frombuffer(self.about.encode(), np.uint8)}


def _read_about(arrays: Mapping[str, Any]) -> dict[str, Any]:
    text = getattr(arrays, "about", "{}")
    if ABOUT in arrays:
        text = bytes(np.asarray(arrays[ABOUT], np.uint8))
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(
            f"The saved state is damaged: {ABOUT!r} holds no JSON text. Received: {text[:80]!r}"
        ) from error


def _known(path: str, shape: list | None, checksum: int | None, position: int | None) -> Known:
    return Known(path, None if shape is None else tuple(shape), checksum, position)


class Mismatch(NamedTuple):
    """What of a saved state doesn't fit: names, and for misshapen ones the two shapes."""

    missing: list[str]
    unexpected: list[str]
    misshapen: dict[str, str]

    @classmethod
    def between(cls, own: Mapping[str, Any], state: Mapping[str, Any]) -> "Mismatch":
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        here = {name: tuple(value.shape) for name, value in own.items()}
        return cls(
            sorted(here.keys() - shapes.keys()),
            sorted(shapes.keys() - here.keys()),
            {
                name: f"saved {shapes[name]}, here {here[name]}"
                for name in sorted(here.keys() & shapes.keys())
                if here[name] != shapes[name]
            },
        )

    def __bool__(self) -> bool:
        return any(self[:])

    def __str__(self) -> str:
        if not self:
            return "Everything fits."
        lines = [f"  {kind}: {value}" for kind, value in self._asdict().items() if value]
        return "\n".join(lines)
