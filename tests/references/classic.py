"""Sums, means and largest values of squared gradients, and what their authors put around them."""

import numpy as np

from references.paper import ema, reference


def quotient(a, b):
    """a / b, and 0 where both are 0."""
    a, b = np.broadcast_arrays(a, b)
    return np.divide(a, b, out=np.zeros(a.shape), where=(a != 0) | (b != 0))


@reference
def nadamw(steps, beta_1=0.9, beta_2=0.999, epsilon=1e-8, psi=0.004):
    """Dozat 2016: μ_t = β₁ (1 − ½ 0.96^(ψ t)); Keras has ψ = 1."""
    mu = lambda t: beta_1 * (1 - 0.5 * 0.96 ** (psi * t))  # noqa: E731
    m = v = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        m, v = ema(m, g, beta_1), ema(v, g**2, beta_2)
        product = np.prod([mu(i) for i in range(1, t + 1)])
        m_hat = mu(t + 1) * m / (1 - product * mu(t + 1)) + (1 - mu(t)) * g / (1 - product)
        yield theta - lr * quotient(m_hat, np.sqrt(v / (1 - beta_2**t)) + epsilon) - delta


@reference
def adagradw(steps, initial=0.0, epsilon=1e-10):
    """Duchi, Hazan & Singer 2011, figure 1, diagonal: H = δ I + diag(√Σ g²)."""
    n = initial
    for theta, g, lr, delta in steps:
        n = n + g**2
        yield theta - lr * quotient(g, np.sqrt(n) + epsilon) - delta


@reference
def adagrad(steps, initial=0.1, epsilon=1e-7):
    """The same with ε inside of the root, as in Keras."""
    n = initial
    for theta, g, lr, delta in steps:
        n = n + g**2
        yield theta - lr * quotient(g, np.sqrt(n + epsilon)) - delta


@reference
def rowwise_adagrad(steps, initial=0.0, epsilon=1e-10):
    """The exact row-wise Adagrad of FBGEMM: the mean over a row of its squared gradients."""
    n = initial
    for theta, g, lr, delta in steps:
        n = n + np.mean(g**2, axis=tuple(range(1, g.ndim)), keepdims=True)
        yield theta - lr * quotient(g, np.sqrt(n) + epsilon) - delta


@reference
def rmspropw(steps, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False):
    """Tieleman & Hinton 2012; Graves 2013: centered by the mean gradient, ε in the root."""
    n = mean = m = 0.0
    for theta, g, lr, delta in steps:
        n, mean = ema(n, g**2, rho), ema(mean, g, rho)
        variance = n - mean**2 if centered else n
        m = momentum * m + lr * quotient(g, np.sqrt(variance + epsilon))
        yield theta - m - delta


@reference
def adamaxw(steps, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """Kingma & Ba 2015, algorithm 2, with Keras's ε."""
    m = u = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        m, u = ema(m, g, beta_1), np.maximum(beta_2 * u, np.abs(g))
        yield theta - lr / (1 - beta_1**t) * quotient(m, u + epsilon) - delta


@reference
def adadeltaw(steps, rho=0.95, epsilon=1e-6):
    """Zeiler 2012, algorithm 1, times a rate."""
    squares = moves = 0.0
    for theta, g, lr, delta in steps:
        squares = ema(squares, g**2, rho)
        move = np.sqrt(moves + epsilon) / np.sqrt(squares + epsilon) * g
        moves = ema(moves, move**2, rho)
        yield theta - lr * move - delta


@reference
def ftrlw(steps, beta=0.0, initial=0.1, power=-0.5, l1=0.0, l2=0.0, shrinkage=0.0):
    """McMahan et al. 2013, algorithm 1, with z times η, and such a z at first that w₁ is θ₀."""
    n, z = initial, None
    for theta, g, lr, delta in steps:
        before, n = beta + n**-power, n + g**2
        after = beta + n**-power
        z = -before * theta if z is None else z
        z = z + lr * (g + 2 * shrinkage * theta) - (after - before) * theta
        z = z + delta * (after + 2 * lr * l2)
        yield (np.clip(z, -lr * l1, lr * l1) - z) / (after + 2 * lr * l2)


@reference
def ftrl(steps, beta=0.0, initial=0.1, power=-0.5, l1=0.0, l2=0.0, shrinkage=0.0):
    """The same as TensorFlow's kernel has it: z₀ = 0, 1 / η of now in what z holds."""
    n, z = initial, 0.0
    for theta, g, lr, delta in steps:
        before, n = n**-power, n + g**2
        curvature = n**-power / lr + 2 * (l2 + beta / (2 * lr))
        z = z + g + 2 * shrinkage * theta - (n**-power - before) / lr * theta + delta * curvature
        yield (np.clip(z, -l1, l1) - z) / curvature


@reference
def proximal_adagrad(steps, initial=0.1, l1=0.0, l2=0.0):
    """Duchi & Singer 2009, with Adagrad's rates, as TensorFlow's kernel has it."""
    n = initial
    for theta, g, lr, delta in steps:
        n = n + g**2
        a = quotient(lr, np.sqrt(n))
        w = theta - a * g - delta
        yield np.sign(w) * np.maximum(np.abs(w) - a * l1, 0) / (1 + a * l2)


@reference
def conditional_gradient(steps, radius=0.01, epsilon=1e-7, norm="fro", rounds=16):
    """Frank & Wolfe 1956: towards −λ s, which minimizes ⟨g, θ⟩ in the ball of radius λ."""
    for theta, g, lr, delta in steps:
        s = quotient(g, np.linalg.norm(g) + epsilon)
        if norm == "nuclear":
            s = top_pair(g.reshape(-1, g.shape[-1] if g.ndim else 1), rounds).reshape(g.shape)
        yield (1 - lr) * theta - lr * radius * s - delta


def top_pair(x, rounds):
    """u vᵀ of the power iteration for XᵀX from the cosines of 0, 1, 2, …"""
    x = quotient(x, np.linalg.norm(x))
    v = np.cos(np.arange(x.shape[1]))
    for _ in range(rounds):
        v = x.T @ (x @ v)
        v = quotient(v, np.linalg.norm(v))
    u = x @ v
    return np.outer(quotient(u, np.linalg.norm(u)), v)
