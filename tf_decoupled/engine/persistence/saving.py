"""What users and Keras call to save and load an optimizer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_decoupled.engine import registry
from tf_decoupled.engine.hyperparameters import Hyperparameter, is_variable, serialize
from tf_decoupled.engine.persistence import naming
from tf_decoupled.engine.persistence.naming import Known
from tf_decoupled.engine.persistence.saved_state import Arrays, Mismatch, SavedVariable, State
from tf_decoupled.engine.state import Cell, place_of, ref_of, tf_variable


class Saved:
    """The part of an optimizer that saving and loading goes through, in whatever format."""

    state_may_follow = False  # of one that was made from a configuration
    is_inside = False  # of another optimizer, which has its state

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
        if (saved := self.restoring.pending.added.pop(f"added/{number}", None)) is not None:
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
        named |= self.hyperparameter_variables()
        for place, schedule in self.remembering().items():
            named |= {f"{place}/{name}": v for name, v in schedule.remembered().items()}
        return named | {f"added/{n}": v for n, v in vars(self.added).items() if is_variable(v)}

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

    def remembering(self) -> dict[str, Any]:
        """The schedules that keep something from step to step, by place: "learning_rate"."""
        trees = {
            name: getattr(getattr(owner.given, each.name), "tree", tuple)()
            for name, (owner, each) in self.live_hyperparameters().items()
        }
        all_of_them = {place_of(n, place): s for n, tree in trees.items() for place, s in tree}
        return {place: s for place, s in all_of_them.items() if s.kept is not None}

    def constructed(self) -> dict[str, Any]:
        """What each live hyperparameter was at construction: a number, None, or a word for it."""
        live = self.live_hyperparameters().items()
        return {name: owner.constructed_with[each.name] for name, (owner, each) in live}

    @property
    def variables(self) -> list:
        return list(self.named_variables().values())

    @property
    def strict_restore(self) -> bool:
        """Whether loading a file raises where it would warn: nothing may start anew."""
        return self.restoring.strict

    @strict_restore.setter
    def strict_restore(self, strict: bool) -> None:
        if not isinstance(strict, bool):
            raise TypeError(f"`strict_restore` must be True or False. Received: {strict!r}")
        self.restoring.strict = strict

    @property
    def restore_by(self) -> str | None:
        """What decides where a file fits in two ways: "name" or "position"; None raises then."""
        return self.restoring.by

    @restore_by.setter
    def restore_by(self, by: str | None) -> None:
        if by not in (None, "name", "position"):
            raise ValueError(f'`restore_by` must be "name", "position" or None. Received: {by!r}')
        self.restoring.by = by

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
        for saved in self.restoring.pending.variables:
            path = naming.free(saved.known.path, taken)
            # Once others are built, its position was one among others.
            position = None if self.built else saved.known.position
            known = saved.known._replace(path=path, position=position)
            variables.append(saved._replace(known=known))
            taken.add(path)
        numbers |= self.restoring.pending.added
        return State(
            numbers, variables, self.kind(), self.constructed(), self.restoring.pending.unnamed
        )

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
        pairs = naming.match(known, own, self.restoring.by)
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
            elif (
                name in ("iterations", *self.starts)
                and np.issubdtype(value.dtype, np.integer)
                and np.any(value < 0)
            ):
                raise ValueError(f"`{name}` counts, and can't be negative. Received: {value!r}")

    def is_of_another_kind(self, state: State) -> bool:
        return state.kind not in (None, self.kind())

    def _another_kind(self, state: State) -> str:
        if not self.is_of_another_kind(state):
            return ""
        return f"  It is the state of {state.kind}, this is {self.kind()}.\n"

    def reset_state(self) -> None:
        """Puts slots and `iterations` back to their start; hyperparameters stay as they are."""
        self.restoring.begin()
        for name, start in self.starts.items():
            getattr(self, name).assign(start)
        for schedule in self.remembering().values():
            schedule.reset()
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
        self.restoring.begin()
        self.restoring.pending.unnamed = [np.asarray(array) for array in weights[len(own) :]]
        self.restoring.pending.at_build = bool(self.restoring.pending.unnamed)

    # Files.

    def save_own_variables(self, store: Any) -> None:
        """Keras's hook for `.keras` and `.weights.h5` files."""
        if self.is_inside:
            return  # of a wrapper or Partition, which Keras comes by, too
        for name, value in self.saved_state().arrays().in_file().items():
            store[name.replace("/", "|")] = value

    def load_own_variables(self, store: Any) -> None:
        """Keras's hook; slots that come before the build are loaded at the build."""
        if self.is_inside:
            return
        arrays = {name.replace("|", "/"): np.asarray(store[name]) for name in list(store.keys())}
        self.restoring.load(State.of(arrays))

    def get_config(self) -> dict[str, Any]:
        """Every declared argument as it is now: numbers live, masks and schedules serialized."""
        given = {name: serialize(getattr(self.given, name)) for name in self.declared}
        if not self.base_is_told and "base_learning_rate" in given:
            follows = given["base_learning_rate"] == given["learning_rate"]
            given["base_learning_rate"] = None if follows else given["base_learning_rate"]
        return {"name": self.name} | given

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Any:
        def load(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return tuple(load(item) for item in value)
            if not isinstance(value, dict):
                return value
            return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)

        optimizer = cls(**{name: load(value) for name, value in config.items()})
        optimizer.state_may_follow = True
        return optimizer

    def __reduce__(self) -> tuple:
        return registry.copied(super().__reduce__)

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict:
        """TensorFlow's hook: the layout stands in a checkpoint for all that it writes itself."""
        children = dict(super()._trackable_children(save_type, **kwargs))
        if save_type != "checkpoint":
            children.pop("layout", None)
            kept = {place: schedule.kept for place, schedule in self.remembering().items()}
            return children | {place.replace("/", "_") + "_kept": kept[place] for place in kept}
        covered = {*self.names_of_keras, *self.starts, "starts", "slots", "given"}
        return {name: child for name, child in children.items() if name not in covered}
