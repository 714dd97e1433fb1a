"""The numbers and names of a `tf.train.Checkpoint`, without the objects that it was made of."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from tf_decoupled.engine.checking import Where

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # ends each key of a variable


class Checkpoint(NamedTuple):
    """arrays: by key. names: the full name of the variable of each key. root: the optimizer's."""

    arrays: dict[str, np.ndarray]
    names: dict[str, str]
    root: str


def read(where: Where, prefix: str, counter: str, whose: str) -> Checkpoint:
    """The checkpoint, with the one optimizer in it whose counter has this name."""
    try:
        reader = tf.train.load_checkpoint(prefix)
    except (tf.errors.NotFoundError, ValueError):
        where.refuse(
            ValueError, "a file with a known ending, or the prefix of a checkpoint", prefix
        )
    graph = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    names = {a.checkpoint_key: a.full_name for node in graph.nodes for a in node.attributes}
    names = {key: name for key, name in names.items() if key.endswith(VALUE)}
    end = counter + VALUE
    roots = [key.removesuffix(end) for key in names if key == end or key.endswith(f"/{end}")]
    if len(roots) != 1:
        raise ValueError(
            f"The checkpoint must hold one {whose} optimizer. Restore it into {whose}'s optimizer "
            f"and import that. Received: {len(roots)} optimizers in {prefix!r}: {roots}"
        )
    return Checkpoint({key: reader.get_tensor(key) for key in names}, names, roots[0])
