"""SGD, with L2 regularization as an option."""

from tf_decoupled.engine.hyperparameters import Beta, Scalar
from tf_decoupled.optimizers.sgdw import SGDW


class SGD(SGDW):
    """SGD; with `l2`, the coupled form that SGDW is compared against.

        g ← g + λ θ,  then as SGDW

    Only variables that `decay_mask` lets through are regularized.

    Args:
        l2: λ of the loss ½ λ ‖θ‖² that the L2 gradient belongs to.

    Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 1, the first of
    its two variants. arXiv:1711.05101
    """

    weight_decay: Scalar = 0.0
    momentum: Beta = 0.0
    l2: Scalar = 0.0

    masked = ("decay", "l2")

    def step(self, p, g, s, h):
        return super().step(p, g + h.l2 * p, s, h)

    catch_up = SGDW.catch_up  # sparse="lazy" needs l2 = 0
