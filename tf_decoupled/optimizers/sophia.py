"""Sophia."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Positive, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema


class Sophia(Optimizer):
    """Momentum divided by the diagonal of the Hessian, and clipped: an entry moves by η at most.

        m ← β₁ m + (1 − β₁) g        u = min(1, max(−1, m / max(γ h, ε)))
        h ← β₂ h + (1 − β₂) ĥ        at each estimate ĥ, by `opt.apply_estimates`

    Until the first estimate h is 0, and u the sign of m, as it is where h < 0. Use it for language
    models, with an estimate every 10 steps or so; not where a second pass through the model is too
    dear. How often is yours to say; an estimate counts from the next step on. Hutchinson's
    estimate is ĥ = z ∘ ∇⟨∇L, z⟩ for a z of random signs or normal numbers; Gauss, Newton and
    Bartlett's B ĝ ∘ ĝ, with ĝ the gradient of the mean loss of B labels drawn from the model.

    Args:
        gamma: γ. Choose it so that 10 to 50 % of the entries are not clipped: about 0.01 for
            Hutchinson's estimate, 0.05 for the other.
        epsilon: ε, in units of the gradient.

    Liu et al., "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
    Pre-training", 2023, its last algorithm, without bias correction as there. arXiv:2305.14342. The
    authors' published code has another γ and rate: their clip is at another number than 1.
    """

    learning_rate: Scalar = 1e-4
    weight_decay: Scalar = 0.2
    beta_1: Beta = 0.96
    beta_2: Beta = 0.99
    gamma: Scalar = 0.01
    epsilon: Positive = 1e-12

    def init(self, p):
        return dict(m=zeros(p), h=zeros(p))

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        u = m / tf.maximum(h.gamma * s.h, h.epsilon)
        return tf.clip_by_value(u, -1.0, 1.0), dict(m=m, h=s.h)

    def observe(self, p, e, s, h):
        """h ← β₂ h + (1 − β₂) ĥ; e: the estimate ĥ of the Hessian's diagonal."""
        return dict(m=s.m, h=ema(s.h, e, h.beta_2))
