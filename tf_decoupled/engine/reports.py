"""What an optimizer tells of itself: which variables decay and why, and what `print` shows."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tf_decoupled.engine.arguments import shown
from tf_decoupled.engine.decay import NEED_BASE, WRITTEN, base_rate
from tf_decoupled.engine.hyperparameters import is_variable
from tf_decoupled.engine.state import Cell


class Row(NamedTuple):
    """One line of a decay report."""

    path: str
    shape: tuple[int, ...]
    decays: bool
    reason: str


class DecayReport(NamedTuple):
    """Which variables decay, why, and how much: `print(opt.decay_report())`."""

    rows: list[Row]
    weight_decay: float
    coupling: str

    def __str__(self) -> str:
        width = max((len(row.path) for row in self.rows), default=0)
        lines = [
            f"{row.path:{width}}  {row.shape!s:18}  {self._decay_of(row):9}  {row.reason}"
            for row in self.rows
        ]
        lines += counts(self.rows)
        return "\n".join([*lines, f"weight_decay {self.weight_decay:g}, {self.coupling!r}"])

    def _decay_of(self, row: Row) -> str:
        return f"{self.weight_decay:g}" if row.decays else "-"


class DecayReports(NamedTuple):
    """The decay reports of several rules."""

    reports: list[DecayReport]

    @property
    def rows(self) -> list[Row]:
        return [row for report in self.reports for row in report.rows]

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.reports))


def counts(rows: Sequence[Row]) -> Iterator[str]:
    """How many variables and parameters decay, and how many don't: two lines."""
    for decays in (True, False):
        verb = "decay" if decays else "don't"
        yield f"{amount(row.shape for row in rows if row.decays is decays)} {verb}"


def amount(shapes: Iterable[Sequence[int]]) -> str:
    """How many variables have these shapes, and how many parameters."""
    sizes = [math.prod(shape) for shape in shapes]
    return f"{_counted(len(sizes), 'variable')}, {_counted(sum(sizes), 'parameter')}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + "s" * (number != 1)


def row_of(cell: Cell) -> Row:
    return Row(cell.path, tuple(cell.variable.shape), cell.decays, cell.reason)


class Group(NamedTuple):
    """A rule, the variables that it steps, and what stands above them where there are several."""

    rule: Any
    cells: Sequence[Cell]
    heading: str | None = None


def printed(optimizer: Any, title: str, groups: Sequence[Group]) -> str:
    """What `print(optimizer)` shows: rate, decay and variables of each group; state, iterations."""
    with tf.init_scope():  # variables have values there, also while a step is traced
        lines = [title]
        for group in groups:
            inner = "  " if group.heading is None else "    "
            lines += [] if group.heading is None else [f"  {_headed(group, optimizer.built)}"]
            lines += [inner + line for line in _of_group(group, optimizer.built)]
        if optimizer.built:
            lines.append(f"  {'state':15}{_size(optimizer)}")
        else:
            lines.append("  not built: the first step, or `build`, decides what decays")
        lines.append(f"  {'iterations':15}{int(optimizer.iterations.numpy()):,}")
    return "\n".join(lines)


def _headed(group: Group, built: bool) -> str:
    has = f": {amount(cell.variable.shape for cell in group.cells)}" if built else ""
    return f"{group.heading}{has}"


def _of_group(group: Group, built: bool) -> Iterator[str]:
    rule, given = group.rule, group.rule.innermost().given
    yield f"{'learning_rate':15}{_now(rule.learning_rate, given.learning_rate)}"
    yield f"{'weight_decay':15}{_now(rule.weight_decay, given.weight_decay)}"
    coupling, base = rule.decay_coupling, rule.base_learning_rate
    base = base_rate(given.learning_rate) if base is None else base
    of_base = f", base = {_now(base, base)}" if coupling in NEED_BASE else ""
    yield f"{'decay_coupling':15}{coupling!r}: δ(θ) = {WRITTEN[coupling]}{of_base}"
    if built:
        yield from counts([row_of(cell) for cell in group.cells])
    if built and group.heading is not None:
        yield from (f"  {cell.path} {tuple(cell.variable.shape)}" for cell in group.cells)


def _now(value: Any, given: Any) -> str:
    """The present number, and what gives it where that isn't a number."""
    number = f"{float(tf.convert_to_tensor(value)):.6g}"
    is_object = callable(given) and not is_variable(given)
    return f"{number} now, of {shown(given)}" if is_object else number


def _size(optimizer: Any) -> str:
    """Bytes of all that the optimizer keeps, on each device; the model's variables don't count."""
    stored = [v for block in optimizer.blocks for v in block.stored.values()]
    stored += optimizer.named_numbers().values()
    size = sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in stored)
    return f"{size:,} bytes"
