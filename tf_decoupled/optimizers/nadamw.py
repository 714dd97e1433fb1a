"""NAdamW, and Nadam with Keras's defaults."""

import math
from typing import ClassVar

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, zeros
from tf_decoupled.math import ema


class NAdamW(Optimizer):
    """Adam with Nesterov's momentum and decoupled weight decay.

        m ← β₁ m + (1 − β₁) g        μ_t = β₁ (1 − ½ 0.96^(ψ t))        Π ← Π μ_t
        v ← β₂ v + (1 − β₂) g²       v̂ = v / (1 − β₂ᵗ)
        m̂ = μ_{t+1} m / (1 − Π μ_{t+1}) + (1 − μ_t) g / (1 − Π)        u = m̂ / (√v̂ + ε)

    Use it where AdamW is used: it answers sooner to a gradient that turns. Not for very noisy
    gradients: the newest one weighs more.

    Args:
        epsilon: ε, in units of the gradient.
        momentum_decay: ψ, how soon μ rises from about β₁ / 2 to β₁; from 1000 on it is β₁ from the
            start, as in optax.

    Dozat, "Incorporating Nesterov Momentum into Adam", 2016, its algorithm Nadam, with the ψ of
    PyTorch; v is that of Kingma & Ba, 2015, algorithm 1, arXiv:1412.6980. Each variable has a Π of
    its own, the product over the steps in which it had a gradient.
    """

    learning_rate: Scalar = 2e-3
    weight_decay: Scalar = 0.01
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-8
    momentum_decay: Scalar = 0.004

    def init(self, p):
        return dict(m=zeros(p), v=zeros(p), product=Slot((), 1.0))

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        v = ema(s.v, g * g, h.beta_2)
        now, following = self.momentum_at(h.t, h), self.momentum_at(h.t + 1, h)
        Π = s.product * now
        m_hat = following / (1 - Π * following) * m + (1 - now) / (1 - Π) * g
        root = tf.sqrt(v / h.correction.beta_2)
        return tf.math.divide_no_nan(m_hat, root + h.epsilon), dict(m=m, v=v, product=Π)

    def momentum_at(self, t, h):
        """μ_t."""
        return h.beta_1 * (1 - 0.5 * tf.exp(math.log(0.96) * h.momentum_decay * t))


class Nadam(NAdamW):
    """NAdamW with the defaults of `keras.optimizers.Nadam`, whose steps it takes.

        ψ = 1, no decay,  then as NAdamW

    Use it to take over a script; NAdamW has the author's numbers.

    Args:
        epsilon: ε, in units of the gradient.
        momentum_decay: ψ, which Keras hasn't.

    Dozat, "Incorporating Nesterov Momentum into Adam", 2016, its algorithm Nadam; v is that of
    Kingma & Ba, 2015, algorithm 1, arXiv:1412.6980. Keras has one Π for all variables, which is
    the same where all have a gradient in each step.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    epsilon: Scalar = 1e-7
    momentum_decay: Scalar = 1.0

    positional: ClassVar = ("learning_rate",)  # Keras's second is another: neither is guessed
