"""KOALA-V and KOALA-M."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Constant, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Slot, zeros
from tf_decoupled.math import ema


class KOALAV(Optimizer):
    """A Kalman filter that takes the loss for a noisy measurement, and so chooses the rate.

        P ← P + Q        R ← α R + (1 − α) L²        S = P ‖g‖² + R, over all variables
        θ ← θ − η P (L − L*) / S · g − δ(θ)
        P ← P R / S

    P is the variance of the weights, R of the loss, and L* the loss that is aimed at. Where P is
    large, it is Polyak's step, (L − L*) / ‖g‖²; where R is, a step of gradient descent. η is a
    factor, 1 unless a schedule makes it fall. The step needs the loss, which `fit` tells it; a loop
    of one's own calls `opt.observe_loss`. Use it to do without tuning a rate, where the least loss
    is known to be about L*; not elsewhere.

    Args:
        sigma: P before the first step.
        q: Q, what the variance of the weights grows by in a step.
        alpha_r: α.
        target: L*.

    Davtyan et al., "KOALA: A Kalman Optimization Algorithm with Loss Adaptivity", 2022, the
    algorithm KOALA-V. arXiv:2107.03331. S is one for the whole model, as the paper writes it; the
    authors' code has one for each variable, and the largest ‖g‖ of a variable in P.
    Departs from both: R averages the square of the batch's loss; the losses of single samples,
    whose squares they average, are not known here.
    """

    learning_rate: Scalar = 1.0
    weight_decay: Scalar = 0.0
    sigma: Constant = 1.0
    q: Scalar = 1.0
    alpha_r: Beta = 0.9
    target: Scalar = 0.0

    def init(self, p):
        return {}

    def shared(self):
        return dict(P=Slot((), self.sigma), R=Slot((), 1.0), loss=Slot((), 1.0))

    def reduce(self, p, g, s, h):
        return dict(square=tf.reduce_sum(g * g))

    def combine(self, sums, h):
        P, R = h.P + h.q, ema(h.R, h.loss * h.loss, h.alpha_r)
        S = P * sums.square + R
        gain = tf.math.divide_no_nan(P * (h.loss - h.target), S)
        return dict(P=tf.math.divide_no_nan(P * R, S), R=R, gain=gain)

    def update(self, p, g, s, h):
        return h.gain * g, {}


class KOALAM(Optimizer):
    """KOALA with momentum: the filter estimates how the weights move, too.

        Q_x ← 0.9 Q_x + 0.1 ‖x̄ − x‖ / n        R ← α R + (1 − α) L²        n: all weights
        P ← F P Fᵀ + diag(Q_x, Q_v)            F = [[1, 1], [0, a]]        S = P_xx ‖g‖² + R
        x ← θ − η P_xx (L − L*) / S · g − δ(θ)        x̄ ← 0.9 x̄ + 0.1 x
        v ← a v − η P_xv (L − L*) / S · g             θ ← x + v
        P ← P − P diag(‖g‖² / S, 0) P

    θ, the variable, is where x is expected after the next step, as under Nesterov's momentum: the
    gradient is taken there. P is one 2 × 2 matrix for the whole model: the variances of weights
    and velocities, and their covariance. For the rest, and when to use it, see `KOALAV`.

    Args:
        sw, sv: P_xx and P_vv before the first step.
        a: what a velocity is multiplied by in a step.
        qw: Q_x before the first step.
        qv: Q_v, what the variance of velocities grows by in a step.
        alpha_r: α.
        target: L*.

    Davtyan et al., "KOALA: A Kalman Optimization Algorithm with Loss Adaptivity", 2022, the
    algorithm KOALA-M, with Q_x as in the authors' code. arXiv:2107.03331. S and R as told at
    `KOALAV`.
    """

    learning_rate: Scalar = 1.0
    weight_decay: Scalar = 0.0
    sw: Constant = 0.1
    sv: Constant = 0.1
    a: Beta = 0.9
    qw: Constant = 0.01
    qv: Scalar = 0.01
    alpha_r: Beta = 0.9
    target: Scalar = 0.0

    def init(self, p):
        return dict(v=zeros(p), mean=zeros(p))

    def shared(self):
        weights = dict(P_xx=Slot((), self.sw), P_xv=Slot((), 0.0), P_vv=Slot((), self.sv))
        return weights | dict(Q_x=Slot((), self.qw), R=Slot((), 1.0), loss=Slot((), 1.0))

    def reduce(self, p, g, s, h):
        x = p - s.v
        apart = tf.reduce_sum(tf.square(s.mean - x))
        count = tf.reduce_sum(tf.ones_like(p))
        return dict(apart=apart, count=count, square=tf.reduce_sum(g * g))

    def combine(self, sums, h):
        Q_x = ema(h.Q_x, tf.math.divide_no_nan(tf.sqrt(sums.apart), sums.count), 0.9)
        R = ema(h.R, h.loss * h.loss, h.alpha_r)
        P_xx = h.P_xx + 2 * h.P_xv + h.P_vv + Q_x
        P_xv = h.a * (h.P_xv + h.P_vv)
        P_vv = h.a * h.a * h.P_vv + h.qv
        S = P_xx * sums.square + R
        seen = tf.math.divide_no_nan(sums.square, S)
        error = tf.math.divide_no_nan(h.loss - h.target, S)
        gains = dict(gain_x=P_xx * error, gain_v=P_xv * error)
        kept = tf.math.divide_no_nan(R, S)
        P = dict(P_xx=kept * P_xx, P_xv=kept * P_xv, P_vv=P_vv - P_xv * P_xv * seen)
        return P | dict(Q_x=Q_x, R=R) | gains

    def step(self, p, g, s, h):
        x = p - h.learning_rate * h.gain_x * g - h.decay * p
        v = h.a * s.v - h.learning_rate * h.gain_v * g
        return x + v, dict(v=v, mean=ema(s.mean, x, 0.9))
