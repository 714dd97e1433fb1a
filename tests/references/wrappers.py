"""Rules around rules."""

import itertools

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
