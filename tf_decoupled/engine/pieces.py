"""One variable's piece of an array that a stack shares: read, assigned and saved by itself."""

from typing import Any

import numpy as np
import tensorflow as tf

from tf_decoupled.engine import replicas
from tf_decoupled.engine.state import tf_variable


class Piece(tf.Module):
    """array[index], with the ways of a variable."""

    def __init__(self, array: Any, index: int, name: str):
        super().__init__()
        self.array, self.index, self.path = tf_variable(array), index, name

    @property
    def name(self) -> str:
        return self.path

    @property
    def shape(self) -> tf.TensorShape:
        return tf.TensorShape(self.array.shape[1:])

    @property
    def dtype(self) -> str:
        return self.array.dtype.name

    @property
    def value(self) -> tf.Tensor:
        return self.read_value()

    def read_value(self) -> tf.Tensor:
        return tf.gather(tf.convert_to_tensor(self.array), self.index)

    def numpy(self) -> np.ndarray:
        return self.read_value().numpy()

    def assign(self, value: Any) -> None:
        """Assigns on all devices, without a copy of what the others hold."""
        value = tf.cast(value, self.dtype)
        if tuple(value.shape) != tuple(self.shape):
            raise ValueError(
                f"A value of shape {tuple(self.shape)} is needed. Received: {tuple(value.shape)}"
            )
        components = replicas.all_components(self.array)
        if self.array.synchronization == tf.VariableSynchronization.ON_READ:
            value = value / len(components)  # what is read is their sum
        for component in components:
            component.scatter_nd_update([[self.index]], [value])

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        return tf.convert_to_tensor(self.read_value(), dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.numpy(), dtype)

    def __repr__(self) -> str:
        return f"<Piece {self.path}, shape={tuple(self.shape)}, dtype={self.dtype}>"
