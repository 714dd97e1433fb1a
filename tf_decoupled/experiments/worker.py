"""Processes that compute cells: the parent's side (`Pool`) and the child's (`serve`).

Every worker computes with one thread, so that a cell's outcome doesn't depend on how many there
are. On two cores two of them finish 1.7 times as many cells as one process with two threads.
A child reads pickled cells from its stdin and answers each with its outcome on its stdout.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from tf_decoupled.experiments.data import Dataset
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.grid import Cell, Settings
from tf_decoupled.experiments.results import Outcome

STDERR_SHOWN = 2000


class WorkerError(RuntimeError):
    """A worker died or failed: not the user's input, and not to be hidden either."""


class Worker:
    """A child process, started at once; a call waits for the outcome of one cell."""

    def __init__(self, settings: Settings, dataset: Dataset):
        self._setup = (settings, dataset)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            start_new_session=True,  # Ctrl-C is the parent's: it stops its children itself.
        )

    def __call__(self, cell: Cell) -> Outcome:
        try:
            if self._setup:
                self._send(self._setup)
                self._setup = None
            self._send(cell)
            answer = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise WorkerError(self._last_words(cell)) from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _send(self, message: Any) -> None:
        pickle.dump(message, self._process.stdin)
        self._process.stdin.flush()

    def _last_words(self, cell: Cell) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        said = self._stderr.read().decode("utf-8", "replace")[-STDERR_SHOWN:].strip()
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"A worker process {ended} while it computed {cell}." + (said and f"\n{said}")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            with contextlib.suppress(OSError):  # What was buffered for a process that is gone.
                stream.close()


class Pool:
    """`count` workers. A context: on leaving it, also by Ctrl-C or an error, they are stopped."""

    def __init__(self, settings: Settings, dataset: Dataset, count: int):
        self._workers = [Worker(settings, dataset) for _ in range(count)]
        self._threads = ThreadPoolExecutor(count)
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def compute(self, cells: list[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        """The outcomes of `cells`, each as soon as it is there. Raises `WorkerError`."""
        futures = [self._threads.submit(self._one, cell) for cell in cells]
        for future in as_completed(futures):
            yield future.result()

    def _one(self, cell: Cell) -> tuple[Cell, Outcome]:
        worker = self._idle.get()
        try:
            return cell, worker(cell)
        finally:
            self._idle.put(worker)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.stop()


def serve() -> None:
    """The child: answers until its stdin ends, with outcomes or with the exception it met."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What a library prints must not get between the answers.
    try:
        cells = prepare(*pickle.load(requests))
        while True:
            pickle.dump(cells(pickle.load(requests)), answers)
            answers.flush()
    except EOFError:
        return
    except InputError as error:
        pickle.dump(error, answers)
    except Exception:
        pickle.dump(WorkerError(f"A worker process failed.\n{traceback.format_exc()}"), answers)
    answers.flush()


def prepare(settings: Settings, dataset: Dataset) -> Any:
    """`Cells` in a process whose numbers can be repeated: one thread, deterministic operations."""
    import tensorflow as tf

    from tf_decoupled.experiments.cells import Cells

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(0)
    return Cells(settings, dataset)


if __name__ == "__main__":
    # By its name, as what is pickled in __main__ can't be unpickled by the parent.
    from tf_decoupled.experiments import worker

    worker.serve()
