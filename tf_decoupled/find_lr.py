"""The learning-rate range test: which rate to begin with, from one short run."""

import math
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf

from tf_decoupled import trial
from tf_decoupled.batches import ENDED, arguments_of_fit
from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Check, Where, checked
from tf_decoupled.engine.hyperparameters import fits, is_number
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.rate_curve import FEWEST, RateCurve

SPAN = 0.05  # of all rates: how far to each side the smoothed loss averages


def _divergence(where: Where, value: Any) -> float:
    if not is_number(value) or not fits(value, lambda x: x > 0):
        where.refuse(ValueError, "a number > 0", value)
    return value


def _at_least(least: int) -> Check:
    return kinds.whole(f"an integer, at least {least}", least)


Model = Annotated[keras.Model, kinds.instance(keras.Model, "a keras.Model")]
Rate = Annotated[float, kinds.real("a finite number > 0", lambda x: x > 0)]


@checked
def find_lr(
    model: Model,
    data: Any,
    *,
    lowest: Rate = 1e-7,
    highest: Rate = 10.0,
    steps: Annotated[int, _at_least(FEWEST)] = 100,
    batch_size: Annotated[int, _at_least(1)] = 32,
    divergence: Annotated[float, _divergence] = 2.0,
    seed: Annotated[int, kinds.whole("an integer >= 0", 0)] = 0,
) -> RateCurve:
    """Trains for some updates at a rising rate, and shows where the loss falls and where it breaks.

        found = td.find_lr(model, (x, y))
        found.plot("rates.png")
        model.optimizer.learning_rate = found.suggestion

        η_i = lowest · (highest / lowest)^(i / (steps − 1))        i = 0 … steps − 1

    The loss of a batch is that before its step. The test ends early where a loss isn't finite, or
    where the mean of the last losses, 1 + 5 % of `steps`, is further above the smallest such mean
    than `divergence` times the first.

    Then all is what it was, bit for bit and on each replica: weights, statistics, seeds and
    metrics of the model, slots, counters, schedules and loss scale of the optimizer; also where an
    exception or Ctrl-C ends the test. Not put back are random numbers of TensorFlow and NumPy that
    belong to no layer, and what the data itself remembers, as a generator that was read.

    Each η_i stands in the place of the rate that the optimizer was made with, and in that of
    `base_learning_rate` if this wasn't given: a number is assigned, a schedule is replaced for the
    test by the number. A suggestion is so for the schedule's peak. Rates of a Partition keep their
    ratios, peaks for schedules: η_i is the first member's. What multiplies rates, as
    LayerwiseDecay, goes on to do so.

    With `gradient_accumulation_steps`, or `steps_per_execution` of `compile`, each rate has as
    many batches as are needed for an update, and the mean of their losses.

    Args:
        model: built, and compiled with an optimizer of this library; classes of Keras that
            `td.decouple` has made of this kind are not.
        data: a tuple of arrays (x, y[, weights]), whose rows are drawn at random; a
            tf.data.Dataset, a PyDataset or an iterable of batches (x, y[, weights]), in their
            order. All but iterators begin anew where they end.
        lowest, highest, steps: see above.
        batch_size: of arrays.
        divergence: see above; `float("inf")` goes on to the highest rate while losses are finite.
        seed: of the drawing of rows.

    Raises TypeError for another optimizer or none, ValueError for a model that isn't built, data
    that ends too early or that the model can't train on, a loss that isn't finite at the first
    batch, and for tests that end before the fifth rate.

    Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3: the range
    test, there with rates that rise linearly. arXiv:1506.01186
    """
    _check(model, lowest, highest)
    rates = np.geomspace(lowest, highest, steps)
    rise = Rise(rates, divergence, _batches_of_a_rate(model))
    batches = steps * rise.executions * model.steps_per_execution
    fit = arguments_of_fit(data, batches, batch_size, seed)
    with trial.unchanged(model), trial.rate(model) as assign, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")  # `curve` says it
        rise.assign = assign
        try:
            model.fit(**fit, epochs=1, verbose=0, shuffle=False, callbacks=[rise])
        except (TypeError, ValueError) as error:
            if rise.began:
                raise
            ended, _, _ = str(error).strip().partition("\n")
            raise ValueError(
                f"`data` must be what the model trains on. Received: {_outlined(data)}, "
                f"whose first batch ended in {type(error).__name__}: {ended}"
            ) from error
    return rise.curve()


