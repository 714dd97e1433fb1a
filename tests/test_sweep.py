"""The sweep: its grid, its CSV, its resumption, and the training of its cells."""

import contextlib
import itertools
import math
import os
import pickle
import re
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from tf_decoupled.experiments import data, grid, loop, statistics, sweep, worker
from tf_decoupled.experiments.cells import Cells
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.grid import Cell, Settings
from tf_decoupled.experiments.results import DIVERGED, Outcome, Results, read
from tf_decoupled.experiments.summary import summary

SETTINGS = Settings(
    alphas=(0.001, 0.004),
    l2s=(0.0, 0.1),
    weight_decays=(0.0, 0.05, 0.1),
    schedules=("cosine", "drop"),
    epochs=2,
    batch_size=8,
    seeds=(0, 1),
    examples=16,
)


# The grid.


def test_at_lambda_zero_both_forms_are_one_cell():
    cells = SETTINGS.cells()
    assert len(set(cells)) == len(cells) == 2 * 2 * 2 * (1 + 1 + 2)
    assert {c.form for c in cells if c.lam == 0} == {"both"}
    assert {c.form for c in cells if c.lam > 0} == {"coupled", "decoupled"}


def test_a_range_goes_up_by_factor_2():
    assert grid.rates("alphas", "0, 0.01:0.08, 0.5") == (0, 0.01, 0.02, 0.04, 0.08, 0.5)
    assert grid.rates("alphas", "0.01:0.07") == (0.01, 0.02, 0.04)
    assert grid.integers("seeds", "0,3:5") == (0, 3, 4, 5)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "lars", "Lion"])
@pytest.mark.parametrize("name", grid.PRESETS)
def test_every_preset_has_a_grid_of_equal_steps_with_lambda_zero(name, optimizer):
    settings = grid.preset(name, optimizer)
    for rates in (settings.alphas, settings.l2s[1:], settings.weight_decays[1:]):
        assert len(rates) >= 4 or (optimizer, rates) == ("Lion", ())
        steps = [b / a for a, b in itertools.pairwise(rates)]
        assert not steps or (min(steps) >= 2 and max(steps) == pytest.approx(min(steps), rel=0.05))
    assert settings.weight_decays[0] == 0 and settings.l2s[:1] in ((), (0,))
    assert settings.coupling == "schedule"


@pytest.mark.parametrize("name", ["quick", "standard"])
def test_the_presets_for_two_cores_have_the_seeds_of_an_interval(name):
    assert len(grid.preset(name, "sgd").seeds) >= statistics.FEWEST


def test_settings_survive_json():
    assert Settings.from_json(SETTINGS.to_json()) == SETTINGS


def test_the_paper_preset_is_the_papers_setting():
    settings = grid.preset("paper", "adam")
    assert (settings.dataset, settings.model) == ("cifar10", "shake_shake_26_2x64d")
    assert (settings.epochs, settings.batch_size) == (100, 128)
    assert settings.schedules == ("fixed", "drop", "cosine")
    assert settings.alphas[0] * 1024 == pytest.approx(settings.alphas[-1]) == pytest.approx(0.1)


# Schedules and order.


def test_the_multipliers_of_the_schedules_are_the_papers():
    drop = loop.multipliers("drop", 100)
    assert [round(float(x), 6) for x in (*drop[[0, 29, 30, 59, 60, 79, 80, 99]],)] == [
        1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001,
    ]  # fmt: skip
    cosine = loop.multipliers("cosine", 100)
    expected = [0.5 * (1 + math.cos(math.pi * t / 100)) for t in range(100)]
    assert cosine == pytest.approx(expected, abs=1e-6)
    assert set(loop.multipliers("fixed", 100)) == {1}


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_schedules_of_a_few_steps_exist(steps):
    for name in grid.SCHEDULES:
        assert loop.multipliers(name, steps).shape == (steps,)


