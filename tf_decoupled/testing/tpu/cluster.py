"""What a step is to a TPU: the operations of its cluster, checked, and its program."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_decoupled.testing.tpu import graphs, internals, kernels

# TensorFlow compiles these itself, of whatever dtype.
STRUCTURE = {"Placeholder", "NoOp", "Identity", "IdentityN", "If", "StatelessIf", "While"}
STRUCTURE |= {"StatelessWhile", "Case", "StatelessCase", "PartitionedCall"}
STRUCTURE |= {"StatefulPartitionedCall"}


@dataclasses.dataclass(frozen=True)
class Operation:
    """One node of a cluster: its op, its name, its attributes that are dtypes, and where it is."""

    op: str
    name: str
    dtypes: Mapping[str, tuple[str, ...]]
    function: str = ""

    def has_kernel(self) -> bool:
        """Whether TensorFlow's TPU wheel has a kernel for the op and these dtypes."""
        if self.op in STRUCTURE:
            return True
        return any(
            all(d in allowed for name, allowed in kernel.items() for d in self.dtypes.get(name, ()))
            for kernel in kernels.table().get(self.op, ())
        )

    def __str__(self) -> str:
        dtypes = ", ".join(f"{name}={' '.join(d)}" for name, d in self.dtypes.items())
        return f"{self.op}({dtypes}) {self.name}" + (f" in {self.function}" * bool(self.function))


@dataclasses.dataclass(frozen=True)
class Program:
    """One replica's program in StableHLO, for `compile`.

    Its parameters are the tensors given, then the variables; its results the `outputs` tensors,
    then each variable that it assigns.
    """

    stablehlo: str
    replicas: int
    outputs: int


@dataclasses.dataclass(frozen=True)
class Cluster:
    """One call of `strategy.run`, as traced for a TPU.

    Attributes:
        graph: the traced GraphDef, with its `tpu.replicate`.
        captures: what its placeholders stand for.
        outputs: names of the tensors that the call returns.
        replicas: how many the strategy has.
    """

    graph: Any
    captures: Mapping[str, tf.Tensor]
    outputs: Sequence[str]
    replicas: int

    def operations(self) -> Iterator[Operation]:
        """Every operation that one TPU core would run, also in branches, loops and functions."""
        nodes, library = graphs.cluster_nodes(self.graph), self.graph.library
        functions = {f.signature.name for f in library.function}
        bodies = [("", nodes)]
        bodies += [(f.signature.name, f.node_def) for f in graphs.functions_called(nodes, library)]
        for where, body in bodies:
            yield from (_operation(node, where) for node in body if node.op not in functions)

    def without_kernel(self) -> list[str]:
        """The operations that a TPU can't run, written out; empty is good.

        From the table of TensorFlow 2.20's TPU wheel, the newest there is. A real TPU may run some
        of them on its host.
        """
        return [str(operation) for operation in self.operations() if not operation.has_kernel()]

    def count(self, op: str) -> Counter:
        """How often an op occurs, by dtype: `count("CrossReplicaSum")["float32"]`."""
        return Counter(o.dtypes.get("T", ("",))[0] for o in self.operations() if o.op == op)

    def using(self, dtype: str) -> list[str]:
        """The operations with this dtype, written out."""
        return [str(o) for o in self.operations() if any(dtype in d for d in o.dtypes.values())]

    def copies(self, devices: Sequence[str], for_xla: bool) -> graphs.Copies:
        """The program once per device, with collectives for XLA or for logical CPUs."""
        graph = tf.compat.v1.GraphDef()
        graph.CopyFrom(self.graph)
        graphs.replace_collectives(graph, self.replicas, for_xla)
        graphs.rename_functions(graph)
        copies = graphs.Copies(graph, devices)
        copies.trace_back(self.outputs)
        return copies

    def program(self) -> Program:
        """One replica's program on the first replica's variables, with sums over all replicas.

        Raises:
            ValueError: an input has no static shape; on TPUs use `drop_remainder=True`.
        """
        copies = self.copies([""], for_xla=True)
        captures = {name: self.captures[name] for name in copies.placeholders}
        tensors = {name: t for name, t in captures.items() if t.dtype != tf.resource}
        dynamic = [t.name for t in tensors.values() if not t.shape.is_fully_defined()]
        if dynamic:
            raise ValueError(
                "XLA compiles static shapes: batch with `drop_remainder=True`, or call `run` with "
                f"tensors of known shape. Received, without one: {dynamic}"
            )

        @functools.partial(tf.function, jit_compile=True, autograph=False)
        def program(*tensors_given):
            return internals.paste(
                copies, captures | dict(zip(tensors, tensors_given, strict=True))
            )

        specs = [tf.TensorSpec(t.shape, t.dtype) for t in tensors.values()]
        return lowered(program, *specs, replicas=self.replicas)


def lowered(function: Any, *specs: tf.TensorSpec, replicas: int = 1) -> Program:
    """The program of any `tf.function(jit_compile=True)` for these arguments."""
    outputs = tf.nest.flatten(function.get_concrete_function(*specs).structured_outputs)
    stablehlo = function.experimental_get_compiler_ir(*specs)(stage="stablehlo")
    return Program(stablehlo, replicas, sum(tf.is_tensor(o) for o in outputs))


def _operation(node: Any, function: str = "") -> Operation:
    dtypes = {
        name: tuple(tf.as_dtype(t).name for t in (attribute.list.type or [attribute.type]))
        for name, attribute in sorted(node.attr.items())
        if attribute.type or attribute.list.type
    }
    return Operation(node.op, node.name, dtypes, function)
