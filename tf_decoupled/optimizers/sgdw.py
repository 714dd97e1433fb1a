"""SGDW."""

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import shrunk, shrunk_series


class SGDW(Optimizer):
    """SGD with momentum and decoupled weight decay.

        m ← β₁ m + η g               nesterov: θ ← θ − β₁ m − η g − δ(θ)
        θ ← θ − m − δ(θ)

    The rate stands inside the momentum, so a falling rate acts at once on new gradients only.

    Args:
        momentum: β₁.
        nesterov: look ahead along the momentum (Sutskever et al., 2013); not in the paper.

    Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 1.
    arXiv:1711.05101
    """

    learning_rate: Scalar = 0.01
    weight_decay: Scalar = 5e-4
    momentum: Beta = 0.9
    nesterov: bool = False

    def init(self, p):
        return dict(m=zeros(p))

    def step(self, p, g, s, h):
        m = h.momentum * s.m + h.learning_rate * g
        update = h.momentum * m + h.learning_rate * g if self.nesterov else m
        return p - update - h.decay * p, dict(m=m)

    def catch_up(self, p, s, h, k):
        """θ ← (1 − κ)ᵏ θ − c m Σⱼ (1 − κ)ᵏ⁻ʲ β₁ʲ,  m ← β₁ᵏ m;  c = 1, with Nesterov β₁: exact."""
        m = h.momentum * s.m if self.nesterov else s.m
        moved = shrunk_series(h.momentum, h.decay, k) * m
        return shrunk(p, h.decay, k) - moved, dict(m=h.momentum**k * s.m)
