"""Rules around rules."""

import itertools

import numpy as np

from references.adam import adamw
from references.momentum import sgd
from references.paper import reference


@reference
def lookahead(steps, inner=adamw, k=6, alpha=0.5, **options):
    """Zhang et al. 2019, algorithm 1: every k steps the fast weights return to the slow ones."""
    first = next(steps)
    slow = first[0]
    for t, fast in enumerate(inner.rule(itertools.chain([first], steps), **options), 1):
        if t % k == 0:
            fast = slow = slow + alpha * (fast - slow)
        yield fast


@reference
def schedule_free(steps, inner=sgd, beta=0.9, weight_power=2.0, r=0.0, sequences=None, **options):
    """Defazio et al. 2024, algorithm 1: its y. `inner` makes the steps of z, from y: SGD without
    momentum in the paper's algorithm, and AdamW without β₁ in its experiments.

    `sequences`: a list that gets z, x and the weight w of each step."""
    now = []

    def noted():
        for step in steps:
            now[:] = step
            yield step

    x = z = None
    total = rate = 0.0
    for t, after in enumerate(inner.rule(noted(), **options), 1):
        y, _, lr, _ = now
        x, z = (y, y) if t == 1 else (x, z)
        rate = max(rate, lr)
        weight = t**r * rate**weight_power
        total += weight
        z = z + after - y
        c = weight / total if total else 0.0
        x = (1 - c) * x + c * z
        if sequences is not None:
            sequences.append((z, x, weight))
        yield beta * x + (1 - beta) * z


@reference
def mechanic(steps, inner=adamw, s_init=1e-8, s_decay=0.01, epsilon=1e-8, factors=None, **options):
    """Cutkosky et al. 2023, algorithm 1, with M = 1e-6 before the first step, as in the authors'
    PyTorch code. For several variables, give them as one. `factors`: a list that gets each Σs."""
    betas, now = 1 - 0.1 ** np.arange(1, 7), []

    def noted():
        for step in steps:
            now[:] = step
            yield step

    start, m, v, r, s, path = None, 1e-6, 0.0, 0.0, np.zeros(6), 0.0
    for after in inner.rule(noted(), **options):
        theta, g, *_ = now
        start = theta if start is None else start
        pull = s_decay * sum(s) * np.linalg.norm(g) / (np.linalg.norm(theta) + epsilon)
        h = np.sum((g + pull * theta) * path)
        m, v = np.maximum(betas * m, abs(h)), betas**2 * v + h**2
        r = np.maximum(betas * r - h * s, 0)
        s = (s_init * m / 6 + r) / (np.sqrt(v) + epsilon)
        path = path + after - theta
        if factors is not None:
            factors.append(sum(s))
        yield start + sum(s) * path


@reference
def iterate_average(
    steps, inner=adamw, start_averaging=1, average_period=1, window=None, means=None, **options
):
    """Izmailov et al. 2018, algorithm 1, over all of a run: the values are the inner rule's.

    `means`: a list that gets what is evaluated after each step."""
    taken = []
    for t, theta in enumerate(inner.rule(steps, **options), 1):
        if t >= start_averaging and (t - start_averaging) % average_period == 0:
            taken.append(theta)
        if means is not None:
            means.append(np.mean(taken[-(window or 0) :], 0) if taken else theta)
        yield theta
