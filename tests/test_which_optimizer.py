"""benchmarks/which_optimizer.py and paths.py: all optimizers, and runs that go on."""

import importlib.util
import math
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

import tf_decoupled as td

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(FOLDER))


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


small_problems, which, paths = map(loaded, ("small_problems", "which_optimizer", "paths"))
TINY = {
    name: problem._replace(steps=4, rates=2, lower=1, seeds=2)
    for name, problem in small_problems.PROBLEMS.items()
}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(which, "PROBLEMS", TINY)


def run(out, *arguments):
    assert which.main([*arguments, "--out", str(out), "--workers", "0"]) == 0
    return (out / "which_optimizer.md").read_text()


def test_every_optimizer_with_a_step_of_its_own_takes_part():
    names = which.names()
    assert names[0] == "AdamW" and len(set(names)) == len(names)
    missing = {entry.name for entry in td.list_optimizers()} - set(names)
    assert missing == {"Partition", "RateMultipliers", "LayerwiseDecay"}
    for name in names:
        which.Contestant(name)


@pytest.mark.parametrize("name", TINY)
def test_at_the_start_all_runs_of_a_seed_are_equal_and_gradients_are_finite(name):
    problem = TINY[name]
    values = small_problems.starts(problem, 2, [0, 1])
    loss, score = problem.make(4, 2)
    with tf.GradientTape() as tape:
        tape.watch(values)
        losses = loss(values, tf.constant(0))
    assert losses.shape == score(values).shape == (4,)
    for each in (losses, score(values)):
        np.testing.assert_allclose(each[:2], each[2:], rtol=1e-6)
        assert each[0] != each[1]
    for g, p in zip(tape.gradient(losses, values), values, strict=True):
        assert np.all(np.isfinite(tf.convert_to_tensor(g))) and g.shape == p.shape


def test_a_score_is_that_of_the_optimizer_itself():
    problem = TINY["quadratic"]._replace(seeds=1)
    found = which.scores("AdamW", problem)
    loss, _ = problem.make(4, 1)
    for row, factor in enumerate((0.25, 1.0)):
        (start,) = small_problems.starts(problem, 1, [0])
        v = tf.Variable(start[0])
        optimizer = td.AdamW(td.schedules.Linear(1e-3 * factor, 4), weight_decay=0.0)
        for _ in range(4):
            with tf.GradientTape() as tape:
                value = loss([v[None]])
            optimizer.apply([tape.gradient(value, v)], [v])
        assert found[row, 0] == pytest.approx(float(loss([v[None]])[0]), rel=1e-5)


def test_what_a_rule_refuses_is_stepped_beside_it_or_left_out(tiny):
    assert np.all(np.isnan(which.scores("Muon", TINY["rosenbrock"])))
    beside = which.Contestant("Muon")
    values = [v[0] for v in small_problems.starts(TINY["convolutional"], 1, [0])]
    (muon, matrices), (adamw, vectors) = beside.parts(values)
    assert isinstance(muon, td.Muon) and matrices == [0, 2, 4]
    assert isinstance(adamw, td.AdamW) and vectors == [1, 3, 5]


def test_a_table_and_a_picture_come_of_it_and_what_is_done_is_not_done_again(
    tiny, tmp_path, monkeypatch, capsys
):
    chosen = ["--only", "lion", "lookahead", "--problems", "quadratic", "saddle"]
    text = run(tmp_path, *chosen)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == ["| optimizer", "quadratic", "saddle |"]
    assert {row[0] for row in rows[1:]} == {"| AdamW", "| Lion", "| Lookahead"}
    assert all("±" in cell for row in rows[1:] for cell in row[1:])
    assert (tmp_path / "which_optimizer.png").read_bytes().startswith(b"\x89PNG")
    # Killed in the midst of a line.
    csv = tmp_path / "runs.csv"
    whole = csv.read_text()
    csv.write_text(whole[:-30])
    done = []
    monkeypatch.setattr(
        which, "measured", lambda *a, of=which.measured: (done.append(a[0]), of(*a))[1]
    )
    assert run(tmp_path, *chosen) == text
    assert len(done) == 1
    assert sorted(csv.read_text().splitlines()) >= sorted(whole.splitlines())


def test_runs_of_other_settings_are_not_mixed(tiny, tmp_path):
    (tmp_path / "runs.csv").write_text("# which_optimizer {}\nproblem\n")
    with pytest.raises(SystemExit, match="holds other runs"):
        run(tmp_path, "--only", "Lion", "--problems", "saddle")


def test_a_name_that_isn_t_there_is_told(tmp_path):
    with pytest.raises(ValueError, match="Did you mean AdamW"):
        run(tmp_path, "--only", "adamww")


def test_passing_is_not_being_worse_by_two_standard_errors():
    adamw = which.Best(1.0, mean=1.0, error=0.3)
    assert which.Best(1.0, 1.9, 0.4).passes(adamw)
    assert not which.Best(1.0, 2.1, 0.4).passes(adamw)
    assert which.Best(1.0, -9.0, 0.0).passes(adamw)
    assert not which.Best(1.0, math.inf, math.inf).passes(adamw)


def test_the_best_rate_is_that_of_the_least_mean():
    problem = TINY["convolutional"]
    best = which.best(np.array([[1.0, 3.0], [1.5, 1.7]]), problem)
    assert (best.factor, best.mean) == (1.0, pytest.approx(1.6))
    assert best.error == pytest.approx(0.1)
    assert which.best(np.full((2, 2), np.nan), problem) is None
    assert which.best(np.full((2, 2), np.inf), problem).mean == math.inf


def test_paths_begin_at_the_start_and_are_drawn(tmp_path, monkeypatch, capsys):
    short = {n: (p._replace(steps=5), e) for n, (p, e) in paths.FUNCTIONS.items()}
    monkeypatch.setattr(paths, "FUNCTIONS", short)
    path = paths.path("AdamW", short["rosenbrock"][0])
    assert path.shape == (5, 2) and path[0] == pytest.approx([-1.2, 1.0])
    paths.main(["--only", "Lion", "--out", str(tmp_path)])
    assert {p.name for p in tmp_path.iterdir()} == {"rosenbrock.png", "rastrigin.png"}
