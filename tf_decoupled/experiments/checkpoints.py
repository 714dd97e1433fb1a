"""The folder of a run: whose it is, which checkpoints are whole, going on from the newest of those.

The files `ckpt-N` decide. The text file `checkpoint` beside them, TensorFlow's index, is written
after them and can be lost on its own.
"""

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.files import reason, replace, writing

FOLDER, SETTINGS = "checkpoints", "run.json"
KEPT = 2
WAYS_OUT = "Choose another --out, or delete that folder to start anew."


def claim(out: Path, ours: dict[str, Any], defaults: dict[str, Any], chief: bool) -> None:
    """Compares a run's settings with those in `out`; the chief writes them if there are none.

    `defaults` are those of settings that didn't exist when `out` was begun.
    """
    path = out / SETTINGS
    if chief and not path.exists():
        if present(out / FOLDER):
            raise InputError(
                f"{out} has checkpoints, and {SETTINGS} with the settings of their run is gone. "
                "Put it back, or choose another --out."
            )
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        replace(path, json.dumps(ours, indent=1).encode())
    theirs = defaults | _settings(path) if path.exists() else ours
    differing = [f"{k}: {theirs.get(k)}, not {v}" for k, v in ours.items() if theirs.get(k) != v]
    if differing:
        raise InputError(
            f"{out} holds another run ({'; '.join(differing)}). Choose another --out, or the "
            "settings it was begun with."
        )


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read: {reason(error)}. {WAYS_OUT}") from error
    if not isinstance(settings, dict):
        raise InputError(
            f"{path} is damaged: it holds no settings of a run. {WAYS_OUT} "
            f"Received: {str(settings)[:80]}"
        )
    return settings


def present(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, damaged ones too, from the oldest to the newest."""
    found = (re.fullmatch(r"ckpt-(\d+)\.index", path.name) for path in folder.glob("ckpt-*.index"))
    return [folder / f"ckpt-{n}" for n in sorted(int(match[1]) for match in found if match)]


def damage(path: Path) -> str | None:
    """Why the checkpoint can't be read; None where every number in it can."""
    try:
        reader = tf.train.load_checkpoint(str(path))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, IndexError) as error:  # IndexError: the file is too short
        return reason(error)
    return None


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, and a line about each newer one, which is damaged.

    None where there are no checkpoints. Raises `InputError` where there are, and none is whole.
    """
    lines = []
    for path in reversed(present(folder)):
        if (why := damage(path)) is None:
            return path, lines
        lines.append(f"{path} is damaged ({why}).")
    if lines:
        raise InputError(f"No checkpoint is whole: {' '.join(reversed(lines))} {WAYS_OUT}")
    return None, []


def restore(state: tf.train.Checkpoint, path: Path) -> None:
    """Gives `state` the numbers of a checkpoint. Raises `InputError` where they don't fit."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of an optimizer: it would start anew
            state.restore(str(path)).assert_consumed()
    except (AssertionError, ValueError, UserWarning, tf.errors.OpError) as error:
        raise InputError(f"{path} doesn't fit this run: {reason(error)}. {WAYS_OUT}") from error


def save(state: tf.train.Checkpoint, folder: Path) -> Path:
    """Writes the next checkpoint, and only then removes those before the last `KEPT`."""
    with writing(folder):
        try:
            path = Path(state.save(str(folder / "ckpt")))
        except BaseException:
            for unfinished in folder.glob("ckpt-*_temp"):
                shutil.rmtree(unfinished, ignore_errors=True)
            raise
        for old in present(folder)[:-KEPT]:
            for file in folder.glob(f"{old.name}.*"):
                file.unlink()
    return path
