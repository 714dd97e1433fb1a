"""Caution: moves only where the gradient agrees, decays only where the move does."""

import functools
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from tf_decoupled.engine.concern import Concern
from tf_decoupled.engine.state import Slots


class Caution(Concern):
    """Leaves out what disagrees, entry by entry.

        cautious         φ = 1(u g > 0)            θ ← θ − η u φ / max(mean φ, 10⁻³) − δ(θ)
        cautious_decay   φ = 1(u θ ≥ 0)            θ ← θ − η u − φ δ(θ)

    With both, the decay looks at the u that the first has left. The mean is that over a variable's
    entries whose gradient isn't zero. Around wrapped rules it is the innermost rule's step.

    Args:
        cautious: only entries whose step the gradient agrees with move, the further the fewer they
            are. Liang et al., "Cautious Optimizers", 2024, algorithm 1, scaled as in the authors'
            code. arXiv:2411.16085. Departs from the paper: entries whose gradient is 0, as rows
            that are not in a batch, don't count in the mean, or the others would leap.
        cautious_decay: a weight decays only where its step moves it towards zero. Chen et al.,
            "Cautious Weight Decay", 2025, algorithm 1. arXiv:2510.12402
    """

    cautious: bool = False
    cautious_decay: bool = False

    @classmethod
    def asked(cls, given: Mapping[str, Any]) -> bool:
        return given["cautious"] or given["cautious_decay"]

    @classmethod
    def needs_whole_arrays(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: given[name] for name in cls.declared if given[name]}

    def building(self) -> None:
        """Puts cautious methods in the place of the rules' own, where wrappers call them, too."""
        for _, rule in self.optimizer.branches():
            innermost = rule.innermost()
            if not {"update", "step"} & vars(innermost).keys():
                self._make_cautious(innermost)

    def _make_cautious(self, rule: Any) -> None:
        given = self.optimizer.given
        if given.cautious and rule.defines("step"):
            rule.step = functools.partial(cautious_step, rule.step)
        elif given.cautious:
            rule.update = functools.partial(cautious_update, rule.update)
        if given.cautious_decay:
            rule.step = functools.partial(step_with_cautious_decay, rule.step)


def cautious_update(
    update: Callable, p: tf.Tensor, g: tf.Tensor, s: SimpleNamespace, h: SimpleNamespace
) -> tuple[tf.Tensor, Slots]:
    """A rule's direction, where the gradient agrees with it."""
    u, slots = update(p, g, s, h)
    return agreeing(u, g), slots


def cautious_step(
    step: Callable, p: tf.Tensor, g: tf.Tensor, s: SimpleNamespace, h: SimpleNamespace
) -> tuple[tf.Tensor, Slots]:
    """The step of a rule that has no direction apart from its rate: what it moves, and decays."""
    after, slots = step(p, g, s, h)
    moved = without_decay(step, p, g, s, h)
    return p - agreeing(p - moved, g) - (moved - after), slots


def step_with_cautious_decay(
    step: Callable, p: tf.Tensor, g: tf.Tensor, s: SimpleNamespace, h: SimpleNamespace
) -> tuple[tf.Tensor, Slots]:
    """The step without its decay where that would move a weight further than the step does."""
    after, slots = step(p, g, s, h)
    moved = without_decay(step, p, g, s, h)
    return tf.where((p - moved) * tf.sign(p) >= 0, after, moved), slots


def without_decay(
    step: Callable, p: tf.Tensor, g: tf.Tensor, s: SimpleNamespace, h: SimpleNamespace
) -> tf.Tensor:
    """The value after the same step with λ = 0. XLA computes once what both have in common."""
    return step(p, g, s, SimpleNamespace(**vars(h) | {"decay": tf.zeros_like(h.decay)}))[0]


def agreeing(u: tf.Tensor, g: tf.Tensor) -> tf.Tensor:
    """u where it has the sign of g, and zero elsewhere, divided by the share that is left."""
    agrees = tf.cast(tf.sign(u) * tf.sign(g) > 0, u.dtype)
    counted = tf.reduce_sum(tf.cast(tf.not_equal(g, 0), u.dtype))
    share = tf.math.divide_no_nan(tf.reduce_sum(agrees), counted)
    return u * agrees / tf.maximum(share, 1e-3)