def test_the_order_is_another_in_each_epoch_and_shows_no_image_twice():
    orders = [loop.order(seed, epoch, 20, 6) for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert all(len(set(o.ravel())) == o.size == 18 for o in orders)
    assert (orders[0] == orders[3]).all()
    assert (orders[0] != orders[1]).any() and (orders[0] != orders[2]).any()


# The CSV, and what happens when a sweep is interrupted. No training here: outcomes are made up.


def made_up(cell):
    if cell.alpha == 0.004 and cell.lam == 0.1:
        return DIVERGED
    digits = hash((cell.alpha, cell.lam, cell.seed, len(cell.form), len(cell.schedule)))
    return Outcome(*(0.1 + digits % prime / prime for prime in (101, 997, 9973)))


class FakePool:
    """Computes without training, in any order, and stops after some cells as if interrupted."""

    def __init__(self, backwards=False, stop_after=None):
        self.backwards, self.left = backwards, stop_after
        self.computed = []

    def __call__(self, settings, dataset, count):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def compute(self, cells):
        for cell in reversed(cells) if self.backwards else cells:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left = None if self.left is None else self.left - 1
            self.computed.append(cell)
            yield cell, made_up(cell)


@pytest.fixture
def unreported(monkeypatch):
    """Without figure and summary, which take longer than a made-up sweep."""
    monkeypatch.setattr(sweep, "report", lambda *_: None)


@pytest.fixture
def finished(tmp_path, unreported):
    """The bytes of the CSV of an uninterrupted sweep."""
    sweep.sweep(SETTINGS, tmp_path / "finished", pool=FakePool())
    return (tmp_path / "finished" / "adam.csv").read_bytes()


def continued(out, pool=None):
    sweep.sweep(SETTINGS, out, pool=pool or FakePool())
    return (out / "adam.csv").read_bytes()


def test_a_csv_holds_the_outcomes_exactly(finished, tmp_path):
    contents = read(tmp_path / "finished" / "adam.csv")
    assert contents.settings == SETTINGS
    assert not contents.half_written
    assert list(contents.outcomes) == SETTINGS.cells()
    for cell, outcome in contents.outcomes.items():
        assert outcome == made_up(cell) or (outcome.diverged and made_up(cell).diverged)


def test_the_order_in_which_cells_finish_does_not_show(finished, tmp_path):
    assert continued(tmp_path / "backwards", FakePool(backwards=True)) == finished


@pytest.mark.parametrize("stop_after", [0, 1, 15, 16, 31])
def test_an_interrupted_sweep_continues_to_the_same_csv(finished, tmp_path, stop_after):
    out, pool = tmp_path / "interrupted", FakePool(stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(SETTINGS, out, pool=pool)
    rest = FakePool()
    assert continued(out, rest) == finished
    assert not set(pool.computed) & set(rest.computed)


def test_a_csv_cut_anywhere_continues_to_the_same_csv(finished, tmp_path):
    for cut in range(0, len(finished), 101):
        out = tmp_path / f"cut{cut}"
        out.mkdir()
        (out / "adam.csv").write_bytes(finished[:cut])
        assert continued(out) == finished


def test_a_half_written_line_is_dropped_with_a_note_and_computed_again(finished, tmp_path, capsys):
    out = tmp_path / "cut"
    out.mkdir()
    (out / "adam.csv").write_bytes(finished[:-4])
    sweep.plot(out / "adam.csv")
    assert "left out a half-written last line" in capsys.readouterr().out
    assert (out / "adam.csv").read_bytes() == finished[:-4]
    pool = FakePool()
    assert continued(out, pool) == finished
    assert len(pool.computed) == 1
    assert "a half-written last line is dropped" in capsys.readouterr().out


def test_what_follows_a_half_written_line_is_whole(finished, tmp_path):
    """Interrupted twice: the first time within a line."""
    out = tmp_path / "cut"
    out.mkdir()
    (out / "adam.csv").write_bytes(finished[: len(finished) // 2])
    before = read(out / "adam.csv")
    assert before.half_written
    with pytest.raises(KeyboardInterrupt):
        continued(out, FakePool(stop_after=1))
    assert len(read(out / "adam.csv").outcomes) == len(before.outcomes) + 1
    assert continued(out) == finished


def test_a_finished_sweep_computes_nothing(finished, tmp_path):
    pool = FakePool(stop_after=0)
    assert continued(tmp_path / "finished", pool) == finished


@pytest.mark.parametrize(
    "change",
    [
        {"alphas": (0.001,)},
        {"l2s": (0.0, 0.2)},
        {"epochs": 3},
        {"coupling": "independent"},
        {"batch_size": 4},
        {"model": "resnet8"},
        {"seeds": (0, 1, 2)},
    ],
)
def test_the_csv_of_another_sweep_is_refused_and_left_as_it_is(finished, tmp_path, change):
    (name,) = change
    with pytest.raises(InputError, match=rf"adam.csv holds another sweep \({name}: "):
        sweep.sweep(replace(SETTINGS, **change), tmp_path / "finished", pool=FakePool())
    assert (tmp_path / "finished" / "adam.csv").read_bytes() == finished


def test_the_csv_of_an_older_sweep_is_read_and_continued(finished, tmp_path, capsys):
    """It has further seeds of the best cells alone: they are kept, but in no statistic."""
    header, _, lines = finished.decode().partition("\n")
    older = header.replace('"examples"', '"best_seeds": [7, 8], "examples"') + "\n" + lines
    path = tmp_path / "finished" / "adam.csv"
    path.write_text(older + "decoupled,cosine,0.001,0.1,7,0.1,0.1,0.1\n")
    assert read(path).settings == SETTINGS
    extra = read(path).outcomes
    kept = continued(tmp_path / "finished", FakePool(stop_after=0))
    assert kept == finished + b"decoupled,cosine,0.001,0.1,7,0.1,0.1,0.1\n"
    assert summary(SETTINGS, extra) == summary(SETTINGS, {c: extra[c] for c in SETTINGS.cells()})


def test_a_csv_without_a_finished_cell_refuses_nobody(finished, tmp_path):
    with Results(tmp_path / "begun" / "adam.csv", replace(SETTINGS, epochs=9)):
        pass
    assert continued(tmp_path / "begun") == finished


@pytest.mark.parametrize("damage", ["coupled,cosine,0.1", "x,y,z,0,0,0,0,0", ""])
def test_a_damaged_line_is_named_and_nothing_is_lost(finished, tmp_path, damage):
    lines = finished.decode().splitlines()
    lines[4] = damage
    path = tmp_path / "finished" / "adam.csv"
    path.write_text("\n".join(lines) + "\n")
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"line 5 is damaged: {damage!r}"):
        sweep.sweep(SETTINGS, tmp_path / "finished", pool=FakePool())
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "# tf-decoupled sweep {}\nform\n", "x"])
def test_another_file_is_not_taken_for_a_csv_of_a_sweep(tmp_path, content):
    (tmp_path / "adam.csv").write_text(content)
    with pytest.raises(InputError, match="isn't the CSV of a sweep"):
        sweep.sweep(SETTINGS, tmp_path, pool=FakePool())
    assert (tmp_path / "adam.csv").read_text() == content


@pytest.mark.usefixtures("unreported")
def test_every_cell_is_on_the_disk_before_the_next(tmp_path, monkeypatch):
    path, synced = tmp_path / "adam.csv", []
    monkeypatch.setattr(os, "fsync", synced.append)
    with Results(path, SETTINGS) as results:
        for number, cell in enumerate(SETTINGS.cells(), start=1):
            results.append(cell, made_up(cell))
            assert len(read(path).outcomes) == number
            assert len(synced) == number + 1


def test_a_sweep_reports_its_files_and_draws_them(tmp_path, capsys):
    picture = sweep.sweep(SETTINGS, tmp_path, pool=FakePool())
    said = capsys.readouterr().out
    assert picture == tmp_path / "adam.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in said and "best cell (validation)" in said
    drawn = picture.read_bytes()
    picture.unlink()
    sweep.plot(tmp_path / "adam.csv")
    assert picture.read_bytes() == drawn
    assert capsys.readouterr().out == said


# The training of cells.


@pytest.fixture(scope="module")
def dataset():
    return data.load("fashion_mnist_small")


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_one_trace_per_form_serves_all_cells_bit_for_bit_whatever_ran_before(dataset, optimizer):
    """And at λ = 0 the two forms are the same run."""
    settings = replace(SETTINGS, optimizer=optimizer, schedules=grid.SCHEDULES)
    cells = Cells(settings, dataset)
    chosen = [
        Cell(form, schedule, alpha, lam, seed)
        for form in ("coupled", "decoupled")
        for schedule, alpha, lam, seed in (
            ("cosine", 0.004, 0.1, 0),
            ("fixed", 0.004, 0.1, 0),
            ("drop", 0.004, 0.1, 0),
            ("cosine", 0.001, 0.1, 0),
            ("cosine", 0.004, 0.4, 0),
            ("cosine", 0.004, 0.1, 1),
        )
    ]
    outcomes = {cell: cells(cell) for cell in chosen}
    assert len({outcome.train_loss for outcome in outcomes.values()}) == len(chosen)
    assert {cell: cells(cell) for cell in reversed(chosen)} == outcomes
    at_zero = [cells(Cell(form, "cosine", 0.004, 0.0, 3)) for form in ("coupled", "both")]
    assert at_zero[0] == at_zero[1]
    assert cells.traces == {"coupled": 1, "decoupled": 1}


def test_a_cell_whose_loss_is_not_finite_is_recorded_as_diverged(dataset):
    cells = Cells(replace(SETTINGS, optimizer="sgd", epochs=4), dataset)
    assert cells(Cell("coupled", "cosine", 1e30, 0.1, 0)).diverged
    assert not cells(Cell("coupled", "cosine", 0.01, 0.1, 0)).diverged


@pytest.mark.parametrize("coupling", ["learning_rate", "schedule"])
def test_the_couplings_differ_in_the_decay_alone(dataset, coupling):
    """After one step, the run with λ and the run without differ by δ(θ₀)."""
    settings = replace(SETTINGS, coupling=coupling, epochs=1, batch_size=16, schedules=("fixed",))
    cells = Cells(settings, dataset)
    kernel = cells.model.trainable_variables[0]
    after = []
    for lam in (0.0, 0.25):
        cells(Cell("decoupled", "fixed", 0.5, lam, 0))
        after.append(kernel.numpy())
    cells._prepare(cells.loops["decoupled"].optimizer, Cell("decoupled", "fixed", 0.5, 0.0, 0))
    factor = {"learning_rate": 0.5, "schedule": 1.0}[coupling]
    assert after[0] - after[1] == pytest.approx(factor * 0.25 * kernel.numpy(), abs=1e-6)


# Processes.

SMALL = replace(
    SETTINGS, optimizer="sgd", weight_decays=(0.0, 0.05, 0.1, 0.2), epochs=1, schedules=("cosine",)
)
PROGRAM = """
import pathlib, pickle, sys
from tf_decoupled.experiments import sweep
settings = pickle.loads(bytes.fromhex(sys.argv[1]))
sweep.sweep(settings, pathlib.Path(sys.argv[2]), workers=2)
"""


@pytest.mark.slow
def test_a_killed_sweep_continues_to_what_an_uninterrupted_one_gives(tmp_path, dataset):
    """Killed with two workers, continued with one."""
    command = [sys.executable, "-c", PROGRAM, pickle.dumps(SMALL).hex(), str(tmp_path / "killed")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        shown = ""
        while not re.search(r"[3-9]/20 ", shown):
            shown += process.stderr.read(1)
        process.send_signal(signal.SIGKILL)
    found = read(tmp_path / "killed" / "sgd.csv")
    assert 0 < len(found.outcomes) < len(SMALL.cells())
    with worker.Pool(SMALL, dataset, 1) as pool:
        for name in ("killed", "uninterrupted"):
            sweep.sweep(SMALL, tmp_path / name, pool=lambda *_: contextlib.nullcontext(pool))
    killed, uninterrupted = (tmp_path / name / "sgd.csv" for name in ("killed", "uninterrupted"))
    assert killed.read_bytes() == uninterrupted.read_bytes()
    assert list(read(killed).outcomes) == SMALL.cells()


@pytest.mark.slow
def test_a_killed_worker_is_reported_with_its_cell(dataset):
    cell = Cell("coupled", "cosine", 0.004, 0.1, 0)
    with worker.Pool(SMALL, dataset, 1) as pool:
        (child,) = pool._workers
        os.kill(child._process.pid, signal.SIGKILL)
        with pytest.raises(worker.WorkerError, match=r"killed by signal 9 .*alpha=0.004"):
            list(pool.compute([cell]))


@pytest.mark.slow
def test_a_failing_worker_is_reported_with_its_traceback(dataset):
    broken = dataset._replace(classes="ten")
    with (
        worker.Pool(SMALL, broken, 1) as pool,
        pytest.raises(worker.WorkerError, match=r"(?s)A worker process failed.*Traceback.*ten"),
    ):
        list(pool.compute([Cell("coupled", "cosine", 0.004, 0.1, 0)]))
    assert all(child._process.poll() is not None for child in pool._workers)
