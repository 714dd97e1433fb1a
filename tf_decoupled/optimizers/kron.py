"""Kron."""

import math

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Count, Positive, Scalar, Steps
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, zeros
from tf_decoupled.math import ema, norm
from tf_decoupled.matrices import as_matrix, identity, matrix_shape, spectral_norm, started


class Kron(Optimizer):
    """PSGD with Kronecker factors: it learns the P that makes gradients white, by products alone.

        m ← β m + (1 − β) g        G = m / (1 − βᵗ), as a matrix [all other axes, out]
        H = P_L G P_R,  P_L = Q_L²,  P_R = Q_R²        u = H min(1, c / RMS(H))
        every f steps, for both sides (the right one with Hᵀ), n their rows, N the size of G:
            T = H Hᵀ + ‖P_R‖² (a P_L)²        a = damping · mean |G|
            ℓ = ‖T‖₂ + N / n        ℓ̄ ← max(0.9 ℓ̄ + 0.1 ℓ, ℓ)        E = μ / (2 ℓ̄) (T − N / n I)
            Q ← (I − E) Q (I − E)
        then both Q are scaled to the same largest entry.

    Q begins as s I, with s⁸ = 1 / mean G⁴ of the first gradient that isn't 0, shared among both
    sides. It is diagonal, and T its diagonal, for sides longer than the other or than
    `max_precond_dim`; so it is for vectors and scalars, which have one side.

    Use it where AdamW needs many steps; the scale of gradients is of no consequence, and no root or
    inverse is ever taken. A square matrix takes 8 bytes for each weight beside m, and 14 products
    of its size in a step that fits Q, 4 in others; under XLA and where stacked, too.

    Args:
        beta_1: β.
        precond_lr: μ, by which share of the way to white Q goes in a step.
        precondition_frequency: f; the authors fit rarer later, which a schedule may do.
        max_precond_dim: the longest side with a full Q.
        damping: which share of a mean gradient is added as noise; √ε of float32, as in kron_torch.
        max_rms: c.

    Li, "Preconditioned Stochastic Gradient Descent", 2015. arXiv:1512.04202; Pooladzandi & Li,
    "Curvature-Informed SGD via General Purpose Lie-Group Preconditioners", 2024. arXiv:2402.11858.
    The algorithm is Li's code's "QUAD", which suits TPUs: the usual one, of triangular Q, solves a
    triangular system a step. Departs from it: Q is balanced at each fit, not at one in a hundred;
    noise is replaced by what it comes to on average, so nothing is random; ‖T‖₂ is a lower bound.
    """

    learning_rate: Scalar = 3e-4
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    precond_lr: Positive = 0.1
    precondition_frequency: Steps = 1
    max_precond_dim: Count = 8192
    damping: Scalar = 3.5e-4
    max_rms: Positive = 1.1

    def sides(self, p):
        """The rows of Q_L and Q_R, and whether each is full; a vector has the first alone."""
        if len(p.shape) < 2:
            return [(math.prod(p.shape), False)]
        rows, columns = matrix_shape(p)
        full = [1 < n <= min(rows, columns, self.max_precond_dim) for n in (rows, columns)]
        return [(rows, full[0]), (columns, full[1])]

    def init(self, p):
        slots = dict(m=zeros(p))
        for i, (n, full) in enumerate(self.sides(p)):
            slots |= {f"q_{i}": zeros(p, (n, n) if full else (n,)), f"l_{i}": Slot((), 0.0)}
        return slots

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        mean = as_matrix(m) / h.correction.beta_1
        start = power_mean(mean) ** (-0.5 / len(self.sides(p)))
        start = tf.where(tf.reduce_any(mean != 0), start, 0.0)
        qs, lengths = [s.q_0], [s.l_0]
        if hasattr(s, "q_1"):
            qs, lengths = [s.q_0, s.q_1], [s.l_0, s.l_1]
        qs = [started(q, start * unit(q)) for q in qs]
        white = whitened(mean, qs)
        due = h.step % h.precondition_frequency == 0
        after = tf.cond(
            due, lambda: self.fitted(qs, lengths, mean, white, h), lambda: [*qs, *lengths]
        )
        slots = {f"q_{i}": q for i, q in enumerate(after[: len(qs)])}
        slots |= {f"l_{i}": length for i, length in enumerate(after[len(qs) :])}
        rms = norm(white) / math.sqrt(max(math.prod(p.shape), 1))
        u = white * tf.minimum(h.max_rms / rms, 1.0)
        return tf.reshape(u, p.shape), dict(m=m) | slots

    def fitted(self, qs, lengths, mean, white, h):
        """Each Q, then each √ℓ̄; as they were where there is no gradient."""
        ps = [tf.matmul(q, q) if len(q.shape) > 1 else q * q for q in qs]
        noise = h.damping * tf.reduce_mean(tf.abs(mean))
        noises = [noise * ps[0]]
        if len(qs) > 1:
            noises = [noise * norm(ps[1]) * ps[0], noise * norm(ps[0]) * ps[1]]
        sides = zip(qs, lengths, [white, tf.transpose(white)], noises, strict=False)
        pairs = [fit(*side, h.precond_lr) for side in sides]
        fits, lengths_after = balanced([q for q, _ in pairs]), [length for _, length in pairs]
        there = tf.reduce_any(mean != 0)
        both = zip([*fits, *lengths_after], [*qs, *lengths], strict=True)
        return [tf.where(there, after, before) for after, before in both]


