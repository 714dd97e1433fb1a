"""What an editor says of a user's lines: the stub is that of the package, and mypy reads it."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

HOUSE = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(HOUSE / "tools"))
import write_stub  # noqa: E402

LINES = """\
import tf_decoupled as td

td.AdamW(1e-3, 0.01, beta_1=0.95)
td.AdamW(td.schedules.Cosine(1e-3, 100), clipnorm=1, decay_mask=td.masks.matrices)
td.Lookahead(td.SGDW(0.1, momentum=0.9), use_ema=True).check_skips()
td.Partition([(td.masks.matrices, td.Muon(0.02)), (None, td.AdamW())], global_clipnorm=1.0)
class Mine(td.Optimizer):
    beta: td.Beta = 0.9
Mine(1e-3, beta=0.5, clipnorm=1.0)
td.AdamW(lr=1e-3)  # Unexpected keyword argument "lr"
td.SGDW(0.1, beta_1=0.9)  # Unexpected keyword argument "beta_1"
td.AdamW(1e-3, 0.1, 0.9)  # Too many positional arguments
td.Lion(clipnrom=1.0)  # Unexpected keyword argument "clipnrom"
td.Muon(scale="unknown")  # Argument "scale" to "Muon" has incompatible type
"""


def test_the_stub_is_what_the_package_would_write():
    assert write_stub.STUB.read_text() == write_stub.written()


def test_mypy_finds_what_is_wrong_and_nothing_else(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "lines.py").write_text(LINES)
    options = ("--ignore-missing-imports", "--follow-imports=silent", f"--cache-dir={tmp_path}")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "lines.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(HOUSE)},
        capture_output=True,
        text=True,
    )
    found = dict(re.findall(r"lines\.py:(\d+): error: (.*)", run.stdout))
    wrong = {i: line for i, line in enumerate(LINES.splitlines(), 1) if "  # " in line}
    assert found.keys() == set(map(str, wrong)), run.stdout
    for number, line in wrong.items():
        assert found[str(number)].startswith(line.partition("  # ")[2])
