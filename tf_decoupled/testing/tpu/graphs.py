"""Graphs as data: a traced `tpu.replicate` cluster copied out of its graph, collectives replaced.

Everything here turns protocol buffers into protocol buffers; nothing traces or runs.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

PLUMBING = (
    "TPUReplicateMetadata",
    "TPUReplicatedInput",
    "TPUReplicatedOutput",
    "TPUCompilationResult",
)
MARKS = ("_tpu", "_xla", "_class", "_replicated_index", "_post_device_rewrite")

STATELESS = {
    "If": "StatelessIf",
    "While": "StatelessWhile",
    "Case": "StatelessCase",
    "StatefulPartitionedCall": "PartitionedCall",
}
SECONDS_TO_WAIT = 60.0  # for replicas that don't reach a sum; a TPU hangs then

_fresh = itertools.count(1)  # keys of collectives and names of functions: unique in a process


def cluster_nodes(graph: Any) -> list[Any]:
    """The nodes that a TPU would run: the program of one replica."""
    return [n for n in graph.node if "_tpu_replicate" in n.attr and n.op not in PLUMBING]


def functions_called(nodes: Iterable[Any], library: Any) -> Iterator[Any]:
    """The functions that the nodes call, and those that these call, each once."""
    functions, todo = {f.signature.name: f for f in library.function}, list(nodes)
    while todo:
        node = todo.pop()
        named = [f.name for a in node.attr.values() for f in (a.func, *a.list.func)]
        for name in (node.op, *named):
            if name in functions:
                function = functions.pop(name)
                todo += function.node_def
                yield function


class Copies:
    """One replica's program, copied for each device and freed from tpu.replicate, in `graph`.

    Args:
        traced: a graph with one tpu.replicate.
        devices: where copy r goes; "" leaves that open. Fewer than there are replicas are fine.
    """

    def __init__(self, traced: Any, devices: Sequence[str]):
        self.nodes = {n.name: n for n in traced.node}
        self.cluster = {n.name: n for n in cluster_nodes(traced)}
        self.graph = tf.compat.v1.GraphDef(versions=traced.versions, library=traced.library)
        self.outside: dict[str, Any] = {}  # what the program reads, and isn't part of it
        self.results: list[str] = []
        self.count = len(devices)
        for r, device in enumerate(devices):
            for node in self.cluster.values():
                self._add(node, f"replica_{r}/{node.name}", device, r)

    def trace_back(self, outputs: Sequence[str]) -> None:
        """Makes `results` of those tensors of the traced graph that these copies compute."""
        sources = [self.source(name) for name in outputs]
        there = {f"replica_{r}" for r in range(self.count)}
        self.results = [
            s for s in sources if not s.startswith("replica_") or s.split("/")[0] in there
        ]

    @property
    def placeholders(self) -> list[str]:
        """Names of the tensors that the copies are to be given."""
        return [name for name, node in self.outside.items() if node.op == "Placeholder"]

    def _add(self, node: Any, name: str, device: str, replica: int) -> None:
        copy = self.graph.node.add()
        copy.CopyFrom(node)
        copy.name, copy.device = name, device
        for attribute in list(copy.attr):
            if attribute.startswith(MARKS):
                del copy.attr[attribute]
        copy.input[:] = filter(None, (self.source(i, replica) for i in node.input))

    def source(self, tensor: str, replica: int = 0) -> str | None:
        """What replica r has for `tensor`, traced back through tpu.replicate.

        None for control dependencies on what isn't part of the program.
        """
        name, _, index = tensor.partition(":")
        if name.removeprefix("^") in self.cluster:
            caret = "^" if name[0] == "^" else ""
            return f"{caret}replica_{replica}/{tensor.removeprefix('^')}"
        if name[0] == "^":
            return None
        node = self.nodes[name]
        values = [i for i in node.input if i[0] != "^"]
        if node.op == "TPUReplicatedInput":
            return self.source(values[replica if len(values) > 1 else 0], replica)
        if node.op == "TPUReplicatedOutput":
            return self.source(values[0], int(index or 0))
        if node.op == "Identity":
            return self.source(values[0], replica)
        if name not in self.outside:
            self.outside[name] = node
            if node.op != "Placeholder":
                self._add(node, name, "", replica)
        return tensor


def replace_collectives(graph: Any, replicas: int, for_xla: bool) -> None:
    """Puts what XLA compiles, or else what logical CPUs run, for each CrossReplicaSum.

    AllToAll becomes a copy. TensorFlow makes it to give a variable of aggregation
    "only_first_replica" the first one's value everywhere: a copy is right while the replicas agree.
    Other uses raise. So does the mark of a dynamic batch: right while all batches have one size.
    """
    for body in (graph.node, *(f.node_def for f in graph.library.function)):
        by_name = {n.name: n for n in body}
        for node in by_name.values():
            if node.op == "CrossReplicaSum" and replicas > 1:
                replace = _sum_for_xla if for_xla else _sum_on_devices
                replace(node, body, replicas, in_function=body is not graph.node)
            elif node.op in ("CrossReplicaSum", "AllToAll", "XlaSetDynamicDimensionSize"):
                if node.op == "AllToAll":
                    _check_broadcast(node, by_name)
                controls = [i for i in node.input if i[0] == "^"]
                _become(node, "Identity", [node.input[0], *controls])
    if not for_xla:
        _let_replicas_meet(graph)


def _let_replicas_meet(graph: Any) -> None:
    """Frees branches and loops with a collective from TensorFlow's order of stateful operations.

    Replica 1's would wait for the end of replica 0's, which waits for replica 1. Those that touch
    variables are ordered by these, and each replica has its own.
    """
    for node in graph.node:
        types = [t for a, v in node.attr.items() if a in ("T", "Tin") for t in v.list.type]
        if node.op in STATELESS and tf.resource.as_datatype_enum not in types:
            called = functions_called([node], graph.library)
            if any(n.op == "CollectiveReduce" for f in called for n in f.node_def):
                node.op = STATELESS[node.op]


def _check_broadcast(node: Any, by_name: dict[str, Any]) -> None:
    stacked = by_name.get(node.input[0].partition(":")[0])
    if stacked is None or len(set(stacked.input)) > 1 or stacked.op not in ("Pack", "Const"):
        raise NotImplementedError(
            "AllToAll is emulated only where TensorFlow makes it itself, for variables of "
            "aggregation 'only_first_replica'; gather floating point or int32 values instead. "
            f"Received: {node.name}"
        )


def _become(node: Any, op: str, inputs: list[str]) -> None:
    """Makes `node` another op that has its type, its cluster and its name."""
    kept = {name: node.attr[name] for name in node.attr if name == "T" or name.startswith(MARKS)}
    changed = type(node)(name=node.name, op=op, input=inputs, device=node.device, attr=kept)
    node.CopyFrom(changed)


def _sum_on_devices(node: Any, body: Any, replicas: int, in_function: bool) -> None:
    """A collective of the replicas' devices; where a TPU would hang, for others, it gives up."""
    collective = body.add()
    collective.CopyFrom(node)
    collective.name = f"{node.name}/all_reduce"
    _become(collective, "CollectiveReduce", [node.input[0], *node.input[2:]])
    keys = {"group_size": replicas, "group_key": 7000 + replicas, "instance_key": next(_fresh)}
    for name, value in keys.items():
        collective.attr[name].i = value
    collective.attr["timeout_seconds"].f = SECONDS_TO_WAIT
    collective.attr["merge_op"].s, collective.attr["final_op"].s = b"Add", b"Id"
    collective.attr["subdiv_offsets"].list.i[:] = [0]
    _become(node, "Identity", [collective.name + (":data:0" if in_function else "")])


