"""Tests a TensorFlow training step for TPUs on a machine that has none.

    from tf_decoupled.testing import tpu

    strategy = tpu.EmulatedTPUStrategy(4)          # before TensorFlow makes its first tensor
    with strategy.scope():
        model = ...                                # and `compile` and `fit`, if you like
    strategy.run(step, (x, y))                     # runs, on 4 logical CPUs
    cluster = strategy.clusters[-1]                # what was traced; or strategy.trace(step, ...)
    assert not cluster.without_kernel()            # every operation exists on TPUs
    assert not cluster.using("float64")
    assert cluster.count("CrossReplicaSum")["float32"] == len(model.trainable_variables)
    compiled = tpu.compile(cluster.program(), "v5e:2x2")   # needs the extra [tpu-aot]
    assert compiled.donated == compiled.assigned   # every variable is updated in place

What passing proves: TensorFlow's own `TPUStrategy` traces the step; its replicas, run on CPUs with
real collectives, give what you compare them with; operations and dtypes are in the kernel table of
TensorFlow's TPU wheel; and the real TPU compiler, libtpu, turns the program of these replicas into
code that fits the memory. It was compiled by the TPU compiler, not executed on a TPU.

What it doesn't prove: the numbers on the chip (matrix products in bfloat16 passes, approximate
transcendental functions), its speed, more than one host, and TensorFlow's TPU runtime, which
lowers a step by another path (MLIR, packed variable handles) than `program` does.

Limits: a variable of aggregation "only_first_replica" is not copied from the first replica to the
others, so replicas that disagree on one go on to disagree; the last, smaller batch of a data set
isn't padded as on TPUs: use `drop_remainder=True`; a CrossReplicaSum that only some replicas reach,
which hangs TPUs, raises after a minute. complex128 aborts the TPU compiler, which is why it has a
process of its own; `compile` raises then. The program needs a TensorFlow whose XLA compiles for
CPUs, as `tensorflow` and `tensorflow-cpu` do, and `tensorflow-tpu` doesn't; the emulation runs with
all three. It leans on private names: TensorFlow 2.20.0 and 2.21.0, jax 0.10.2 with libtpu 0.0.42.1.
"""

from tf_decoupled.testing.tpu.cluster import Cluster, Operation, Program, lowered
from tf_decoupled.testing.tpu.compiler import Compiled, CompilerError, compile, compile_each
from tf_decoupled.testing.tpu.strategy import EmulatedTPUStrategy

__all__ = [
    "Cluster",
    "Compiled",
    "CompilerError",
    "EmulatedTPUStrategy",
    "Operation",
    "Program",
    "compile",
    "compile_each",
    "lowered",
]
