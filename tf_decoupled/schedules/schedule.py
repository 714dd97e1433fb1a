"""Schedule: what all schedules of this library are, and the largest rate of any schedule."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import keras
import tensorflow as tf
from keras.optimizers.schedules import ExponentialDecay, LearningRateSchedule
from typing_extensions import dataclass_transform

from tf_decoupled.engine import registry
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.schedules.curves import float32
from tf_decoupled.schedules.kinds import Name, Variable, rate


def rate_at(rate_or_schedule, n):
    return float32(rate_or_schedule(n) if callable(rate_or_schedule) else rate_or_schedule)


def largest(*rates):
    """A float; a tensor if any of the rates is a variable or a tensor."""
    if any(tf.is_tensor(rate) or isinstance(rate, Variable) for rate in rates):
        return tf.reduce_max(tf.stack([float32(rate) for rate in rates]))
    return max(rates)


def _plain(value):
    if isinstance(value, LearningRateSchedule):
        return keras.saving.serialize_keras_object(value)
    if isinstance(value, Variable):
        return float(tf.convert_to_tensor(value))
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


@checked
def peak_of(rate_or_schedule):
    """The largest rate of anything that may stand in the place of a learning rate."""
    if not isinstance(rate_or_schedule, LearningRateSchedule):
        return rate(Where("rate_or_schedule"), rate_or_schedule)
    if isinstance(rate_or_schedule, Schedule) or hasattr(rate_or_schedule, "peak"):
        return rate_or_schedule.peak
    if not _is_keras_and_falls(rate_or_schedule):
        raise AttributeError(
            f"The largest rate of a {type(rate_or_schedule).__name__} is not known: "
            f"give it an attribute `peak`. Received: {rate_or_schedule!r}"
        )
    config = rate_or_schedule.get_config()
    names = ("initial_learning_rate", "warmup_target", "end_learning_rate")
    rates = [config[name] for name in names if config.get(name) is not None]
    return largest(*rates, *config.get("values", ()))


def _is_keras_and_falls(schedule):
    growth = "decay_rate" if isinstance(schedule, ExponentialDecay) else "m_mul"
    is_keras = type(schedule).__module__.startswith("keras.")
    return is_keras and schedule.get_config().get(growth, 1) <= 1


@dataclass_transform(eq_default=False)
@dataclass(eq=False)
class Schedule(LearningRateSchedule):
    """A schedule whose annotated attributes are its arguments, its configuration and their checks.

    A subclass declares them as a dataclass does and defines `rate` and `peak`. `TypeError` and
    `ValueError` at construction name the argument that is not what its annotation says.
    """

    name: Name = field(default=None, kw_only=True)
    kept = None  # a tf.Module with variables, of one that remembers something

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        own = dataclass(eq=False)(cls)
        own.__init__ = checked(own.__init__, owner=cls.__name__, bare=True)
        registry.register(own, "tf_decoupled")

    def __post_init__(self):
        self.name = self.name or type(self).__name__

    def __call__(self, step) -> tf.Tensor:
        with tf.name_scope(self.name):
            n = self._count(step)
            return tf.broadcast_to(self.rate(n), tf.shape(n))

    def rate(self, n: tf.Tensor) -> tf.Tensor:
        """The float32 rate at step `n`, an int64 tensor of any shape."""
        raise NotImplementedError(f"{type(self).__name__} must define `rate`.")

    @property
    def peak(self) -> float | tf.Tensor:
        """The largest rate that the schedule can give; a tensor where a variable decides it."""
        raise NotImplementedError(f"{type(self).__name__} must define `peak`.")

    def remembered(self) -> dict[str, keras.Variable]:
        """What it keeps from step to step, by name, for its optimizer to save."""
        inside = {} if self.kept is None else vars(self.kept)
        return {name: v for name, v in inside.items() if isinstance(v, Variable)}

    def tree(self) -> Iterator[tuple[str, "Schedule"]]:
        """Itself and the schedules inside of it, each with its place: "", "schedules/0", ..."""
        yield "", self
        for each in fields(self):
            value = getattr(self, each.name)
            inside = value if isinstance(value, tuple) else [value]
            for i, schedule in enumerate(inside):
                place = f"{each.name}/{i}" if isinstance(value, tuple) else each.name
                if isinstance(schedule, Schedule):
                    for below, one in schedule.tree():
                        yield f"{place}/{below}".rstrip("/"), one

    def get_config(self) -> dict:
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def from_config(cls, config: dict) -> "Schedule":
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})

    def _count(self, step):
        n = tf.constant(step, tf.int64) if isinstance(step, int) else tf.convert_to_tensor(step)
        if not n.dtype.is_integer:
            raise TypeError(f"{self.name} counts steps in integers. Received: step={step!r}")
        return tf.cast(n, tf.int64)


def same_lengths(schedule, name):
    values, boundaries = getattr(schedule, name), schedule.boundaries
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            f"{type(schedule).__name__} needs one more of `{name}` than of `boundaries`. "
            f"Received: {len(values)} {name} and {len(boundaries)} boundaries"
        )
