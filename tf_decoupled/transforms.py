"""Gradient transforms: what happens to each variable's gradient before the rule.

    gradient_transforms=[td.transforms.Centralize(), td.transforms.AdaptiveGradientClip(0.02)]

They are called one after the other, after clipping. A function `(p, g, h) -> g` is one, too.
Each sees one variable: to clip by the norm of all gradients together, `global_clipnorm=` is there.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Any

import tensorflow as tf

from tf_decoupled.engine import arguments, kinds, registry
from tf_decoupled.engine.checking import Check, checked
from tf_decoupled.engine.state import Slots, zeros
from tf_decoupled.math import clip_factor, ema, norm, normal

__all__ = [
    "EMA",
    "AdaptiveGradientClip",
    "AddNoise",
    "Centralize",
    "ClipByBlockRMS",
    "ClipByNorm",
    "ClipByValue",
    "NormalizeUpdate",
    "Trace",
    "Transform",
    "ZeroNans",
]


def _fixed(words: str, holds: Callable[[float], bool]) -> Check:
    words = f"{words}, fixed at construction"
    return kinds.limit(words, holds, kind=words)


Positive = Annotated[float, _fixed("a finite number > 0", lambda x: x > 0)]
NotNegative = Annotated[float, _fixed("a finite number >= 0", lambda x: x >= 0)]
Beta = Annotated[float, _fixed("a number in [0, 1)", lambda x: 0 <= x < 1)]
Seed = Annotated[int, kinds.whole("an integer in [0, 2³¹)", 0, below=2**31)]
Flag = Annotated[bool, kinds.flag]


class Transform:
    """What happens to a variable's gradient before the rule: `(p, g, h) -> g`.

    p: the variable's value, g: its gradient, h: the hyperparameters of the step, `h.t` updates.
    One that remembers something declares it as a rule does, `init(p)`, and has `update` instead of
    `__call__`: it gets its slots, s, and returns the gradient and the new slots.
    A subclass takes its arguments in `__init__`, and tells them in `get_config`.
    """

    random = False  # whether it needs `h.seed`, an integer that tells the variable from others

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__, owner=cls.__name__)
        registry.register(cls, "tf_decoupled.transforms")

    def __call__(self, p: tf.Tensor, g: tf.Tensor, h: SimpleNamespace) -> tf.Tensor:
        raise NotImplementedError(
            f"{type(self).__name__} must say `(p, g, h) -> g`, or have `init` and `update`."
        )

    def init(self, p: tf.Variable) -> Slots:
        """Declares what is kept beside a variable: `dict(m=zeros(p))`."""
        return {}

    def update(
        self, p: tf.Tensor, g: tf.Tensor, s: SimpleNamespace, h: SimpleNamespace
    ) -> tuple[tf.Tensor, Slots]:
        """The gradient, and the new slots."""
        return self(p, g, h), {}

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


class AdaptiveGradientClip(Transform):
    """Clips each unit's gradient to a part of the unit's own norm.

        g_u ← g_u · min(1, λ max(‖θ_u‖, ε) / ‖g_u‖)

    A unit is an output: of kernels, all axes but the last; a vector is one, whole.

    Args:
        limit: λ.
        epsilon: ε, the least norm of a unit: one that starts at 0 must move.

    Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", 2021,
    equation 3. arXiv:2102.06171. The paper leaves the last layer out.
    """

    def __init__(self, limit: Positive = 0.01, epsilon: Positive = 1e-3):
        self.limit, self.epsilon = limit, epsilon

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


class AddNoise(Transform):
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

    def __init__(self, eta: NotNegative, gamma: NotNegative = 0.55, seed: Seed = 0):
        self.eta, self.gamma, self.seed = eta, gamma, seed

    def __call__(self, p, g, h):
        deviation = tf.sqrt(self.eta / h.t**self.gamma)
        own = h.seed + tf.constant(self.seed * 0x9E3779B1 % 2**31, h.seed.dtype)
        return g + deviation * normal(g, tf.stack([own, tf.cast(h.step, own.dtype)]))

    def get_config(self):
        return dict(eta=self.eta, gamma=self.gamma, seed=self.seed)


class ClipByValue(Transform):
    """Clips each entry: g ← min(max(g, −c), c).

    As `clipvalue`, at another place among the transforms.

    Args:
        limit: c.
    """

    def __init__(self, limit: Positive):
        self.limit = limit

    def __call__(self, p, g, h):
        return tf.clip_by_value(g, -self.limit, self.limit)

    def get_config(self):
        return dict(limit=self.limit)


class ClipByNorm(Transform):
    """Clips each variable's gradient by its norm: g ← g · min(1, c / ‖g‖).

    As `clipnorm`. A gradient with a NaN or inf becomes NaN, whole.

    Args:
        limit: c.
    """

    def __init__(self, limit: Positive):
        self.limit = limit

    def __call__(self, p, g, h):
        return g * clip_factor(norm(g), self.limit)

    def get_config(self):
        return dict(limit=self.limit)


class ClipByBlockRMS(Transform):
    """Clips each variable's gradient by its root mean square: g ← g · min(1, c / rms(g)).

    So a large variable isn't clipped more than a small one, as by its norm.

    Args:
        limit: c.

    Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018, section
    6, of gradients instead of updates. arXiv:1804.04235
    """

    def __init__(self, limit: Positive):
        self.limit = limit

    def __call__(self, p, g, h):
        rms = norm(g) / math.sqrt(max(1, g.shape.num_elements()))
        return g * clip_factor(rms, self.limit)

    def get_config(self):
        return dict(limit=self.limit)


class NormalizeUpdate(Transform):
    """Brings each variable's gradient to one length: g ← scale · g / ‖g‖. Zeros stay zeros.

    Each variable by itself; optax's `normalize_by_update_norm` divides by the norm of all together.

    Args:
        scale: the length.
    """

    def __init__(self, scale: Positive = 1.0):
        self.scale = scale

    def __call__(self, p, g, h):
        length = norm(g)
        return g * (self.scale / tf.where(length == 0, tf.ones_like(length), length))

    def get_config(self):
        return dict(scale=self.scale)


class ZeroNans(Transform):
    """Puts 0 in the place of each NaN, and leaves inf as it is.

    It hides what goes wrong. `skip_nonfinite=True`, which skips such a step and counts it, is
    asked before; so are `clipnorm` and `global_clipnorm`, which spread a NaN.
    """

    def __call__(self, p, g, h):
        return tf.where(tf.math.is_nan(g), tf.zeros_like(g), g)


class EMA(Transform):
    """The moving average of the gradients instead of the gradient.

        m ← β m + (1 − β) g        g ← m / (1 − βⁿ)

    n counts the gradients of this variable. One float per parameter.

    Args:
        decay: β.
        debias: whether to divide by 1 − βⁿ, for a start without a bias to 0.
    """

    def __init__(self, decay: Beta = 0.9, debias: Flag = True):
        self.decay, self.debias = decay, debias

    def init(self, p):
        return dict(m=zeros(p)) | (dict(weight=zeros(p, ())) if self.debias else {})

    def update(self, p, g, s, h):
        m = ema(s.m, g, self.decay)
        if not self.debias:
            return m, dict(m=m)
        weight = ema(s.weight, tf.ones_like(s.weight), self.decay)  # 1 − βⁿ
        return m / weight, dict(m=m, weight=weight)

    def get_config(self):
        return dict(decay=self.decay, debias=self.debias)


class Trace(Transform):
    """The trace of the gradients instead of the gradient: a momentum before any rule.

        m ← β m + g        g ← m, or with `nesterov` β m + g

    One float per parameter.

    Args:
        decay: β.
        nesterov: whether to look one step ahead.
    """

    def __init__(self, decay: Beta = 0.9, nesterov: Flag = False):
        self.decay, self.nesterov = decay, nesterov

    def init(self, p):
        return dict(m=zeros(p))

    def update(self, p, g, s, h):
        m = self.decay * s.m + g
        return self.decay * m + g if self.nesterov else m, dict(m=m)

    def get_config(self):
        return dict(decay=self.decay, nesterov=self.nesterov)


def unit_norms(x: tf.Tensor) -> tf.Tensor:
    """The norm of each output's weights, of shape [1, ..., outputs]; a vector's, whole."""
    axes = list(range(max(1, x.shape.rank - 1))) if x.shape.rank else None
    return norm(x, axes)
