"""Adam's variants."""

import math

import numpy as np

from references.paper import ema, reference, rms


@reference
def radam(steps, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """Liu et al. 2020, algorithm 2, with ε beside √v̂."""
    m = v = 0.0
    most = 2 / (1 - beta_2) - 1
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        m, v = ema(m, g, beta_1), ema(v, g**2, beta_2)
        u, length = m / (1 - beta_1**t), most - 2 * t * beta_2**t / (1 - beta_2**t)
        if length > 4:
            ratio = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
            u = math.sqrt(ratio) * u / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
        yield theta - lr * u - delta


def beta_3_at(t, start, end, warmup):
    """Pagliardini et al. 2024: exp(ln a ln b / ((1 − t/T) ln b + t/T ln a)), from a to b."""
    done = min(1.0, t / warmup)
    if done == 1 or start == end == 0:
        return end
    if start == 0 or end == 0:  # the limits
        return end ** (1 / done) if end else start ** (1 / (1 - done))
    a, b = math.log(start), math.log(end)
    return math.exp(a * b / ((1 - done) * b + done * a))


@reference
def ademamix(
    steps,
    beta_1=0.9,
    beta_2=0.999,
    beta_3=0.9999,
    alpha=5.0,
    alpha_warmup=1.0,
    beta_3_warmup=1.0,
    epsilon=1e-8,
    fast_average=True,
):
    """Pagliardini, Ablin & Grangier 2024."""
    m1 = m2 = v = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        m1 = ema(m1, g, beta_1)
        m2 = ema(m2, g, beta_3_at(t, beta_1, beta_3, beta_3_warmup))
        v = ema(v, g**2, beta_2)
        m_hat = m1 / (1 - beta_1**t) if fast_average else g
        top = m_hat + alpha * min(1.0, t / alpha_warmup) * m2
        yield theta - lr * top / (np.sqrt(v / (1 - beta_2**t)) + epsilon) - delta


@reference
def stable_adamw(steps, beta_1=0.9, beta_2=0.99, epsilon=1e-8):
    """Wortsman et al. 2023: AdamW, with Adafactor's clipping of the rate by RMS(g / √v̂)."""
    m = v = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        m, v = ema(m, g, beta_1), ema(v, g**2, beta_2)
        m_hat, v_hat = m / (1 - beta_1**t), v / (1 - beta_2**t)
        shortened = max(1.0, rms(g / np.sqrt(np.maximum(v_hat, epsilon**2))))
        yield theta - (lr * m_hat / (np.sqrt(v_hat) + epsilon) + delta) / shortened


@reference
def adopt(steps, beta_1=0.9, beta_2=0.9999, epsilon=1e-6):
    """Taniguchi et al. 2024, with clipping; the decay acts at each step."""
    m = v = 0.0
    for k, (theta, g, lr, delta) in enumerate(steps):
        if k == 0:
            v = g**2
        else:
            m = ema(m, np.clip(g / np.maximum(np.sqrt(v), epsilon), -(k**0.25), k**0.25), beta_1)
            v = ema(v, g**2, beta_2)
        yield theta - lr * m - delta


@reference
def adabelief(steps, beta_1=0.9, beta_2=0.999, epsilon=1e-16):
    """Zhuang et al. 2020, algorithm 2."""
    m = s = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        m = ema(m, g, beta_1)
        s = ema(s, (g - m) ** 2, beta_2) + epsilon
        m_hat, s_hat = m / (1 - beta_1**t), s / (1 - beta_2**t)
        yield theta - lr * m_hat / (np.sqrt(s_hat) + epsilon) - delta


@reference
def yogi(steps, beta_1=0.9, beta_2=0.999, epsilon=1e-3, initial_accumulator_value=1e-6):
    """Zaheer et al. 2018, with Adam's correction of the bias."""
    m, v = 0.0, initial_accumulator_value
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        m = ema(m, g, beta_1)
        v = np.where(v > g**2, v - (1 - beta_2) * g**2, v + (1 - beta_2) * g**2)
        u = m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
        yield theta - lr * u - delta


@reference
def adan(steps, beta_1=0.98, beta_2=0.92, beta_3=0.99, epsilon=1e-8, proximal=True):
    """Xie et al. 2022, algorithm 1, with the authors' correction of the bias.

    κ of the decay κ θ is what projects it onto θ.
    """
    m = v = n = before = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        d = g - before if t > 1 else 0.0 * g
        before = g
        m, v, n = ema(m, g, beta_1), ema(v, d, beta_2), ema(n, (g + beta_2 * d) ** 2, beta_3)
        top = m / (1 - beta_1**t) + beta_2 * v / (1 - beta_2**t)
        moved = theta - lr * top / (np.sqrt(n / (1 - beta_3**t)) + epsilon)
        size = np.vdot(theta, theta)
        kappa = np.vdot(delta, theta) / size if size else 0.0
        yield moved / (1 + kappa) if proximal else moved - delta


@reference
def diffgrad(steps, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """Dubey et al. 2019."""
    m = v = before = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        m, v = ema(m, g, beta_1), ema(v, g**2, beta_2)
        friction = 1 / (1 + np.exp(-np.abs(before - g)))
        before = g
        u = friction * m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
        yield theta - lr * u - delta


@reference
def acprop(steps, beta_1=0.9, beta_2=0.999, epsilon=1e-16):
    """Zhuang et al. 2021."""
    m = s = 0.0
    for k, (theta, g, lr, delta) in enumerate(steps):
        u = g / (np.sqrt(s / (1 - beta_2**k)) + epsilon) if k else g
        m = ema(m, g, beta_1)
        s = ema(s, (g - m) ** 2, beta_2) + epsilon
        yield theta - lr * u - delta


@reference
def amos(steps, eta=None, beta=0.999, zeta=0.25, slices="columns", epsilon=2.0**-125):
    """Tian & Parikh 2022, algorithm 1, from the authors' code."""
    v = b = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        axes = (-1,) if slices == "rows" or g.ndim < 2 else tuple(range(g.ndim - 1))
        axes = axes if g.ndim else ()
        mean = np.mean(g**2, axes, keepdims=True)
        scale = eta or (0.5 if g.ndim < 2 else math.sqrt(mean.size / g.size))
        v = ema(v, mean, beta)
        inverse = (1 - beta**t) / np.maximum(v, epsilon)
        gamma = lr**2 * mean * inverse / np.sqrt(1 + zeta * math.sqrt(lr) * b)
        move = lr * scale * np.sqrt(inverse) * g + gamma * theta / 2
        move /= 1 + zeta * math.sqrt(lr * scale) * b
        b = b + gamma * (1 + b)
        yield theta - move - delta
