"""DPSGD."""

from tf_decoupled.engine.hyperparameters import Beta, Count, Growth, Positive, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import own_seed, zeros
from tf_decoupled.math import normal_of


class DPSGD(Optimizer):
    """SGD with noise, for gradients that were clipped one example at a time: private training.

        g = (1/L) Σᵢ gᵢ / max(1, ‖gᵢ‖ / C)        g̃ = g + N(0, (σ C / L)² I)
        m ← β₁ m + η g̃        θ ← θ − m − δ(θ)

    g is what `td.gradients.per_example(loss_fn, variables, batch, clip_norm=C)` gives. Gradients
    that were not clipped one by one are not protected, whatever the noise is. How much privacy σ,
    the rate of sampling and the number of steps give, an accountant tells: the package
    `dp-accounting`.

    Use it where no one may learn from the weights who was in the data; not without an accountant.
    For another optimizer's step let `per_example` add the noise.

    Args:
        momentum: β₁; 0 in the paper. It costs no privacy, nor does the decay.
        clip_norm: C, as `per_example` has it.
        noise_multiplier: σ.
        lot_size: L, the examples of one update: of all replicas, and of all that are accumulated.
            The default, 1, is the most noise that there may be.
        seed: another one draws other noise. Noise hides nothing from those who know it: draw it by
            `secrets.randbits(31)`, and publish no file that holds the optimizer.

    Abadi et al., "Deep Learning with Differential Privacy", 2016, algorithm 1. arXiv:1607.00133
    """

    learning_rate: Scalar = 0.01
    momentum: Beta = 0.0
    clip_norm: Positive = 1.0
    noise_multiplier: Scalar = 1.0
    lot_size: Growth = 1.0
    seed: Count = 1

    def init(self, p):
        return dict(m=zeros(p), seed=own_seed())

    def step(self, p, g, s, h):
        seed = s.seed + (self.seed * 0x9E3779B1) % 2**31
        deviation = h.noise_multiplier * h.clip_norm / h.lot_size
        m = h.momentum * s.m + h.learning_rate * (g + deviation * normal_of(g, seed, h.step))
        return p - m - h.decay * p, dict(m=m, seed=s.seed)
