"""Adafactor."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Positive, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema, rms
from tf_decoupled.schedules import InverseSquareRoot


class Adafactor(Optimizer):
    """Adam's second moment in the space of one row and one column per matrix.

        R ← β R + (1 − β) mean over columns of (g² + ε₁)          β = 1 − t^−0.8
        C ← β C + (1 − β) mean over rows of (g² + ε₁)             V = R C / mean(R)
        û = g / √V        u = max(ε₂, RMS(θ)) · û / max(1, RMS(û) / d)

    p: [..., rows, columns] is factored over its last two axes, R: [..., rows], C: [..., columns];
    vectors and scalars keep V whole. The rate is relative to RMS(θ); the default is the paper's
    ρ_t = min(10⁻², 1/√t).

    Args:
        decay_exponent: 0.8 in β.
        epsilon_1, epsilon_2: ε₁, added to g²; ε₂, the least scale of a variable.
        clip_threshold: d.

    Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
    algorithms 4 and 5. arXiv:1804.04235. R and C are means where the paper sums: V is the same.
    """

    learning_rate: Scalar = InverseSquareRoot(1e-2)
    weight_decay: Scalar = 0.0
    decay_exponent: Positive = 0.8
    epsilon_1: Scalar = 1e-30
    epsilon_2: Scalar = 1e-3
    clip_threshold: Positive = 1.0

    def init(self, p):
        if len(p.shape) < 2:
            return dict(v=zeros(p))
        return dict(r=zeros(p, p.shape[:-1]), c=zeros(p, (*p.shape[:-2], p.shape[-1])))

    def update(self, p, g, s, h):
        β = 1 - h.t**-h.decay_exponent
        g2 = g * g + h.epsilon_1
        if len(p.shape) < 2:
            slots = dict(v=ema(s.v, g2, β))
            u = g * tf.math.rsqrt(slots["v"])
        else:
            r = ema(s.r, tf.reduce_mean(g2, -1), β)
            c = ema(s.c, tf.reduce_mean(g2, -2), β)
            slots = dict(r=r, c=c)
            u = g * tf.math.rsqrt(r)[..., :, None] * tf.math.rsqrt(c)[..., None, :]
            u = u * tf.sqrt(tf.reduce_mean(r, -1))[..., None, None]
        u = u / tf.maximum(rms(u) / h.clip_threshold, 1.0)
        return tf.maximum(h.epsilon_2, rms(p)) * u, slots
