"""benchmarks/repeat_demo.py: which sweeps it runs, and when it says that they agree."""

import importlib.util
import pathlib

import pytest

from tf_decoupled.experiments.statistics import Estimate
from tf_decoupled.experiments.summary import MEASURES, Comparison

SCRIPT = pathlib.Path(__file__).parents[1] / "benchmarks" / "repeat_demo.py"
spec = importlib.util.spec_from_file_location("repeat_demo", SCRIPT)
repeat_demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(repeat_demo)


def found(*differences):
    unknown = Estimate(0.5, 0.4, 0.6)
    return [
        Comparison(measure, unknown, unknown, Estimate(value, value - 0.1, value + 0.1))
        for measure, value in zip(MEASURES, differences, strict=True)
    ]


def test_sets_of_seeds_have_none_in_common_and_the_first_is_repeated_with_other_floats():
    *sets, other = repeat_demo.runs(seeds=4, sets=3)
    seeds = [s for run in sets for s in range(run.first, run.last + 1)]
    assert seeds == list(range(12))
    assert not any(run.environment for run in sets)
    assert (other.first, other.last) == (0, 3)
    assert other.environment == {"TF_ENABLE_ONEDNN_OPTS": "0"}
    assert len({run.name for run in (*sets, other)}) == 4


def test_sweeps_that_claim_the_same_agree_whatever_their_numbers():
    table, same = repeat_demo.side_by_side({"a": found(0, 0.3, 0.9), "b": found(0.05, 0.2, 0.4)})
    assert same
    assert "tuned test error, %: nothing is claimed in both" in table.replace("all 2", "both")
    assert "drift of the best λ: above 0 in all 2" in table
    assert "+0.90 [+0.80, +1.00]" in table and "+0.40 [+0.30, +0.50]" in table


@pytest.mark.parametrize("other", [(0.2, 0.3, 0.9), (0, 0.05, 0.9), (0, 0.3, -0.9)])
def test_a_claim_that_is_not_made_by_all_is_shown(other):
    table, same = repeat_demo.side_by_side({"a": found(0, 0.3, 0.9), "b": found(*other)})
    assert not same
    assert table.count("NOT THE SAME IN ALL") == 1


def test_every_sweep_is_the_command_with_the_flags_that_are_not_the_scripts(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        repeat_demo, "swept", lambda run, *rest: asked.append((run, *rest)) or found(0, 1, 1)
    )
    assert repeat_demo.main(["--sets=1", "--optimizer=adam", "--epochs=1", "--out=try"]) == 0
    ((run, *rest), (again, *_)) = asked
    assert rest == [pathlib.Path("try"), "adam", ["--epochs=1", "--preset=quick"]]
    assert run.environment != again.environment and run.first == again.first == 0
    assert "above 0 in all 2" in capsys.readouterr().out
