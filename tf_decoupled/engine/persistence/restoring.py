"""What a file does that doesn't fit entirely: what fits is loaded, and the rest is told.

    another rule's state, or no variable fits    all starts anew
    more variables in the file                   kept, loaded when they come, saved again
    fewer variables, slots or counters           those start anew
    another number given at construction         the one given now counts
    shapes that contradict                       ValueError; nothing is loaded

Each but the second is told by one warning, or raised with `strict_restore`.
"""

import numbers
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_decoupled.engine.persistence.naming import Known
from tf_decoupled.engine.persistence.saved_state import SavedVariable, State
from tf_decoupled.engine.state import Cell, ref_of
from tf_decoupled.masks import path_of

SHOWN = 8  # names in a message
NOT_HELD = (
    "the checkpoint has no slots for its variables. A slot follows its variable: give the model to "
    "the checkpoint, too, `tf.train.Checkpoint(model=model, optimizer=optimizer)`."
)


class Notes:
    """What of a file isn't loaded as it was saved."""

    def __init__(self):
        self.nothing_fits: str | None = None
        self.changed: dict[str, tuple[Any, Any]] = {}  # given then, given now
        self.anew: list[str] = []
        self.left_out: list[str] = []

    def __str__(self) -> str:
        if self.nothing_fits:
            return f"All of its state starts anew: {self.nothing_fits}"
        lines = [
            f"{name}={now} counts, as given now; when the file was saved, {then} was given."
            for name, (then, now) in self.changed.items()
        ]
        if self.anew:
            lines.append(f"These start anew, as the file lacks them: {_listed(self.anew)}")
        if self.left_out:
            lines.append(f"These of the file have no place here: {_listed(self.left_out)}")
        return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{list(names[:SHOWN])}{more}"


class Pending:
    """What of a file is still to be loaded.

    variables: saved ones that have not come yet. added: arrays of variables that a subclass is to
    add, by name. unnamed: slots of a file that has them in order only. numbers: what was loaded,
    each with what it was before. at_build: whether the first build completes the loading.
    """

    def __init__(self):
        self.variables: list[SavedVariable] = []
        self.added: dict[str, np.ndarray] = {}
        self.unnamed: list[np.ndarray] = []
        self.numbers: dict[str, tuple[Any, Any]] = {}
        self.at_build = False


