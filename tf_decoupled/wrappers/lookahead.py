"""Lookahead."""

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import Scalar, Steps
from tf_decoupled.engine.state import copy
from tf_decoupled.wrappers.wrapper import Wrapper


class Lookahead(Wrapper):
    """Slow weights that follow the inner optimizer's fast ones: k steps forward, one step back.

        φ ← inner step of φ
        every k steps:  θ ← θ + α (φ − θ),  φ ← θ

    θ, the slow weights, start as the variable. Between syncs the variable holds φ. The inner
    optimizer's slots are left as they are at a sync.

    Args:
        inner: the optimizer that makes the fast steps; rate, decay, mask and clips are its own.
        sync_period: k, in updates.
        slow_step_size: α.

    Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019, algorithm 1.
    arXiv:1907.08610
    """

    sync_period: Steps = 6
    slow_step_size: Scalar = 0.5

    def init(self, p):
        return dict(slow=copy(p), inner=self.inner.init(p))

    def step(self, p, g, s, h):
        fast, inner = self.inner.step(p, g, s.inner, h.inner)
        slow = s.slow + h.slow_step_size * (fast - s.slow)
        sync = h.step % h.sync_period == 0
        return tf.where(sync, slow, fast), dict(slow=tf.where(sync, slow, s.slow), inner=inner)
