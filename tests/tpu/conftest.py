"""Child processes, each run once for all tests and all workers of a session, and their results."""

import fcntl
import functools
import importlib.util
import os
import pathlib
import pickle
import subprocess
import sys

import pytest

from tf_decoupled.testing import tpu

CHILD = pathlib.Path(__file__).with_name("child.py")


def pytest_configure(config):
    config.addinivalue_line("markers", "tpu: needs a TPU; TF_DECOUPLED_TPU=local or its address")


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder of this session that all of its workers see."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def once(folder, make):
    """What `make(folder)` returns, from whichever worker gets here first."""
    folder.mkdir(exist_ok=True)
    result = folder / "result"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            result.write_bytes(pickle.dumps(make(folder)))
    return pickle.loads(result.read_bytes())


def run_child(replicas, folder):
    """Returns the end of its output if it failed."""
    command = [sys.executable, str(CHILD), str(replicas), str(folder)]
    child = subprocess.run(command, capture_output=True, text=True)
    return child.stderr[-3000:] or "no output" if child.returncode else ""


@pytest.fixture(scope="session")
def emulated(shared):
    """`emulated(replicas, row)`: the stem of the files that the child leaves; see child.py."""

    @functools.cache
    def folder_of(replicas):
        folder = shared / f"emulated {replicas}"
        return folder, once(folder, functools.partial(run_child, replicas))

    def stem(replicas, row):
        folder, failure = folder_of(replicas)
        if not (folder / f"{row}.done").exists():
            pytest.fail(f"The child process has no result for {row!r}. It ended with:\n{failure}")
        return str(folder / row)

    return stem


@pytest.fixture(scope="session")
def compiled(shared, emulated):
    """`compiled(topology, replicas, row)`: the `tpu.Compiled` of the row's program."""
    if not all(map(importlib.util.find_spec, ("jax", "libtpu"))):
        pytest.skip("needs jax and libtpu: the extra [tpu-aot]")

    @functools.cache
    def programs_of(replicas, row):
        emulated(replicas, row)
        folder = shared / f"emulated {replicas}"
        return {p.stem: pickle.loads(p.read_bytes()) for p in sorted(folder.glob("*.program"))}

    @functools.cache
    def all_of(topology, replicas, row):
        programs = programs_of(replicas, row)
        if row not in programs:
            pytest.skip("needs a TensorFlow whose XLA compiles for CPUs")
        chosen = programs if row != "big" else {"big": programs["big"]}

        def make(_):
            results = tpu.compile_each(list(chosen.values()), topology)
            return dict(zip(chosen, results, strict=True))

        return once(shared / f"compiled {topology} {replicas} {row == 'big'}", make)

    def result(topology, replicas, row):
        found = all_of(topology, replicas, row)[row]
        if isinstance(found, tpu.CompilerError):
            raise found
        return found

    return result
