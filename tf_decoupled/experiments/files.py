"""What the experiments write: whole files, and one line where a disk or a folder refuses."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from tf_decoupled.experiments.errors import InputError

# A process of the cluster is missing: no file's fault. `app` says so.
PEER_HAS_GONE = (tf.errors.UnavailableError, tf.errors.AbortedError)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises `InputError` where the block can't write `path`: a full disk, no right, no folder."""
    try:
        yield
    except PEER_HAS_GONE:
        raise
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f"{path} can't be written: {reason(error)}.") from error


def reason(error: Exception) -> str:
    """Why a file can't be read or written, in the words of the system, in one line."""
    said = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    said = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]", "", said)  # which operation TensorFlow was at
    return " ".join(said.split()).rstrip(".") or type(error).__name__


def replace(path: Path, content: bytes) -> None:
    """Writes `path`: after a crash or on a full disk it is what it was before, or `content`.

    Raises `InputError` where it can't be written.
    """
    unfinished = path.with_name(f"{path.name}.new")
    with writing(path):
        try:
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise
