"""Every command line of the documentation: its flags exist, and it runs, on few images."""

import contextlib
import functools
import pathlib
import re
import shlex
import sys

import keras
import numpy as np
import pytest
from test_distributed_training import SHELL

from tf_decoupled.experiments import app, data, sweep
from tf_decoupled.experiments.cells import Cells

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(path for path in (ROOT / "colab").glob("*.py")),
]
# What makes a command short. A flag that is given twice counts the second time.
SMALL = {
    "sweep": (
        *("--epochs=1", "--examples=32", "--batch-size=16", "--alphas=0.001"),
        *("--lambdas=0,0.1", "--seeds=0", "--workers=1"),
    ),
    "train": ("--epochs=1", "--examples=32", "--batch-size=16"),
    "curves": ("--epochs=1", "--examples=32", "--batch-size=16"),
}
CLUSTER = ("multiworker", "parameter_server")


def commands(text):
    """Lines that are a command, after an indentation, a comment sign or a make variable."""
    lines = re.findall(r"^[#\s]*(?:\$\(BIN\)/)?(tf-decoupled [^`\n]*)$", text, re.MULTILINE)
    return lines + re.findall(r"`(tf-decoupled [^`\n]+)`", text)


COMMANDS = sorted({each.strip() for path in DOCUMENTS for each in commands(path.read_text())})
ALONE = [each for each in COMMANDS if not any(f"--strategy {name}" in each for name in CLUSTER)]


(MODULE,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/command-line.md").read_text(), re.S)


def mnist():
    """In the place of a download: as many images, of nothing."""
    labels = np.arange(6000) % 10
    return (np.zeros((6000, 28, 28), "uint8"), labels), (np.zeros((32, 28, 28)), labels[:32])


def cifar10(name, data_dir):
    """In the place of the archive in a folder: the same shapes."""
    split = data.Split(np.zeros((32, 32, 32, 3), "uint8"), np.arange(32) % 10)
    return data.Dataset("cifar10", split, split, split, classes=10)


class Here:
    """A pool of no process: cells are computed in this one."""

    def __init__(self, settings, dataset, count):
        self.cells = Cells(settings, dataset)

    def __call__(self, cells):
        return ((cell, self.cells(cell)) for cell in cells)

    compute = __call__


def test_the_documents_have_commands_of_every_verb_but_plot():
    assert {shlex.split(each)[1] for each in COMMANDS} >= app.VERBS.keys() - {"plot"}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_flags_of_a_documented_command_exist(command):
    arguments = shlex.split(command, comments=True)
    assert app.parse(arguments) == arguments


def test_the_commands_of_clusters_are_run_with_their_processes():
    assert all(any(each in block for block in SHELL) for each in set(COMMANDS) - set(ALONE))


@pytest.mark.slow
@pytest.mark.parametrize("command", ALONE)
def test_a_documented_command_runs(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_module.py").write_text(MODULE)
    (tmp_path / "train.py").write_text("import keras\nkeras.optimizers.AdamW(1e-3)\n")
    monkeypatch.setattr(keras.datasets.mnist, "load_data", mnist)
    arguments = shlex.split(command, comments=True)
    if "paper" in arguments:
        monkeypatch.setattr(data, "load", cifar10)
        arguments += ["--model=shake_shake_8_2x2d"]
    pool = lambda *arguments: contextlib.nullcontext(Here(*arguments))  # noqa: E731
    monkeypatch.setattr(app, "sweep", functools.partial(sweep.sweep, pool=pool))
    # As linters do, `migrate` exits with 1 where there are lines to change.
    ends = pytest.raises(SystemExit, match="1") if arguments[1] == "migrate" else None
    with ends or contextlib.nullcontext():
        app.main(app.parse([*arguments, *SMALL.get(arguments[1], ())]))
    said = capsys.readouterr().out
    expected = {"sweep": r"best cells? \(validation\)", "train": "Test error: "}
    assert re.search(expected.get(arguments[1], "AdamW|SGDW"), said)
    sys.modules.pop("my_module", None)
