"""Signs, steps relative to norms, optimistic and positive-negative momentum, and few slots."""

import itertools
import math

import numpy as np

from references.paper import ema, reference

ONES = itertools.repeat(1.0)


@reference
def novograd(steps, beta_1=0.95, beta_2=0.98, epsilon=1e-8):
    """Ginsburg et al. 2019, with the decay outside of m; v starts at the first gradient."""
    m = v = 0.0
    for theta, g, lr, delta in steps:
        square = np.sum(g**2)
        v = ema(v, square, beta_2) if v else square
        m = beta_1 * m + (g / (math.sqrt(v) + epsilon) if v else 0.0)
        yield theta - lr * m - delta


@reference
def lars(steps, momentum=0.9, trust_coefficient=0.001, l2=0.0):
    """You et al. 2017: `l2` is the paper's decay, `trust_coefficient` its η."""
    m = 0.0
    for theta, g, lr, delta in steps:
        length = np.linalg.norm(theta)
        divisor = np.linalg.norm(g) + l2 * length
        ratio = trust_coefficient * length / divisor if length and divisor else 1.0
        m = momentum * m + lr * ratio * (g + l2 * theta)
        yield theta - m - delta


@reference
def fromage(steps):
    """Bernstein et al. 2020."""
    for theta, g, lr, delta in steps:
        norms = np.linalg.norm(theta), np.linalg.norm(g)
        ratio = norms[0] / norms[1] if all(norms) else 1.0
        yield (theta - lr * ratio * g) / math.sqrt(1 + lr**2) - delta


def of_turns(steps, beta_1):
    """Pairs of m of this step and of the last, with the step: odd and even ones apart."""
    turns = [0.0, 0.0]
    for t, step in enumerate(steps):
        turns[t % 2] = ema(turns[t % 2], step[1], beta_1**2)
        yield turns[t % 2], turns[1 - t % 2], step


@reference
def pnm(steps, beta_1=0.9, beta_0=1.0):
    """Xie et al. 2021, PNM."""
    root = math.hypot(1 + beta_0, beta_0)
    for m, other, (theta, _, lr, delta) in of_turns(steps, beta_1):
        yield theta - lr / root * ((1 + beta_0) * m - beta_0 * other) - delta


@reference
def adapnm(steps, beta_1=0.9, beta_2=0.999, beta_0=1.0, epsilon=1e-8, amsgrad=True):
    """Xie et al. 2021, AdaPNM."""
    v, v_max, root = 0.0, 0.0, math.hypot(1 + beta_0, beta_0)
    for t, (m, other, (theta, g, lr, delta)) in enumerate(of_turns(steps, beta_1), 1):
        v = ema(v, g**2, beta_2)
        v_max = np.maximum(v_max, v) if amsgrad else v
        u = ((1 + beta_0) * m - beta_0 * other) / root / (1 - beta_1**t)
        yield theta - lr * u / (np.sqrt(v_max / (1 - beta_2**t)) + epsilon) - delta


@reference
def signum(steps, momentum=0.9):
    """Bernstein et al. 2018, Signum."""
    m = 0.0
    for theta, g, lr, delta in steps:
        m = ema(m, g, momentum)
        yield theta - lr * np.sign(m) - delta


@reference
def generalized_sign_sgd(steps, beta_1=0.9, beta_2=0.999, epsilon=1e-8, use_bias_correction=False):
    """Crawshaw et al. 2022, algorithm 1, with ε and bias correction as in the authors' code."""
    m = v = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        m = ema(m, g, beta_1)
        v = ema(v, m**2, beta_2)
        c_1, c_2 = (1 - beta_1**t, 1 - beta_2**t) if use_bias_correction else (1.0, 1.0)
        yield theta - lr * (m / c_1) / (np.sqrt(v / c_2) + epsilon) - delta


@reference
def optimistic_sgd(steps, alpha=1.0, beta=1.0):
    """Mokhtari et al. 2019; the gradient before the first is the first."""
    before = None
    for theta, g, lr, delta in steps:
        before = g if before is None else before
        yield theta - lr * ((alpha + beta) * g - beta * before) - delta
        before = g


@reference
def noisy_sgd(steps):
    """Gradient descent: what Neelakantan et al. 2015 is without its noise."""
    for theta, g, lr, delta in steps:
        yield theta - lr * g - delta


@reference
def sm3(steps, momentum=0.9, epsilon=1e-30):
    """Anil et al. 2019, SM3-II: the cover is all slices along each axis."""
    m, bounds = 0.0, None
    for theta, g, lr, delta in steps:
        axes = range(g.ndim)
        bounds = [np.zeros_like(g)] if bounds is None else bounds
        v = np.minimum.reduce(bounds) + g**2
        bounds = [v.max(tuple(j for j in axes if j != i), keepdims=True) for i in axes] or [v]
        bounds = [np.broadcast_to(bound, g.shape) for bound in bounds]
        m = ema(m, g / np.sqrt(v + epsilon), momentum)
        yield theta - lr * m - delta


@reference
def sophia(steps, beta_1=0.96, beta_2=0.99, gamma=0.01, epsilon=1e-12, estimates=None):
    """Liu et al. 2023; `estimates`: after each step one of the Hessian's diagonal, or None."""
    m = h = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps):
        m = ema(m, g, beta_1)
        yield theta - lr * np.clip(m / np.maximum(gamma * h, epsilon), -1, 1) - delta
        if estimates is not None and estimates[t] is not None:
            h = ema(h, estimates[t], beta_2)


@reference
def koala_v(steps, losses=ONES, sigma=1.0, q=1.0, alpha_r=0.9, target=0.0):
    """Davtyan et al. 2022, KOALA-V. For several variables, give them as one."""
    P, R = sigma, 1.0
    for loss, (theta, g, lr, delta) in zip(losses, steps, strict=False):
        P, R = P + q, ema(R, loss**2, alpha_r)
        S = P * np.sum(g**2) + R
        yield theta - lr * P * (loss - target) / S * g - delta
        P *= R / S


@reference
def koala_m(steps, losses=ONES, sw=0.1, sv=0.1, a=0.9, qw=0.01, qv=0.01, alpha_r=0.9, target=0.0):
    """Davtyan et al. 2022, KOALA-M: θ is the prediction x + v. For several variables as one."""
    P, F, R = np.diag([sw, sv]), np.array([[1, 1], [0, a]]), 1.0
    v = average = 0.0
    for loss, (theta, g, lr, delta) in zip(losses, steps, strict=False):
        qw = ema(qw, np.linalg.norm(average - (theta - v)) / theta.size, 0.9)
        P, R = F @ P @ F.T + np.diag([qw, qv]), ema(R, loss**2, alpha_r)
        S = P[0, 0] * np.sum(g**2) + R
        gain = lr * P[:, 0] / S * (loss - target)
        x, v = theta - gain[0] * g - delta, a * v - gain[1] * g
        P, average = P - np.outer(P[:, 0], P[0]) * np.sum(g**2) / S, ema(average, x, 0.9)
        yield x + v
