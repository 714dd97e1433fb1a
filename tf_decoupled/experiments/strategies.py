"""How a run is spread over devices and processes: a name to a `tf.distribute.Strategy`."""

import functools
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import tensorflow as tf

from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.grid import check_name

ROLES = {
    "multiworker": ("chief", "worker"),
    "parameter_server": ("chief", "worker", "ps"),
}
EXAMPLES = {
    "multiworker": {
        "cluster": {"worker": ["localhost:20001", "localhost:20002"]},
        "task": {"type": "worker", "index": 0},
    },
    "parameter_server": {
        "cluster": {
            "chief": ["localhost:20000"],
            "worker": ["localhost:20001", "localhost:20002"],
            "ps": ["localhost:20003"],
        },
        "task": {"type": "chief", "index": 0},
    },
}
LOCAL = "local"
TPU_DEVICES = ("accel*", "vfio/[0-9]*")  # in /dev: up to v4, and from v5e on
TPU_SECONDS = 5.0


def make(name: str, replicas: int | None = None) -> tf.distribute.Strategy:
    """The strategy `name`, one of `NAMES`. TensorFlow must not have started.

    none: one device. mirrored: all visible GPUs, or the first `replicas` of them; without a GPU,
    `replicas` logical CPUs. multiworker, parameter_server: the cluster in TF_CONFIG, in which a
    worker or ps of parameter_server serves and never returns. tpu: the TPU of this machine, or
    that of TPU_NAME.

    Raises `InputError` where there is no such device or cluster.
    """
    check_name("strategy", name, NAMES)
    if name == "mirrored":
        return _mirrored(replicas)
    if replicas is not None:
        raise InputError(
            "replicas is of the strategy mirrored; the others take all that there is. "
            f"Received: {replicas} for {name}"
        )
    return MAKERS[name]()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes and reports."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return True
    resolver = strategy.cluster_resolver
    workers = resolver.task_type == "worker" and "chief" in resolver.cluster_spec().jobs
    return not workers and not resolver.task_id


def agree(strategy: tf.distribute.Strategy, value: int) -> bool:
    """Whether all processes give the same `value`."""

    def moments() -> list[tf.Tensor]:
        context, x = tf.distribute.get_replica_context(), tf.constant(value, tf.int64)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, [x, x * x])

    total, squares = tf.function(lambda: strategy.run(moments), autograph=False)()
    total, squares = (int(strategy.experimental_local_results(v)[0]) for v in (total, squares))
    return strategy.num_replicas_in_sync * squares == total * total


def share(x: tf.Tensor, context: Any) -> tf.Tensor:
    """A replica's part of a batch, whose size is a multiple of the replicas'."""
    size = x.shape[0] // context.num_replicas_in_sync
    start = context.replica_id_in_sync_group * size
    return x[start : start + size]


@functools.cache
def _mirrored(replicas: int | None) -> tf.distribute.Strategy:
    """One for all runs of a process: TensorFlow mixes up the sums of two on the same devices."""
    if replicas is not None and replicas < 1:
        raise InputError(f"replicas must be at least 1. Received: {replicas}")
    kind, (cpu, *_) = "GPU", tf.config.list_physical_devices("CPU")
    found = len(tf.config.list_physical_devices(kind))
    if not found and replicas is not None:
        kind, found = "CPU", replicas
        parts = [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)]
        try:
            tf.config.set_logical_device_configuration(cpu, parts)
        except RuntimeError:  # TensorFlow has started already: with enough of them?
            found = len(tf.config.list_logical_devices(kind))
    if not found:
        raise InputError(
            "The strategy mirrored finds no GPU. To try it without, --replicas=2 takes two logical "
            "CPUs."
        )
    if found < (replicas or 1):
        raise InputError(f"replicas must be at most the {found} {kind}s. Received: {replicas}")
    return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(replicas or found)])


def _multiworker() -> tf.distribute.Strategy:
    _resolver("multiworker")
    return tf.distribute.MultiWorkerMirroredStrategy()


def _parameter_server() -> tf.distribute.Strategy:
    resolver = _resolver("parameter_server")
    if resolver.task_type != "chief":
        _serve(resolver)
    return tf.distribute.ParameterServerStrategy(resolver)


def _resolver(name: str) -> tf.distribute.cluster_resolver.TFConfigClusterResolver:
    """What TF_CONFIG says, once it is known to name a cluster and this process's task in it."""
    config = os.environ.get("TF_CONFIG", "")
    try:
        parsed = json.loads(config)
        cluster, task = parsed["cluster"], parsed["task"]
        needed = {"worker"} if name == "multiworker" else set(ROLES[name])
        good = needed <= cluster.keys() <= set(ROLES[name])
        good = good and all(isinstance(addresses, list) for addresses in cluster.values())
        good = good and 0 <= int(task["index"]) < len(cluster[task["type"]])
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise InputError(
            f"The strategy {name} needs TF_CONFIG in the environment of each process: the "
            f"addresses of all by role ({', '.join(ROLES[name])}), and which one this is, as in "
            f"TF_CONFIG='{json.dumps(EXAMPLES[name])}'. Received: {config or 'none'}"
        )
    return tf.distribute.cluster_resolver.TFConfigClusterResolver()


def _serve(resolver: tf.distribute.cluster_resolver.TFConfigClusterResolver) -> NoReturn:
    role, index, cluster = resolver.task_type, resolver.task_id, resolver.cluster_spec()
    print(
        f"{role} {index} serves at {cluster.task_address(role, index)} until it is stopped "
        "(Ctrl-C): it outlives the run of the chief.",
        flush=True,
    )
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # join() never comes back to Python
    tf.distribute.Server(cluster, job_name=role, task_index=index, protocol="grpc").join()
    raise SystemExit


def _tpu() -> tf.distribute.Strategy:
    address = os.environ.get("TPU_NAME") or LOCAL
    _check_tpu(address)
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(address)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise InputError(f"No TPU at {address}: {str(error)[:300]}") from error
    return tf.distribute.TPUStrategy(resolver)


def _check_tpu(address: str) -> None:
    """Raises where there can't be a TPU, for which TensorFlow would search for minutes."""
    if address == LOCAL:
        if any(path for pattern in TPU_DEVICES for path in Path("/dev").glob(pattern)):
            return
        raise InputError(
            "The strategy tpu finds no TPU on this machine: there is no "
            f"{' and no '.join(f'/dev/{pattern}' for pattern in TPU_DEVICES)}. Run it on a TPU VM, "
            "or set TPU_NAME=grpc://host:port."
        )
    url = urlsplit(address)
    if url.scheme != "grpc" or not url.hostname:
        raise InputError(f"TPU_NAME must be {LOCAL} or grpc://host:port. Received: {address}")
    try:
        socket.create_connection((url.hostname, url.port or 8470), TPU_SECONDS).close()
    except (OSError, ValueError) as error:
        raise InputError(f"No TPU answers at TPU_NAME={address}: {error}.") from error


MAKERS: dict[str, Callable[[], tf.distribute.Strategy]] = {
    "none": tf.distribute.get_strategy,
    "mirrored": lambda: _mirrored(None),
    "multiworker": _multiworker,
    "parameter_server": _parameter_server,
    "tpu": _tpu,
}
NAMES = tuple(MAKERS)
