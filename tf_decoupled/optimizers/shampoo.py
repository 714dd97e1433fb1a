"""Shampoo."""

import math
from typing import Literal

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Count, Scalar, Steps
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema, norm
from tf_decoupled.matrices import as_matrix, inverse_root, matrix_shape


class Shampoo(Optimizer):
    """Gradients divided by the roots of their rows' and columns' statistics, for each block.

        L ← β₂ L + (1 − β₂) G Gᵀ        R ← β₂ R + (1 − β₂) Gᵀ G        G: a block of the gradient
        every f steps:  P = (L + ε ‖L‖ I)^(−1/4),  P' = (R + ε ‖R‖ I)^(−1/4)
        S = P G P', of all blocks        u = S ‖A‖ / ‖S‖        A: the grafted method's direction
        M ← β₁ M + u        direction: u + β₁ M, without Nesterov M

        A, by graft:  "sgd": g        "adagrad": d ← d + g²        "rmsprop": d ← β₂ d + (1 − β₂) g²
                      the last two g / (√d + ε_d), with d / (1 − β₂ᵗ) for "rmsprop"

    Kernels are matrices [all other axes, out], cut into blocks of at most b × b. Vectors have L
    alone, with the root −1/2; scalars, and all in the first f − 1 steps, move along A.

    Use it for large batches and layers that SGD or AdamW train slowly; not where memory is short: a
    square block takes 16 bytes for each weight beside M. u is as long as A, so a rate that is right
    for the grafted method is right here: "rmsprop" with AdamW's rate times 1 − β₁.

    Args:
        epsilon: ε, the ridge, as a share of ‖L‖. Below 1e-6 float32 knows no root.
        graft: whose length a step of a variable has.
        graft_epsilon: ε_d, in units of the gradient.
        block_size: b.
        precondition_frequency: f. The roots cost 200 products of b × b matrices for each block, in
            steps of f only, also under XLA and where stacked; on GPUs and TPUs six times that, as
            they are products of full precision.
        steps: the rounds of coupled Newton for the roots; a ridge of 1e-6 needs 20, larger ones
            fewer. A root that isn't one, to 0.1, is left as it was.

    Gupta et al., "Shampoo: Preconditioned Stochastic Tensor Optimization", 2018, the algorithm for
    matrices. arXiv:1802.09568; Anil et al., "Scalable Second Order Optimization for Deep Learning",
    2020: blocks, grafting, roots by products. arXiv:2002.09018. Departs from the latter's code: ‖L‖
    is Frobenius's norm in place of the largest eigenvalue, at most √b larger; L begins with 0, and
    the roots at step f; one M for both directions; decay is decoupled; "rmsprop" is bias-corrected.
    """

    learning_rate: Scalar = 0.01
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-6
    graft: Literal["sgd", "adagrad", "rmsprop"] = "sgd"
    graft_epsilon: Scalar = 1e-10
    nesterov: bool = True
    block_size: Count = 128
    precondition_frequency: Steps = 10
    steps: Count = 25

    def cut(self, p):
        """Rows and columns of blocks, and of each block; a vector is one column."""
        rows, columns = matrix_shape(p)
        high, wide = (max(1, min(n, self.block_size)) for n in (rows, columns))
        return math.ceil(rows / high), math.ceil(columns / wide), high, wide

    def init(self, p):
        slots = dict(m=zeros(p)) | ({} if self.graft == "sgd" else dict(d=zeros(p)))
        if len(p.shape) > 0:
            down, across, high, wide = self.cut(p)
            slots |= dict.fromkeys(["l", "p_l"], zeros(p, (down, across, high, high)))
        if len(p.shape) > 1:
            slots |= dict.fromkeys(["r", "p_r"], zeros(p, (down, across, wide, wide)))
        return slots

    def update(self, p, g, s, h):
        u, slots = self.grafted(g, s, h)
        if len(p.shape) > 0:
            blocks = in_blocks(g, *self.cut(p))
            roots = self.roots(blocks, s, h)
            shaped = tf.matmul(roots["p_l"], blocks)
            shaped = tf.matmul(shaped, roots["p_r"]) if "p_r" in roots else shaped
            shaped, length = from_blocks(shaped, p), norm(shaped)
            u = tf.where(length > 0, tf.math.divide_no_nan(shaped, length) * norm(u), u)
            slots |= roots
        m = h.beta_1 * s.m + u
        return u + h.beta_1 * m if self.nesterov else m, slots | dict(m=m)

    def grafted(self, g, s, h):
        """A, and its accumulator."""
        if self.graft == "sgd":
            return g, {}
        if self.graft == "adagrad":
            d = s.d + g * g
            return g / (tf.sqrt(d) + h.graft_epsilon), dict(d=d)
        d = ema(s.d, g * g, h.beta_2)
        return g / (tf.sqrt(d / h.correction.beta_2) + h.graft_epsilon), dict(d=d)

    def roots(self, blocks, s, h):
        """L, R and their roots, those of an earlier step but for every f-th."""
        grams = dict(l=ema(s.l, tf.matmul(blocks, blocks, transpose_b=True), h.beta_2))
        before = dict(p_l=s.p_l)
        if hasattr(s, "r"):
            grams["r"] = ema(s.r, tf.matmul(blocks, blocks, transpose_a=True), h.beta_2)
            before["p_r"] = s.p_r
        p, named = 2 * len(grams), zip(grams.values(), before.values(), strict=True)
        pairs = list(named)

        def anew():
            return [inverse_root(a, p, h.epsilon, self.steps, was) for a, was in pairs]

        due = h.step % h.precondition_frequency == 0
        after = tf.cond(due, anew, lambda: list(before.values()))
        return grams | dict(zip(before, after, strict=True))


def in_blocks(x, down, across, high, wide):
    """x, as [down, across, high, wide] with zeros around; a vector as one column."""
    x = as_matrix(x)
    rows, columns = x.shape
    x = tf.pad(x, [[0, down * high - rows], [0, across * wide - columns]])
    return tf.transpose(tf.reshape(x, [down, high, across, wide]), [0, 2, 1, 3])


def from_blocks(x, p):
    """The inverse of `in_blocks`, in the shape of p."""
    down, across, high, wide = x.shape
    x = tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [down * high, across * wide])
    rows, columns = matrix_shape(p)
    return tf.reshape(x[:rows, :columns], p.shape)
