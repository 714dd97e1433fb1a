"""NovoGrad."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, zeros
from tf_decoupled.math import ema


class NovoGrad(Optimizer):
    """Momentum of gradients that are divided by their length: one second moment per variable.

        v ← β₂ v + (1 − β₂) ‖g‖²        v starts as the first ‖g‖² that isn't 0
        m ← β₁ m + g / (√v + ε)
        θ ← θ − η m − δ(θ)

    Use it for large batches, and where Adam's second slot is too much memory; not where the
    entries of one variable have gradients of very different sizes, as embeddings have. A constant
    gradient makes m 1 / (1 − β₁) long: 20, at the default.

    Args:
        epsilon: ε, in units of the norm of a variable's gradient.

    Ginsburg et al., "Training Deep Networks with Stochastic Gradient Normalized by Layerwise
    Adaptive Second Moments", 2019, its algorithm. arXiv:1905.11286. Departs from the paper: there
    λ θ is a part of what m sums up, so that the paper's λ is 1 / (1 − β₁) times as strong as here.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.95
    beta_2: Beta = 0.98
    epsilon: Scalar = 1e-8

    def init(self, p):
        return dict(m=zeros(p), v=Slot((), 0.0))

    def update(self, p, g, s, h):
        square = tf.reduce_sum(g * g)
        v = tf.where(s.v > 0, ema(s.v, square, h.beta_2), square)
        m = h.beta_1 * s.m + tf.math.divide_no_nan(g, tf.sqrt(v) + h.epsilon)
        return m, dict(m=m, v=v)
