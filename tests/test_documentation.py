"""Every command line of the documentation: its flags exist, and it runs, on few images."""

import contextlib
import functools
import pathlib
import re
import shlex

import pytest
from test_distributed_training import SHELL

from tf_decoupled.experiments import app, sweep
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
}
CLUSTER = ("multiworker", "parameter_server")


def commands(text):
    """Lines that are a command, after an indentation, a comment sign or a make variable."""
    lines = re.findall(r"^[#\s]*(?:\$\(BIN\)/)?(tf-decoupled [^`\n]*)$", text, re.MULTILINE)
    return lines + re.findall(r"`(tf-decoupled [^`\n]+)`", text)


COMMANDS = sorted({each.strip() for path in DOCUMENTS for each in commands(path.read_text())})
ALONE = [each for each in COMMANDS if not any(f"--strategy {name}" in each for name in CLUSTER)]


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
    pool = lambda *arguments: contextlib.nullcontext(Here(*arguments))  # noqa: E731
    monkeypatch.setattr(app, "sweep", functools.partial(sweep.sweep, pool=pool))
    arguments = shlex.split(command, comments=True)
    app.main(app.parse([*arguments, *SMALL.get(arguments[1], ())]))
    said = capsys.readouterr().out
    expected = {"sweep": "best cell (validation)", "train": "Test error: "}
    assert expected.get(arguments[1], "AdamW") in said
