"""Adam, with L2 regularization as an option."""

from tf_decoupled.engine.hyperparameters import Scalar
from tf_decoupled.optimizers.adamw import AdamW


class Adam(AdamW):
    """Adam; with `l2`, the coupled form that AdamW is compared against.

        g ← g + λ θ,  then as AdamW

    The L2 gradient is rescaled with the rest, so weights with large gradients are regularized
    less than others. Only variables that `decay_mask` lets through are regularized.

    Args:
        l2: λ of the loss ½ λ ‖θ‖² that the L2 gradient belongs to.

    Kingma & Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1. arXiv:1412.6980;
    with L2: Loshchilov & Hutter, 2019, algorithm 2, the first of its two variants.
    """

    weight_decay: Scalar = 0.0
    l2: Scalar = 0.0

    masked = ("decay", "l2")

    def update(self, p, g, s, h):
        return super().update(p, g + h.l2 * p, s, h)

    catch_up = AdamW.catch_up  # sparse="lazy" needs l2 = 0
