"""The learning-rate range test: which rate to begin with, from one short run."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf

from tf_decoupled import trial
from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Check, Where, checked
from tf_decoupled.engine.hyperparameters import fits, is_number
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.rate_curve import FEWEST, RateCurve

SPAN = 0.05  # of all rates: how far to each side the smoothed loss averages

ENDED = "The data ended"


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
    that ends too early, a loss that isn't finite at the first batch, and for tests that end before
    the fifth rate.

    Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3: the range
    test, there with rates that rise linearly. arXiv:1506.01186
    """
    _check(model, lowest, highest)
    rates = np.geomspace(lowest, highest, steps)
    rise = Rise(rates, divergence, _batches_of_a_rate(model))
    batches = steps * rise.executions * model.steps_per_execution
    fit = _fit_arguments(data, batches, batch_size, seed)
    with trial.unchanged(model), trial.rate(model) as assign, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")  # `curve` says it
        rise.assign = assign
        model.fit(**fit, epochs=1, verbose=0, shuffle=False, callbacks=[rise])
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
        self.diverged = False

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.model.reset_metrics()  # the loss that `fit` shows would be the mean of all before
        if not self.waiting:
            self.assign(float(self.rates[len(self.losses)]))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
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


def _fit_arguments(data: Any, batches: int, batch_size: int, seed: int) -> dict[str, Any]:
    """What `fit` is to get: so many batches, and no order of its own."""
    if isinstance(data, (tuple, dict)) or hasattr(data, "__array__"):
        return _drawn(data, batches, batch_size, seed)
    if isinstance(data, tf.data.Dataset):
        known = int(data.cardinality()) != tf.data.UNKNOWN_CARDINALITY
        _check_begins(int(data.cardinality()) != 0 if known else list(data.take(1)), data)
        return dict(x=data.repeat().take(batches))
    if isinstance(data, tf.distribute.DistributedDataset):
        return dict(x=data, steps_per_epoch=batches)
    if not hasattr(data, "__iter__") and not isinstance(data, keras.utils.PyDataset):
        raise TypeError(
            "`data` must be a tuple of arrays (x, y), a tf.data.Dataset, a PyDataset or an "
            f"iterable of batches (x, y). Received: data={data!r}"
        )
    endless = _batches(data)
    first = list(itertools.islice(endless, 1))
    _check_begins(first, data)
    rest = itertools.islice(endless, batches - 1)
    return dict(x=(batch for batch in itertools.chain(first, rest)))


def _check_begins(first: Any, data: Any) -> None:
    if not first:
        raise ValueError(
            f"{ENDED} before the first rate: it has no batch, or was read before. "
            f"Received: data={data!r}"
        )


def _drawn(data: Any, batches: int, batch_size: int, seed: int) -> dict[str, Any]:
    """Rows of arrays, each as often as the others, in an order that `seed` decides."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    arrays = dict(x=x, y=y, sample_weight=weights)
    sizes = {len(a) for a in keras.tree.flatten(arrays) if a is not None}
    if len(sizes) != 1 or not min(sizes):
        raise ValueError(
            "`data` must be arrays of as many rows each, one or more. "
            f"Received: arrays of {sorted(sizes)} rows"
        )
    (rows,), needed = sizes, batches * batch_size
    draw = np.random.default_rng(seed).permutation
    order = np.concatenate([draw(rows) for _ in range(math.ceil(needed / rows))])[:needed]
    taken = lambda a: None if a is None else np.asarray(a)[order]  # noqa: E731
    return keras.tree.map_structure(taken, arrays) | dict(batch_size=batch_size)


def _batches(data: Any) -> Iterator[Any]:
    """The batches, again and again where they can be read again."""
    while True:
        empty = True
        size = data.num_batches if isinstance(data, keras.utils.PyDataset) else None
        for batch in data if size is None else map(data.__getitem__, range(size)):
            empty = False
            yield batch
        if empty or iter(data) is data:
            return
