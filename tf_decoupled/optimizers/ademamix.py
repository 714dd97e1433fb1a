"""AdEMAMix."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Beta, Positive, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema


class AdEMAMix(Optimizer):
    """Adam with a second, slow average of the gradients beside the fast one.

        m₁ ← β₁ m₁ + (1 − β₁) g            m̂₁ = m₁ / (1 − β₁ᵗ)
        m₂ ← β₃(t) m₂ + (1 − β₃(t)) g      no correction: it fills slowly
        v ← β₂ v + (1 − β₂) g²             v̂ = v / (1 − β₂ᵗ)
        u = (m̂₁ + α(t) m₂) / (√v̂ + ε)

    α(t) = α min(1, t / T_α). β₃(t) goes from β₁ to β₃ in T_β updates, its half-life along a line.

    Use it for long runs, of 10⁵ updates or more, with both warm-ups as long as the run. Not for
    short ones, or where the data changes: m₂ remembers the last 10⁴ gradients.

    Args:
        beta_1, beta_2, beta_3: β₁, β₂, β₃ of the fast average, the squares, the slow average.
        alpha: α, the weight of the slow average; the paper takes 5 to 10.
        alpha_warmup, beta_3_warmup: T_α, T_β, in updates; 1 for none.
        epsilon: ε, in units of the gradient.
        fast_average: False puts g in place of m̂₁: β₁ = 0 with two thirds of the state. β₁ is then
            only where β₃'s warm-up starts.

    Pagliardini, Ablin & Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", 2024, the
    paper's algorithm. arXiv:2409.03137. Departs from the authors' code, where α is 2.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    beta_1: Beta = 0.9
    beta_2: Beta = 0.999
    beta_3: Beta = 0.9999
    alpha: Scalar = 5.0
    alpha_warmup: Positive = 1.0
    beta_3_warmup: Positive = 1.0
    epsilon: Scalar = 1e-8
    fast_average: bool = True

    def init(self, p):
        fast = dict(m1=zeros(p)) if self.fast_average else {}
        return fast | dict(m2=zeros(p), v=zeros(p))

    def update(self, p, g, s, h):
        m2 = s.m2 + self.share(h) * (g - s.m2)
        v = ema(s.v, g * g, h.beta_2)
        fast = dict(m1=ema(s.m1, g, h.beta_1)) if self.fast_average else {}
        m_hat = fast["m1"] / h.correction.beta_1 if fast else g
        α = h.alpha * tf.minimum(1.0, h.t / h.alpha_warmup)
        u = (m_hat + α * m2) / (tf.sqrt(v / h.correction.beta_2) + h.epsilon)
        return u, fast | dict(m2=m2, v=v)

    def share(self, h):
        """1 − β₃(t), with all digits."""
        done = tf.minimum(1.0, h.t / h.beta_3_warmup)
        life = (1 - done) * lifetime(h.beta_1) + done * lifetime(h.beta_3)
        return tf.where(done < 1, -tf.math.expm1(-1 / life), 1 - h.beta_3)


def lifetime(β):
    """−1 / ln β: in how many updates an average forgets all but 1 / e, and 0 for β = 0."""
    return -1 / tf.math.log1p(β - 1)
