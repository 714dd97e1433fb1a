"""Gradient transforms: what happens to each variable's gradient before the rule.

    gradient_transforms=[td.transforms.Centralize(), td.transforms.AdaptiveClip(0.02)]

They are called one after the other, after clipping. A function `(p, g, h) -> g` is one, too.
"""

import math
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from tf_decoupled.engine import arguments, registry
from tf_decoupled.engine.hyperparameters import fits, is_number
from tf_decoupled.math import normal


class Transform:
    """What happens to a variable's gradient before the rule: `(p, g, h) -> g`.

    p: the variable's value, g: its gradient, h: the hyperparameters of the step, `h.t` updates.
    A subclass takes its arguments in `__init__`, and tells them in `get_config`.
    """

    random = False  # whether it needs `h.seed`, an integer that tells the variable from others

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        registry.register(cls, "tf_decoupled.transforms")

    def __call__(self, p: tf.Tensor, g: tf.Tensor, h: SimpleNamespace) -> tf.Tensor:
        raise NotImplementedError(f"{type(self).__name__} must say `(p, g, h) -> g`.")

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Transform":
        return cls(**config)

    def __repr__(self) -> str:
        return arguments.call(type(self).__name__, (), self.get_config())

    def __eq__(self, other: Any) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(repr(self))


class AdaptiveClip(Transform):
    """Clips each unit's gradient to a part of the unit's own norm.

        g_u ← g_u · min(1, λ max(‖θ_u‖, ε) / ‖g_u‖)

    A unit is an output: of kernels, all axes but the last; a vector is one, whole.

    Args:
        limit: λ.
        epsilon: ε, the least norm of a unit: one that starts at 0 must move.

    Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", 2021,
    equation 3. arXiv:2102.06171. The paper leaves the last layer out.
    """

    def __init__(self, limit: float = 0.01, epsilon: float = 1e-3):
        self.limit = _number(self, "limit", limit, "a finite number > 0", _is_positive)
        self.epsilon = _number(self, "epsilon", epsilon, "a finite number > 0", _is_positive)

    def __call__(self, p, g, h):
        allowed = self.limit * tf.maximum(unit_norms(p), self.epsilon)
        return g * tf.minimum(1.0, allowed / unit_norms(g))

    def get_config(self):
        return dict(limit=self.limit, epsilon=self.epsilon)


class Centralize(Transform):
    """Takes the mean of each unit's gradient away: its weights keep their sum.

        g_u ← g_u − mean(g_u)

    A unit is an output: of kernels, all axes but the last. Vectors and scalars are left alone.

    Yong et al., "Gradient Centralization: A New Optimization Technique for Deep Neural Networks",
    2020, algorithms 1 and 2. arXiv:2004.01461
    """

    def __call__(self, p, g, h):
        if g.shape.rank < 2:
            return g
        return g - tf.reduce_mean(g, list(range(g.shape.rank - 1)), keepdims=True)


class Noise(Transform):
    """Adds random numbers, ever smaller ones, to a gradient.

        g ← g + N(0, σ²)        σ² = η / (1 + t)^γ, with t updates done

    Every variable, step and seed has its own, the same on all replicas and devices.

    Args:
        eta: η.
        gamma: γ.
        seed: another one gives other numbers.

    Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks", 2015,
    equation 1. arXiv:1511.06807
    """

    random = True

    def __init__(self, eta: float, gamma: float = 0.55, seed: int = 0):
        self.eta = _number(self, "eta", eta, "a finite number >= 0", _is_not_negative)
        self.gamma = _number(self, "gamma", gamma, "a finite number >= 0", _is_not_negative)
        words = "an integer in [0, 2³¹)"
        self.seed = int(
            _number(self, "seed", seed, words, lambda x: x == int(x) and 0 <= x < 2**31)
        )

    def __call__(self, p, g, h):
        deviation = tf.sqrt(self.eta / h.t**self.gamma)
        own = h.seed + tf.constant(self.seed * 0x9E3779B1 % 2**31, h.seed.dtype)
        return g + deviation * normal(g, tf.stack([own, tf.cast(h.step, own.dtype)]))

    def get_config(self):
        return dict(eta=self.eta, gamma=self.gamma, seed=self.seed)


def unit_norms(x: tf.Tensor) -> tf.Tensor:
    """The norm of each output's weights, of shape [1, ..., outputs]; a vector's, whole."""
    axes = list(range(max(1, x.shape.rank - 1))) if x.shape.rank else None
    largest = tf.reduce_max(tf.abs(x), axes, keepdims=True)
    unit = tf.where(largest > 0, largest, 1.0)
    return unit * tf.sqrt(tf.reduce_sum(tf.square(x / unit), axes, keepdims=True))


def _is_positive(x: float) -> bool:
    return 0 < x < math.inf


def _is_not_negative(x: float) -> bool:
    return 0 <= x < math.inf


def _number(owner: Transform, name: str, value: Any, words: str, holds: Any) -> Any:
    """The value, if it is such a number; else one clear error."""
    told = f"`{name}` of {type(owner).__name__} must be {words}, fixed at construction. "
    if not is_number(value):
        raise TypeError(f"{told}Received: {name}={value!r}")
    if not fits(value, holds, "float32" if isinstance(value, float) else "float64"):
        raise ValueError(f"{told}Received: {name}={value!r}")
    return value if isinstance(value, (int, float)) else float(value)