class Rise(keras.callbacks.Callback):
    """Sets the rate before each batch, and notes the loss after it.

    executions: how many calls of the training function each rate has.
    """

    def __init__(self, rates: np.ndarray, divergence: float, executions: int):
        super().__init__()
        self.rates, self.divergence, self.executions = rates, divergence, executions
        self.assign: Callable[[float], None] | None = None
        self.near = round(SPAN * len(rates))
        self.waiting: list[float] = []
        self.losses: list[float] = []
        self.means: list[float] = []
        self.began = self.diverged = False

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.model.reset_metrics()  # the loss that `fit` shows would be the mean of all before
        if not self.waiting:
            self.assign(float(self.rates[len(self.losses)]))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.began = True
        if "loss" not in (logs or {}):
            raise ValueError(
                "`find_lr` reads the loss that the model's `train_step` returns as 'loss'. "
                f"Received: {sorted(logs or {})}"
            )
        self.waiting.append(float(logs["loss"]))
        loss = float(np.mean(self.waiting))
        if not math.isfinite(loss):
            self._end(loss)
        elif len(self.waiting) == self.executions:
            self.waiting = []
            self.losses.append(loss)
            self.diverged = self._rises()
            self.model.stop_training = self.diverged or len(self.losses) == len(self.rates)

    def _rises(self) -> bool:
        if len(self.losses) <= self.near:
            return False
        self.means.append(float(np.mean(self.losses[-self.near - 1 :])))
        return self.means[-1] > min(self.means) + self.divergence * abs(self.means[0])

    def _end(self, loss: float) -> None:
        if not self.losses:
            raise ValueError(
                "The loss isn't finite before the first step: look at the data, the loss and the "
                f"weights of the model. Received: loss {loss}"
            )
        self.diverged = self.model.stop_training = True

    def curve(self) -> RateCurve:
        """What was found; ValueError where the data was too short."""
        n = len(self.losses)
        if not self.diverged and n < len(self.rates):
            raise ValueError(
                f"{ENDED} after {n} of {len(self.rates)} rates: give more of it, or fewer `steps`."
            )
        return RateCurve.of(self.rates[:n], self.losses, self.near, self.diverged)


def _check(model: keras.Model, lowest: float, highest: float) -> None:
    """Raises for what the test can't be made with."""
    if not isinstance(getattr(model, "optimizer", None), Optimizer):
        raise TypeError(
            "`find_lr` needs a model that is compiled with an optimizer of this library, as "
            f"`model.compile(td.AdamW(), ...)`. Received: {getattr(model, 'optimizer', None)!r}"
        )
    if not model.built:
        raise ValueError(
            "Build the model first, as by calling it on a batch: `model(x)`. "
            f"Received: {model.name!r}, not built"
        )
    if not lowest < highest:
        raise ValueError(
            "The rates must rise: lowest < highest. "
            f"Received: lowest={lowest!r}, highest={highest!r}"
        )


def _batches_of_a_rate(model: keras.Model) -> int:
    """How many calls of the training function an update takes."""
    waits = model.optimizer.gradient_accumulation_steps
    waits = 1 if waits is None else int(tf.convert_to_tensor(waits))
    return math.ceil(waits / model.steps_per_execution)


def _outlined(data: Any) -> str:
    """The data in one line: arrays by their shapes."""
    try:
        shapes = keras.tree.map_structure(lambda a: tuple(a.shape), data)
    except AttributeError:
        return f"data={data!r}"
    return f"data with the shapes {shapes}"
