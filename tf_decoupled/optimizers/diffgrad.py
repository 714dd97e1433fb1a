"""diffGrad."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema


class DiffGrad(Optimizer):
    """Adam that takes half a step where the gradient doesn't change, a whole one where it does.

        m, v, m̂, v̂ as in Adam        ξ = 1 / (1 + exp(−|g − the gradient before|))
        u = ξ m̂ / (√v̂ + ε)           the gradient before the first is 0

    Use it with gradients of about 1. Not with others: ξ isn't free of their scale, and it is ½
    where they are far smaller and 1 where they are far larger.

    Args:
        epsilon: ε, in units of the gradient.

    Dubey et al., "diffGrad: An Optimization Method for Convolutional Neural Networks", 2019, the
    paper's algorithm, as in the second version of the authors' code. arXiv:1909.11015. Departs
    from that code, which adds ε to √v, not to √v̂.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-8

    def init(self, p):
        return dict(m=zeros(p), v=zeros(p), before=zeros(p))

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        v = ema(s.v, g * g, h.beta_2)
        m_hat, v_hat = m / h.correction.beta_1, v / h.correction.beta_2
        ξ = tf.sigmoid(tf.abs(g - s.before))
        return ξ * m_hat / (tf.sqrt(v_hat) + h.epsilon), dict(m=m, v=v, before=g)
