"""Variables that become their gradient: Keras's float8 scales, `overwrite_with_gradient`."""

from types import SimpleNamespace
from typing import Any

import tensorflow as tf


class Overwrite:
    """The rule of such variables: no slots, no rate, no decay."""

    def init(self, p: tf.Variable) -> dict:
        return {}

    def step(self, p: tf.Tensor, g: tf.Tensor, s: Any, h: SimpleNamespace) -> tuple:
        return g, {}

    def hyperparameters_of(self, block: Any, h: dict) -> dict:
        return h

    def evaluates(self) -> bool:
        return False

    def tree(self) -> tuple:
        return ()
