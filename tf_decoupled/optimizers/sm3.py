"""SM3."""

import functools

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema


class SM3(Optimizer):
    """Adagrad in the space of one vector per axis: for an entry it takes the least of its bounds.

        ν = minᵢ vᵢ + g²        vᵢ: as long as axis i, at an entry its value there
        vᵢ ← the maximum of ν over all other axes
        m ← μ m + (1 − μ) g / √(ν + ε)        u = m

    ν is never less than Adagrad's sum of g²; for vectors and scalars it is that. Use it for large
    embeddings and sparse features; not where old gradients should be forgotten: steps only shrink.

    Args:
        momentum: μ.
        epsilon: ε, in units of the squared gradient.

    Anil et al., "Memory-Efficient Adaptive Optimization", 2019, the algorithm SM3-II, with momentum
    and ε as in the authors' code. arXiv:1901.11150
    """

    learning_rate: Scalar = 0.1
    weight_decay: Scalar = 0.0
    momentum: Beta = 0.9
    epsilon: Scalar = 1e-30

    def init(self, p):
        bounds = {f"v{i}": zeros(p, (n,)) for i, n in enumerate(p.shape)}
        return dict(m=zeros(p)) | (bounds or dict(v0=zeros(p)))

    def update(self, p, g, s, h):
        axes = range(len(p.shape))
        bounds = {f"v{i}": getattr(s, f"v{i}") for i in axes or [0]}
        along = [[n if i == j else 1 for j, n in enumerate(p.shape)] for i in axes or [0]]
        spread = [tf.reshape(v, to) for v, to in zip(bounds.values(), along, strict=True)]
        ν = functools.reduce(tf.minimum, spread) + g * g
        for i in axes or [0]:
            others = [j for j in axes if j != i]
            largest = tf.reduce_max(ν, others) if others else ν
            bounds[f"v{i}"] = tf.maximum(bounds[f"v{i}"], largest)  # of no entries it is −∞
        m = ema(s.m, tf.math.divide_no_nan(g, tf.sqrt(ν + h.epsilon)), h.momentum)
        return m, dict(m=m) | bounds
