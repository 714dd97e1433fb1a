"""DoG, for the whole model or for each variable by itself."""

from types import SimpleNamespace

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Constant, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, copy, zeros


class DoG(Optimizer):
    """Gradient descent whose rate is the distance from the start over the gradients so far.

        r̄ ← max(r̄, ‖θ − θ₀‖),  at least r_rel (1 + ‖θ₀‖)        θ₀: where each variable started
        G ← G + ‖g‖²
        θ ← θ − η r̄ g / √(G + ε) − δ(θ)

    Norms are over all variables, r̄ and G one each for the whole model; with `layerwise`, L-DoG,
    they are each variable's own. The rate η is a factor and stays 1.

    Use it, with `averaging`, to fine-tune or where no rate is known: r̄ / √G falls too slowly for
    its last weights to be its best. Not for training from scratch where a schedule is at hand.

    With `averaging` the variables' values for evaluation are the polynomial average

        x̄ ← x̄ + (γ + 1) / (γ + t) (θ − x̄)        t counts the variable's steps from 1

    and take two more copies of the variables: x̄, and θ to train on from.

    Args:
        reps_rel: r_rel, how far the first step goes for the size of the start; 1e-4 for models with
            batch normalization.
        epsilon: ε, in units of the squared gradient.
        layerwise: norms of each variable by itself.
        averaging: evaluate x̄.
        gamma: γ; 0 is the mean of all values, and the larger it is, the more the last ones count.

    Ivgi, Hinder & Carmon, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule",
    2023. arXiv:2302.12022; no algorithm number: the paper has it as an equation.
    Departs from the paper: the decay is decoupled, and is no part of g and G. η is 1, so λ is what
    a step takes: 1e-5 rather than 1e-2. r̄ sees how far it moves the variables.
    """

    learning_rate: Scalar = 1.0
    weight_decay: Scalar = 0.0
    reps_rel: Constant = 1e-6
    epsilon: Scalar = 1e-8
    layerwise: bool = False
    averaging: bool = False
    gamma: Scalar = 8.0

    def init(self, p):
        slots = dict(start=copy(p))
        if self.layerwise:
            slots |= dict(distance=Slot((), 0.0), squares=Slot((), 0.0))
        if self.averaging:
            slots |= dict(mean=zeros(p), trained=copy(p), count=Slot((), 0.0))
        return slots

    def shared(self):
        return {} if self.layerwise else dict(distance=Slot((), 0.0), squares=Slot((), 0.0))

    def reduces(self):
        return not self.layerwise

    def reduce(self, p, g, s, h):
        arrays = dict(moved=p - s.start, start=s.start, squares=g)
        return {name: tf.reduce_sum(tf.square(x)) for name, x in arrays.items()}

    def combine(self, sums, h):
        return {} if self.layerwise else self.estimate(sums, h)

    def estimate(self, sums, before):
        """r̄ and G with this step, from the sums of squares."""
        least = self.reps_rel * (1 + tf.sqrt(sums.start))
        distance = tf.maximum(before.distance, tf.maximum(tf.sqrt(sums.moved), least))
        return dict(distance=distance, squares=before.squares + sums.squares)

    def step(self, p, g, s, h):
        slots, now = dict(start=s.start), h
        if self.layerwise:
            own = self.estimate(SimpleNamespace(**self.reduce(p, g, s, h)), s)
            slots, now = slots | own, SimpleNamespace(**own)
        u = tf.math.divide_no_nan(now.distance, tf.sqrt(now.squares + h.epsilon)) * g
        p = p - h.learning_rate * u - h.decay * p
        if self.averaging:
            count = s.count + 1
            mean = s.mean + (h.gamma + 1) / (h.gamma + count) * (p - s.mean)
            slots |= dict(mean=mean, trained=p, count=count)
        return p, slots

    def evaluates(self):
        return self.averaging

    def evaluation(self, p, s, h):
        return tf.where(s.count > 0, s.mean, p) if self.averaging else p

    def training(self, x, s, h):
        return s.trained if self.averaging else x
