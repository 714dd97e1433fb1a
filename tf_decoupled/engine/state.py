"""Slots: what an optimizer remembers of one variable, and which variables it knows.

A rule's `init(p)` declares slots by name, `dict(m=zeros(p), v=zeros(p))`; wrappers nest them,
`dict(slow=copy(p), inner=...)`. The engine stores each, and hands the values to `update` and
`step` as `s.m`, `s.inner.m`.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import tensorflow as tf

Slots = Mapping[str, Any]  # name to Slot (to value, once read), or to the Slots of an inner rule


class Slot(NamedTuple):
    """One array beside a variable: its shape, and the number that it starts with.

    dtype: None is that in which the variable is stepped. `summed`: under replicas each has an
    array of its own, and what is read is the sum of all. `by_path`: it starts as a number that is
    made of the variable's path.
    """

    shape: tuple[int, ...]
    initial: float = 0.0
    dtype: str | None = None
    summed: bool = False
    by_path: bool = False

    def beside(self, path: str) -> "Slot":
        """The slot as it starts beside the variable of this path."""
        return self._replace(initial=zlib.crc32(path.encode()) >> 1) if self.by_path else self


def zeros(p: tf.Variable, shape: tuple[int, ...] | None = None) -> Slot:
    """A slot of zeros, shaped as the variable or as told."""
    return Slot(tuple(p.shape) if shape is None else tuple(shape), 0.0)


def copy(p: tf.Variable) -> Slot:
    """A slot that starts as the variable's value at its first gradient.

    NaN stands for "not yet": optimizers are built inside traces, where no value can be read,
    and a variable's first gradient may come long after the build.
    """
    return Slot(tuple(p.shape), float("nan"))


def own_seed() -> Slot:
    """A number that tells the random bits of one variable from those of others.

    A slot, so that it follows the variable to whatever path it gets where it is restored.
    """
    return Slot((), 0, "int32", by_path=True)


class Cell:
    """A model variable and what the optimizer has decided about it at the build.

    rule: what steps it, the optimizer or a member of it; `branch` names the rule's place among the
    hyperparameters. decays, reason: whether it decays and why. numbers: what each rule has
    measured of it, by the rule's `id`. overwrites: whether it becomes its gradient. by_rows:
    whether its sparse gradients stay sparse. slots: the rule's. concern_slots: the concerns'.
    stored: by the name of a slot, what holds its value. position: among the variables of the first
    build; None for one that came later.
    """

    position: int | None = None

    def __init__(self, variable: Any, path: str):
        self.variable, self.path = variable, path
        self.constraint = getattr(variable, "constraint", None)
        self.overwrites = getattr(variable, "overwrite_with_gradient", False)
        self.rule: Any = None
        self.branch = ""
        self.decays, self.reason = True, ""
        self.by_rows = False
        self.numbers: dict[int, float] = {}
        self.slots: dict[str, Slot] = {}
        self.concern_slots: dict[str, Slot] = {}
        self.stored: dict[str, Any] = {}

    @property
    def all_slots(self) -> dict[str, Slot]:
        return self.slots | self.concern_slots

    def reset(self, name: str) -> None:
        """Puts a slot back to what it started with."""
        slot, stored = self.all_slots[name], self.stored[name]
        stored.assign(tf.fill(slot.shape, tf.cast(slot.initial, stored.dtype)))


class Cells:
    """The cells of an optimizer, in the order of its build, found by model variable."""

    def __init__(self):
        self._cells: list[Cell] = []
        self._index: dict[Any, int] = {}
        self._paths: set[str] = set()
        self._repeats: Counter[str] = Counter()  # the last number that a path was given

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, index: int) -> Cell:
        return self._cells[index]

    def __contains__(self, variable: Any) -> bool:
        return ref_of(variable) in self._index

    def index(self, variable: Any) -> int:
        return self._index[ref_of(variable)]

    def add(self, cell: Cell) -> None:
        """Adds a cell; a path that is taken already gets a number, as `Variable~1`."""
        path = cell.path
        while cell.path in self._paths:
            self._repeats[path] += 1
            cell.path = f"{path}~{self._repeats[path]}"
        self._paths.add(cell.path)
        self._index[ref_of(cell.variable)] = len(self._cells)
        self._cells.append(cell)

    def forget(self, cells: Sequence[Cell]) -> None:
        """Takes back the cells that were added last."""
        for cell in cells:
            del self._index[ref_of(cell.variable)]
            self._paths.discard(cell.path)
        del self._cells[len(self._cells) - len(cells) :]


def tf_variable(variable: Any) -> tf.Variable:
    """The `tf.Variable` inside a Keras variable, or the variable itself."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def ref_of(variable: Any) -> Any:
    """What tells a variable from all others, to be the key of a mapping."""
    return tf_variable(variable).ref()


def place_of(*parts: str) -> str:
    """Parts of a path, some of which may be empty, as one: "members/0/inner"."""
    return "/".join(filter(None, parts))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of path and leaf of a nested mapping: ("inner/m", leaf)."""
    for name, leaf in tree.items():
        if isinstance(leaf, Mapping):
            yield from flatten(leaf, f"{prefix}{name}/")
        else:
            yield prefix + name, leaf


def nest(flat: Mapping[str, Any]) -> SimpleNamespace:
    """The inverse of `flatten`, read with dots: n.inner.m."""
    root = SimpleNamespace()
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = root
        for parent in parents:
            vars(node).setdefault(parent, SimpleNamespace())
            node = getattr(node, parent)
        setattr(node, name, leaf)
    return root
