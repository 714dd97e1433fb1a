"""ScheduleFree."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Fraction, Scalar
from tf_decoupled.engine.state import Slot, copy
from tf_decoupled.wrappers.wrapper import Wrapper


class ScheduleFree(Wrapper):
    """An average in place of a falling rate, around any rule: gradients are taken beside it.

        z ← z + (inner step of y − y)        the inner rule's decay is taken at y, too
        x ← (1 − c) x + c z                  c = w / Σ w,  w = tʳ η_max ᵖ; Σ over its own steps
        y ← β x + (1 − β) z

    The variable is y, where gradients are taken; x, the average of all z, is the one to evaluate
    and to keep: `evaluation` turns y into x, `training` x into y. All start as the variable.

    Let the rate rise, if it must, and then stay: η_max is the largest so far. β stands in for
    momentum: `ScheduleFree(SGDW(1.0, momentum=0))`, `ScheduleFree(AdamW(2.5e-3, beta_1=0))`, with
    rates that are larger than those of a schedule. Batch normalization needs the statistics of x:
    refresh them before evaluation.

    Args:
        inner: the rule that steps; rate, decay, mask and clips are its own.
        beta: β. It is never changed, because x is what y, z and β say it is.
        weight_power: p: how steps of a smaller rate, as in a warm-up, count less in the average.
        r: above 0, later steps count more.

    Defazio et al., "The Road Less Scheduled", 2024, algorithm 1. arXiv:2405.15682. x isn't stored:
    it is (y − (1 − β) z) / β, as in the authors' code.
    """

    beta: Fraction = 0.9
    weight_power: Scalar = 2.0
    r: Scalar = 0.0

    def init(self, p):
        # The mean of all w: a sum of float32 would stop growing, and c would be wrong long before.
        weights = dict(mean_weight=Slot((), 0.0), steps=Slot((), 0.0))
        return dict(z=copy(p), inner=self.inner.init(p)) | weights

    def shared(self):
        return dict(max_rate=Slot((), 0.0))

    def combine(self, sums, h):
        max_rate = tf.maximum(h.max_rate, h.inner.learning_rate)
        return dict(max_rate=max_rate, w=h.t**h.r * max_rate**h.weight_power)

    def step(self, p, g, s, h):
        after, inner = self.inner.step(p, g, s.inner, h.inner)
        step, (c, weights) = after - p, self.share(s, h)
        y = p + c * (s.z - p) + (1 - self.beta * (1 - c)) * step
        return y, dict(z=s.z + step, inner=inner) | weights

    def share(self, s, h):
        """c, and what the mean of all w is with this step's."""
        steps = s.steps + 1
        mean_weight = s.mean_weight + (h.w - s.mean_weight) / steps
        c = tf.math.divide_no_nan(h.w, steps * mean_weight)
        return c, dict(mean_weight=mean_weight, steps=steps)

    def evaluation(self, p, s, h):
        """x = z + (y − z) / β."""
        return s.z + (p - s.z) / self.beta

    def training(self, x, s, h):
        """y = z + β (x − z)."""
        return s.z + self.beta * (x - s.z)
