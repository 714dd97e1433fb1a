"""Methods that find their own rate."""

import math

import numpy as np

from references.paper import ema, reference


@reference
def prodigy(
    steps,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-8,
    d0=1e-6,
    d_coef=1.0,
    growth_rate=math.inf,
    use_bias_correction=False,
    safeguard_warmup=False,
    found=None,
):
    """Mishchenko & Defazio 2023, the Adam version, as the authors' code has it. For several
    variables, give them as one. `found`: a list that gets each d."""
    d = d_max = d0
    q = m = v = s = 0.0
    start, beta_3 = None, math.sqrt(beta_2)
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        start = theta if start is None else start
        c = math.sqrt(1 - beta_2**t) / (1 - beta_1**t) if use_bias_correction else 1.0
        rate = d * lr * c
        q = beta_3 * q + (d / d0) * rate * np.sum(g * (start - theta))
        m, v = ema(m, d * g, beta_1), ema(v, (d * g) ** 2, beta_2)
        s = beta_3 * s + (d / d0) * (d if safeguard_warmup else rate) * g
        delta = d * c * delta
        if np.any(s):
            d_hat = d_coef * q / np.sum(np.abs(s))
            if d == d0:
                d = max(d, d_hat)
            d_max = max(d_max, d_hat)
            d = min(d_max, d * growth_rate)
        if found is not None:
            found.append(d)
        yield theta - delta - rate * m / (np.sqrt(v) + d * epsilon)


@reference
def dadapt_adamw(
    steps,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-8,
    d0=1e-6,
    growth_rate=math.inf,
    use_bias_correction=False,
    found=None,
):
    """Defazio & Mishchenko 2023, the Adam form, as the authors' code has it. For several
    variables, give them as one. `found`: a list that gets each d."""
    d, b = d0, math.sqrt(beta_2)
    r = m = v = s = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        c = math.sqrt(1 - beta_2**t) / (1 - beta_1**t) if use_bias_correction else 1.0
        rate, delta = d * lr * c, d * c * delta
        r = ema(r, rate * np.sum(g * s / (np.sqrt(v) + epsilon)), b)
        m, v, s = ema(m, rate * g, beta_1), ema(v, g**2, beta_2), ema(s, rate * g, b)
        if np.any(s):
            d = max(d, min(r / ((1 - b) * np.sum(np.abs(s))), d * growth_rate))
        if found is not None:
            found.append(d)
        yield theta - delta - m / (np.sqrt(v) + epsilon)


@reference
def dog(steps, reps_rel=1e-6, epsilon=1e-8):
    """Ivgi et al. 2023. For several variables, give them as one; L-DoG is each by itself."""
    start, squares = None, 0.0
    for theta, g, lr, delta in steps:
        if start is None:
            start, distance = theta, reps_rel * (1 + np.linalg.norm(theta))
        distance = max(distance, np.linalg.norm(theta - start))
        squares += np.sum(g**2)
        yield theta - lr * distance / math.sqrt(squares + epsilon) * g - delta


@reference
def dowg(steps, init_estim_sq_dist=1e-4, epsilon=1e-4):
    """Khaled et al. 2023, with optax's epsilon. For several variables, give them as one."""
    start, squared_distance, v = None, init_estim_sq_dist, 0.0
    for theta, g, lr, delta in steps:
        start = theta if start is None else start
        squared_distance = max(squared_distance, np.sum((theta - start) ** 2))
        v += squared_distance * np.sum(g**2)
        yield theta - lr * squared_distance * g / (math.sqrt(v) + epsilon) - delta


@reference
def cocob(steps, alpha=100.0, epsilon=1e-8):
    """Orabona & Tommasi 2017, algorithm 2; w is what the paper adds to the start."""
    largest, total, reward, against, w = epsilon, 0.0, 0.0, 0.0, 0.0
    for theta, g, lr, delta in steps:
        largest, total = np.maximum(largest, np.abs(g)), total + np.abs(g)
        reward, against, before = np.maximum(reward - g * w, 0.0), against - g, w
        bets = against / (largest * np.maximum(total + largest, alpha * largest))
        w = bets * (largest + reward)
        yield theta + lr * (w - before) - delta


def polynomial_average(values, gamma):
    """Shamir & Zhang 2013: the average after the last of these values."""
    mean = 0.0
    for t, theta in enumerate(values, 1):
        share = (gamma + 1) / (gamma + t)
        mean = (1 - share) * mean + share * theta
    return mean
