"""The command: reads files, prints what is to change, and changes nothing."""

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tf_decoupled.migrate.finding import Finding, findings

NOTHING, FOUND, UNREADABLE = 0, 1, 2
USAGE = """\
usage: python -m tf_decoupled.migrate FILE.py ...

Prints the lines that use optimizers of Keras, TensorFlow Addons, transformers, optax, PyTorch or
timm, and what to write in their place. Files stay as they are. `-` reads the standard input, a
folder all Python files in it. Exit codes: 0, there is nothing to change; 1, there is; 2, a file
could not be read."""


class Unreadable(Exception):
    """A file that is no Python, or can't be read, in one line."""


def check(paths: Sequence[str]) -> int:
    """Prints the findings in these files and folders; the exit code."""
    code, total = NOTHING, 0
    for path in paths:
        try:
            for file, source in _sources(path):
                found = _read(file, source)
                total += len(found)
                print("".join(_shown(file, each) for each in found), end="")
        except Unreadable as error:
            print(f"migrate: {error}", file=sys.stderr)
            code = UNREADABLE
    if code == NOTHING and total == 0:
        print("Nothing to change, of what this command knows.")
    return code or (FOUND if total else NOTHING)


def _sources(path: str) -> Iterable[tuple[str, bytes]]:
    """Each file's name and contents."""
    if path == "-":
        yield "<stdin>", sys.stdin.buffer.read()
        return
    folder = Path(path)
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]
    if not files:
        raise Unreadable(f"{path}: a folder without Python files.")
    for file in files:
        try:
            yield str(file), file.read_bytes()
        except OSError as error:
            raise Unreadable(f"{file}: can't be read: {error.strerror}.") from error


def _read(name: str, source: bytes) -> list[Finding]:
    try:
        return findings(importlib.util.decode_source(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        where = f"{name}:{line}" if line else name
        told = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
        raise Unreadable(f"{where}: this is no Python that can be read: {told}.") from error


def _shown(name: str, finding: Finding) -> str:
    new = finding.new or "(by hand)"
    return f"{name}:{finding.line}: {finding.old}\n  -> {new}\n     {finding.why}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line's entry."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if any(each in ("-h", "--help", "help") for each in arguments):
        print(USAGE)
        return NOTHING
    flags = [each for each in arguments if each.startswith("-") and each != "-"]
    if not arguments or flags:
        told = f"unknown flag {flags[0]!r}" if flags else "it needs files"
        print(f"migrate: {told}: python -m tf_decoupled.migrate FILE.py ...", file=sys.stderr)
        return UNREADABLE
    return check(arguments)
