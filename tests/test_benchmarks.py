"""benchmarks/step_time.py: its variables are those of the networks, and it prints a table.

benchmarks/monitor_cost.py prints one, too.
"""

import importlib.util
import math
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[1] / "benchmarks" / "step_time.py"


def loaded(script):
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


step_time = loaded(SCRIPT)


@pytest.fixture
def in_this_process(monkeypatch):
    """No processes of their own, which would take seconds to import TensorFlow."""
    monkeypatch.setattr(step_time, "measured_apart", step_time.measure)


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    [
        ("resnet50", 161, 25_557_032),
        ("bert_base", 199, 109_482_240),
        ("efficientnet_b7", 711, 66_347_960),
        ("small_2000", 2000, 1000 * 65 * 64),
        ("small_5000", 5000, 2500 * 65 * 64),
        ("small_lamb", 1000, 1000 * 64 * 64),
    ],
)
def test_a_workload_has_the_tensors_and_parameters_of_its_network(name, tensors, parameters):
    shapes = step_time.WORKLOADS[name].shapes()
    assert len(shapes) == tensors
    assert sum(map(math.prod, shapes)) == parameters


def test_the_smallest_workload_prints_a_table_of_positive_numbers(in_this_process, capsys):
    assert step_time.main(["tiny", "--quick"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "|" in line]
    rows = {cells[0]: cells[1:] for cells in (line.strip("| ").split(" | ") for line in lines)}
    ours, keras = rows["td.AdamW"], rows["tf.keras AdamW"]
    assert len(ours) == len(keras) == len(rows["contestant"])
    assert keras[2] == keras[4] == "1.00"
    for step, _, ratio, first, first_ratio, peak in (ours, keras):
        assert min(map(float, (step, ratio, first, first_ratio, peak))) > 0


def test_a_process_of_its_own_measures_the_first_step_and_the_peak():
    result = step_time.measured_apart("tiny", "plain", ["td.AdamW"], 0)
    assert result["first"]["td.AdamW"] > 0 and result["median"] == {}
    assert 0.1 < result["peak"] < 10  # GB


def test_the_process_that_starts_the_others_is_light():
    """On Linux a process begins with the peak of the one that started it."""
    code = (
        "import sys, step_time as s; s.contestants(s.WORKLOADS['tiny'], s.PLAIN);"
        "print(sorted({'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=SCRIPT.parent, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_a_process_that_fails_is_told_and_leaves_a_gap(monkeypatch, capsys):
    def failing(*arguments):
        return apart("absent", *arguments[1:])

    apart = step_time.measured_apart
    monkeypatch.setattr(step_time, "measured_apart", failing)
    text = step_time.table("tiny", "plain", 3)
    assert "KeyError: 'absent'" in capsys.readouterr().out
    assert "| td.AdamW | – | – | – | – | – | – |" in text


def test_a_wrong_name_is_told_with_the_right_ones(capsys):
    with pytest.raises(SystemExit):
        step_time.main(["resnet5"])
    assert "no workload is called 'resnet5'; there are resnet50, " in capsys.readouterr().err


def test_the_cost_of_a_monitor_is_a_table_of_ratios_to_training_without_one(capsys):
    assert loaded(SCRIPT.with_name("monitor_cost.py")).main(["tiny", "--modes", "plain"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "|" in line]
    rows = [line.strip("| ").split(" | ") for line in lines[2:]]
    assert [row[0] for row in rows] == ["without", "Monitor()", "all, per variable"]
    assert rows[0][2:] == ["1.000", "+0.00", "1.000"]
    assert all(float(row[1]) > 0 and float(row[3]) > 0.5 for row in rows[1:])
