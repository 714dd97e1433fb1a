"""Constraints that are projections: after each step a variable is the nearest one that is allowed.

    keras.layers.Dense(10, kernel_constraint=td.constraints.L1Ball(5.0, axis=0))

They are Keras's constraints, for layers and for `keras.Variable`s. The nearest is so by Euclid's
distance. With `axis` each set of entries along it is projected by itself, as in Keras's: axis=0
of a Dense kernel is the weights of each output. With None, the default, the variable is one set.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import keras
import tensorflow as tf

from tf_decoupled.engine import arguments, kinds, registry
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.hyperparameters import is_number

__all__ = ["Box", "KeepNonNegative", "L1Ball", "L2Ball", "LinfBall", "Projection", "Simplex"]

RANKS = 255  # no tensor has so many axes


def _axis(where: Where, axis: Any) -> Any:
    """The axis, or axes, as Python's own integers."""
    several = axis if isinstance(axis, (list, tuple)) else [axis]
    if not several or not all(is_number(x) and x == x // 1 and abs(x) < RANKS for x in several):
        words = "an integer, several, or None for the whole variable"
        where.refuse(TypeError, words, axis)
    return [int(each) for each in axis] if isinstance(axis, (list, tuple)) else int(axis)


Bound = Annotated[float | None, kinds.optional(kinds.real("a finite number", lambda x: True))]
Positive = Annotated[float, kinds.real("a finite number > 0", lambda x: x > 0)]
NotNegative = Annotated[float, kinds.real("a finite number >= 0", lambda x: x >= 0)]
Axis = Annotated[int | Sequence[int] | None, kinds.optional(_axis)]


class Projection(keras.constraints.Constraint):
    """What all these constraints share: they are written as they are made, and saved by name."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__, owner=cls.__name__)
        registry.register(cls, "tf_decoupled.constraints")

    def __call__(self, w: Any) -> tf.Tensor:
        return self.project(tf.convert_to_tensor(w))

    def project(self, w: tf.Tensor) -> tf.Tensor:
        """The nearest tensor that is allowed."""
        raise NotImplementedError(f"{type(self).__name__} must define `project`.")

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))

    def __repr__(self) -> str:
        return arguments.call(type(self).__name__, (), self.get_config())

    def __eq__(self, other: Any) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(repr(self))


class KeepNonNegative(Projection):
    """w ≥ 0: what is below becomes 0."""

    def project(self, w):
        return tf.maximum(w, tf.zeros_like(w))


class Box(Projection):
    """low ≤ w ≤ high.

    Args:
        low, high: the bounds; None for none.
    """

    def __init__(self, low: Bound = None, high: Bound = None):
        self.low, self.high = low, high
        if low is not None and high is not None and low > high:
            raise ValueError(f"`low` of Box must be at most `high`. Received: {self}")

    def project(self, w):
        w = w if self.low is None else tf.maximum(w, tf.constant(self.low, w.dtype))
        return w if self.high is None else tf.minimum(w, tf.constant(self.high, w.dtype))


class LinfBall(Projection):
    """|w| ≤ radius, of each entry."""

    def __init__(self, radius: NotNegative = 1.0):
        self.radius = radius

    def project(self, w):
        return tf.clip_by_value(w, -self.radius, self.radius)


class L2Ball(Projection):
    """‖w‖ ≤ radius: w ← w · min(1, radius / ‖w‖).

    `keras.constraints.MaxNorm` is about the same, with axis=0 by default.

    Args:
        radius: the largest norm.
        axis: the axis, or axes, along which norms are taken; None for the whole variable.
    """

    def __init__(self, radius: NotNegative = 1.0, axis: Axis = None):
        self.radius, self.axis = radius, axis

    def project(self, w):
        axes = _axes(self, w)
        largest = tf.reduce_max(tf.abs(w), axes, keepdims=True)
        unit = tf.where(largest > 0, largest, tf.ones_like(largest))
        length = unit * tf.sqrt(tf.reduce_sum(tf.square(w / unit), axes, keepdims=True))
        inside = length <= self.radius
        return w * tf.where(inside, tf.ones_like(length), self.radius / _not_zero(length))


class Simplex(Projection):
    """w ≥ 0 with a given sum: w ← max(w − τ, 0), with the τ that gives the sum.

        τ = max_j (u_1 + … + u_j − total) / j,   u: the entries, the largest first

    Args:
        total: the sum.
        axis: the axis, or axes, along which it is taken; None for the whole variable.

    Duchi et al., "Efficient Projections onto the l1-Ball for Learning in High Dimensions", 2008,
    figure 1, where τ is θ, the last that grows, which is the largest.
    """

    def __init__(self, total: Positive = 1.0, axis: Axis = None):
        self.total, self.axis = total, axis

    def project(self, w):
        return _along(w, _axes(self, w), lambda rows: _on_simplex(rows, self.total))


class L1Ball(Projection):
    """Σ|w| ≤ radius: where it isn't, |w| goes to the simplex of that sum. It makes zeros.

    Args:
        radius: the largest sum.
        axis: the axis, or axes, along which it is taken; None for the whole variable.

    Duchi et al., "Efficient Projections onto the l1-Ball for Learning in High Dimensions", 2008,
    section 4.
    """

    def __init__(self, radius: Positive = 1.0, axis: Axis = None):
        self.radius, self.axis = radius, axis

    def project(self, w):
        return _along(w, _axes(self, w), self._rows)

    def _rows(self, rows: tf.Tensor) -> tf.Tensor:
        inside = tf.reduce_sum(tf.abs(rows), -1, keepdims=True) <= self.radius
        return tf.where(inside, rows, tf.sign(rows) * _on_simplex(tf.abs(rows), self.radius))


def _on_simplex(rows: tf.Tensor, total: float) -> tf.Tensor:
    """Each row, projected."""
    rows -= tf.reduce_max(rows, -1, keepdims=True)  # which changes nothing but the rounding
    u = tf.sort(rows, -1, "DESCENDING")
    j = tf.range(1, rows.shape[-1] + 1, dtype=rows.dtype)
    τ = tf.reduce_max((tf.cumsum(u, -1) - total) / j, -1, keepdims=True)
    return tf.maximum(rows - τ, tf.zeros_like(rows))


def _along(w: tf.Tensor, axes: list[int], function: Any) -> tf.Tensor:
    """Calls a function of the rows of a matrix, each row the entries along these axes."""
    others = [i for i in range(len(w.shape)) if i not in axes]
    order = others + axes
    turned = tf.transpose(w, order)
    length = math.prod(w.shape[i] for i in axes)
    rows = function(tf.reshape(turned, [math.prod(w.shape[i] for i in others), length]))
    back = sorted(range(len(order)), key=order.__getitem__)
    return tf.transpose(tf.reshape(rows, turned.shape), back)


def _axes(owner: Any, w: tf.Tensor) -> list[int]:
    """The axes of this tensor that are one set, from the first."""
    rank = len(w.shape)
    if owner.axis is None:
        return list(range(rank))
    axes = [owner.axis] if isinstance(owner.axis, int) else owner.axis
    if not all(-rank <= axis < rank for axis in axes):
        raise ValueError(
            f"{owner!r} has an `axis` that a variable of shape {tuple(w.shape)} has not. "
            f"Received: axis={owner.axis!r}"
        )
    return sorted({axis % rank for axis in axes})


def _not_zero(x: tf.Tensor) -> tf.Tensor:
    return tf.where(x == 0, tf.ones_like(x), x)
