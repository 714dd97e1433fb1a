"""NoisySGD."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import own_seed
from tf_decoupled.math import normal_of


class NoisySGD(Optimizer):
    """Gradient descent with random numbers, ever smaller ones, added to the gradient.

        u = g + N(0, σ²)        σ² = η / tᵞ, in the units of the squared gradient

    Every variable and step has its own numbers, the same on all replicas and devices. Use it for
    very deep networks that gradient descent can't begin to train; not with small gradients, which
    the noise would drown. `td.transforms.Noise` adds such noise under any other rule.

    Args:
        eta: η, the variance at the first step.
        gamma: γ, how fast it falls.

    Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks", 2015,
    equation 1, as an algorithm of its own; η and γ are among the paper's. arXiv:1511.06807
    """

    learning_rate: Scalar = 0.01
    weight_decay: Scalar = 0.0
    eta: Scalar = 0.01
    gamma: Scalar = 0.55

    def init(self, p):
        return dict(seed=own_seed())

    def update(self, p, g, s, h):
        σ = tf.sqrt(h.eta / h.t**h.gamma)
        return g + σ * normal_of(g, s.seed, h.step), dict(seed=s.seed)
