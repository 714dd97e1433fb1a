"""Every optimizer in NumPy float64, from its paper: what the library is compared with.

A rule is a generator: it takes `steps`, an iterator of (θ before the step, g, lr_t, δ_t), and
yields the θ after each. Called by its name it runs: `adamw(theta, grads, learning_rate=...)` is θ
after the last gradient. `learning_rate` and `weight_decay` are numbers, or lists of one a step.
"""

import functools
import itertools
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


# Jordan's code; that of modded-nanogpt; what the code of Amsel et al. 2025 computes.
MUON_ROUNDS = {
    "original": 5 * [(3.4445, -4.7750, 2.0315)],
    "quintic": [
        *((4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037)),
        *((2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)),
    ],
    "polar_express": [
        *((8.2373125, -23.1577477, 16.6805684), (4.0824420, -2.8930477, 0.5252849)),
        *((3.9263480, -2.8547468, 0.5318022), (3.2982187, -2.4245420, 0.4863201)),
        (2.2970369, -1.6366256, 0.4002629),
    ],
}


def orthogonal(d, rounds, margin=0.0):
    """Newton–Schulz by the singular values: each goes through a σ + b σ³ + c σ⁵ of every round."""
    left, σ, right = np.linalg.svd(d, full_matrices=False)
    σ = σ / ((1 + margin) * np.linalg.norm(d) + 1e-7)
    for a, b, c in rounds:
        σ = a * σ + b * σ**3 + c * σ**5
    return left @ np.diag(σ) @ right


@reference
def muon(steps, momentum=0.95, nesterov=True, rounds=5, coefficients="original", scale="original"):
    """Jordan 2024 and Liu et al. 2025, with the momentum m ← μ m + g: Newton–Schulz ignores its
    scale, but for the 1e-7 beside the norm."""
    m = 0.0
    margin = 0.01 if coefficients == "polar_express" else 0.0
    for theta, g, lr, delta in steps:
        m = momentum * m + g
        d = (g + momentum * m if nesterov else m).reshape(-1, g.shape[-1])
        inputs, outputs = d.shape
        factor = {
            "original": max(1, outputs / inputs) ** 0.5,
            "match_rms_adamw": 0.2 * max(inputs, outputs) ** 0.5,
            "rms_to_rms": (outputs / inputs) ** 0.5,
        }[scale]
        u = orthogonal((1 - momentum) * d, MUON_ROUNDS[coefficients][:rounds], margin)
        yield theta - lr * factor * u.reshape(g.shape) - delta


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


def normalized_decay(rate, batch_size, train_size, epochs):
    """Loshchilov & Hutter 2019, appendix B.1: λ = λ_norm √(b / (B T))."""
    return rate * math.sqrt(batch_size / (train_size * epochs))
