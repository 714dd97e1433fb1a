"""Scion."""

import math
from typing import Literal

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Count, Positive, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema, rms
from tf_decoupled.matrices import JORDAN, as_matrix, matrix_shape, newton_schulz


class Scion(Optimizer):
    """Steps of one length in a norm that fits the layer: rates carry over to larger models.

        d ← μ d + (1 − μ) g        u = ρ lmo(d)        θ ← θ − η u − δ(θ)

        norm         lmo(d), for a kernel [in, out]                    for
        "spectral"   √(out / in) NS(d), over h·w for h × w kernels     the matrices inside
        "sign"       sign(d) / in                                      the last layer
        "column"     each input's row, over its RMS                    embeddings
        "row"        each output's column, over its norm · √in         the last layer
        vectors      d / RMS(d), whatever the norm                     biases, scales

    The norms have the names of the paper, whose matrices are [out, in]. NS: Newton–Schulz, as in
    Muon. With the default decay of 1, weights stay inside of the ball ‖θ‖ ≤ ρ of their norm, once
    they are; `weight_decay=0` is the paper's unconstrained form. A `Partition` gives each kind of
    layer its norm and ρ: for a small GPT η = 2⁻¹², ρ = 50 inside and 3000 for the last, "sign",
    layer.

    Args:
        norm: of matrices, and of kernels of more axes.
        scale: ρ, the radius.
        momentum: μ; the authors write α = 1 − μ, which is 1 in their code if not given.
        steps: the rounds of Newton–Schulz.

    Pethick et al., "Training Deep Learning Models with Norm-Constrained LMOs", 2025, the algorithms
    SCG and, without decay, unconstrained SCG. arXiv:2502.07529. Departs from the authors' code,
    which computes NS in bfloat16, and offers to initialize weights on the sphere of their norm.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 1.0
    norm: Literal["spectral", "sign", "column", "row"] = "spectral"
    scale: Positive = 1.0
    momentum: Beta = 0.9
    steps: Count = 5

    def init(self, p):
        return dict(d=zeros(p))

    def update(self, p, g, s, h):
        d = ema(s.d, g, h.momentum)
        return h.scale * self.lmo(d), dict(d=d)

    def lmo(self, d):
        """The step of norm 1 that goes furthest along d: the paper's oracle, negated."""
        if len(d.shape) < 2:
            return d / (rms(d) + 1e-8)
        matrix, (inputs, outputs) = as_matrix(d), matrix_shape(d)
        if self.norm == "spectral":
            area = math.prod(d.shape[:-2])
            scale = math.sqrt(outputs / max(d.shape[-2], 1)) / max(area, 1)
            u = scale * newton_schulz(matrix, self.steps * [JORDAN])
        elif self.norm == "sign":
            u = tf.sign(matrix) / max(inputs, 1)
        elif self.norm == "column":
            u = matrix / (tf.sqrt(tf.reduce_mean(matrix * matrix, 1, keepdims=True)) + 1e-8)
        else:
            length = tf.sqrt(tf.reduce_sum(matrix * matrix, 0, keepdims=True))
            u = matrix / (length * math.sqrt(inputs) + 1e-8)
        return tf.reshape(u, d.shape)
