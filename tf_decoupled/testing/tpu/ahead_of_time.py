"""The child process of `compiler`: StableHLO in, what libtpu makes of it out. No TensorFlow here.

Arguments: a topology, then files `NAME.mlir` with the number of replicas, `NAME.mlir=8`. For each
it prints one line of JSON, and writes the TPU's own program to `NAME.mlir.hlo`.

It leans on private names of jax, as they are in 0.10.2 with libtpu 0.0.42.1: all in `executable`.
"""

import json
import pathlib
import re
import sys
import time

import numpy as np

MEMORY = ("argument", "output", "alias", "temp", "generated_code")


def devices(topology: str) -> list:
    """The cores of "v2:2x2", "v5e:1x1" ..., all on one host."""
    from jax.experimental import topologies

    shape = [int(n) for n in topology.partition(":")[2].split("x")]
    return topologies.get_topology_desc(
        topology_name=topology,
        platform="tpu",
        chips_per_host_bounds=tuple([*shape, 1, 1][:3]),
        num_slices=1,
    ).devices


def executable(stablehlo: str, cores: list):
    """The program compiled for as many replicas as there are cores, and how many results it has."""
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jax._src.lib import xla_client
    from jax._src.lib.mlir import ir

    ids = np.array([[core.id] for core in cores])
    options = compiler.get_compile_options(
        num_replicas=len(cores), num_partitions=1, device_assignment=ids
    )
    with mlir.make_ir_context() as context, ir.Location.unknown(context):
        module = ir.Module.parse(stablehlo)
        remove_copies(module.operation)
        (main,) = (f for f in module.body if f.name.value == "main")
        compiled = cores[0].client.compile(module, xla_client.DeviceList(tuple(cores)), options)
        return compiled, len(main.type.results)


def remove_copies(operation) -> None:
    """TensorFlow leaves an mhlo.copy before a variable's result; the TPU compiler refuses it."""
    for inner in [o.operation for region in operation.regions for block in region for o in block]:
        remove_copies(inner)
        if inner.name == "mhlo.copy":
            inner.results[0].replace_all_uses_with(inner.operands[0])
            inner.erase()


def report(path: pathlib.Path, cores: list) -> dict:
    """What is known of a program once it is compiled; or the compiler's error."""
    start = time.perf_counter()
    try:
        compiled, results = executable(path.read_text(), cores)
    except Exception as error:
        return {"error": str(error)}
    seconds = time.perf_counter() - start
    hlo = compiled.hlo_modules()[0].to_string()
    path.with_suffix(".mlir.hlo").write_text(hlo)
    aliases = re.search(r"input_output_alias=\{(.*?)\}, entry", hlo.partition("\n")[0])
    costs, memory = compiled.cost_analysis(), compiled.get_compiled_memory_stats()
    costs = costs[0] if isinstance(costs, list) else costs
    return {
        "seconds": seconds,
        "results": results,
        "donated": len(re.findall("(?:may|must)-alias", aliases[1])) if aliases else 0,
        "flops": costs.get("flops", 0.0),
        "bytes_accessed": costs["bytes accessed"],
        "memory": {name: getattr(memory, f"{name}_size_in_bytes") for name in MEMORY},
    }


def main(topology: str, *jobs: str) -> None:
    cores = devices(topology)
    for job in jobs:
        name, _, replicas = job.rpartition("=")
        if int(replicas) > len(cores):
            answer = {
                "error": f"{replicas} replicas don't fit the {len(cores)} cores of {topology}"
            }
        else:
            answer = report(pathlib.Path(name), cores[: int(replicas)])
        print(json.dumps({"name": name, **answer}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
