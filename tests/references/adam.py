"""Adam and its relatives."""

import math

import numpy as np

from references.paper import ema, reference, rms, with_l2


@reference
def adamw(steps, beta_1=0.9, beta_2=0.999, epsilon=1e-8, amsgrad=False, epsilon_hat=False):
    """Loshchilov & Hutter 2019, algorithm 2; `epsilon_hat`: ε̂ of Kingma & Ba 2015, section 2."""
    m = v = v_max = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        m, v = ema(m, g, beta_1), ema(v, g**2, beta_2)
        v_max = np.maximum(v_max, v) if amsgrad else v
        c_1, c_2 = 1 - beta_1**t, 1 - beta_2**t
        u = m / c_1 / (np.sqrt(v_max / c_2) + epsilon)
        if epsilon_hat:
            u = m * math.sqrt(c_2) / c_1 / (np.sqrt(v_max) + epsilon)
        yield theta - lr * u - delta


@reference
def adam(steps, l2=0.0, **options):
    """Kingma & Ba 2015, algorithm 1, of the loss with L2 regularization."""
    return adamw.rule(with_l2(steps, l2), **options)


@reference
def rmsprop(steps, beta_2=0.999, epsilon=1e-8):
    """Tieleman & Hinton 2012, with bias correction: Adam with β₁ = 0."""
    v = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        v = ema(v, g**2, beta_2)
        yield theta - lr * g / (np.sqrt(v / (1 - beta_2**t)) + epsilon) - delta


@reference
def lamb(steps, beta_1=0.9, beta_2=0.999, epsilon=1e-6):
    """You et al. 2020, algorithm 2, with φ(x) = x: the decay is inside the trust ratio."""
    m = v = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        m, v = ema(m, g, beta_1), ema(v, g**2, beta_2)
        u = m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + epsilon) + delta / lr
        norms = np.linalg.norm(theta), np.linalg.norm(u)
        yield theta - lr * (norms[0] / norms[1] if all(norms) else 1.0) * u


@reference
def adafactor(steps, epsilon_1=1e-30, epsilon_2=1e-3, threshold=1.0, decay_exponent=0.8):
    """Shazeer & Stern 2018, algorithms 4 (matrices) and 5; `learning_rate` is their ρ_t.

    R and C are means over rows and columns where the paper has sums, so their product is divided by
    the mean of R, not by its sum: the same, because the numbers of rows and columns cancel.
    """
    r = c = v = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        beta_2, square = 1 - t**-decay_exponent, g**2 + epsilon_1
        if g.ndim >= 2:
            r = ema(r, square.mean(-1, keepdims=True), beta_2)
            c = ema(c, square.mean(-2, keepdims=True), beta_2)
            v = r * c / r.mean(-2, keepdims=True)
        else:
            v = ema(v, square, beta_2)
        u = g / np.sqrt(v)
        u /= max(1.0, rms(u) / threshold)
        yield theta - max(epsilon_2, rms(theta)) * lr * u - delta
