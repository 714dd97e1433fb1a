"""OptimisticSGD."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, zeros


class OptimisticSGD(Optimizer):
    """Optimistic gradient descent: it steps as if the gradient went on changing as it did.

        u = (α + β) gₜ − β gₜ₋₁        at a variable's first gradient gₜ₋₁ = gₜ, so that u = α g

    Use it for games, such as a generator and a discriminator, around whose solution gradient
    descent circles; not for a plain loss, where momentum is better: noise counts double.

    Args:
        alpha: α, of the gradient.
        beta: β, of its change; with 0 it is gradient descent.

    Mokhtari et al., "A Unified Analysis of Extra-gradient and Optimistic Gradient Methods for
    Saddle Point Problems: Proximal Point Approach", 2019, the generalized algorithm.
    arXiv:1901.08511. The first step is optax's.
    """

    learning_rate: Scalar = 0.01
    weight_decay: Scalar = 0.0
    alpha: Scalar = 1.0
    beta: Scalar = 1.0

    def init(self, p):
        return dict(before=zeros(p), begun=Slot((), 0.0))

    def update(self, p, g, s, h):
        before = tf.where(s.begun > 0, s.before, g)
        return h.alpha * g + h.beta * (g - before), dict(before=g, begun=tf.ones_like(s.begun))
