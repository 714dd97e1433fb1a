"""Which operations, of which dtypes, TensorFlow's TPU wheel has kernels for: `kernels.json`.

`python -m tf_decoupled.testing.tpu.kernels` writes that file, in an environment with
tensorflow-tpu==2.20.0 and libtpu<=0.0.24; no TPU is needed. `TPU_SKIP_MDS_QUERY=1` saves minutes.
"""

import functools
import json
import pathlib

import tensorflow as tf

FILE = pathlib.Path(__file__).with_suffix(".json")
DEVICE = "XLA_TPU_JIT"

Kernel = dict[str, list[str]]  # an attribute to the dtypes that it may have


@functools.cache
def table() -> dict[str, list[Kernel]]:
    """For each operation the kernels that there are, usually one."""
    stored = json.loads(FILE.read_text())
    sets = [names.split() for names in stored["dtypes"]]
    return {
        op: [{name: sets[i] for name, i in kernel.items()} for kernel in kernels]
        for op, kernels in stored["kernels"].items()
    }


def registered() -> dict[str, list[Kernel]]:
    """The same from the TensorFlow that is installed; empty where it isn't a TPU wheel."""
    from tensorflow.python.framework import kernels

    # Asking for any TPU program is what registers the kernels.
    probe = tf.function(lambda x: x + 1.0, jit_compile=True, autograph=False)
    ir = probe.experimental_get_compiler_ir(tf.TensorSpec((1,)))
    ir(stage="stablehlo", platform_name="TPU")
    found: dict[str, list[Kernel]] = {}
    for kernel in kernels.get_all_registered_kernels().kernel:
        if kernel.device_type == DEVICE:
            dtypes = {c.name: c.allowed_values.list.type for c in kernel.constraint}
            named = {name: [tf.as_dtype(t).name for t in types] for name, types in dtypes.items()}
            found.setdefault(kernel.op, []).append(named)
    return dict(sorted(found.items()))


def write(found: dict[str, list[Kernel]]) -> None:
    """Stores a table, each set of dtypes once and each operation on a line."""
    sets: dict[str, int] = {}
    lines = []
    for op, kernels in found.items():
        numbered = [
            {name: sets.setdefault(" ".join(sorted(d)), len(sets)) for name, d in kernel.items()}
            for kernel in kernels
        ]
        lines.append(f"{json.dumps(op)}: {json.dumps(numbered)}")
    dtypes, ops = json.dumps(list(sets), indent=0), ",\n".join(lines)
    head = f'"tensorflow-tpu": "{tf.__version__}",\n"dtypes": {dtypes},\n"kernels"'
    FILE.write_text(f"{{{head}: {{\n{ops}\n}}}}\n")


if __name__ == "__main__":
    write(registered())
