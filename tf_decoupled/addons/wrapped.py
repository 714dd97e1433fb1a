"""Addons' optimizers around other optimizers: Lookahead, MovingAverage and SWA."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from tf_decoupled.addons.constructor import FromAddons
from tf_decoupled.engine.hyperparameters import Beta, Steps, Whole
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import copy
from tf_decoupled.math import ema
from tf_decoupled.optimizers.adadelta import Adadelta
from tf_decoupled.optimizers.adagrad import Adagrad
from tf_decoupled.optimizers.adam import Adam
from tf_decoupled.optimizers.adamax import Adamax
from tf_decoupled.optimizers.ftrl import Ftrl
from tf_decoupled.optimizers.nadamw import Nadam
from tf_decoupled.optimizers.rmsprop import RMSprop
from tf_decoupled.optimizers.sgd import SGD
from tf_decoupled.wrappers import iterate_average, lookahead
from tf_decoupled.wrappers.wrapper import Wrapper

# The optimizers of Keras that Addons took by name.
NAMED: dict[str, Callable[[], Optimizer]] = {
    "adam": lambda: Adam(epsilon=1e-7, epsilon_hat=True),
    **{each.__name__.lower(): each for each in (SGD, RMSprop, Adagrad, Adadelta, Adamax)},
    **{each.__name__.lower(): each for each in (Nadam, Ftrl)},
}


class Around(FromAddons):
    """A wrapper whose inner optimizer is called `optimizer`, and may be one of Keras's by name."""

    renamed: ClassVar = {"optimizer": "inner"}

    @classmethod
    def interpret_rule(cls, given: dict[str, Any]) -> dict[str, Any]:
        inner = given["inner"]
        if isinstance(inner, str):
            if inner.lower() not in NAMED:
                raise ValueError(
                    f"{cls.__name__} knows {', '.join(NAMED)} by name; of others give the "
                    f"optimizer, as td.AdamW(1e-3). Received: inner={inner!r}"
                )
            given = given | dict(inner=NAMED[inner.lower()]())
        return super().interpret_rule(given)


class Lookahead(Around, lookahead.Lookahead):
    """Lookahead with Addons' arguments; the optimizer inside may be a name, as "adam"."""

    positional: ClassVar = ("inner", "sync_period", "slow_step_size")


class Averaging(Around):
    """What Addons' two averages could do: become the weights."""

    def assign_average_vars(self, var_list: Sequence) -> None:
        """Makes these variables their averages; from there training would go on."""
        become_averages(self, var_list)

    def swap_weights(self) -> None:
        """Averages in place of weights, and weights in place of averages the next time."""
        if self.holds_evaluation_weights():
            self.restore_training_weights()
        else:
            self.finalize_variable_values([cell.variable for cell in self.cells])

    def shadow_copy(self, model_weights: Sequence) -> None:
        """Makes the averages of these variables, as the first step would do."""
        self.build(model_weights)

    @property
    def has_shadow_copy(self) -> bool:
        return self.built


def become_averages(optimizer: Optimizer, variables: Sequence) -> None:
    """Makes variables their averages, for good."""
    optimizer.restore_training_weights()
    optimizer.finalize_variable_values(variables)
    optimizer.say_held(False)


class MovingAverage(Averaging, Wrapper):
    """A moving average of the variables, which starts as they do and isn't corrected for that.

        θ ← inner step of θ
        ā ← β ā + (1 − β) θ        β = 0 before `start_step`

    ā is evaluated and kept. `use_ema=True`, of every optimizer, is the corrected one.

    Args:
        optimizer: the one that steps; rate, decay, mask and clips are its own.
        average_decay: β.
        num_updates: n; β is at most (1 + n) / (10 + n).
        start_step: the first step, counted from 0, that is averaged.
        dynamic_decay: β is at most (1 + k) / (10 + k), k steps after the first.
    """

    average_decay: Beta = 0.99
    num_updates: Any = None
    start_step: Whole = 0
    dynamic_decay: bool = False

    positional: ClassVar = (
        *("inner", "average_decay", "num_updates", "start_step", "dynamic_decay"),
    )

    @classmethod
    def interpret_rule(cls, given: dict[str, Any]) -> dict[str, Any]:
        n, β = given["num_updates"], given["average_decay"]
        if n is not None:
            if type(n) is not int or n < 0 or not isinstance(β, (int, float)):
                raise TypeError(
                    "`num_updates` must be an integer >= 0 beside an `average_decay` that is a "
                    "number; one that grows with the updates is `dynamic_decay=True`. "
                    f"Received: num_updates={n!r}, average_decay={β!r}"
                )
            given = given | dict(average_decay=min(β, (1 + n) / (10 + n)))
        return super().interpret_rule(given)

    def init(self, p):
        return dict(trained=copy(p), mean=copy(p), inner=self.inner.init(p))

    def step(self, p, g, s, h):
        p, inner = self.inner.step(p, g, s.inner, h.inner)
        since = h.t - (1 + self.start_step)
        β = h.average_decay
        if self.dynamic_decay:
            k = tf.maximum(since, 0.0)
            β = tf.minimum(β, (1 + k) / (10 + k))
        mean = ema(s.mean, p, tf.where(since < 0, 0.0, β))
        return p, dict(trained=p, mean=mean, inner=inner)

    def evaluation(self, p, s, h):
        return s.mean

    def training(self, x, s, h):
        return s.trained


class SWA(Averaging, iterate_average.IterateAverage):
    """Stochastic weight averaging with Addons' arguments: steps count from 0.

    Args:
        start_averaging: the first step whose result is averaged.
        average_period: after how many steps the next one is.
    """

    start_averaging: Whole = 0
    average_period: Steps = 10

    positional: ClassVar = ("inner", "start_averaging", "average_period")

    def due(self, h):
        since = h.step - (1 + self.start_averaging)
        return (since >= 0) & (since % h.average_period == 0)
