"""SOAP."""

import math

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Count, Scalar, Steps
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema
from tf_decoupled.matrices import identity, orthogonal_factor, started

STACKED = 16_384  # entries of a variable that the engine may stack; TensorFlow can't map its QR
KEPT = 1e-5  # of an axis's mean statistics: what holds directions that no gradient had in place


class SOAP(Optimizer):
    """Adam in the eigenbasis of Shampoo's statistics: one matrix for each axis of a kernel.

        m ← β₁ m + (1 − β₁) g        g', m': g and m, each axis i turned by Qᵢ
        v ← β₂ v + (1 − β₂) g'²      m̂ = m' / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)
        u = m̂ / (√v̂ + ε), turned back
        Lᵢ ← β_s Lᵢ + (1 − β_s) g gᵀ, summed over all axes but i
        every f steps:  Qᵢ ← the columns of Qᵢ, and v alike, by diag(Qᵢᵀ Lᵢ Qᵢ), the largest first
                        Qᵢ ← Q of the QR factors of (Lᵢ + κ I) Qᵢ,  κ = 1e-5 mean(diag Lᵢ)

    Use it for matrices and kernels of a few thousand rows: its authors need fewer steps than with
    AdamW. An axis of n costs 8 n² bytes of state and about n³ products every f steps, under XLA
    and where stacked, too: only steps of f have them.

    Args:
        shampoo_beta: β_s.
        epsilon: ε, in units of the gradient.
        precondition_frequency: f.
        max_precond_dim: longer axes are not turned; with all axes longer, it is Adam.
        precondition_1d: turn vectors, too; by default Adam steps them.

    Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024, the algorithm with one
    round of power iteration and QR. arXiv:2409.11321. Departs from the authors' code: Qᵢ begins as
    I, so the first f steps are Adam's, where theirs takes the eigenvectors of the first gradient,
    which it doesn't step; m is kept unturned, which gives the same numbers; ε is beside √v̂, where
    theirs is beside √v; κ, and decay with the step, not after it.
    """

    learning_rate: Scalar = 3e-3
    weight_decay: Scalar = 0.01
    beta_1: Beta = 0.95
    beta_2: Beta = 0.95
    shampoo_beta: Beta = 0.95
    epsilon: Scalar = 1e-8
    precondition_frequency: Steps = 10
    max_precond_dim: Count = 10_000
    precondition_1d: bool = False

    def turned(self, p):
        """The axes that have a basis: one entry can't be turned."""
        if len(p.shape) < 2 and not self.precondition_1d:
            return []
        return [i for i, n in enumerate(p.shape) if 1 < n <= self.max_precond_dim]

    def init(self, p):
        slots = dict(m=zeros(p), v=zeros(p))
        for i in self.turned(p):
            square = (p.shape[i], p.shape[i])
            slots |= {f"gram_{i}": zeros(p, square), f"basis_{i}": zeros(p, square)}
        return slots

    def update(self, p, g, s, h):
        axes, bases = self.turned(p), {}
        for i in axes:
            q = getattr(s, f"basis_{i}")
            bases[i] = started(q, identity(q))
        m = ema(s.m, g, h.beta_1)
        v = ema(s.v, tf.square(rotated(g, bases)), h.beta_2)
        m_hat, v_hat = rotated(m, bases) / h.correction.beta_1, v / h.correction.beta_2
        u = rotated(m_hat / (tf.sqrt(v_hat) + h.epsilon), bases, back=True)
        grams = {i: ema(getattr(s, f"gram_{i}"), gram(g, i), h.shampoo_beta) for i in axes}
        if axes:
            due = h.step % h.precondition_frequency == 0
            v, *after = tf.cond(
                due, lambda: improved(v, bases, grams), lambda: [v, *bases.values()]
            )
            bases = dict(zip(axes, after, strict=True))
        slots = {f"gram_{i}": grams[i] for i in axes} | {f"basis_{i}": bases[i] for i in axes}
        return u, dict(m=m, v=v) | slots


def rotated(x, bases, back=False):
    """x, each axis i turned by its Qᵢ: Σⱼ x[.., j, ..] Qᵢ[j, :], or Qᵢᵀ for the way back."""
    last = len(x.shape) - 1
    for i, q in bases.items():
        x = tf.tensordot(x, q, [[i], [int(back)]])
        x = tf.transpose(x, [*range(i), last, *range(i, last)])
    return x


def gram(g, i):
    """g gᵀ, summed over all axes but i."""
    others = [j for j in range(len(g.shape)) if j != i]
    return tf.tensordot(g, g, [others, others])


def improved(v, bases, grams):
    """v and the bases, in the order of their statistics, after one round of power iteration."""
    small, after = math.prod(v.shape) <= STACKED, []
    for i, q in bases.items():
        product = tf.matmul(grams[i], q)
        order = tf.argsort(tf.reduce_sum(q * product, 0), direction="DESCENDING")
        size = tf.reduce_mean(tf.linalg.diag_part(grams[i]))
        product = tf.math.divide_no_nan(product, size) + KEPT * q
        product = tf.gather(product, order, axis=1)
        after.append(orthogonal_factor(product) if small else tf.linalg.qr(product)[0])
        v = tf.gather(v, order, axis=i)
    return [v, *after]
