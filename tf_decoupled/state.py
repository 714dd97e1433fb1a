"""Slots: what an optimizer remembers of one variable, and how that is stored.

A rule's `init(p)` declares slots by name, `dict(m=zeros(p), v=zeros(p))`; wrappers nest them,
`dict(slow=copy(p), inner=...)`. The engine makes a variable for each, and hands the values to
`update` and `step` as `s.m`, `s.inner.m`.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import tensorflow as tf

from tf_decoupled import precision

Slots = Mapping[str, Any]  # name to Slot (to value, once read), or to the Slots of an inner rule


ITSELF = ""  # among the names of what is stored beside a variable: the variable


class Slot(NamedTuple):
    """One array beside a variable: its shape, and the number that it starts with.

    `summed`: under replicas each has an array of its own, and what is read is the sum of all.
    """

    shape: tuple[int, ...]
    initial: float
    dtype: str = "float32"
    summed: bool = False


def zeros(p: tf.Variable, shape: tuple[int, ...] | None = None) -> Slot:
    """A slot of zeros, shaped as the variable or as told."""
    return Slot(tuple(p.shape) if shape is None else tuple(shape), 0.0)


def copy(p: tf.Variable) -> Slot:
    """A slot that starts as the variable's value at its first gradient.

    NaN stands for "not yet": optimizers are built inside traces, where no value can be read,
    and a variable's first gradient may come long after the build.
    """
    return Slot(tuple(p.shape), float("nan"))


def rounding_seed(path: str) -> Slot:
    """A number that tells the random bits of one variable from those of others.

    A slot, so that it follows the variable to whatever path it gets where it is restored.
    """
    return Slot((), zlib.crc32(path.encode()) >> 1, "int32")


class Cell:
    """A model variable, the slots beside it, whether it decays and why.

    `slots` are the rule's; `kept` is what the engine keeps beside them: "master", the variable in
    float32; "average" of its values; "gradient_sum" and "gradient_count" of an accumulation;
    "table_step" and "row_step" of rows that are stepped singly; "nonfinite_steps", how many
    gradients in a row were not finite; "rounding_seed" of random rounding. `rows`, if any, are
    those that `read` and `assign` mean. `position` is that among the variables of the first build;
    None for one that came later.
    """

    position: int | None = None

    def __init__(self, variable: Any, path: str, decays: bool, reason: str):
        self.variable, self.path, self.decays, self.reason = variable, path, decays, reason
        self.constraint = getattr(variable, "constraint", None)
        self.slots: dict[str, Slot] = {}
        self.kept: dict[str, Slot] = {}
        self.stored: dict[str, Any] = {}
        self.rows: tf.Tensor | None = None

    def add_slots(self, slots: Slots, kept: Slots, make: Callable[[str, Slot], Any]) -> None:
        """Stores each slot in the variable that `make(name, slot)` returns."""
        self.slots, self.kept = dict(flatten(slots)), dict(kept)
        both = {**self.slots, **self.kept}
        self.stored = {name: make(name, slot) for name, slot in both.items()}

    def on(
        self, component: Callable[[tf.Variable], tf.Variable], rows: tf.Tensor | None = None
    ) -> "Cell":
        """The same cell with the components of its variables on one device, or rows of them."""
        cell = Cell(component(tf_variable(self.variable)), self.path, self.decays, self.reason)
        cell.slots, cell.kept, cell.constraint = self.slots, self.kept, self.constraint
        cell.stored = {name: component(tf_variable(v)) for name, v in self.stored.items()}
        cell.rows = rows
        return cell

    def variable_of(self, name: str) -> tf.Variable:
        """The variable behind a stored name, or behind `ITSELF`."""
        return tf_variable(self.stored[name] if name else self.variable)

    def value(self, name: str) -> tf.Tensor:
        """What `variable_of(name)` holds, or its rows."""
        variable = self.variable_of(name)
        if self.rows is None or not variable.shape.rank:
            return tf.convert_to_tensor(variable)
        return tf.gather(variable, self.rows)

    def read(self) -> tuple[tf.Tensor, SimpleNamespace]:
        """The variable's value in float32, and the slots' values by name."""
        value = self.value(ITSELF)
        p = tf.cast(value, tf.float32)
        if "master" in self.kept:
            p = precision.recall(value, self.value("master"))
        values = {name: self.value(name) for name in self.slots}
        for name, slot in self.slots.items():
            if slot.initial != slot.initial:
                values[name] = tf.where(tf.math.is_nan(values[name]), p, values[name])
        return p, nest(values)

    def average(self, p: tf.Tensor, momentum: tf.Tensor) -> tf.Tensor:
        """The moving average once `p` is in it; `p` itself where nothing is yet."""
        average = self.value("average")
        return tf.where(tf.math.is_nan(average), p, momentum * average + (1 - momentum) * p)

    def results(
        self, p: tf.Tensor, slots: Slots, kept: Slots, step: tf.Tensor, accept: Any = None
    ) -> dict[str, tf.Tensor]:
        """What to assign to each slot and to the variable, by name, as each of them stores it.

        Where `accept` is false, what they hold already. `step` changes the bits of random rounding.
        """
        values = dict(flatten(slots))
        if values.keys() != self.slots.keys():
            raise ValueError(
                "A rule must return the slots that its `init` declares, all of them and no others. "
                f"Declared: {sorted(self.slots)}. Received: {sorted(values)}"
            )
        if "master" in self.kept:
            kept = {**kept, "master": p}
        elif "rounding_seed" in self.kept:
            seed = tf.stack([tf.cast(step, tf.int32), self.value("rounding_seed")])
            p = precision.round_stochastically(p, self.variable.dtype, seed)
        values |= {ITSELF: p, **kept}
        values = {n: tf.cast(value, self.variable_of(n).dtype) for n, value in values.items()}
        if accept is None:
            return values
        return {n: tf.where(accept, value, self.value(n)) for n, value in values.items()}

    def assign(self, values: Mapping[str, tf.Tensor]) -> None:
        """Stores what `results` returned."""
        for name, value in values.items():
            if self.rows is None or not value.shape.rank:
                self.variable_of(name).assign(value)
            else:
                self.variable_of(name).scatter_update(tf.IndexedSlices(value, self.rows))

    def accumulate(self, g: tf.Tensor) -> None:
        """Adds a gradient to those of the micro-steps before."""
        self.variable_of("gradient_sum").assign_add(g)
        self.variable_of("gradient_count").assign_add(1.0)

    def end_group(self) -> tf.Tensor:
        """Empties the accumulation; returns whether there was a gradient in it."""
        present = self.value("gradient_count") > 0.0
        with tf.control_dependencies([present]):
            for name in ("gradient_sum", "gradient_count"):
                self.variable_of(name).assign(tf.zeros(self.variable_of(name).shape))
        return present

    def reset(self, names: Iterable[str] | None = None) -> None:
        """Puts slots, or these of them, back to what they started with."""
        slots = {**self.slots, **self.kept}
        for name in slots if names is None else names:
            value = tf.fill(slots[name].shape, tf.cast(slots[name].initial, slots[name].dtype))
            self.stored[name].assign(value)


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


def tf_variable(variable: Any) -> tf.Variable:
    """The `tf.Variable` inside a Keras variable, or the variable itself."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def ref_of(variable: Any) -> Any:
    """What tells a variable from all others, to be the key of a mapping."""
    return tf_variable(variable).ref()


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
