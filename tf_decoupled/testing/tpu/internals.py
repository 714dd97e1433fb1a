"""All that leans on private names of TensorFlow, as they are in 2.20.0 and 2.21.0.

What is gone in another version raises, and names itself.
"""

import collections
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from tf_decoupled.testing.tpu.graphs import Copies

OF_A_STRATEGY = ("_enable_packed_variable_in_eager_mode",)
OF_ITS_EXTENDED = (
    "_tpu_devices",
    "_host_device",
    "_device_input_worker_devices",
    "_host_input_worker_devices",
    "_tpu_function_creator",
    "tpu_run",
)


def move_to_cpus(
    strategy: tf.distribute.TPUStrategy, devices: list[str], host: str, run: Callable
) -> None:
    """Makes these devices the strategy's cores, and `run` what it does instead of running them."""
    extended = strategy.extended
    missing = [name for name in OF_A_STRATEGY if not hasattr(strategy, name)]
    missing += [name for name in OF_ITS_EXTENDED if not hasattr(extended, name)]
    if missing:
        raise RuntimeError(
            "The emulation needs TensorFlow 2.20 or 2.21: its TPUStrategy has what is replaced "
            f"here. Received: TensorFlow {tf.__version__}, without {missing}"
        )
    extended._tpu_devices = np.array([[device] for device in devices], dtype=object)
    extended._host_device = host
    extended._device_input_worker_devices = collections.OrderedDict({host: devices})
    extended._host_input_worker_devices = collections.OrderedDict({host: [host] * len(devices)})
    extended.tpu_run = tf.autograph.experimental.do_not_convert(run)
    strategy._enable_packed_variable_in_eager_mode = False  # one handle for all cores: TPUs only


def replication(strategy: tf.distribute.TPUStrategy, fn: Callable, options: Any) -> Callable:
    """TensorFlow's own function of (args, kwargs) that calls `fn` in a tpu.replicate."""
    return strategy.extended._tpu_function_creator(fn, options)


def captures(concrete: Any) -> dict[str, tf.Tensor]:
    """What each placeholder of a traced function stands for, outside of it."""
    return {inside.name.split(":")[0]: outside for outside, inside in concrete.graph.captures}


def paste(copies: Copies, values: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
    """Puts the copies into the graph that is being traced; returns their results.

    `values` stand for their placeholders, and may be of any graph around this one.
    """
    here = tf.compat.v1.get_default_graph()
    for function in copies.graph.library.function:
        context.context().add_function_def(function)
    return tf.graph_util.import_graph_def(
        copies.graph,
        input_map={name: here.capture(value) for name, value in values.items()},
        return_elements=[r if ":" in r else f"{r}:0" for r in copies.results],
        name="cluster",
    )