class Restoring:
    """Loads files into one optimizer, and holds what of a file is still to be loaded."""

    def __init__(self, optimizer: Any):
        self.optimizer = optimizer
        self.strict, self.by = False, None
        self.begin()

    def begin(self) -> None:
        """Forgets what an earlier file has left waiting."""
        self.pending = Pending()

    def load(self, state: State) -> None:
        """Loads a state from a file; its slots at the build, if that is still to come."""
        self.begin()
        notes = Notes()
        notes.nothing_fits = self._why_nothing_fits(state)
        if notes.nothing_fits:
            if state.numbers or self.optimizer.iterations.numpy():  # else nothing is lost
                self._tell(notes)
            self.optimizer.reset_state()
            return
        self._load(
            state, lambda saved, notes: self._plan_slots(saved, list(self.optimizer.cells), notes)
        )
        if not self.optimizer.built:
            self.pending.variables = list(state.variables)

    def load_checkpoint(self, state: State, arrived: set[tuple[Any, str]]) -> None:
        """The same where TensorFlow itself restores the slots in `arrived`: (variable, slot).

        `state` has the slots of variables that the checkpoint doesn't hold.
        """
        if self.optimizer.is_of_another_kind(state):
            self.load(state)
            return
        self._load(state, lambda saved, notes: self._plan_rest(_with_slots(saved), arrived, notes))
        if not self.optimizer.built:
            self.pending.variables += _with_slots(state.variables)

    def _load(
        self, state: State, plan_slots: Callable[[Sequence[SavedVariable], Notes], Callable]
    ) -> None:
        """Loads numbers, and slots as planned; nothing of either before all is planned."""
        for concern in self.optimizer.order.all:
            concern.restored(state.numbers)
        notes, load_slots = Notes(), self._reset_cells
        load_numbers = self._plan_numbers(state, notes)
        if self.optimizer.built:
            state = state.in_order_of(self.optimizer.cells)
            if state.variables:
                load_slots = plan_slots(state.variables, notes)
        self._tell(notes)
        if not notes.nothing_fits:
            load_numbers()
        load_slots()
        if not self.optimizer.built:
            self.pending.unnamed = list(state.unnamed)
            self.pending.at_build = bool(state.variables or state.unnamed)

    def load_waiting(self, cells: Sequence[Cell], first: bool) -> None:
        """Loads what waits for these cells, which are new; at the first build, tells what lacks."""
        pending, notes = self.pending, Notes()
        if not (pending.variables or (first and pending.at_build)):
            return
        if pending.unnamed:
            state = State({}, [], unnamed=pending.unnamed).in_order_of(cells)
            pending.variables, pending.unnamed = list(state.variables), []
        load = self._plan_slots(pending.variables, cells, notes, whole=first)
        if first:
            if not pending.variables:
                notes.nothing_fits = NOT_HELD
            self._tell(notes)
            if notes.nothing_fits:
                self._take_numbers_back()
        load()
        pending.at_build = False

    def wait_for(self, variable: Any, slot: str, value: np.ndarray) -> None:
        """Keeps a slot of a variable that is restored before the optimizer is built on it."""
        for saved in self.pending.variables:
            if saved.variable is not None and ref_of(saved.variable) == ref_of(variable):
                saved.slots[slot] = value
                return
        known = Known(path_of(variable), tuple(variable.shape))
        self.pending.variables.append(SavedVariable(known, {slot: value}, variable))

    def _why_nothing_fits(self, state: State) -> str | None:
        if self.optimizer.is_of_another_kind(state):
            return f"the file holds that of {state.kind}, and this is {self.optimizer.kind()}."
        if "iterations" in state.numbers:
            return None
        return (
            "the file has none that this library wrote. `td.importers.keras_state` reads that of "
            "Keras's Adam, AdamW and SGD."
        )

    def _plan_numbers(self, state: State, notes: Notes) -> Callable[[], None]:
        """What to load into numbers."""
        self.optimizer.check_numbers(state.numbers)
        own, now = self.optimizer.named_numbers(), self.optimizer.constructed()
        for name, then in (state.given or {}).items():
            if name in now and _given_otherwise(then, now[name], state.numbers.get(name)):
                notes.changed[name] = then, now[name]
        load = {n: a for n, a in state.numbers.items() if n in own and n not in notes.changed}
        for name in [name for name in notes.changed if name.endswith("base_learning_rate")]:
            if name.replace("base_", "") in notes.changed:
                del notes.changed[name]  # it was derived from the rate
        notes.anew += [n for n in own if n not in state.numbers and n not in now]
        rest = {n: a for n, a in state.numbers.items() if n not in own and n not in now}
        added = {n: a for n, a in rest.items() if n.startswith("added/")}
        notes.left_out += [name for name in rest if name not in added]

        def assign() -> None:
            self.pending.added = added
            self.pending.numbers = {n: (own[n].numpy(), a) for n, a in load.items()}
            for name, variable in own.items():  # in the same order on all workers
                if name in load:
                    variable.assign(load[name])

        return assign

    def _plan_slots(
        self,
        saved: Sequence[SavedVariable],
        cells: Sequence[Cell],
        notes: Notes,
        whole: bool = True,
    ) -> Callable[[], None]:
        """What to load into cells; the rest is left waiting. Raises for shapes that contradict.

        whole: whether all that the file has, and all cells, are in question.
        """
        found = self.optimizer.find(saved, cells)
        wrong = _contradictions(saved, found)
        if wrong and whole:
            raise ValueError(
                f"Saved shapes contradict those here, and nothing was loaded: {wrong}. Give what "
                "is another variable now another name, or load into a new optimizer."
            )
        found = {i: cell for i, cell in found.items() if cell.path not in wrong}
        if whole and saved and cells and not found:
            notes.nothing_fits = "no variable of the file is among those that are trained here."
            return self.optimizer.reset_state
        slots = {cell.path: saved[i].slots for i, cell in found.items()}
        has = {(path, name) for path, each in slots.items() for name in each}
        wants = {(cell.path, name) for cell in cells for name in cell.stored}
        notes.anew += [f"{path}:{name}" for path, name in sorted(wants - has)]
        notes.left_out += [f"{path}:{name}" for path, name in sorted(has - wants)]

        def assign() -> None:
            for cell in cells:
                for name, variable in cell.stored.items():
                    if (cell.path, name) in has:
                        variable.assign(slots[cell.path][name])
                    else:
                        cell.reset(name)
                self.optimizer.layout.bind(cell)
            self.pending.variables = _with_slots(v for i, v in enumerate(saved) if i not in found)

        return assign

    def _plan_rest(
        self, rest: list[SavedVariable], arrived: set[tuple[Any, str]], notes: Notes
    ) -> Callable[[], None]:
        """What of a checkpoint to load into cells of which TensorFlow restores nothing."""
        there = {ref for ref, _ in arrived}
        bare = [
            cell
            for cell in self.optimizer.cells
            if cell.stored and ref_of(cell.variable) not in there
        ]
        others = [cell for cell in self.optimizer.cells if ref_of(cell.variable) in there]
        lacking = [
            (cell, name)
            for cell in others
            for name in cell.stored
            if (ref_of(cell.variable), name) not in arrived
        ]
        notes.anew += [f"{cell.path}:{name}" for cell, name in lacking]
        waiting = self.pending.variables
        load = self._plan_slots(rest, bare, notes, whole=not others)
        if bare and not others and not rest:
            notes.nothing_fits, load = NOT_HELD, self.optimizer.reset_state

        def assign() -> None:
            load()
            self.pending.variables = waiting + self.pending.variables
            for cell, name in lacking:
                cell.reset(name)

        return assign

    def _reset_cells(self) -> None:
        """For the file of an optimizer that had not begun."""
        for cell in self.optimizer.cells:
            for name in cell.stored:
                cell.reset(name)

    def _take_numbers_back(self) -> None:
        """Undoes the loading of numbers, which comes before the build, where nothing fits."""
        own = self.optimizer.named_numbers()
        for name, (before, loaded) in self.pending.numbers.items():
            if np.array_equal(own[name].numpy(), loaded):
                own[name].assign(before)

    def _tell(self, notes: Notes) -> None:
        if not str(notes):
            return
        if self.strict:
            raise ValueError(
                f"The state of {self.optimizer.name!r} doesn't fit as it was saved.\n{notes}"
            )
        warnings.warn(
            f"The state of {self.optimizer.name!r} is not as it was saved.\n{notes}", stacklevel=4
        )


def _with_slots(saved: Iterable[SavedVariable]) -> list[SavedVariable]:
    return [variable for variable in saved if variable.slots]


def _given_otherwise(then: Any, now: Any, saved: np.ndarray | None) -> bool:
    """Whether a hyperparameter was given otherwise at construction, and isn't that anyway."""
    if isinstance(then, numbers.Real) and isinstance(now, numbers.Real):
        differs = np.float32(then) != np.float32(now)
        return bool(differs and (saved is None or np.float32(now) != np.float32(saved)))
    return then != now


def _contradictions(saved: Sequence[SavedVariable], found: Mapping[int, Cell]) -> dict[str, str]:
    """Path to shapes, for variables of which the file holds something else."""
    wrong: dict[str, str] = {}
    for i, cell in found.items():
        shapes = {"": (saved[i].known.shape, cell.variable.shape)}
        shapes |= {
            name: (array.shape, cell.stored[name].shape)
            for name, array in saved[i].slots.items()
            if name in cell.stored
        }
        for name, (there, here) in shapes.items():
            if there is not None and tuple(there) != tuple(here):
                of = f" of {name}" if name else ""
                wrong.setdefault(cell.path, f"saved {tuple(there)}, here {tuple(here)}{of}")
    return wrong
