"""LAMB."""

from typing import ClassVar

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema, trust_ratio


class LAMB(Optimizer):
    """Adam with decay, rescaled per variable to the variable's own norm; for large batches.

        m, v, m̂, v̂ as in Adam        r = m̂ / (√v̂ + ε) + λ θ
        θ ← θ − η (‖θ‖ / ‖r‖) r       the ratio is 1 where either norm is 0

    The decay is inside the trust ratio. λ is δ(θ) / (η θ), so that `decay_coupling` means here
    what it means everywhere. A step changes a variable by η times its norm.

    You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2020,
    algorithm 2, with φ the identity. arXiv:1904.00962
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.01
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-6

    def init(self, p):
        return dict(m=zeros(p), v=zeros(p))

    def step(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        v = ema(s.v, g * g, h.beta_2)
        λ = tf.math.divide_no_nan(h.decay, h.learning_rate)
        m_hat, v_hat = m / h.correction.beta_1, v / h.correction.beta_2
        r = m_hat / (tf.sqrt(v_hat) + h.epsilon) + λ * p
        return p - h.learning_rate * self.ratio(p, r, h) * r, dict(m=m, v=v)

    def ratio(self, p, r, h):
        """‖θ‖ / ‖r‖."""
        return trust_ratio(p, r)


class Lamb(LAMB):
    """LAMB with the defaults of `keras.optimizers.Lamb`, whose steps it takes without decay.

        no decay,  then as LAMB

    Use it to take over a script; with a decay, LAMB's is inside of the ratio and Keras's is not.

    Args:
        epsilon: ε, in units of the gradient.

    You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2020,
    algorithm 2. arXiv:1904.00962
    """

    weight_decay: Scalar = 0.0
    epsilon: Scalar = 1e-7

    positional: ClassVar = ("learning_rate",)  # Keras's second is another: neither is guessed
