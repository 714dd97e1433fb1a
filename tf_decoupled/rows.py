"""Sparse gradients, of some rows of a variable: summed where a row repeats, dense or row by row.

With `sparse="lazy"` a step reads and writes the rows of the gradient only. What a row has missed,
its decay and what its slots do without a gradient, it catches up in closed form when it is next
in a gradient: `catch_up` of the rule.
"""

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_decoupled import replicas
from tf_decoupled.hyperparameters import corrected, namespace
from tf_decoupled.state import Cell, Slot, Slots

# Numbers of slices that steps are compiled for: 0, 16, 24, 32, 48, 64, ...
SIZES = np.array([0, *(m << k for k in range(3, 29) for m in (2, 3))], np.int32)


def dense(g: tf.IndexedSlices, rows: int) -> tf.Tensor:
    """The gradient as an array of all rows; repeated ones are summed."""
    return tf.math.unsorted_segment_sum(g.values, g.indices, rows)


def float32(g: tf.IndexedSlices, shape: Sequence[int]) -> tf.IndexedSlices:
    """The same slices in float32."""
    values, indices = tf.cast(g.values, tf.float32), tf.convert_to_tensor(g.indices)
    return tf.IndexedSlices(values, indices, tf.constant(tuple(shape)))


def inside(g: tf.IndexedSlices, rows: int, path: str) -> tf.IndexedSlices:
    """The same slices; an error where one is of a row outside of the variable.

    Not on a TPU, and XLA leaves the assertion out. What has no row is dropped there.
    """
    if not replicas.host_is_reachable():
        return g
    least, most = tf.reduce_min(g.indices), tf.reduce_max(g.indices)
    told = f"The gradient of `{path}` is of rows outside of its {rows}, counted from 0. "
    told += "Look at the ids that are looked up in it. Received rows from, to:"
    right = (least >= 0) & (most < rows)
    with tf.control_dependencies([tf.debugging.Assert(right, [told, least, most])]):
        return tf.IndexedSlices(g.values, tf.identity(g.indices), g.dense_shape)


class RowGradient(NamedTuple):
    """A sparse gradient with its repeated rows summed, in arrays of the shape that came.

    `sums` [n, ...]: the sum of each different row once, then zeros, so norms of it are those of
    the dense gradient. `rows` [n]: the rows, as they came. `places` [n]: where each one's sum is.
    """

    sums: tf.Tensor
    rows: tf.Tensor
    places: tf.Tensor


def summed(g: Any) -> Any:
    """Dense gradients as they are; sparse ones with their repeated rows summed."""
    if not isinstance(g, tf.IndexedSlices):
        return g
    g = padded(g)
    where = places(g.indices)
    sums = tf.math.unsorted_segment_sum(g.values, where, tf.shape(where)[0])
    return RowGradient(sums, g.indices, where)


def padded(g: tf.IndexedSlices) -> tf.IndexedSlices:
    """The same gradient, with zeros for its last row added, up to the next of a few sizes.

    XLA compiles a step anew for each number of slices, and TensorFlow traces one anew that runs
    eagerly. Where a trace knows the number, nothing is added.
    """
    n = g.indices.shape[0]
    if n is not None and not tf.executing_eagerly():
        return g
    if n is None:
        n = tf.shape(g.indices)[0]
        size = tf.gather(SIZES, tf.searchsorted(SIZES, [n])[0])
    else:
        size = int(SIZES[np.searchsorted(SIZES, n)])
    indices = tf.gather(g.indices, tf.minimum(tf.range(size), n - 1))
    values = tf.pad(g.values, [[0, size - n]] + [[0, 0]] * (len(g.values.shape) - 1))
    return tf.IndexedSlices(values, indices, g.dense_shape)


def places(indices: tf.Tensor) -> tf.Tensor:
    """0, 1, ... for the different indices in their order, at each of them: [n] to [n].

    `tf.unique` would do, but that its result has a shape unknown to XLA; and `tf.searchsorted`,
    which XLA does in n² steps.
    """
    order = tf.argsort(indices)
    ascending = tf.gather(indices, order)
    new = tf.cast(ascending[1:] != ascending[:-1], tf.int32)
    ranks = tf.pad(tf.cumsum(new), [[1, 0]])[: tf.shape(indices)[0]]
    return tf.scatter_nd(order[:, None], ranks, tf.shape(indices))


def total(g: Any) -> tf.Tensor:
    """What of a gradient is clipped, and has its norm."""
    return g.sums if isinstance(g, RowGradient) else g


def spread(total: tf.Tensor, g: Any) -> tf.Tensor:
    """What `total` became, at each row of the gradient."""
    return tf.gather(total, g.places) if isinstance(g, RowGradient) else total


def indices(g: Any) -> tf.Tensor | None:
    """The rows that a sparse gradient is about; None, all of them, for a dense one."""
    return g.rows if isinstance(g, RowGradient) else None


def missed(cell: Cell) -> tf.Tensor:
    """How many updates of its variable each row was in none of, as float32 [n, 1, ...]."""
    k = tf.cast(cell.value("table_step") - cell.value("row_step"), tf.float32)
    return tf.reshape(k, [-1] + [1] * (len(cell.variable.shape) - 1))


