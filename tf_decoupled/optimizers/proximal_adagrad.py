"""Proximal Adagrad."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Initial, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot
from tf_decoupled.math import soft_threshold


class ProximalAdagrad(Optimizer):
    """Adagrad, followed by the exact minimum of its step with λ₁ |θ| + ½ λ₂ θ²: zeros stay zero.

        n ← n + g²        a = η / √n        w = θ − a g − δ(θ)
        θ ← sign(w) max(|w| − a λ₁, 0) / (1 + a λ₂)

    Use it for linear models that are to be sparse; FtrlW finds sparser ones of the same loss.

    Args:
        initial_accumulator_value: n before the first step, in units of the squared gradient.
        l1_regularization_strength: λ₁.
        l2_regularization_strength: λ₂ of ½ λ₂ θ²: half of what FtrlW calls so.

    Duchi & Singer, "Efficient Online and Batch Learning using Forward Backward Splitting", 2009,
    with the rates of Duchi, Hazan & Singer, 2011, as TensorFlow's kernel has the algorithm; both
    in McMahan's survey, arXiv:1403.3465. The decay is part of the step that the threshold follows.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    initial_accumulator_value: Initial = 0.1
    l1_regularization_strength: Scalar = 0.0
    l2_regularization_strength: Scalar = 0.0

    def init(self, p):
        return dict(n=Slot(tuple(p.shape), self.initial_accumulator_value))

    def step(self, p, g, s, h):
        n = s.n + g * g
        a = tf.math.divide_no_nan(h.learning_rate, tf.sqrt(n))
        w = p - a * g - h.decay * p
        θ = soft_threshold(w, a * h.l1_regularization_strength)
        return θ / (1 + a * h.l2_regularization_strength), dict(n=n)
