"""A terminal that can't show a letter, a pipe that nobody reads, a full disk behind `>`."""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator

READER_HAS_GONE = 141  # as a shell reports SIGPIPE

SPELLED = str.maketrans(
    {"α": "alpha", "λ": "lambda", "η": "eta", "θ": "theta", "²": "2", "₂": "2", "±": "+-"}
    | {"×": "x", "√": "sqrt", "○": "o", "–": "-", "…": "...", "“": '"', "”": '"'}
)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(SPELLED)
    return text.encode("ascii", "replace").decode(), error.end


codecs.register_error("tf_decoupled.spelled", _spelled)


def spell_out() -> None:
    """Letters that the terminal's encoding lacks are written as words, instead of an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="tf_decoupled.spelled")


@contextlib.contextmanager
def output() -> Iterator[None]:
    """Ends the process in peace where nobody reads what the block prints, or no disk holds it."""
    try:
        yield
    finally:
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            _drop()
            sys.exit(READER_HAS_GONE)
        except OSError as error:
            _drop()
            print(f"tf-decoupled: Output can't be written: {error.strerror}.", file=sys.stderr)
            sys.exit(2)


def _drop() -> None:
    """What is still in the buffer goes nowhere, also when Python ends."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
