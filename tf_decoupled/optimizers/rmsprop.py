"""RMSpropW, and RMSprop with Keras's defaults."""

from typing import ClassVar

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema, shrunk, shrunk_series


class RMSpropW(Optimizer):
    """Gradients divided by the root of their mean square, with decoupled weight decay.

        v ← ρ v + (1 − ρ) g²        centered: v ← ρ v + ρ (1 − ρ) (g − a)²,  a ← ρ a + (1 − ρ) g
        m ← μ m + η g / √(v + ε)        θ ← θ − m − δ(θ)

    Centered, v is the mean square less the square of the mean, which is never subtracted: it
    can't become negative. Use it for recurrent networks, reinforcement learning, and to repeat
    older results; elsewhere AdamW, which corrects v for its start, is the safer choice.

    Args:
        rho: ρ.
        momentum: μ; the rate stands inside.
        epsilon: ε, inside of the root: in units of the squared gradient.
        centered: divide by the standard deviation; one more array per variable.

    Tieleman & Hinton, "Lecture 6.5: RMSprop", 2012; momentum and centering, an algorithm without
    a number: Graves, "Generating Sequences With Recurrent Neural Networks", 2013, arXiv:1308.0850.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.01
    rho: Beta = 0.9
    momentum: Beta = 0.0
    epsilon: Scalar = 1e-7
    centered: bool = False

    def init(self, p):
        slots = dict(m=zeros(p), v=zeros(p))
        return slots | dict(a=zeros(p)) if self.centered else slots

    def step(self, p, g, s, h):
        if self.centered:
            v = h.rho * (s.v + (1 - h.rho) * tf.square(g - s.a))
            slots = dict(v=v, a=ema(s.a, g, h.rho))
        else:
            v = ema(s.v, g * g, h.rho)
            slots = dict(v=v)
        u = tf.math.divide_no_nan(g, tf.sqrt(v + h.epsilon))
        m = h.momentum * s.m + h.learning_rate * u
        return p - m - h.decay * p, slots | dict(m=m)

    def catch_up(self, p, s, h, k):
        """m ← μᵏ m,  a ← ρᵏ a,  v ← ρᵏ v, centered ρᵏ (v + (1 − ρᵏ) a²);  θ as in SGDW: exact."""
        left = h.rho**k
        slots = dict(m=h.momentum**k * s.m, v=left * s.v)
        if self.centered:
            slots |= dict(v=left * (s.v + (1 - left) * s.a * s.a), a=left * s.a)
        moved = shrunk_series(h.momentum, h.decay, k) * s.m
        return shrunk(p, h.decay, k) - moved, slots


class RMSprop(RMSpropW):
    """RMSprop with the defaults of `keras.optimizers.RMSprop`, whose steps it takes.

        no decay,  then as RMSpropW

    Use it to take over a script; elsewhere AdamW.

    Args:
        rho: ρ.
        momentum: μ; the rate stands inside.
        epsilon: ε, inside of the root: in units of the squared gradient.
        centered: divide by the standard deviation; one more array per variable.

    Tieleman & Hinton, "Lecture 6.5: RMSprop", 2012; momentum and centering, an algorithm without
    a number: Graves, "Generating Sequences With Recurrent Neural Networks", 2013, arXiv:1308.0850.
    """

    weight_decay: Scalar = 0.0

    positional: ClassVar = ("learning_rate",)  # Keras's second is another: neither is guessed

    catch_up = RMSpropW.catch_up
