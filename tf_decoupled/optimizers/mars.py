"""MARS."""

import math
from typing import Literal

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema, norm
from tf_decoupled.matrices import JORDAN, as_matrix, matrix_shape, newton_schulz


class MARS(Optimizer):
    """AdamW, Lion or Muon, on gradients in which a change counts more: that takes noise away.

        c = g + γ β₁ / (1 − β₁) (g − g⁻)        g⁻: the gradient before, 0 at first
        m ← β₁ m + (1 − β₁) c / max(1, ‖c‖)     ‖c‖: of each variable
        "adamw":   v, m̂, v̂ as in Adam, of c / max(1, ‖c‖)        u = m̂ / (√v̂ + ε)
        "lion":    u = sign(m)
        "shampoo": u = √max(1, out / in) NS(m)        NS: Newton–Schulz, 5 rounds, as in Muon

    Use it for large models, where its authors need fewer steps; not where memory is short. The
    authors give it the matrices alone: `td.Partition([(td.masks.matrices, td.MARS()), (None,
    td.AdamW(3e-3, beta_2=0.95))])`. With form="shampoo" vectors and scalars are refused.

    Args:
        form: "adamw", "lion" or "shampoo". Rates of Lion are some 10 times smaller.
        gamma: γ, how much a change of the gradient counts.
        beta_2, epsilon: of "adamw"; ε is in units of c / max(1, ‖c‖).

    Yuan et al., "MARS: Unleashing the Power of Variance Reduction for Training Large Models", 2024,
    the algorithms MARS-AdamW, MARS-Lion and MARS-Shampoo. arXiv:2411.10438. g⁻ is the gradient of
    the batch before, as in the authors' code; the paper's other form takes this batch's at the
    weights before, for a second backward pass. Departs from the code, where "shampoo" steps
    kernels of more than two axes as AdamW does, and NS is computed in bfloat16.
    """

    learning_rate: Scalar = 3e-3
    weight_decay: Scalar = 0.0
    form: Literal["adamw", "lion", "shampoo"] = "adamw"
    gamma: Scalar = 0.025
    beta_1: Beta = 0.95
    beta_2: Beta = 0.99
    epsilon: Scalar = 1e-8

    def refuses(self, p):
        if self.form == "shampoo" and len(p.shape) < 2:
            return 'MARS(form="shampoo") steps matrices, and kernels of more axes'
        return None

    def init(self, p):
        slots = dict(m=zeros(p), last=zeros(p))
        return slots | dict(v=zeros(p)) if self.form == "adamw" else slots

    def update(self, p, g, s, h):
        c = g + h.gamma * h.beta_1 / (1 - h.beta_1) * (g - s.last)
        c = c / tf.maximum(norm(c), 1.0)
        m = ema(s.m, c, h.beta_1)
        slots = dict(m=m, last=g)
        if self.form == "lion":
            return tf.sign(m), slots
        if self.form == "shampoo":
            rows, columns = matrix_shape(p)
            u = tf.reshape(newton_schulz(as_matrix(m), 5 * [JORDAN]), p.shape)
            return math.sqrt(max(1.0, columns / max(rows, 1))) * u, slots
        v = slots["v"] = ema(s.v, c * c, h.beta_2)
        return m / h.correction.beta_1 / (tf.sqrt(v / h.correction.beta_2) + h.epsilon), slots
