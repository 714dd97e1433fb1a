"""The only file that knows replicas and compilation."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


@functools.cache
def host_compiles() -> bool:
    """Whether XLA can compile for this host. TensorFlow's TPU wheel can't: it lacks the CPU's."""

    @tf.function(jit_compile=True, autograph=False)
    def probe(x):
        return x + 1.0

    try:
        with tf.init_scope():
            probe(tf.constant(0.0))
    except (tf.errors.NotFoundError, tf.errors.UnimplementedError, tf.errors.InvalidArgumentError):
        return False
    return True


def compiled(function: Callable[..., None], jit_compile: bool | str) -> Callable[..., None]:
    """The function as one graph, compiled by XLA also inside a step that isn't.

    `jit_compile` "auto" compiles where the host can, True always (and raises where it can't),
    False never. Keras's own "auto" means False on machines without an accelerator.
    """

    @functools.cache
    def graph() -> Any:
        jit = host_compiles() if jit_compile == "auto" else jit_compile
        return tf.function(function, autograph=False, jit_compile=jit)

    # A plain function: a tf.function among an optimizer's attributes would be exported with it.
    return lambda *args: graph()(*args)


def all_reduce(grads: list[tf.Tensor]) -> list[tf.Tensor]:
    """The gradients summed over all replicas."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:
        raise NotImplementedError(
            "Training on several replicas is not implemented yet. Use one device, or a "
            f"tf.keras.optimizers class, meanwhile. Received: {replicas} replicas in sync"
        )
    return grads
