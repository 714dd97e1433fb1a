"""Mechanic."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Constant, Scalar
from tf_decoupled.engine.state import Slot, zeros
from tf_decoupled.wrappers.wrapper import Wrapper

# One tuner for each β: how long each remembers.
BETAS = [1 - 10.0**-i for i in range(1, 7)]
SQUARES = [beta**2 for beta in BETAS]
FIRST_PRODUCT = 1e-6  # M before any step; nothing would ever move from 0


class Mechanic(Wrapper):
    """A tuner that finds the factor of another optimizer's rate while it trains.

        h = ⟨g + λ (Σs) ‖g‖ / (‖θ‖ + ε) θ, Δ⟩        over all variables
        for each of six β:  M ← max(β M, |h|)    V ← β² V + h²    r ← max(β r − h s, 0)
                            s ← (s_init M / 6 + r) / (√V + ε)
        Δ ← Δ + (inner step of θ − θ)                from 0
        θ ← θ₀ + (Σs) Δ

    Δ is where the inner optimizer would have gone from the start θ₀ by itself, its decay included;
    h says whether that leads uphill or downhill, and the tuners bet on it. Σs, the factor that was
    found, is one for the whole model: `scale` in the saved state. M, V, r and s are, too.

    Use it to find the peak of a schedule's rate in one run: warm-up and shape stay the inner
    optimizer's, whose rate may be anything, best 1. Not for rules that rescale steps to the
    weights, as LAMB.

    Args:
        inner: the optimizer that is tuned; rate, decay, mask and clips are its own.
        s_init: the first factor, below any that could be right.
        s_decay: λ, a pull of the factor towards smaller weights; 0 for large datasets.
        epsilon: ε.

    Cutkosky, Defazio & Mehta, "Mechanic: A Learning Rate Tuner", 2023, algorithm 1, with the
    constants of the authors' PyTorch code. arXiv:2306.00144
    Departs from the paper: θ moves by what (Σs) Δ has changed by, so that θ₀ isn't stored, and what
    else moves it is kept, as slow weights around it; λ reads θ from before the step.
    """

    s_init: Constant = 1e-8
    s_decay: Scalar = 0.01
    epsilon: Scalar = 1e-8

    def init(self, p):
        # `scale`: Σs at the variable's last step, as there may be steps without its gradient.
        return dict(delta=zeros(p), scale=Slot((), 0.0), inner=self.inner.init(p))

    def shared(self):
        first = dict(m=FIRST_PRODUCT, v=0.0, r=0.0)
        tuners = {f"{n}_{i}": Slot((), x) for n, x in first.items() for i in range(len(BETAS))}
        return dict(scale=Slot((), 0.0)) | tuners

    def reduce(self, p, g, s, h):
        pairs = dict(gg=(g, g), pp=(p, p), along=(g, s.delta), outward=(p, s.delta))
        return {name: tf.reduce_sum(a * b) for name, (a, b) in pairs.items()}

    def combine(self, sums, h):
        m, v, r = (
            tf.stack([getattr(h, f"{name}_{i}") for i in range(len(BETAS))]) for name in "mvr"
        )
        pull = h.s_decay * h.scale * tf.sqrt(sums.gg) / (tf.sqrt(sums.pp) + h.epsilon)
        product = sums.along + pull * sums.outward
        r = tf.maximum(BETAS * r - product * self.factors(m, v, r, h), 0.0)
        m = tf.maximum(BETAS * m, tf.abs(product))
        v = SQUARES * v + tf.square(product)
        after = {"m": m, "v": v, "r": r}
        tuners = {f"{n}_{i}": x for n, xs in after.items() for i, x in enumerate(tf.unstack(xs))}
        return dict(scale=tf.reduce_sum(self.factors(m, v, r, h))) | tuners

    def factors(self, m, v, r, h):
        """s, of each tuner. Those before the first step, 0 in the paper, only meet h = 0."""
        return (self.s_init / len(BETAS) * m + r) / (tf.sqrt(v) + h.epsilon)

    def step(self, p, g, s, h):
        after, inner = self.inner.step(p, g, s.inner, h.inner)
        delta = s.delta + (after - p)
        p = p + h.scale * delta - s.scale * s.delta
        # `identity`: what a stack's rule returns must be made inside of it.
        return p, dict(delta=delta, scale=tf.identity(h.scale), inner=inner)