def power_mean(x):
    """The fourth root of the mean of x⁴; 1 where x is 0."""
    largest = tf.reduce_max(tf.abs(x))
    largest = tf.where(largest > 0, largest, 1.0)
    x = x / largest
    mean = tf.reduce_mean(x * x * x * x)
    return largest * tf.where(mean > 0, mean, 1.0) ** 0.25


def unit(q):
    """I, in the form of q: full or its diagonal."""
    return identity(q) if len(q.shape) > 1 else tf.ones_like(q)


def whitened(x, qs):
    """P_L x P_R, by the roots of both: their squares would be larger than float32 holds."""
    for q in qs:
        for _ in range(2):
            x = tf.matmul(q, x) if len(q.shape) > 1 else q[:, None] * x
        x = tf.transpose(x)
    return x if len(qs) == 2 else tf.transpose(x)


@tf.function(autograph=False)  # as a graph also where a step is run eagerly
def fit(q, length, white, noise, rate):
    """(I − E) Q (I − E) and √ℓ̄, in units in which no square overflows."""
    scale = tf.maximum(tf.reduce_max(tf.abs(white)), 1.0)
    white, noise, target = white / scale, noise / scale, white.shape[1] / scale / scale
    if len(q.shape) > 1:
        t = tf.matmul(white, white, transpose_b=True) + tf.matmul(noise, noise, transpose_b=True)
        found = spectral_norm(t) + target
    else:
        t = tf.reduce_sum(white * white, 1) + noise * noise
        found = tf.reduce_max(t) + target
    smooth = tf.square(length / scale)
    smooth = tf.maximum(0.9 * smooth + 0.1 * found, found)
    e = rate / 2 / smooth * (t - target * unit(q))
    if len(q.shape) > 1:
        q = q - tf.matmul(e, q)
        q = q - tf.matmul(q, e)
        q = (q + tf.transpose(q)) / 2
    else:
        q = q * tf.square(1 - e)
    return q, scale * tf.sqrt(smooth)


def balanced(qs):
    """Both Q with the same largest entry: P is the same, and neither overflows."""
    if len(qs) < 2:
        return qs
    first, second = (tf.reduce_max(tf.abs(q)) for q in qs)
    ratio = tf.sqrt(second / first)
    return [ratio * qs[0], qs[1] / ratio]
