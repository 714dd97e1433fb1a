"""LARS."""

from tf_decoupled.engine.hyperparameters import Beta, Positive, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import norm, rescaled


class LARS(Optimizer):
    """Momentum whose gradients are as long as a part of the variable: for large batches.

        r = trust_coefficient · ‖θ‖ / (‖g‖ + β ‖θ‖)        1 where ‖θ‖ or the divisor is 0
        m ← μ m + η r (g + β θ)
        θ ← θ − m − δ(θ)

    Use it for convolutional networks with batches of thousands, after a warm-up; not for small
    batches. Vectors are better with SGD: see `Partition`. Without momentum and β a step has the
    length η · trust_coefficient · ‖θ‖, so the rate is about 1 where SGD's is 0.01.

    Args:
        momentum: μ.
        trust_coefficient: the paper's η: what part of its norm a variable may move.
        l2: β of the loss ½ β ‖θ‖² that the L2 gradient belongs to; in the paper 5e-4. This is the
            paper's decay; `weight_decay` is decoupled, and no part of r.

    You et al., "Large Batch Training of Convolutional Networks", 2017, its algorithm for SGD with
    momentum. arXiv:1708.03888. Departs from the paper: where a norm is 0, r is 1, else a variable
    of zeros would never move.
    """

    learning_rate: Scalar = 1.0
    weight_decay: Scalar = 0.0
    momentum: Beta = 0.9
    trust_coefficient: Positive = 1e-3
    l2: Scalar = 0.0

    masked = ("decay", "l2")

    def init(self, p):
        return dict(m=zeros(p))

    def step(self, p, g, s, h):
        length = norm(p)
        divisor = norm(g) + h.l2 * length
        u = rescaled(g + h.l2 * p, divisor, h.trust_coefficient * length)
        m = h.momentum * s.m + h.learning_rate * u
        return p - m - h.decay * p, dict(m=m)
