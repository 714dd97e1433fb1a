"""Muon."""

import math
from typing import Literal

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Count, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema
from tf_decoupled.matrices import JORDAN, as_matrix, matrix_shape, newton_schulz

# a, b, c of each round, the last of them again for further rounds; and the margin on the norm.
COEFFICIENTS = {
    "original": ([JORDAN], 0.0),
    "quintic": (
        [
            (4.0848, -6.8946, 2.9270),
            (3.9505, -6.3029, 2.6377),
            (3.7418, -5.5913, 2.3037),
            (2.8769, -3.1427, 1.2046),
            (2.8366, -3.0525, 1.2012),
        ],
        0.0,
    ),
    "polar_express": (
        [
            (8.2373125, -23.1577477, 16.6805684),
            (4.0824420, -2.8930477, 0.5252849),
            (3.9263480, -2.8547468, 0.5318022),
            (3.2982187, -2.4245420, 0.4863201),
            (2.2970369, -1.6366256, 0.4002629),
            (1.875, -1.25, 0.375),
        ],
        0.01,
    ),
}
SCALES = {
    "original": lambda rows, columns: math.sqrt(max(1.0, columns / max(rows, 1))),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "rms_to_rms": lambda rows, columns: math.sqrt(columns / max(rows, 1)),
}


class Muon(Optimizer):
    """Momentum, made orthogonal: a matrix moves as much along weak directions as along strong.

        m ← μ m + (1 − μ) g        d = μ m + (1 − μ) g, without Nesterov d = m
        u = scale · NS(d)          NS(U Σ Vᵀ) ≈ U Vᵀ, by Newton–Schulz

    For the matrices inside of a model. Vectors and scalars are refused; these, embeddings and the
    last layer are better with AdamW. Kernels of more axes are taken as [all the others, out].

    The defaults are the authors': they go together. With `scale="match_rms_adamw"` a step is as
    long as AdamW's, so AdamW's rate and decay carry over: `Muon(1e-3, weight_decay=0.1,
    scale="match_rms_adamw")` is Moonlight's, and the better start where AdamW has been tuned.

    Args:
        momentum: μ.
        nesterov: look ahead along the momentum.
        steps: the rounds of Newton–Schulz.
        coefficients: "original" brings singular values to 0.7 … 1.2 in 5 rounds; "quintic" and
            "polar_express", one triple a round, to 0.98 … 1.15 and 0.87 … 1.13, if they are above
            0.003 ‖d‖. Further rounds use the last triple, of Polar Express its limit.
        scale: for a kernel [in, out], "original": √max(1, out / in); "match_rms_adamw":
            0.2 √max(in, out), so that RMS(u) is about 0.2; "rms_to_rms": √(out / in).
        precise: products with all digits of float32 where GPUs and TPUs would round the factors,
            six in place of one: for runs that are to be the same on every device. Training doesn't
            need it: the authors compute in bfloat16.

    Jordan, "Muon: An optimizer for hidden layers in neural networks", 2024, and its code; Liu et
    al., "Muon is Scalable for LLM Training", 2025, equation 4: "match_rms_adamw".
    arXiv:2502.16982. Amsel et al., "The Polar Express", 2025, algorithm 1, with the numbers that
    their code computes. arXiv:2505.16932. Departs from Jordan's code, which leaves kernels of more
    than two axes unscaled and computes NS in bfloat16.
    """

    learning_rate: Scalar = 0.02
    weight_decay: Scalar = 0.0
    momentum: Beta = 0.95
    nesterov: bool = True
    steps: Count = 5
    coefficients: Literal["original", "quintic", "polar_express"] = "original"
    scale: Literal["original", "match_rms_adamw", "rms_to_rms"] = "original"
    precise: bool = False

    def refuses(self, p):
        if len(p.shape) < 2:
            return "Muon steps matrices, and kernels of more axes: a vector has no singular values"
        return None

    def init(self, p):
        return dict(m=zeros(p))

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.momentum)
        d = ema(m, g, h.momentum) if self.nesterov else m
        rows, columns = matrix_shape(p)
        rounds, margin = COEFFICIENTS[self.coefficients]
        rounds = rounds[: self.steps] + rounds[-1:] * (self.steps - len(rounds))
        u = newton_schulz(as_matrix(d), rounds, margin, self.precise)
        return SCALES[self.scale](rows, columns) * tf.reshape(u, p.shape), dict(m=m)
