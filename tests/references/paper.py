"""Every optimizer in NumPy float64, from its paper: what the library is compared with.

A rule is a generator: it takes `steps`, an iterator of (θ before the step, g, lr_t, δ_t), and
yields the θ after each. Called by its name it runs: `adamw(theta, grads, learning_rate=...)` is θ
after the last gradient. `learning_rate` and `weight_decay` are numbers, or lists of one a step.
"""

import functools
import math

import numpy as np


def decay(theta, lr, lam, base, coupling):
    """δ, what the decay takes from θ in one step, with θ the value before it."""
    return {
        "learning_rate": lr * lam * theta,
        "schedule": lr / base * lam * theta,
        "independent": lam * theta,
        "corrected": lr**2 / base * lam * theta,
    }[coupling]


def per_step(value, grads):
    return np.broadcast_to(np.asarray(value, np.float64), [len(grads)])


def reference(rule):
    """Runs `rule`; `base`, the peak of the schedule, is by default the largest learning rate."""

    @functools.wraps(rule)
    def run(
        theta,
        grads,
        *,
        learning_rate,
        weight_decay=0.0,
        coupling="learning_rate",
        base=None,
        **options,
    ):
        theta = np.asarray(theta, np.float64)
        rates, decays = per_step(learning_rate, grads), per_step(weight_decay, grads)
        peak = max(rates) if base is None else base

        def steps():  # lazy: `theta` is what the rule yielded last
            for g, lr, lam in zip(grads, rates, decays, strict=True):
                yield theta, np.asarray(g, np.float64), lr, decay(theta, lr, lam, peak, coupling)

        for after in rule(steps(), **options):
            theta = after
        return theta

    run.rule = rule
    return run


def with_l2(steps, l2):
    """The gradient of the loss plus ½ l2 ‖θ‖²."""
    return ((theta, g + l2 * theta, lr, delta) for theta, g, lr, delta in steps)


def ema(old, new, beta):
    return beta * old + (1 - beta) * new


def rms(x):
    return math.sqrt(np.mean(x**2))


def normalized_decay(rate, batch_size, train_size, epochs):
    """Loshchilov & Hutter 2019, appendix B.1: λ = λ_norm √(b / (B T))."""
    return rate * math.sqrt(batch_size / (train_size * epochs))
