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
