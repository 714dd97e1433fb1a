"""Yogi."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Constant, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, zeros
from tf_decoupled.math import ema


class Yogi(Optimizer):
    """Adam whose second moment changes by a share of g², however large it is itself.

        m ← β₁ m + (1 − β₁) g                    m̂ = m / (1 − β₁ᵗ)
        v ← v − (1 − β₂) sign(v − g²) g²         v̂ = v / (1 − β₂ᵗ)        u = m̂ / (√v̂ + ε)

    After large gradients v falls in small steps, where Adam forgets them in 1 / (1 − β₂) steps:
    its rates can't rise suddenly.

    Use it where gradients are sparse or come in bursts. Not where their size falls by orders of
    magnitude during training: v hardly follows.

    Args:
        epsilon: ε, in units of the gradient; large, as the authors advise.
        initial_accumulator_value: v at the start, in units of the squared gradient.

    Zaheer et al., "Adaptive Methods for Nonconvex Optimization", 2018, the algorithm "Yogi"; its
    v again in Reddi et al., "Adaptive Federated Optimization", 2021. arXiv:2003.00295. Departs
    from the paper in correcting the bias of m and v, as optax and TensorFlow Addons do.
    """

    learning_rate: Scalar = 0.01
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-3
    initial_accumulator_value: Constant = 1e-6

    def init(self, p):
        return dict(m=zeros(p), v=Slot(tuple(p.shape), self.initial_accumulator_value))

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        v = s.v - (1 - h.beta_2) * tf.sign(s.v - g * g) * g * g
        m_hat, v_hat = m / h.correction.beta_1, v / h.correction.beta_2
        return m_hat / (tf.sqrt(v_hat) + h.epsilon), dict(m=m, v=v)
