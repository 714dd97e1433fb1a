"""ACProp."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, zeros
from tf_decoupled.math import ema, one_minus_power


class ACProp(Optimizer):
    """The gradient over how far those before it were from their mean: AdaBelief, asynchronous.

        a variable's first gradient:  u = g
        after k of them:              u = g / (√(s / (1 − β₂ᵏ)) + ε)        s as it was before
        m ← β₁ m + (1 − β₁) g
        s ← β₂ s + (1 − β₂) (g − m)² + ε

    Use it where AdaBelief is used, or for small batches: s doesn't depend on the g that it divides.
    Not for sparse gradients, nor after layers that are silent at first: an entry whose gradient
    was 0 so far takes a step 3 · 10⁶ g long with the default ε; the authors train with 1e-8.

    Args:
        epsilon: ε, at both places: added to s, in units of the squared gradient, at each step.

    Zhuang et al., "Momentum Centering and Asynchronous Update for Adaptive Gradient Methods",
    2021, the algorithm "ACProp", as in the authors' code without its rectification.
    arXiv:2110.05454. optax 0.2.8 takes m from before the step in s.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    epsilon: Scalar = 1e-16

    def init(self, p):
        return dict(m=zeros(p), s=zeros(p), k=Slot((), 0.0))

    def update(self, p, g, s, h):
        begun = s.k > 0
        s_hat = s.s / tf.where(begun, one_minus_power(h.beta_2, s.k), 1.0)
        u = g / tf.where(begun, tf.sqrt(s_hat) + h.epsilon, 1.0)
        m = ema(s.m, g, h.beta_1)
        spread = ema(s.s, tf.square(g - m), h.beta_2) + h.epsilon
        return u, dict(m=m, s=spread, k=s.k + 1)