def _sum_for_xla(node: Any, body: Any, replicas: int, in_function: bool) -> None:
    """The operation that is StableHLO's all_reduce."""
    group = body.add()
    group.CopyFrom(node)
    group.name = f"{node.name}/replicas"
    _become(group, "Const", [])
    del group.attr["T"]
    group.attr["dtype"].type = tf.int32.as_datatype_enum
    group.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([list(range(replicas))], tf.int32))
    inputs = [node.input[0], group.name + (":output:0" if in_function else ""), *node.input[2:]]
    _become(node, "XlaAllReduce", inputs)
    node.attr["reduce_op"].s, node.attr["mode"].s = b"Add", b"CrossReplica"


def rename_functions(graph: Any) -> None:
    """Gives each function a name that no other of this process has, since its body has changed."""
    suffix = f"_emulated_{next(_fresh)}"
    names = {f.signature.name for f in graph.library.function}
    for gradient in graph.library.gradient:
        gradient.function_name += suffix
    for function in graph.library.function:
        function.signature.name += suffix
    for node in (*graph.node, *(n for f in graph.library.function for n in f.node_def)):
        if node.op in names:
            node.op += suffix
        for attribute in node.attr.values():
            for called in (attribute.func, *attribute.list.func):
                if called.name in names:
                    called.name += suffix
