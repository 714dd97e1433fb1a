"""The only file that knows replicas and compilation."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

UNTRIED = (
    tf.distribute.TPUStrategy,
    tf.distribute.ParameterServerStrategy,
    tf.distribute.experimental.CentralStorageStrategy,
)


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
    """The gradients summed over all replicas, in one batch; as they are outside of replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return grads
    local = [tf.identity(g) for g in grads]  # on the replica's device, also what was an argument
    return context.all_reduce(tf.distribute.ReduceOp.SUM, local)


def once(function: Callable[[list[tf.Tensor]], None], tensors: list[tf.Tensor]) -> None:
    """Calls `function` once for all replicas, outside of their contexts, on all their tensors."""
    context, strategy = tf.distribute.get_replica_context(), tf.distribute.get_strategy()
    if isinstance(strategy, UNTRIED):
        raise NotImplementedError(
            "Only strategies that mirror variables, and one device, are supported yet. "
            f"Received: {type(strategy).__name__}"
        )
    if context is None or not tf.distribute.has_strategy():
        function(tensors)
    else:
        context.merge_call(lambda strategy, values: function(values), args=(tensors,))


def components(value: Any) -> tuple[Any, ...]:
    """The parts of a variable or tensor, one per device of this process; often just itself."""
    return tf.distribute.get_strategy().experimental_local_results(value)


def component(value: Any, replica: int) -> Any:
    """The part of one device; what has no parts is the same for all."""
    parts = components(value)
    return parts[replica] if len(parts) > 1 else parts[0]


def on(replica: int) -> Callable[[Any], Any]:
    """`component` for one replica."""
    return lambda value: component(value, replica)


def beside(variable: tf.Variable) -> Any:
    """A scope in which new variables get the devices and replicas of `variable`."""
    strategy = getattr(variable, "distribute_strategy", None) or tf.distribute.get_strategy()
    scope = contextlib.ExitStack()
    scope.enter_context(strategy.scope())
    scope.enter_context(strategy.extended.colocate_vars_with(variable))
    return scope
