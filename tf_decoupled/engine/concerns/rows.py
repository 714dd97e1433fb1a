"""Rows stepped singly, where a gradient is sparse.

With `sparse="lazy"` a step reads and writes the rows of the gradient only. What a row has missed,
its decay and what its slots do without a gradient, it catches up in closed form when it is next
in a gradient: `catch_up` of the rule.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_decoupled.engine import replicas
from tf_decoupled.engine.blocks import Part
from tf_decoupled.engine.concern import Concern, public
from tf_decoupled.engine.hyperparameters import namespace
from tf_decoupled.engine.state import Slot, Slots, flatten, nest, ref_of
from tf_decoupled.engine.step import Step

TABLE_STEP, ROW_STEP = "table_step", "row_step"


def missed(part: Any) -> tf.Tensor:
    """How many updates of its variable each row was in none of: [n, 1, ...] in `part.p`'s dtype."""
    k = tf.cast(part.slot(TABLE_STEP) - part.slot(ROW_STEP), part.p.dtype)
    return tf.reshape(k, [-1] + [1] * (part.block.shape.rank - 1))


class Rows(Concern):
    """Steps the rows of a sparse gradient only.

    "table_step" counts the variable's updates, those without a gradient for it left out, and
    "row_step" says after which of them a row was last brought up to date.

    Args:
        sparse: "exact" (a sparse gradient acts as the dense one) or "lazy" (a step costs by the
            rows in its gradient; see `catch_up` of the class for what absent rows miss, and
            `catch_up_rows`, which brings all of them up to date). Of a Partition it is for the
            members that can step rows and have no `l2`; the others' steps stay exact. A slice of a
            row that the variable hasn't is an error; in a step that XLA compiles as a whole, and
            on TPUs, which have no errors, it is dropped.
    """

    sparse: str = "exact"

    keeps_rows = True

    @classmethod
    def interpret(cls, given: dict[str, Any], optimizer: type) -> dict[str, Any]:
        """Raises for arguments that `sparse="lazy"` can't be combined with."""
        if not isinstance(given["sparse"], str) or given["sparse"] not in ("exact", "lazy"):
            raise ValueError(
                f'`sparse` must be "exact" or "lazy". Received: sparse={given["sparse"]!r}'
            )
        if given["sparse"] == "exact":
            return given
        hindrances = [hindrance(each, optimizer) for each in optimizer.stepping(given)]
        if all(hindrances):
            raise ValueError(f'{hindrances[0]}. Received: sparse="lazy"')
        wrong = {n: v for c in optimizer.concerns for n, v in c.needs_whole_arrays(given).items()}
        l2 = given.get("l2", 0)
        if not isinstance(l2, (int, float)) or l2 != 0:
            wrong["l2"] = l2
        if wrong:
            raise ValueError(
                'With sparse="lazy" a step touches single rows, which some arguments don\'t. Leave '
                f'them out, or use sparse="exact". Received: {wrong}'
            )
        return given

    def check_assigned(self, name: str, value: Any, replaced: bool) -> None:
        if name == "l2":
            self.interpret(vars(self.optimizer.given) | {name: value}, type(self.optimizer))

    @classmethod
    def asked(cls, given: dict[str, Any]) -> bool:
        return given["sparse"] == "lazy"

    def slots(self, cell: Any) -> Slots:
        shape = tuple(cell.variable.shape)
        if len(shape) < 2 or cell.constraint is not None or cell.overwrites:
            return {}
        if hindrance(type(cell.rule), type(self.optimizer)):
            return {}
        return {
            TABLE_STEP: Slot((), 0, "int32"),
            ROW_STEP: Slot(shape[:1], 0, "int32"),
        }

    def enter(self, part: Any, step: Any) -> None:
        """Brings the rows up to date, as they are before this step."""
        if part.rows is not None:
            part.g = tf.gather(part.g, part.rows.places)
        if ROW_STEP in part.block.concern_slots:
            self._catch_up(part, step.numbers.get("updates", 1))

    def _catch_up(self, part: Any, updates: int) -> None:
        """Value and slots of rows, and the counts after so many updates of the variable."""
        catch_up = part.block.rule.catch_up
        part.p, slots = catch_up(part.p, nest(part.s), namespace(part.h), missed(part))
        part.s = dict(flatten(slots))
        now = part.slot(TABLE_STEP) + updates
        part.new |= {TABLE_STEP: now, ROW_STEP: tf.zeros_like(part.slot(ROW_STEP)) + now}

    @public
    def catch_up_rows(self, variables: Sequence | None = None) -> None:
        """Brings every row up to date, of all variables or of these; for `sparse="lazy"`.

        `fit` does so at its end. Before, as in validation, rows stand where their last gradient
        left them.
        """
        optimizer = self.optimizer
        if not (optimizer.built and self.active):
            return
        wanted = [c.variable for c in optimizer.cells] if variables is None else variables
        refs = {ref_of(v) for v in wanted}
        blocks = [b for b in optimizer.blocks if ROW_STEP in b.concern_slots]
        blocks = [b for b in blocks if ref_of(b.cells[0].variable) in refs]
        blocks = [b for b in blocks if b.shape.num_elements()]
        replicas.once(lambda _: self._catch_up_blocks(blocks), [])

    def _catch_up_blocks(self, blocks: Sequence[Any]) -> None:
        optimizer = self.optimizer
        h = optimizer.hyperparameters_at(optimizer.iterations)
        for replica in replicas.parts(optimizer.anchor):
            parts = [Part(block.on(replica)) for block in blocks]
            now = Step(optimizer, h, {"updates": 0}, parts)
            for part in parts:
                now.read(part)
                now.leave(part)
                part.write(None)

    def finalize(self, variables: Sequence) -> None:
        self.catch_up_rows(variables)


def hindrance(cls: type, optimizer: type) -> str | None:
    """Why a class can't step single rows for an optimizer: it has no `catch_up`, or another's."""
    author = _definer(cls, "catch_up")
    if author.__name__ == "Rule":
        return (
            f'{cls.__name__} can not step single rows: leave sparse="exact", or take '
            f"{', '.join(_stepping_rows(author))}"
        )
    if cls is not optimizer and "l2" in cls.declared:
        return f"{cls.__name__} has `l2`, and can't step single rows as a member of another"
    older = cls.__mro__[cls.__mro__.index(author) :]
    for name in ("init", "update", "step"):
        own = _definer(cls, name)
        if own not in older:
            return (
                f"{own.__name__} defines `{name}`, and `catch_up` of {author.__name__} was written "
                f"for a class with another `{name}`. Define `catch_up` in {own.__name__} as well "
                f"(`catch_up = {author.__name__}.catch_up` if that holds here too), or leave "
                'sparse="exact"'
            )
    return None


def _definer(cls: type, name: str) -> type:
    """The class that an attribute is inherited from."""
    return next(c for c in cls.__mro__ if name in vars(c))


def _stepping_rows(cls: type) -> list[str]:
    """The names of this package's classes that define `catch_up`, below a class."""
    names = []
    for below in cls.__subclasses__():
        own = "catch_up" in vars(below) and below.__module__.startswith("tf_decoupled.optimizers.")
        names += [below.__name__] * own + _stepping_rows(below)
    return names
