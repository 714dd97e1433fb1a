"""How an optimizer is saved: its state as arrays by name, its configuration as plain values."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_decoupled.hyperparameters import is_variable, serialize
from tf_decoupled.state import Mismatch, aligned


class Saved:
    """The part of an optimizer that saving and loading goes through, in whatever format."""

    def add_counter(self, name: str, start: float = 0, dtype: str = "int64") -> None:
        """Makes a scalar variable of the step, saved by its name, as an attribute; once."""
        if name in self.starts:
            return
        self.starts[name] = start
        # Aggregation would cost a collective per step on TPUs; all replicas assign the same.
        counter = keras.Variable(start, dtype=dtype, trainable=False, name=name)
        setattr(self, name, counter)

    def named_variables(self) -> dict[str, Any]:
        """Everything that makes up the state, by name: "iterations", "learning_rate", "path:m"."""
        named = {"iterations": self.iterations}
        named |= {name: getattr(self, name) for name in self.starts if name != "updates"}
        named |= self.hyperparameter_variables()
        return named | {f"{c.path}:{name}": v for c in self.cells for name, v in c.stored.items()}

    def hyperparameter_variables(self) -> dict[str, Any]:
        """The variables that hold the hyperparameters given as numbers."""
        given = {name: getattr(self.given, name) for name in self.declared}
        return {name: value for name, value in given.items() if is_variable(value)}

    @property
    def variables(self) -> list:
        return list(self.named_variables().values())

    def get_state(self) -> dict[str, np.ndarray]:
        """The state as arrays by name; `set_state` is the inverse."""
        return dict(self.pending or {}) | {n: v.numpy() for n, v in self.named_variables().items()}

    def load_pending(self) -> None:
        """Loads the slots that came before the build; the numbers were, and may have changed."""
        pending, self.pending = self.pending, None
        if pending:
            numbers = {n: v.numpy() for n, v in self.named_variables().items() if ":" not in n}
            self.set_state(pending | numbers)

    def set_state(self, state: Mapping[str, Any], strict: bool = True) -> Mismatch:
        """Loads arrays by name, and reports what doesn't fit.

        Strict, it raises then, and nothing is loaded; otherwise it loads what fits. Paths that
        differ only by Keras's automatic naming count as the same (`state.aligned`). A state from
        before the build has no slots, and leaves them as they are.
        """
        own = self.named_variables()
        if not has_slots(state):
            own = {name: variable for name, variable in own.items() if ":" not in name}
        elif not self.built:
            raise ValueError("Build the optimizer first: `opt.build(model.trainable_variables)`.")
        state = aligned(state, list(own))
        mismatch = Mismatch.between({k: tuple(v.shape) for k, v in own.items()}, state)
        if strict and mismatch:
            raise ValueError(
                f"The saved state doesn't fit this {type(self).__name__}, and nothing was loaded. "
                "`opt.set_state(state, strict=False)` loads what fits.\n" + str(mismatch)
            )
        for name, variable in own.items():  # in the same order on all workers
            if name in state and name not in mismatch.misshapen:
                variable.assign(state[name])
        return mismatch

    def reset_state(self) -> None:
        """Puts slots and `iterations` back to their start; hyperparameters stay as they are."""
        for name, start in self.starts.items():
            getattr(self, name).assign(start)
        for cell in self.cells:
            cell.reset()

    def set_weights(self, weights: Sequence) -> None:
        """Assigns `variables` in their order."""
        names = list(self.named_variables())
        if len(weights) != len(names):
            raise ValueError(
                f"`set_weights` needs {len(names)} arrays: {names}. Received: {len(weights)}"
            )
        self.set_state(dict(zip(names, weights, strict=True)))

    def save_own_variables(self, store: Any) -> None:
        """Keras's hook for `.keras` and `.weights.h5` files."""
        for name, value in self.get_state().items():
            store[name.replace("/", "|")] = value

    def load_own_variables(self, store: Any) -> None:
        """Keras's hook; what comes before the build is loaded, as strictly, at the build."""
        state = {name.replace("|", "/"): np.asarray(store[name]) for name in list(store.keys())}
        self.scale_as_saved(state)
        if self.built or not has_slots(state):
            self.set_state(state)
        else:
            self.set_state({name: value for name, value in state.items() if ":" not in name})
            self.pending = {name: value for name, value in state.items() if ":" in name}

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


def has_slots(state: Mapping[str, Any]) -> bool:
    """Whether the state is that of an optimizer that was built."""
    return any(":" in name for name in state)
