"""AdadeltaW, and Adadelta with Keras's defaults."""

from typing import ClassVar

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema, shrunk


class AdadeltaW(Optimizer):
    """Steps in the units of the weights, from the size of earlier steps; with decoupled decay.

        E ← ρ E + (1 − ρ) g²        u = √(D + ε) / √(E + ε) · g
        D ← ρ D + (1 − ρ) u²        θ ← θ − η u − δ(θ)

    η is a factor, 1 unless a schedule makes it fall, and no part of D. Use it where no rate is
    known, and time is; not where training has to be quick: steps begin at √ε and grow slowly.

    Args:
        rho: ρ.
        epsilon: ε, inside of both roots: with √ε the first steps begin.

    Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, algorithm 1. arXiv:1212.5701. The
    decay's default goes with a rate of 1: a step takes as much as one of AdamW with its own.
    """

    learning_rate: Scalar = 1.0
    weight_decay: Scalar = 1e-5
    rho: Beta = 0.95
    epsilon: Scalar = 1e-6

    def init(self, p):
        return dict(squares=zeros(p), steps=zeros(p))

    def update(self, p, g, s, h):
        E = ema(s.squares, g * g, h.rho)
        u = tf.math.divide_no_nan(tf.sqrt(s.steps + h.epsilon), tf.sqrt(E + h.epsilon)) * g
        return u, dict(squares=E, steps=ema(s.steps, u * u, h.rho))

    def catch_up(self, p, s, h, k):
        """E ← ρᵏ E,  D ← ρᵏ D,  θ ← (1 − κ)ᵏ θ: exact."""
        left = h.rho**k
        return shrunk(p, h.decay, k), dict(squares=left * s.squares, steps=left * s.steps)


class Adadelta(AdadeltaW):
    """Adadelta with the defaults of `keras.optimizers.Adadelta`, whose steps it takes.

        η = 0.001, no decay,  then as AdadeltaW

    Use it to take over a script; AdadeltaW has the paper's rate, which is 1,000 times as large.

    Args:
        rho: ρ.
        epsilon: ε, inside of both roots: with √ε the first steps begin.

    Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, algorithm 1. arXiv:1212.5701
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    epsilon: Scalar = 1e-7

    positional: ClassVar = ("learning_rate",)  # Keras's second is another: neither is guessed

    catch_up = AdadeltaW.catch_up
