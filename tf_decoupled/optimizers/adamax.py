"""AdaMaxW, and Adamax with Keras's defaults."""

from typing import ClassVar

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema, shrunk


class AdaMaxW(Optimizer):
    """Adam by the largest gradient in place of the mean square, with decoupled weight decay.

        m ← β₁ m + (1 − β₁) g        n ← max(β₂ n, |g|)        u = m / (1 − β₁ᵗ) / (n + ε)

    Nothing is squared: gradients may be as large as the precision holds. Use it where gradients
    have heavy tails; elsewhere AdamW is the usual choice.

    Args:
        epsilon: ε, in units of the gradient.

    Kingma & Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 2. arXiv:1412.6980.
    Departs from the paper, which has no ε; it stands where Keras has it.
    """

    learning_rate: Scalar = 2e-3
    weight_decay: Scalar = 0.01
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-8

    def init(self, p):
        return dict(m=zeros(p), n=zeros(p))

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        n = tf.maximum(h.beta_2 * s.n, tf.abs(g))
        # m / n first: m / (1 − β₁ᵗ) may be too large for float32.
        u = tf.math.divide_no_nan(m, n + h.epsilon) / h.correction.beta_1
        return u, dict(m=m, n=n)

    def catch_up(self, p, s, h, k):
        """m ← β₁ᵏ m,  n ← β₂ᵏ n,  θ ← (1 − κ)ᵏ θ;  θ doesn't move along m meanwhile."""
        return shrunk(p, h.decay, k), dict(m=h.beta_1**k * s.m, n=h.beta_2**k * s.n)


class Adamax(AdaMaxW):
    """AdaMax with the defaults of `keras.optimizers.Adamax`, whose steps it takes.

        no decay,  then as AdaMaxW

    Use it to take over a script; AdaMaxW has the paper's rate.

    Args:
        epsilon: ε, in units of the gradient.

    Kingma & Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 2. arXiv:1412.6980.
    Departs from the paper, which has no ε.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    epsilon: Scalar = 1e-7

    positional: ClassVar = ("learning_rate",)  # Keras's second is another: neither is guessed

    catch_up = AdaMaxW.catch_up