def kept(variable: Any) -> Slots:
    """What stands beside a variable whose rows are stepped singly; nothing where they can't be.

    "table_step" counts the variable's updates, those without a gradient for it left out, and
    "row_step" says after which of them a row was last brought up to date.
    """
    if len(variable.shape) < 2 or getattr(variable, "constraint", None) is not None:
        return {}
    return {
        "table_step": Slot((), 0, "int32"),
        "row_step": Slot(tuple(variable.shape[:1]), 0, "int32"),
    }


def touched(cell: Cell, updates: int) -> Slots:
    """The counts after so many updates of the variable, 1 or 0, with all of these rows in them."""
    step = cell.value("table_step") + updates
    return {"table_step": step, "row_step": tf.zeros_like(cell.value("row_step")) + step}


class RowWise:
    """The part of an optimizer that lets rows of a variable catch up."""

    @classmethod
    def check_lazy(cls, given: dict[str, Any]) -> None:
        """Raises for arguments that `sparse="lazy"` can't be combined with."""
        if not isinstance(given["sparse"], str) or given["sparse"] not in ("exact", "lazy"):
            raise ValueError(
                f'`sparse` must be "exact" or "lazy". Received: sparse={given["sparse"]!r}'
            )
        if given["sparse"] == "exact":
            return
        _check_catch_up(cls)
        whole = ("use_ema", "gradient_accumulation_steps")
        wrong = {name: given[name] for name in whole if given[name] != cls.declared[name].default}
        l2 = given.get("l2", 0)
        if not isinstance(l2, (int, float)) or l2 != 0:
            wrong["l2"] = l2
        if given["low_precision"] == "stochastic":
            wrong["low_precision"] = "stochastic"
        if wrong:
            raise ValueError(
                'With sparse="lazy" a step touches single rows, which these arguments don\'t: '
                f'{wrong}. Leave them out, or use sparse="exact".'
            )

    def catch_up(
        self, p: tf.Tensor, s: SimpleNamespace, h: SimpleNamespace, k: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """Value and slots after k updates with gradient 0, in closed form; for `sparse="lazy"`.

        p: [n, ...], rows of a variable, and slots likewise; k: [n, 1, ...]. Hyperparameters of the
        present step stand for those of the missed ones. To be exact in the slots is the least.
        A class that defines `init`, `update` or `step` says anew what this is, in itself too.
        """
        raise NotImplementedError

    def caught_up(
        self, cell: Cell, p: tf.Tensor, s: SimpleNamespace, h: SimpleNamespace
    ) -> tuple[tf.Tensor, Slots]:
        """Value and slots of rows as they are before this step."""
        return self.catch_up(p, s, h, missed(cell))

    def catch_up_rows(self, variables: Sequence | None = None) -> None:
        """Brings every row up to date, of all variables or of these; for `sparse="lazy"`.

        `fit` does so at its end. Before, as in validation, rows stand where their last gradient
        left them.
        """
        if self.built and self.sparse == "lazy":
            indexes = range(len(self.cells))
            if variables is not None:
                indexes = [self.cells.index(v) for v in variables if v in self.cells]
            replicas.once(lambda _: self._catch_up_rows(indexes), [])

    def _catch_up_rows(self, indexes: Iterable[int]) -> None:
        h = corrected(self.hyperparameters_at(self.iterations))
        for replica in replicas.parts(self.anchor):
            for cell in (self.cells[i] for i in indexes):
                if "row_step" in cell.kept and cell.variable.shape.num_elements():
                    local = cell.on(replicas.on(replica))
                    own = namespace(self.hyperparameters_of(cell, h))
                    p, slots = self.caught_up(local, *local.read(), own)
                    local.assign(local.results(p, slots, touched(local, 0), step=h["step"]))


def _check_catch_up(cls: type) -> None:
    """Raises for a class without a `catch_up`, or with one that was written for another rule."""
    author = _definer(cls, "catch_up")
    if author is RowWise:
        raise ValueError(
            f'{cls.__name__} can not step single rows: leave sparse="exact", or take '
            f'{", ".join(_stepping_rows(RowWise))}. Received: sparse="lazy"'
        )
    older = cls.__mro__[cls.__mro__.index(author) :]
    for name in ("init", "update", "step"):
        own = _definer(cls, name)
        if own not in older:
            raise ValueError(
                f"{own.__name__} defines `{name}`, and `catch_up` of {author.__name__} was written "
                f"for a class with another `{name}`. Define `catch_up` in {own.__name__} as well "
                f"(`catch_up = {author.__name__}.catch_up` if that holds here too), or leave "
                'sparse="exact". Received: sparse="lazy"'
            )


def _definer(cls: type, name: str) -> type:
    """The class that an attribute is inherited from."""
    return next(c for c in cls.__mro__ if name in vars(c))


def _stepping_rows(cls: type) -> list[str]:
    """The names of this package's classes that define `catch_up`, below a class."""
    names = []
    for below in cls.__subclasses__():
        own = "catch_up" in vars(below) and below.__module__.startswith(f"{__package__}.")
        names += [below.__name__] * own + _stepping_rows(below)
    return names
