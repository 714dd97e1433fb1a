"""Adan."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, zeros
from tf_decoupled.math import ema


class Adan(Optimizer):
    """Adam with Nesterov's momentum, by the change of the gradient from step to step.

        d = g − the gradient before, and 0 at a variable's first
        m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) d        n ← β₃ n + (1 − β₃) (g + β₂ d)²
        u = (m̂ + β₂ v̂) / (√n̂ + ε)        m̂ = m / (1 − β₁ᵗ), v̂ and n̂ likewise
        θ ← (θ − η u) / (1 + κ)          κ of δ(θ) = κ θ;  not `proximal`: θ ← θ − η u − δ(θ)

    Use it for vision transformers and large batches, at 5 to 10 times AdamW's rate. Not where
    memory is short: its state is twice AdamW's.

    Args:
        beta_1, beta_2, beta_3: β₁, β₂, β₃; the paper's letters are 1 less these.
        epsilon: ε, in units of the gradient.
        proximal: the decay divides what the step leads to, so that no decay is too large.

    Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models",
    2022, algorithm 1. arXiv:2208.06677. Departs from the paper, as the authors' code does, in
    correcting the bias of averages that start at 0.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.98
    beta_2: Beta = 0.92
    beta_3: Beta = 0.99
    epsilon: Scalar = 1e-8
    proximal: bool = True

    def init(self, p):
        averages = dict(m=zeros(p), v=zeros(p), n=zeros(p))
        return averages | dict(before=zeros(p), begun=Slot((), 0.0))

    def step(self, p, g, s, h):
        d = s.begun * (g - s.before)
        m, v = ema(s.m, g, h.beta_1), ema(s.v, d, h.beta_2)
        n = ema(s.n, tf.square(g + h.beta_2 * d), h.beta_3)
        m_hat, v_hat = m / h.correction.beta_1, v / h.correction.beta_2
        u = (m_hat + h.beta_2 * v_hat) / (tf.sqrt(n / h.correction.beta_3) + h.epsilon)
        moved = p - h.learning_rate * u
        # 1 / (1 + κ) as 1 − κ / (1 + κ), which keeps the digits of κ.
        δ = h.decay / (1 + h.decay) * moved if self.proximal else h.decay * p
        return moved - δ, dict(m=m, v=v, n=n, before=g, begun=tf.ones_like(s.begun))
