"""The only file that knows replicas and compilation."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

# Each replica runs the whole step for itself, on variables that it sees as its own.
INLINE = (tf.distribute.TPUStrategy, tf.distribute.ParameterServerStrategy)
UNTRIED = (tf.distribute.experimental.CentralStorageStrategy,)
LARGE = 2**20  # bytes of a tensor whose sum over replicas has a call of its own


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


def compiled(
    function: Callable[..., Any],
    jit_compile: bool | str,
    worth_it: Callable[[], bool] = lambda: True,
) -> Callable[..., Any]:
    """The function as one graph, compiled by XLA also inside a step that isn't.

    `jit_compile` "auto" compiles where the host can and it is worth the time, asked at the first
    call; True always (and raises where the host can't), False never. Keras's own "auto" means
    False on machines without an accelerator. For a TPU the
    whole step is compiled by its strategy; parameter servers can't lend variables to XLA.
    """

    @functools.cache
    def graph() -> Any:
        jit = worth_it() and host_compiles() if jit_compile == "auto" else jit_compile
        return tf.function(function, autograph=False, jit_compile=jit)

    # A plain function: a tf.function among an optimizer's attributes would be exported with it.
    def call(*args: Any) -> Any:
        inline = isinstance(tf.distribute.get_strategy(), INLINE)
        return function(*args) if inline else graph()(*args)

    return call


def host_is_reachable() -> bool:
    """Whether a step may contain operations on strings, as assertions do: not on a TPU."""
    return not isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)


def all_reduce(tensors: list) -> list:
    """The sums over all replicas: of gradients, or of variables that each one has."""
    context, strategy = tf.distribute.get_replica_context(), tf.distribute.get_strategy()
    alone = strategy.num_replicas_in_sync == 1
    if context is None and any(isinstance(t, tf.Variable) for t in tensors):
        if alone:
            return [tf.convert_to_tensor(components(v)[0]) for v in tensors]
        pairs = [(v, v) for v in tensors]
        return strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)
    tensors = [tf.convert_to_tensor(t) if isinstance(t, tf.Variable) else t for t in tensors]
    if context is None or alone or not tensors:
        return tensors
    # On the replica's device, also what was an argument.
    local = tf.nest.map_structure(tf.identity, tensors, expand_composites=True)
    sums: dict[int, Any] = {}
    for pack in _packs(local):
        own = [local[i] for i in pack]
        sums |= zip(pack, context.all_reduce(tf.distribute.ReduceOp.SUM, own), strict=True)
    return [sums[i] for i in range(len(local))]


def _packs(tensors: list) -> list[list[int]]:
    """Which tensors, by number, are summed by one call: all small ones, and each large one alone.

    TensorFlow copies all that one call sums into one array, and back. So ResNet-50's step was 1.5
    times as long, and had to wait for the last gradient of the backward pass.
    """
    large = [
        isinstance(t, tf.Tensor) and (t.shape.num_elements() or 0) * t.dtype.size >= LARGE
        for t in tensors
    ]
    small = [i for i, is_large in enumerate(large) if not is_large]
    return [[i] for i, is_large in enumerate(large) if is_large] + ([small] if small else [])


def largest(tensor: tf.Tensor) -> tf.Tensor:
    """The largest over all replicas, entry by entry; the tensor itself outside of replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.convert_to_tensor(tensor)
    return tf.reduce_max(context.all_gather(tensor[None], axis=0), 0)


def shares(grads: list) -> list:
    """What each replica is to add up, so that the sum over replicas is that of the gradients."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    in_replica = tf.distribute.get_replica_context() is not None
    return grads if in_replica or replicas == 1 else [g / replicas for g in grads]


def once(function: Callable[[list], None], tensors: list) -> None:
    """Calls `function` once for all replicas, outside of their contexts, on all their tensors.

    Under `INLINE` strategies each replica calls it for itself.
    """
    context, strategy = tf.distribute.get_replica_context(), tf.distribute.get_strategy()
    if isinstance(strategy, UNTRIED):
        raise NotImplementedError(
            "CentralStorageStrategy is not supported: use MirroredStrategy, which keeps a copy of "
            f"each variable on each device. Received: {type(strategy).__name__}"
        )
    if context is None or isinstance(strategy, INLINE) or not tf.distribute.has_strategy():
        function(tensors)
    else:
        context.merge_call(lambda strategy, values: function(values), args=(tensors,))


def outside(function: Callable[[], None]) -> None:
    """Calls `function` outside of the replicas' contexts, where variables can be made."""
    if tf.distribute.get_replica_context() is None or not tf.distribute.has_strategy():
        function()
    else:
        tf.distribute.get_replica_context().merge_call(lambda strategy: function())


def parts(variable: tf.Variable) -> Iterator[int | None]:
    """The parts of a variable to work on here, each while its device is the current one.

    None stands for the variable itself, as a replica sees it.
    """
    if tf.distribute.has_strategy() and tf.distribute.get_replica_context() is not None:
        yield None
        return
    for replica, part in enumerate(components(variable)):
        with tf.device(part.device):
            yield replica


def components(value: Any) -> tuple[Any, ...]:
    """The parts of a variable or tensor, one per device of this process; often just itself."""
    return tf.distribute.get_strategy().experimental_local_results(value)


def all_components(variable: tf.Variable) -> tuple[tf.Variable, ...]:
    """The variable's parts on the devices of this process, whatever the present strategy is."""
    return strategy_of(variable).experimental_local_results(variable)


def component(value: Any, replica: int | None) -> Any:
    """The part of one device; what has no parts is the same for all."""
    if replica is None:
        return value
    parts = components(value)
    return parts[replica] if len(parts) > 1 else parts[0]


def on(replica: int | None) -> Callable[[Any], Any]:
    """`component` for one replica."""
    return lambda value: component(value, replica)


def beside(variable: tf.Variable) -> Any:
    """A scope in which new variables get the devices and replicas of `variable`."""
    scope = contextlib.ExitStack()
    scope.enter_context(strategy_of(variable).scope())
    scope.enter_context(strategy_of(variable).extended.colocate_vars_with(variable))
    return scope


def strategy_of(variable: tf.Variable) -> tf.distribute.Strategy:
    """The strategy whose scope a variable was made in."""
    return getattr(variable, "distribute_strategy", None) or tf.distribute.get_strategy()


def check_same(own: tf.Variable, variable: tf.Variable) -> None:
    """Raises where an optimizer and a variable belong to different strategies.

    An optimizer made outside of a scope is right where each process has its replicas to itself.
    """
    mine, other = (getattr(v, "distribute_strategy", None) for v in (own, variable))
    alone = mine is None and not isinstance(other, INLINE)
    if not alone and mine is not other:
        raise ValueError(
            "An optimizer and its variables must be made in the same `strategy.scope()`. Received: "
            f"an optimizer of {_name(mine)} for the variable {variable.name!r} of {_name(other)}"
        )


def _name(strategy: tf.distribute.Strategy | None) -> str:
    return "no strategy" if strategy is None else type(strategy).__name__


def local(variable: tf.Variable) -> tf.Variable:
    """The part of a variable that this replica reads; what is assigned to it, no other one sees.

    The variable itself outside of replicas, and where replicas see it as their own.
    """
    context, strategy = tf.distribute.get_replica_context(), tf.distribute.get_strategy()
    if context is None or isinstance(strategy, INLINE) or not tf.distribute.has_strategy():
        return variable
    parts = components(variable)
    return parts[tf.get_static_value(context.replica_id_in_sync_group) % len(parts)]


def place() -> tuple[Any, int]:
    """Which of the replicas this is, and how many there are; 0 and 1 outside of replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or not tf.distribute.has_strategy():
        return 0, 1
    return context.replica_id_in_sync_group, context.num_replicas_in_sync


def in_strategy() -> bool:
    """Whether this is inside of the scope or the replicas of a strategy."""
    return tf.distribute.has_strategy()
