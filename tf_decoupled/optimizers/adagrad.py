"""AdagradW, Adagrad with Keras's defaults, and row-wise Adagrad for embeddings."""

import math
from typing import ClassVar

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Initial, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot
from tf_decoupled.math import shrunk


class AdagradW(Optimizer):
    """Each entry's rate falls with the sum of its squared gradients; with decoupled weight decay.

        n ← n + g²        u = g / (√n + ε)

    Use it for sparse features, whose rare entries keep a large rate, and for convex problems; not
    for long training of deep networks, where all rates go to zero.

    Args:
        initial_accumulator_value: n before the first step, in units of the squared gradient.
        epsilon: ε, in units of the gradient.

    Duchi, Hazan & Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
    Optimization", 2011, the algorithm of figure 1 with diagonal matrices; the same rates: McMahan
    & Streeter, 2010, arXiv:1002.4908. Rate and ε are PyTorch's.
    """

    learning_rate: Scalar = 0.01
    weight_decay: Scalar = 0.01
    initial_accumulator_value: Initial = 0.0
    epsilon: Scalar = 1e-10

    def init(self, p):
        return dict(n=Slot(tuple(p.shape), self.initial_accumulator_value))

    def update(self, p, g, s, h):
        n = s.n + g * g
        return tf.math.divide_no_nan(g, tf.sqrt(n) + h.epsilon), dict(n=n)

    def catch_up(self, p, s, h, k):
        """θ ← (1 − κ)ᵏ θ;  n stays: exact."""
        return shrunk(p, h.decay, k), dict(n=s.n)


class Adagrad(AdagradW):
    """Adagrad with the defaults of `keras.optimizers.Adagrad`, whose steps it takes.

        n ← n + g²        u = g / √(n + ε)

    Use it to take over a script; AdagradW has the paper's ε and n₀.

    Args:
        initial_accumulator_value: n before the first step, in units of the squared gradient.
        epsilon: ε, inside of the root: in units of the squared gradient.

    Duchi, Hazan & Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
    Optimization", 2011, the algorithm of figure 1 with diagonal matrices; the same rates: McMahan
    & Streeter, 2010, arXiv:1002.4908. Departs from the paper, which adds ε to the root.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    initial_accumulator_value: Initial = 0.1
    epsilon: Scalar = 1e-7

    positional: ClassVar = ("learning_rate",)  # Keras's second is another: neither is guessed

    def update(self, p, g, s, h):
        n = s.n + g * g
        return tf.math.divide_no_nan(g, tf.sqrt(n + h.epsilon)), dict(n=n)

    catch_up = AdagradW.catch_up


class RowwiseAdagrad(Optimizer):
    """Adagrad with one sum for each row: an embedding table costs one number more per row.

        n ← n + mean over the row of g²        u = g / (√n + ε)

    p: [rows, ...], n: [rows]; each entry of a vector is a row. Use it for large embedding tables,
    best with `sparse="lazy"`; not for kernels, whose rows have nothing in common.

    Args:
        initial_accumulator_value: n before the first step, in units of the squared gradient.
        epsilon: ε, in units of the gradient.

    Mudigere et al., "Software-Hardware Co-design for Fast and Scalable Training of Deep Learning
    Recommendation Models", 2022, as FBGEMM's code has the exact algorithm; arXiv:2104.05158. Rate
    and ε are TorchRec's. Older code sums over the row: its rate is √columns times as large.
    """

    learning_rate: Scalar = 0.01
    weight_decay: Scalar = 0.0
    initial_accumulator_value: Initial = 0.0
    epsilon: Scalar = 1e-10

    def init(self, p):
        return dict(n=Slot(tuple(p.shape[:1]), self.initial_accumulator_value))

    def update(self, p, g, s, h):
        others = p.shape[1:]
        total = tf.reduce_sum(g * g, list(range(1, len(p.shape))))
        n = s.n + total / max(math.prod(others), 1)
        each = n[(..., *[None] * len(others))]
        return tf.math.divide_no_nan(g, tf.sqrt(each) + h.epsilon), dict(n=n)

    def catch_up(self, p, s, h, k):
        """θ ← (1 − κ)ᵏ θ;  n stays: exact."""
        return shrunk(p, h.decay, k), dict(n=s.n)
