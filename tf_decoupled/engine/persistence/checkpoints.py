"""State in `tf.train.Checkpoint`: a slot is written beside its variable's node in the object graph.

TensorFlow restores it to whatever variable it restores there, whatever that is called, also if the
variable is made or built later. It looks for three methods by name: `get_slot_names`, `get_slot`
and `_create_or_restore_slot_variable`. `_trackable_children` says what is saved, and
`_copy_trackable_to_cpu` how, asynchronously. They are private to TensorFlow, and in this file only.

Everything else is in one more entry: numbers, names, and slots of variables that the checkpoint
doesn't hold.
"""

import io
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from tf_decoupled.engine.hyperparameters import is_variable
from tf_decoupled.engine.persistence.saved_state import State
from tf_decoupled.engine.pieces import Piece
from tf_decoupled.engine.state import Cell, ref_of

VALUE = "VARIABLE_VALUE"  # TensorFlow's name of a variable's value in a checkpoint
UNKNOWN = object()  # the id of a restore of which no slot has come yet


class Leaf(tf.Module):
    """A piece of a stack as a checkpoint sees it: a node of its own, like a variable's."""

    def __init__(self, piece: Piece):
        super().__init__()
        self._piece = piece

    def _serialize_to_tensors(self) -> dict[str, tf.Tensor]:
        return {VALUE: self._piece.read_value()}

    def _restore_from_tensors(self, restored: dict[str, tf.Tensor]) -> None:
        self._piece.assign(restored[VALUE])

    def _trackable_children(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {}


class Layout(tf.train.experimental.PythonState):
    """The entry of an optimizer in a checkpoint, beside whose name its slots are written."""

    def __init__(self, optimizer: Any):
        self.optimizer = optimizer
        self.written: set[tuple[Any, str]] = set()  # by the save that goes on: (variable, slot)
        self.arrived: set[tuple[Any, str]] = set()  # by the restore that goes on
        self.positions: dict[tuple[Any, str], Any] = {}  # in the checkpoint, of slots still to make
        self.leaves: dict[tuple[Any, str], Leaf] = {}
        self.restore_id: Any = None
        self.slots_came = False

    # Saving.

    def get_slot_names(self) -> list[str]:
        self.written = set()
        names = {name: None for cell in self.optimizer.cells for name in cell.stored}
        return [self._saved_name(name) for name in names]

    def get_slot(self, variable: Any, name: str) -> Any:
        """The slot of a variable; each once, however often the variable is in the checkpoint."""
        cell, slot = self._cell_of(variable), self._slot_name(name)
        if cell is None or slot not in cell.stored or (ref_of(variable), slot) in self.written:
            return None
        self.written.add((ref_of(variable), slot))
        return self._node(cell, slot)

    def serialize(self) -> bytes:
        file = io.BytesIO()
        written = {ref for ref, _ in self.written}
        state = self.optimizer.saved_state(checkpoint_of=written)
        np.savez(file, **state.arrays().in_file())
        return file.getvalue()

    def _copy_trackable_to_cpu(self, object_map: Any) -> NoReturn:
        """TensorFlow's hook for checkpoints that are written while training goes on."""
        raise ValueError(
            "An optimizer's state can't be saved asynchronously: numbers and slots would be of "
            "different steps. Save without `enable_async`."
        )

    # Restoring: first the slots of all variables that are there, then `deserialize`, then the
    # slots of variables that are made later.

    def _create_or_restore_slot_variable(
        self, slot_variable_position: Any, slot_name: str, variable: Any, **_: Any
    ) -> Any:
        """The slot to restore into; None if there is no such slot, or not yet."""
        slot = self._slot_name(slot_name)
        if slot is None:
            return None
        if self.restore_id not in (slot_variable_position.restore_uid, UNKNOWN):
            self._begin()
        self.restore_id, self.slots_came = slot_variable_position.restore_uid, True
        cell, key = self._cell_of(variable), (ref_of(variable), slot)
        if cell is not None:
            self.arrived.add(key)
            return self._node(cell, slot) if slot in cell.stored else None
        value = slot_variable_position.value_tensors()[VALUE].numpy()
        self.positions[key] = slot_variable_position
        self.optimizer.restoring.wait_for(variable, slot, value)
        return None

    def deserialize(self, string: bytes) -> None:
        if string.startswith(b"["):
            raise ValueError(
                "This checkpoint was written by a development version of tf_decoupled that saved "
                "slots by name. Restore it there and save the model as a `.keras` file."
            )
        if not self.slots_came:
            self._begin()
            self.restore_id = UNKNOWN
        self.slots_came = False
        with np.load(io.BytesIO(string)) as arrays:
            state = State.of(dict(arrays))
        self.optimizer.restoring.load_checkpoint(state, self.arrived)

    def _begin(self) -> None:
        """Forgets what another restore has left."""
        self.arrived, self.positions = set(), {}
        self.optimizer.restoring.begin()

    def bind(self, cell: Cell) -> None:
        """Tells TensorFlow that a slot has been restored that was made later than its variable."""
        for slot in cell.stored:
            position = self.positions.pop((ref_of(cell.variable), slot), None)
            if position is not None:
                position.restore(self._node(cell, slot))

    def _node(self, cell: Cell, slot: str) -> Any:
        """What stands for a slot: its variable, or a leaf for its piece of a stack."""
        stored, key = cell.stored[slot], (ref_of(cell.variable), slot)
        if not isinstance(stored, Piece):
            return stored
        return self.leaves.setdefault(key, Leaf(stored))

    def _cell_of(self, variable: Any) -> Cell | None:
        cells = self.optimizer.cells
        known = is_variable(variable) and variable in cells
        return cells[cells.index(variable)] if known else None

    def _saved_name(self, slot: str) -> str:
        return f"{self.optimizer.kind()}:{slot}"

    def _slot_name(self, saved_name: str) -> str | None:
        """The slot, if the name is that of one of this rule."""
        kind, _, slot = saved_name.rpartition(":")
        return slot if kind == self.optimizer.kind() else None
