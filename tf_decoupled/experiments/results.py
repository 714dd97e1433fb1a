"""The CSV of a sweep: one line per finished cell, on the disk before the next one."""

import contextlib
import csv
import io
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.files import reason, replace, writing
from tf_decoupled.experiments.grid import Cell, Settings

MARK = "# tf-decoupled sweep "
COLUMNS = (
    "form",
    "schedule",
    "alpha",
    "lambda",
    "seed",
    "train_loss",
    "validation_error",
    "test_error",
)


class Outcome(NamedTuple):
    """What a cell gave. Errors are shares of the images; all is NaN in a diverged cell."""

    train_loss: float
    validation_error: float
    test_error: float

    @property
    def diverged(self) -> bool:
        return math.isnan(self.test_error)


DIVERGED = Outcome(math.nan, math.nan, math.nan)


class Contents(NamedTuple):
    """A CSV as read. `complete` is its length in bytes up to the end of its last whole line."""

    settings: Settings
    outcomes: dict[Cell, Outcome]
    complete: int
    half_written: bool


def read(path: Path) -> Contents:
    """The settings and outcomes in the CSV at `path`; a last line without its end is left out.

    Raises `InputError` where there is no file, where it isn't a sweep's, or a line is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read: {reason(error)}.") from error
    complete = content.rfind(b"\n") + 1
    lines = content[:complete].decode("utf-8", "replace").splitlines()
    settings = _settings(path, lines)
    outcomes = {}
    for number, line in enumerate(lines[2:], start=3):
        cell, outcome = _parse(path, number, line)
        outcomes[cell] = outcome
    return Contents(settings, outcomes, complete, complete < len(content))


def _settings(path: Path, lines: list[str]) -> Settings:
    if len(lines) < 2 or not lines[0].startswith(MARK) or lines[1] != ",".join(COLUMNS):
        raise InputError(f"{path} isn't the CSV of a sweep: its first two lines aren't a header.")
    try:
        values = json.loads(lines[0][len(MARK) :])
        if not isinstance(values, dict):
            raise TypeError(f"they must be names with values. Received: {values!r}")
        return Settings.from_json(values)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}, line 1: its settings can't be read: {error}") from error


def _parse(path: Path, number: int, line: str) -> tuple[Cell, Outcome]:
    try:
        form, schedule, alpha, lam, seed, *measured = next(csv.reader([line]), [])
        cell = Cell(form, schedule, float(alpha), float(lam), int(seed))
        return cell, Outcome(*map(float, measured))
    except (ValueError, TypeError, csv.Error):
        raise InputError(
            f"{path}, line {number} is damaged: {line!r}. Delete that line; its cell is then "
            "computed again."
        ) from None


def _line(values: tuple) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _header(settings: Settings) -> str:
    return MARK + json.dumps(settings.to_json()) + "\n" + _line(COLUMNS)


class Results:
    """The CSV at `path`, opened to be continued, or begun.

    `outcomes` is all that it holds; `note` says what had to be dropped on opening, or is "".
    Raises `InputError` where it holds another sweep, or can't be written.
    """

    def __init__(self, path: Path, settings: Settings):
        self.path, self.settings = path, settings
        self.outcomes: dict[Cell, Outcome] = {}
        self.note = ""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            complete = self._take_up()
            self._file = path.open("ab")
            self._file.truncate(complete)
        if not complete:
            self._write(_header(settings))

    def _take_up(self) -> int:
        """Reads what is there, and returns how many bytes of it are kept."""
        content = self.path.read_bytes() if self.path.exists() else b""
        if _header(self.settings).encode().startswith(content):
            return 0
        found = read(self.path)
        differences = self.settings.differences(found.settings)
        if differences and not found.outcomes:
            return 0
        if differences:
            raise InputError(
                f"{self.path} holds another sweep ({'; '.join(differences)}). It is left as it "
                "is: choose another --out, or the settings it was made with."
            )
        self.outcomes = found.outcomes
        if found.half_written:
            self.note = f"{self.path}: a half-written last line is dropped and computed again."
        return found.complete

    def _write(self, text: str) -> None:
        with writing(self.path):
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())

    def append(self, cell: Cell, outcome: Outcome) -> None:
        self._write(_line((*cell, *outcome)))
        self.outcomes[cell] = outcome

    def sort(self, cells: list[Cell]) -> None:
        """Rewrites the file in the order of `cells`, whatever the order in which they finished."""
        others = [cell for cell in self.outcomes if cell not in set(cells)]
        lines = [_line((*cell, *self.outcomes[cell])) for cell in cells + others]
        self.close()
        replace(self.path, (_header(self.settings) + "".join(lines)).encode())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what a full disk didn't take; it has been said
            self._file.close()

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
