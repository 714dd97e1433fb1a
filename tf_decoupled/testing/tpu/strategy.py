"""`tf.distribute.TPUStrategy` on logical CPUs: traced as for TPUs, run without one."""

import weakref
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from tf_decoupled.testing.tpu import internals
from tf_decoupled.testing.tpu.cluster import Cluster

HOST = "/job:localhost/replica:0/task:0"


class EmulatedTPUStrategy(tf.distribute.TPUStrategy):
    """`tf.distribute.TPUStrategy` with a logical CPU for each TPU core.

    Variables, `run`, `reduce`, data sets and `model.fit` are TensorFlow's own. What `run` would
    hand to the TPUs is traced as ever, kept in `clusters`, and run on the CPUs.

    Args:
        replicas: how many cores. TensorFlow must not have started, or have as many logical CPUs.

    Attributes:
        clusters: one `Cluster` for each time that `run` has been traced, the newest last.
    """

    def __init__(self, replicas: int):
        devices = _logical_cpus(replicas)
        super().__init__(_Resolver(replicas))
        self.clusters: list[Cluster] = []
        self._devices = devices
        self._functions: Any = weakref.WeakKeyDictionary()
        internals.move_to_cpus(self, devices, f"{HOST}/device:CPU:0", self._run)

    def trace(self, fn: Callable, args: Sequence = (), kwargs: dict | None = None) -> Cluster:
        """What `run(fn, args, kwargs)` hands to the TPUs; nothing runs. AutoGraph isn't applied."""
        self._trace(fn, tuple(args), kwargs or {}, tf.distribute.RunOptions())
        return self.clusters[-1]

    def _run(self, fn: Any, args: Any, kwargs: Any, options: Any = None) -> Any:
        if tf.executing_eagerly():
            if fn not in self._functions:
                self._functions[fn] = tf.function(
                    lambda args, kwargs: self._emulate(fn, args, kwargs, options), autograph=False
                )
            return self._functions[fn](args, kwargs)
        return self._emulate(fn, args, kwargs, options)

    def _emulate(self, fn: Any, args: Any, kwargs: Any, options: Any) -> Any:
        structure = self._trace(fn, args, kwargs, options)
        cluster = self.clusters[-1]
        copies = cluster.copies(self._devices, for_xla=False)
        given = {name: cluster.captures[name] for name in copies.placeholders}
        results = iter(internals.paste(copies, given))
        return tf.nest.map_structure(
            lambda t: next(results) if tf.is_tensor(t) else t, structure, expand_composites=True
        )

    def _trace(self, fn: Any, args: Any, kwargs: Any, options: Any) -> Any:
        """Adds the call, traced by TensorFlow for TPUs, to `clusters`; its results' structure."""

        def step():
            return internals.replication(self, fn, options)(args, kwargs)

        concrete = tf.function(step, autograph=False).get_concrete_function()
        structure = concrete.structured_outputs
        tensors = tf.nest.flatten(structure, expand_composites=True)
        captures = internals.captures(concrete)
        graph, names = concrete.graph.as_graph_def(), [t.name for t in tensors if tf.is_tensor(t)]
        self.clusters.append(Cluster(graph, captures, names, self.num_replicas_in_sync))
        return structure


class _Resolver(tf.distribute.cluster_resolver.TPUClusterResolver):
    """Says that this process has TPU cores, without asking anybody."""

    def __init__(self, cores: int):
        self._cores = cores

    def get_tpu_system_metadata(self) -> SimpleNamespace:
        names = [f"{HOST}/device:TPU:{i}" for i in range(self._cores)]
        return SimpleNamespace(
            num_cores=self._cores,
            num_hosts=1,
            num_of_cores_per_host=self._cores,
            topology=None,
            devices=tuple(SimpleNamespace(name=n, device_type="TPU") for n in names),
        )

    def cluster_spec(self) -> None:
        return None

    def master(self, *args: Any, **kwargs: Any) -> str:
        return ""


def _logical_cpus(count: int) -> list[str]:
    """The names of so many logical CPUs, made if TensorFlow hasn't started."""
    (cpu, *_), make = tf.config.list_physical_devices("CPU"), tf.config.LogicalDeviceConfiguration
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) < count:
        try:
            tf.config.set_logical_device_configuration(cpu, [make() for _ in range(count)])
        except RuntimeError as error:
            raise RuntimeError(
                "An emulated TPU core needs a logical CPU, and TensorFlow has started with fewer: "
                "make the strategy before any tensor. Received: "
                f"{count} replicas, {len(tf.config.list_logical_devices('CPU'))} logical CPUs"
            ) from error
    return [f"{HOST}/device:CPU:{i}" for i in range(count)]
