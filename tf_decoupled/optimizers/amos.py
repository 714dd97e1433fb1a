"""Amos."""

import math
from typing import Literal

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Positive, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema


class Amos(Optimizer):
    """Rates and decays that fall by themselves, towards weights of a scale that is given.

        M = mean of g² over a slice        v ← β v + (1 − β) M        v̂ = max(v, ε) / (1 − βᵗ)
        c = 1 / √(1 + ζ √ξ b)              d = 1 / (1 + ζ √(ξ η) b)        γ = c ξ² M / v̂
        θ ← θ − d (ξ η g / √v̂ + ½ γ θ) − δ(θ)
        b ← b + γ (1 + b)

    ξ is `learning_rate`, the paper's letter; η is the scale that weights are to have. v and b are
    one number for each slice: a column of a kernel [..., out], all of a vector.

    Use it for training from the start, with ξ about 1 / √N for N batches in the data and no
    schedule but a warm-up. Not for fine-tuning. Take `slices="rows"` for embeddings, by Partition.

    Args:
        eta: η. None: ½ for vectors and scalars, 1 / √n for others, with slices of n entries.
            Better √(2 / n) after a ReLU, 1 for the scales of normalizations.
        beta: β; 1 − β of the size of ξ.
        zeta: ζ, how fast rates and decays fall.
        slices: what of a matrix shares a v and a b: "columns", or "rows" of an embedding.
        epsilon: ε, in units of the squared gradient.

    Tian & Parikh, "Amos: An Adam-style Optimizer with Adaptive Weight Decay towards Model-Oriented
    Scale", 2022, algorithm 1, as in the authors' code. arXiv:2210.11693. Departs from the paper in
    leaving out momentum, which is optional there, and clipping: that is `clipvalue`.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    eta: Positive = None
    beta: Beta = 0.999
    zeta: Scalar = 0.25
    slices: Literal["columns", "rows"] = "columns"
    epsilon: Positive = 2.0**-125

    def init(self, p):
        axes = self.inside(p)
        one_each = [1 if axis in axes else n for axis, n in enumerate(p.shape)]
        return dict(v=zeros(p, one_each), b=zeros(p, one_each))

    def step(self, p, g, s, h):
        ξ, η = h.learning_rate, self.scale(p) if h.eta is None else h.eta
        mean = tf.reduce_mean(g * g, self.inside(p), keepdims=True)
        v = ema(s.v, mean, h.beta)
        v_hat = tf.maximum(v, h.epsilon) / h.correction.beta
        c = tf.math.rsqrt(1 + h.zeta * tf.sqrt(ξ) * s.b)
        d = 1 / (1 + h.zeta * tf.sqrt(ξ * η) * s.b)
        γ = c * ξ * ξ * mean / v_hat
        move = d * (ξ * η * g / tf.sqrt(v_hat) + 0.5 * γ * p)
        return p - move - h.decay * p, dict(v=v, b=s.b + γ * (1 + s.b))

    def inside(self, p):
        """The axes inside of a slice: all of a vector, all but the last of a kernel."""
        rank = len(p.shape)
        if self.slices == "rows" and rank > 1:
            return [rank - 1]
        return list(range(max(rank - 1, min(rank, 1))))

    def scale(self, p):
        if len(p.shape) < 2:
            return 0.5
        return 1 / math.sqrt(max(1, math.prod(p.shape[axis] for axis in self.inside(p))))
