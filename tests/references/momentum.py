"""Gradient descent, momentum and signs."""

import numpy as np

from references.paper import ema, reference, with_l2


@reference
def sgdw(steps, momentum=0.9, nesterov=False):
    """Loshchilov & Hutter 2019, algorithm 1: the learning rate is inside the momentum."""
    m = 0.0
    for theta, g, lr, delta in steps:
        m = momentum * m + lr * g
        yield theta - (momentum * m + lr * g if nesterov else m) - delta


@reference
def sgd(steps, l2=0.0, momentum=0.0, nesterov=False):
    """Gradient descent with momentum, of the loss with L2 regularization."""
    return sgdw.rule(with_l2(steps, l2), momentum, nesterov)


@reference
def lion(steps, beta_1=0.9, beta_2=0.99):
    """Chen et al. 2023, algorithm 2."""
    m = 0.0
    for theta, g, lr, delta in steps:
        u, m = np.sign(ema(m, g, beta_1)), ema(m, g, beta_2)
        yield theta - lr * u - delta
