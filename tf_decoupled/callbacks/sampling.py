"""Sampling: which batches are looked at, so that all others cost nothing."""

from typing import Any, NamedTuple

from tf_decoupled.engine.blocks import Part


class Countdown:
    """Foresees from batches alone when an optimizer will have done a multiple of n updates.

    To read how many it has done waits for the device. A batch makes at most one update.
    """

    def __init__(self, optimizer: Any, n: int):
        self.optimizer, self.n = optimizer, n
        self.done, self.batches = updates_of(optimizer), 0  # at the last look, and since then

    def may_pass_within(self, batches: int) -> bool:
        """Whether so many more batches may complete a multiple of n."""
        return self._missing() <= batches

    def passed(self, batches: int) -> bool:
        """Counts batches that are over; whether they have completed a multiple of n."""
        self.batches += batches
        if self._missing() > 0:
            return False
        last, self.done, self.batches = self.done, updates_of(self.optimizer), 0
        return self.done // self.n > last // self.n

    def _missing(self) -> int:
        return self.n - self.done % self.n - self.batches


class Look(NamedTuple):
    """The optimizer at one moment: the updates done, and each block as it was read then."""

    done: int
    parts: list[Part]


def look_at(optimizer: Any) -> Look:
    """Reads what is trained: float32 where there are masters. Nothing while nothing is built."""
    return Look(updates_of(optimizer), list(optimizer.training_parts()))


def updates_of(optimizer: Any) -> int:
    return int(optimizer.iterations.numpy())
