"""How an optimizer is saved: its state as arrays by name, its configuration as plain values.

A state has numbers ("iterations", "learning_rate"), arrays of a variable ("dense/kernel:m"), and
a JSON text about them, by which they find their variables again; in files it is "about", bytes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tf_decoupled.engine import naming
from tf_decoupled.engine.hyperparameters import Hyperparameter, is_variable, serialize
from tf_decoupled.engine.naming import Known
from tf_decoupled.engine.state import Cell, ref_of, tf_variable

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


class Saved:
    """The part of an optimizer that saving and loading goes through, in whatever format."""

    state_may_follow = False  # of one that was made from a configuration

    def add_counter(self, name: str, start: float = 0, dtype: str = "int64") -> None:
        """Makes a scalar variable of the step, saved by its name, as an attribute; once."""
        if name in self.starts:
            return
        self.starts[name] = start
        # Aggregation would cost a collective per step on TPUs; all replicas assign the same.
        counter = keras.Variable(start, dtype=dtype, trainable=False, name=name.replace("/", "_"))
        setattr(self, name, counter)

    def add_variable(self, *args: Any, **kwargs: Any) -> keras.Variable:
        """Keras's way for a subclass to keep something of its own; saved by the order of making."""
        variable = super().add_variable(*args, **kwargs)
        number = sum(map(is_variable, vars(self.added).values()))
        setattr(self.added, str(number), variable)
        if (saved := self.pending.added.pop(f"added/{number}", None)) is not None:
            variable.assign(saved)
        return variable

    # What makes up the state.

    def named_variables(self) -> dict[str, Any]:
        """Everything that makes up the state, by name: "iterations", "learning_rate", "path:m"."""
        return self.named_numbers() | {
            f"{c.path}:{name}": v for c in self.cells for name, v in c.stored.items()
        }

    def named_numbers(self) -> dict[str, Any]:
        """The variables that belong to no model variable: counters, hyperparameters, added ones."""
        named = {"iterations": self.iterations}
        named |= {name: getattr(self, name) for name in self.starts if name != "updates"}
        added = {f"added/{n}": v for n, v in vars(self.added).items() if is_variable(v)}
        return named | self.hyperparameter_variables() | added

    def live_hyperparameters(self) -> dict[str, tuple[Any, Hyperparameter]]:
        """Whose hyperparameter it is, and which, by the name under which it is saved."""
        named = {name: (self, each) for name, each in self.declared.items() if each.live}
        for place, rule in self.rules():
            own = {} if rule is self else rule.own_arguments()
            named |= {f"{place}/{name}": (rule, each) for name, each in own.items() if each.live}
        return named

    def hyperparameter_variables(self) -> dict[str, Any]:
        """The variables that hold the hyperparameters given as numbers."""
        given = {
            name: getattr(owner.given, each.name)
            for name, (owner, each) in self.live_hyperparameters().items()
        }
        return {name: value for name, value in given.items() if is_variable(value)}

    def constructed(self) -> dict[str, Any]:
        """What each live hyperparameter was at construction: a number, None, or a word for it."""
        live = self.live_hyperparameters().items()
        return {name: owner.constructed_with[each.name] for name, (owner, each) in live}

    @property
    def variables(self) -> list:
        return list(self.named_variables().values())

    # Getting and setting it.

    def saved_state(self, checkpoint_of: set | None = None) -> State:
        """The state, taken apart; what still waits for its variable is part of it.

        checkpoint_of: the variables, by `ref()`, whose slots a checkpoint has already. It is read
        before their values come back, so values prove nothing there.
        """
        numbers = {name: v.numpy() for name, v in self.named_numbers().items()}
        by_value, variables = checkpoint_of is None, []
        for cell, known in zip(self.cells, self.known_cells(self.cells, by_value), strict=True):
            there = not by_value and ref_of(cell.variable) in checkpoint_of
            stored = {} if there else cell.stored
            variables.append(SavedVariable(known, {name: v.numpy() for name, v in stored.items()}))
        taken = {saved.known.path for saved in variables}
        for saved in self.pending.variables:
            path = naming.free(saved.known.path, taken)
            # Once others are built, its position was one among others.
            position = None if self.built else saved.known.position
            known = saved.known._replace(path=path, position=position)
            variables.append(saved._replace(known=known))
            taken.add(path)
        numbers |= self.pending.added
        return State(numbers, variables, self.kind(), self.constructed(), self.pending.unnamed)

    def get_state(self) -> Arrays:
        """The state as arrays by name; `set_state` is the inverse.

        What else tells the variables is in its attribute `about`: a plain dict of the same arrays
        finds them by name alone.
        """
        return self.saved_state().arrays()

    def set_state(self, state: Mapping[str, Any], strict: bool = True) -> Mismatch:
        """Loads arrays by name, and reports what doesn't fit.

        Strict, it raises then, and nothing is loaded; otherwise it loads what fits. How arrays find
        their variables, `naming` says; numbers are loaded as they are. A state from before the
        build has no slots, and leaves them as they are.

        Raises ValueError, too, for numbers that the hyperparameter can't be.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"A state is a mapping of names to arrays. Received: {state!r}")
        state = State.of(state).in_order_of(self.cells)
        slots = state.unnamed or any(saved.slots for saved in state.variables)
        if slots and not self.built:
            raise ValueError("Build the optimizer first: `opt.build(model.trainable_variables)`.")
        own = self.named_variables() if slots else self.named_numbers()
        arrays = self._renamed(state) | dict(state.numbers)
        mismatch = Mismatch.between(own, arrays)
        if strict and (mismatch or self.is_of_another_kind(state)):
            raise ValueError(
                f"The saved state doesn't fit this {type(self).__name__}, and nothing was loaded. "
                "`opt.set_state(state, strict=False)` loads what fits.\n"
                f"{self._another_kind(state)}{mismatch}"
            )
        self.check_numbers(state.numbers)
        if not self.is_of_another_kind(state):
            for name, variable in own.items():  # in the same order on all workers
                if name in arrays and name not in mismatch.misshapen:
                    variable.assign(arrays[name])
        return mismatch

    def _renamed(self, state: State) -> dict[str, np.ndarray]:
        """The saved slots under the names of the variables here that they belong to."""
        found = self.find(state.variables, list(self.cells))
        paths = {i: cell.path for i, cell in found.items()}
        taken = set(paths.values())
        for i, saved in enumerate(state.variables):
            if i not in paths:
                paths[i] = naming.free(saved.known.path, taken)
                taken.add(paths[i])
        return {
            f"{paths[i]}:{name}": array
            for i, saved in enumerate(state.variables)
            for name, array in saved.slots.items()
        }

    def find(self, saved: Sequence[SavedVariable], cells: Sequence[Cell]) -> dict[int, Cell]:
        """The cell of each saved variable, by its index, where it has one."""
        by_ref = {ref_of(cell.variable): cell for cell in cells}
        sure = {i: ref_of(s.variable) for i, s in enumerate(saved) if s.variable is not None}
        found = {i: by_ref.pop(ref) for i, ref in sure.items() if ref in by_ref}
        others, free = [i for i in range(len(saved)) if i not in sure], list(by_ref.values())
        known = [saved[i].known for i in others]
        by_value = any(each.checksum is not None for each in known)
        own = list(self.known_cells(free, with_values=by_value))
        pairs = naming.match(known, own, self.restore_by)
        return found | {others[s]: free[o] for s, o in pairs.items()}

    def known_cells(self, cells: Iterable[Cell], with_values: bool = True) -> Iterable[Known]:
        """What is saved of each cell's variable, to find it again."""
        for cell in cells:
            value = tf_variable(cell.variable).numpy() if with_values else None
            checksum = None if value is None else naming.checksum(value)
            yield Known(cell.path, tuple(cell.variable.shape), checksum, cell.position)

    def check_numbers(self, numbers: Mapping[str, np.ndarray]) -> None:
        """Raises for a number that its hyperparameter, or counter, can't be."""
        live = self.live_hyperparameters()
        for name, value in numbers.items():
            if name in live and not value.shape:
                owner, each = live[name]
                each.check(value.item(), owner)
            elif name in ("iterations", *self.starts) and np.any(value < 0):
                raise ValueError(f"`{name}` counts, and can't be negative. Received: {value!r}")

    def is_of_another_kind(self, state: State) -> bool:
        return state.kind not in (None, self.kind())

    def _another_kind(self, state: State) -> str:
        if not self.is_of_another_kind(state):
            return ""
        return f"  It is the state of {state.kind}, this is {self.kind()}.\n"

    def reset_state(self) -> None:
        """Puts slots and `iterations` back to their start; hyperparameters stay as they are."""
        self.begin_restoring()
        for name, start in self.starts.items():
            getattr(self, name).assign(start)
        for cell in self.cells:
            for name in cell.stored:
                cell.reset(name)

    def set_weights(self, weights: Sequence) -> None:
        """Assigns `variables` in their order; slots that come before the build, at the build.

        Raises ValueError where number or shapes differ.
        """
        own = self.named_variables()
        arrays = dict(zip(own, map(np.asarray, weights), strict=False))
        mismatch = Mismatch.between(own, arrays)
        if mismatch or (len(weights) > len(own) and self.built):
            raise ValueError(
                f"`set_weights` needs {len(own)} arrays, in the shapes of these: {list(own)}. "
                f"Received: {len(weights)}\n{mismatch}"
            )
        self.check_numbers({name: a for name, a in arrays.items() if ":" not in name})
        for name, variable in own.items():
            variable.assign(arrays[name])
        self.begin_restoring()
        self.pending.unnamed = [np.asarray(array) for array in weights[len(own) :]]
        self.pending.at_build = bool(self.pending.unnamed)

    # Files.

    def save_own_variables(self, store: Any) -> None:
        """Keras's hook for `.keras` and `.weights.h5` files."""
        for name, value in self.saved_state().arrays().in_file().items():
            store[name.replace("/", "|")] = value

    def load_own_variables(self, store: Any) -> None:
        """Keras's hook; slots that come before the build are loaded at the build."""
        arrays = {name.replace("|", "/"): np.asarray(store[name]) for name in list(store.keys())}
        self.restore(State.of(arrays))

    def get_config(self) -> dict[str, Any]:
        """Every declared argument as it is now: numbers live, masks and schedules serialized."""
        given = {name: serialize(getattr(self.given, name)) for name in self.declared}
        return {"name": self.name} | given

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Any:
        def load(value: Any) -> Any:
            if isinstance(value, list):
                return tuple(load(item) for item in value)
            if not isinstance(value, dict):
                return value
            return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)

        optimizer = cls(**{name: load(value) for name, value in config.items()})
        optimizer.state_may_follow = True
        return optimizer
