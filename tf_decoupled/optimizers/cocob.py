"""COCOB."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Constant, Positive, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, zeros
from tf_decoupled.math import shrunk


class COCOB(Optimizer):
    """Descent by betting on coins: what each gradient was right about is staked on the next one.

        L ← max(L, |g|)        G ← G + |g|        from L = ε, all others 0
        R ← max(R − g w, 0)                       the reward: how far w went downhill
        C ← C − g
        w' = C / (L max(G + L, α L)) · (L + R)
        θ ← θ + η (w' − w) − δ(θ),  w ← w'        for each entry by itself

    There is no rate to find: η is 1, and is the unit of w where weights aren't of the order of 1.
    A first step has the length 1 / α.

    Use it where tuning is out of the question; not where memory is scarce, with five floats per
    parameter, nor for the best accuracy after tuning.

    Args:
        alpha: α, how many times L the sum of gradients counts at least, so that first steps stay
            small.
        epsilon: ε, the first L, in units of the gradient.

    Orabona & Tommasi, "Training Deep Networks without Learning Rates Through Coin Betting", 2017,
    algorithm 2. arXiv:1705.07795
    Departs from the paper: w, how far the bets have moved an entry, is stored instead of where it
    started. All else that moves it, as the decay, is then kept, and not undone by the next step.
    """

    learning_rate: Scalar = 1.0
    weight_decay: Scalar = 0.0
    alpha: Positive = 100.0
    epsilon: Constant = 1e-8

    def init(self, p):
        largest = Slot(tuple(p.shape), self.epsilon)
        return dict(
            largest=largest, travelled=zeros(p), reward=zeros(p), against=zeros(p), w=zeros(p)
        )

    def update(self, p, g, s, h):
        size = tf.abs(g)
        largest, travelled = tf.maximum(s.largest, size), s.travelled + size
        reward, against = tf.maximum(s.reward - g * s.w, 0.0), s.against - g
        share = against / tf.maximum(travelled + largest, h.alpha * largest)
        w = share * (1 + reward / largest)
        slots = dict(largest=largest, travelled=travelled, reward=reward, against=against, w=w)
        return s.w - w, slots

    def catch_up(self, p, s, h, k):
        """θ ← (1 − κ)ᵏ θ:  without a gradient the bets stay what they are."""
        return shrunk(p, h.decay, k), dict(vars(s))
