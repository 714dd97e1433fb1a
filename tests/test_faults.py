"""The command line under faults: damaged files, full disks, terminals; nothing whole is lost."""

import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from test_sweep import SETTINGS, FakePool, made_up
from test_train import interrupted, state

import tf_decoupled as td
from tf_decoupled.experiments import checkpoints, files, results, sweep, terminal, train
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.train import Run

RUN = Run(model="mlp", epochs=2, batch_size=16, examples=48, seed=5)


@contextlib.contextmanager
def full_disk(room):
    """No file can grow beyond `room` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def content(folder):
    """The bytes of the checkpoints."""
    return {p.name: p.read_bytes() for p in folder.glob("checkpoints/ckpt-*") if p.is_file()}


def assert_equal_states(ours, expected):
    assert ours.keys() == expected.keys() and len(expected) > 8
    for name, value in expected.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("whole")
    train.train(RUN, out, report=lambda epoch: None)
    return out


@pytest.fixture
def out(whole, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(whole, tmp_path / "out")


def continued(out, capsys, run=RUN):
    """The epochs that were computed, and what was said."""
    epochs = []
    train.train(run, out, report=epochs.append)
    return [epoch.number for epoch in epochs], capsys.readouterr().out


# Accumulation


def test_with_accumulation_the_schedule_ends_with_the_last_update():
    run = replace(RUN, epochs=4, arguments=("gradient_accumulation_steps=3",))
    config = train.optimizer(run, 10).get_config()
    rate = td.AdamW.from_config(config).get_config()["learning_rate"]
    assert rate["config"]["decay_steps"] == 4 * 10 // 3
    warm = train.schedule(replace(run, warmup=2), 0.4, 10, 5)
    assert [float(warm(n)) for n in (0, 2, 4, 8)] == pytest.approx([0, 0.2, 0.4, 0], abs=1e-6)


def test_with_accumulation_a_run_sees_its_rate_fall_as_without(tmp_path):
    """Three batches of an epoch are one update: the second and last starts at half of the rate."""
    epochs = []
    run = replace(RUN, arguments=("gradient_accumulation_steps=3",))
    train.train(run, tmp_path, report=epochs.append)
    assert [e.learning_rate for e in epochs] == pytest.approx([1e-3, 0.5e-3], rel=1e-5)


# Checkpoints


def test_without_its_index_file_a_run_goes_on_from_its_checkpoints(out, capsys):
    before = content(out)
    (out / "checkpoints" / "checkpoint").unlink()
    epochs, said = continued(out, capsys)
    assert epochs == [] and f"Continued from {out}/checkpoints/ckpt-2" in said
    assert content(out) == before


def test_an_interrupted_run_without_its_index_file_ends_as_an_uninterrupted_one(
    whole, tmp_path, capsys
):
    with pytest.raises(KeyboardInterrupt):
        train.train(RUN, tmp_path, report=interrupted)
    (tmp_path / "checkpoints" / "checkpoint").write_bytes(b"\xff{")
    assert continued(tmp_path, capsys)[0] == [2]
    assert_equal_states(state(tmp_path), state(whole))


def test_two_checkpoints_are_kept_also_after_the_index_file_was_lost(tmp_path, capsys):
    run = replace(RUN, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        train.train(run, tmp_path, report=interrupted)
    (tmp_path / "checkpoints" / "checkpoint").unlink()
    continued(tmp_path, capsys, run)
    names = sorted(path.name for path in checkpoints.present(tmp_path / "checkpoints"))
    assert names == ["ckpt-3", "ckpt-4"]


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


DATA, INDEX = "ckpt-{}.data-00000-of-00001", "ckpt-{}.index"
DAMAGES = {
    "cut": lambda folder, n: cut(folder / DATA.format(n), 1000),
    "empty": lambda folder, n: cut(folder / DATA.format(n), 0),
    "missing": lambda folder, n: (folder / DATA.format(n)).unlink(),
    "zeros": lambda folder, n: (folder / DATA.format(n)).write_bytes(bytes(2_000_000)),
    "cut index": lambda folder, n: cut(folder / INDEX.format(n), 50),
    "empty index": lambda folder, n: cut(folder / INDEX.format(n), 0),
    "other index": lambda folder, n: (folder / INDEX.format(n)).write_bytes(b"x" * 300),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_the_newest(out, damage):
    folder = out / "checkpoints"
    DAMAGES[damage](folder, 2)
    path, lines = checkpoints.newest(folder)
    assert path == folder / "ckpt-1"
    (line,) = lines
    assert line.startswith(f"{folder}/ckpt-2 is damaged (") and "\n" not in line


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(whole, out, capsys):
    DAMAGES["cut"](out / "checkpoints", 2)
    epochs, said = continued(out, capsys)
    assert epochs == [2]
    assert "ckpt-2 is damaged" in said and f"Continued from {out}/checkpoints/ckpt-1" in said
    assert_equal_states(state(out), state(whole))


def test_where_no_checkpoint_is_whole_all_are_named_and_left_as_they_are(out):
    for number in (1, 2):
        DAMAGES["cut"](out / "checkpoints", number)
    before = content(out)
    with pytest.raises(InputError, match=r"No checkpoint is whole: .*ckpt-1 .*ckpt-2 .*--out"):
        train.train(RUN, out)
    assert content(out) == before


def test_a_checkpoint_of_another_model_is_refused_in_one_line(out):
    settings = json.loads((out / "run.json").read_text()) | {"model": "sbw16"}
    (out / "run.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="ckpt-2 doesn't fit this run"):
        train.train(replace(RUN, model="sbw16"), out)


# The settings of a run


@pytest.mark.parametrize("text", ["[1]", "null", '{"epochs": 2', "", "\x00", "[" * 100_000])
def test_damaged_settings_of_a_run_are_named_and_nothing_is_overwritten(out, text):
    (out / "run.json").write_text(text)
    before = content(out)
    with pytest.raises(InputError, match=r"run\.json (is damaged|can't be read)"):
        train.train(RUN, out)
    assert content(out) == before and (out / "run.json").read_text() == text


def test_checkpoints_without_the_settings_of_their_run_are_not_taken_for_this_run(out):
    (out / "run.json").unlink()
    with pytest.raises(InputError, match=r"has checkpoints, and run\.json .* is gone"):
        train.train(RUN, out)
    assert not (out / "run.json").exists()


# Full disks


def test_a_run_on_a_full_disk_keeps_its_last_checkpoint_and_goes_on_from_there(
    whole, tmp_path, capsys
):
    with contextlib.ExitStack() as stack:

        def fill(epoch):
            stack.enter_context(full_disk(500_000))

        words = r"checkpoints can't be written: /[^{\[]*; File too large\.$"
        with pytest.raises(InputError, match=words):
            train.train(RUN, tmp_path, report=fill)
    assert not list(tmp_path.glob("checkpoints/*_temp"))
    epochs, said = continued(tmp_path, capsys)
    assert epochs == [2] and "ckpt-1" in said
    assert_equal_states(state(tmp_path), state(whole))


def test_a_sweep_on_a_full_disk_keeps_its_cells(tmp_path):
    path, (first, second, *_) = tmp_path / "adam.csv", SETTINGS.cells()
    with results.Results(path, SETTINGS) as opened:
        opened.append(first, made_up(first))
        with full_disk(path.stat().st_size + 10):
            with pytest.raises(InputError, match=r"adam\.csv can't be written: File too large"):
                opened.append(second, made_up(second))
            opened.close()
    found = results.read(path)
    assert list(found.outcomes) == [first] and found.half_written


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path):
    path = tmp_path / "numbers"
    files.replace(path, b"old")
    with full_disk(2), pytest.raises(InputError, match=r"numbers can't be written: File too large"):
        files.replace(path, b"new and longer")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["numbers"]


def test_a_peer_that_has_gone_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(tf.errors.UnavailableError), files.writing(tmp_path):
        raise tf.errors.UnavailableError(None, None, "gone")


# Sweeps


@pytest.mark.parametrize("header", ["[1]", "1", "{}", '{"alphas": 1}', '{"alphas": ["x"]}', "{"])
def test_damaged_settings_of_a_sweep_are_named(tmp_path, header):
    path = tmp_path / "adam.csv"
    path.write_text(f"{results.MARK}{header}\n{','.join(results.COLUMNS)}\n")
    with pytest.raises(InputError, match=r"adam\.csv, line 1: its settings can't be read"):
        sweep.plot(path)


def test_a_picture_does_not_overwrite_its_numbers(tmp_path):
    sweep.sweep(SETTINGS, tmp_path, pool=FakePool())
    numbers = (tmp_path / "adam.csv").rename(tmp_path / "adam.png")
    before = numbers.read_bytes()
    with pytest.raises(InputError, match="would be overwritten by its picture"):
        sweep.plot(numbers)
    assert numbers.read_bytes() == before


def test_no_more_workers_are_started_than_there_are_cells(tmp_path):
    counts = []

    def pool(settings, dataset, count):
        counts.append(count)
        return FakePool(stop_after=0)

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(SETTINGS, tmp_path, workers=100_000, pool=pool)
    assert counts == [len(SETTINGS.cells())]


# Training that can't go on


def test_a_hopeless_run_ends_with_the_optimizers_words(tmp_path):
    arguments = ("learning_rate=1e30", "max_consecutive_skips=2")
    run = replace(RUN, optimizer="SGD", schedule="fixed", arguments=arguments)
    with pytest.raises(InputError, match=r"SGD gave up in epoch 1: `max_consecutive_skips` steps"):
        train.train(run, tmp_path)


# The terminal


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp437", "utf-8"])
def test_what_a_terminal_cannot_show_is_spelled_out(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.spell_out()
    print("R² of f(α) + g(λ) ± ○ 漢")
    stream.flush()
    shown = stream.buffer.getvalue().decode(encoding)
    expected = {
        "latin-1": "R² of f(alpha) + g(lambda) ± o ?\n",
        "ascii": "R2 of f(alpha) + g(lambda) +- o ?\n",
        "cp437": "R² of f(α) + g(lambda) ± o ?\n",
        "utf-8": "R² of f(α) + g(λ) ± ○ 漢\n",
    }
    assert shown == expected[encoding]


def test_the_summary_of_a_sweep_is_shown_on_a_latin_1_terminal(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.spell_out()
    sweep.sweep(SETTINGS, tmp_path, pool=FakePool())
    stream.flush()
    assert b"?" not in stream.buffer.getvalue()


def test_a_reader_that_has_gone_ends_the_command_without_a_word(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as ended, terminal.output():
            print("to nobody")
    assert ended.value.code == 141 and capsys.readouterr().err == ""


def test_output_to_a_full_disk_gets_one_line(monkeypatch, capsys):
    with open("/dev/full", "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as ended, terminal.output():
            print("to a full disk")
    assert ended.value.code == 2
    expected = "tf-decoupled: Output can't be written: No space left on device.\n"
    assert capsys.readouterr().err == expected


def test_ctrl_c_during_the_imports_gets_one_line(tmp_path):
    """Keras, the first import of the package, is here one during which Ctrl-C is pressed."""
    (tmp_path / "keras.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    root = Path(td.__file__).parents[1]
    # What a shell starts in the background ignores Ctrl-C, and so do its children.
    heard = "import signal as s; s.signal(s.SIGINT, s.default_int_handler)"
    program = f"{heard}; import tf_decoupled_command as c; c.run()"
    command = [sys.executable, "-c", program, "sweep"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "\nStopped.\n")
