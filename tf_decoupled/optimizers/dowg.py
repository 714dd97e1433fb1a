"""DoWG."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Constant, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, copy


class DoWG(Optimizer):
    """Gradient descent whose rate is a distance over the gradients, each weighted by its distance.

        r̄² ← max(r̄², ‖θ − θ₀‖²)        from r_ε²; θ₀: where each variable started
        v ← v + r̄² ‖g‖²
        θ ← θ − η r̄² g / (√v + ε) − δ(θ)

    Norms are over all variables, r̄² and v one each for the whole model. Gradients from when r̄ was
    small count little, so that rates are larger than those of `DoG`. The rate η is a factor and
    stays 1.

    Use it where no rate is known and gradients are smooth or exact; not for noisy ones without an
    average of the weights: `IterateAverage(DoWG())`.

    Args:
        init_estim_sq_dist: r_ε², in units of the squared weights, over the whole model; below any
            squared distance that could be right.
        epsilon: ε, in units of r̄ times the gradient.

    Khaled, Mishchenko & Jin, "DoWG Unleashed: An Efficient Universal Parameter-Free Gradient
    Descent Method", 2023, algorithm DoWG. arXiv:2305.16284. ε and the default of r_ε² are optax's:
    the paper has no ε. The decay is decoupled: η is 1, so λ is what a step takes.
    """

    learning_rate: Scalar = 1.0
    weight_decay: Scalar = 0.0
    init_estim_sq_dist: Constant = 1e-4
    epsilon: Scalar = 1e-4

    def init(self, p):
        return dict(start=copy(p))

    def shared(self):
        return dict(distance=Slot((), self.init_estim_sq_dist), squares=Slot((), 0.0))

    def reduce(self, p, g, s, h):
        moved = tf.reduce_sum(tf.square(p - s.start))
        return dict(moved=moved, squares=tf.reduce_sum(tf.square(g)))

    def combine(self, sums, h):
        distance = tf.maximum(h.distance, sums.moved)
        return dict(distance=distance, squares=h.squares + distance * sums.squares)

    def update(self, p, g, s, h):
        rate = tf.math.divide_no_nan(h.distance, tf.sqrt(h.squares) + h.epsilon)
        return rate * g, dict(start=s.start)
