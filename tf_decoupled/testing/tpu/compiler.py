"""The TPU compiler without a TPU: libtpu, through jax, in a child process."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from tf_decoupled.testing.tpu.cluster import Program

# No search for TPUs, none for a metadata server, and no lock against a second process.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
CHILD = pathlib.Path(__file__).with_name("ahead_of_time.py")


class CompilerError(RuntimeError):
    """The TPU compiler refused a program, or ended its process over it; with what it said."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the TPU compiler made of a program.

    Attributes:
        topology: the cores that it is for.
        seconds: how long the compilation took.
        assigned: how many variables the program assigns.
        donated: how many of its buffers are written in place. Every assigned variable's should be.
        flops: floating point operations of one step on one core, by XLA's cost model.
        bytes_accessed: bytes that these operations read and write. On v2 that is what the main
            memory moves; on newer cores copies to the vector memory count, too.
        memory: bytes of one core's main memory: "argument", "output", "alias" (of arguments that
            outputs reuse), "temp", "generated_code".
        hlo: the optimized program as text.
    """

    topology: str
    seconds: float
    assigned: int
    donated: int
    flops: float
    bytes_accessed: float
    memory: Mapping[str, int]
    hlo: str

    def uses(self, dtype: str) -> bool:
        """Whether a dtype of XLA, as "f64", occurs anywhere in the program."""
        return f"{dtype}[" in self.hlo


def compile(program: Program, topology: str) -> Compiled:
    """The program compiled for TPU cores: "v2:2x2" (8), "v5e:1x1", "v5e:2x2" (4), "v6e:2x2" ...

    Raises:
        CompilerError: the compiler refuses the program, as when the main memory is too small
            ("RESOURCE_EXHAUSTED"), or it ends its process, as it does over complex128.
        ImportError: jax or libtpu isn't installed.
    """
    (result,) = compile_each([program], topology)
    if isinstance(result, CompilerError):
        raise result
    return result


def compile_each(programs: Sequence[Program], topology: str) -> list[Compiled | CompilerError]:
    """`compile` for several programs, in one process as long as it lives; errors are returned."""
    missing = [name for name in ("jax", "libtpu") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            "The TPU compiler is libtpu, and jax gives access to it: "
            f"pip install 'tf_decoupled[tpu-aot]'. Received: no {' and no '.join(missing)}"
        )
    results: list[Compiled | CompilerError] = []
    with tempfile.TemporaryDirectory() as folder:
        jobs = [pathlib.Path(folder, f"{i}.mlir") for i in range(len(programs))]
        for path, program in zip(jobs, programs, strict=True):
            path.write_text(program.stablehlo)
        while len(results) < len(programs):  # one turn, and another after each crash
            results += _run_child(jobs[len(results) :], programs[len(results) :], topology)
    return results


def _run_child(
    jobs: list[pathlib.Path], programs: Sequence[Program], topology: str
) -> list[Compiled | CompilerError]:
    """The results up to the first program that ends the process, which is one of them."""
    arguments = [f"{job}={program.replicas}" for job, program in zip(jobs, programs, strict=True)]
    child = subprocess.run(
        [sys.executable, str(CHILD), topology, *arguments],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
    )
    answers = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")]
    results = [
        _result(answer, program, topology)
        for answer, program in zip(answers, programs, strict=False)
    ]
    if len(answers) < len(jobs):
        said = re.findall(r"^F\d+ .*|^\w*Error: .*", child.stderr, re.M) or [child.stderr[-2000:]]
        results.append(
            CompilerError(
                f"The TPU compiler ended its process, with exit code {child.returncode}, over a "
                f"program for {topology}: {said[-1]}"
            )
        )
    return results


def _result(answer: dict[str, Any], program: Program, topology: str) -> Compiled | CompilerError:
    if "error" in answer:
        return CompilerError(f"The TPU compiler refuses this for {topology}: {answer['error']}")
    hlo = pathlib.Path(answer.pop("name")).with_suffix(".mlir.hlo").read_text()
    assigned = answer.pop("results") - program.outputs
    return Compiled(topology=topology, assigned=assigned, hlo=hlo, **answer)
