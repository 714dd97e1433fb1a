"""Warm restarts with normalized decay, their learning curves, and what a sweep will take."""

import contextlib
import math
from dataclasses import replace

import keras
import numpy as np
import pytest
from test_documentation import Here

import tf_decoupled as td
from tf_decoupled.experiments import app, curves, data, estimate, grid, loop, train
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.estimate import Estimate
from tf_decoupled.experiments.results import read
from tf_decoupled.experiments.train import Run

RUN = Run(model="mlp", epochs=7, batch_size=16, examples=48, seed=5)


def cycle(step, first):
    """How far `step` is in its cycle, and that cycle's length: cycles double."""
    length = first
    while step >= length:
        step, length = step - length, 2 * length
    return step, length


# The schedule and the decay


@pytest.mark.parametrize("steps, warmup", [(70, 0), (70, 5), (100, 0)])
def test_a_run_has_three_cycles_of_which_each_is_twice_as_long(steps, warmup):
    rate, first = loop.schedule("restarts", 0.4, steps, warmup), math.ceil(steps / 7)
    for step in range(steps):
        n, length = cycle(step, first)
        expected = 0.2 * (1 + math.cos(math.pi * n / length))
        assert float(rate(warmup + step)) == pytest.approx(expected, abs=1e-6)
    assert cycle(steps - 1, first)[1] == 4 * first
    if warmup:
        assert float(rate(2)) == pytest.approx(0.4 * 2 / warmup)


def decay(run, calls):
    config = train.optimizer(run, calls).get_config()
    assert config["decay_coupling"] in (None, "schedule")
    return keras.saving.deserialize_keras_object(config["weight_decay"])


def test_the_normalized_decay_of_a_run_is_that_of_its_updates():
    run = replace(RUN, normalized_decay=0.3)
    assert float(decay(run, 10)(5)) == pytest.approx(0.3 / math.sqrt(70))
    run = replace(run, arguments=("gradient_accumulation_steps=2",))
    assert float(decay(run, 10)(5)) == pytest.approx(0.3 / math.sqrt(35))


def test_the_normalized_decay_of_a_cycle_is_that_of_its_updates():
    found = decay(replace(RUN, normalized_decay=0.3, schedule="restarts"), 10)
    for step in (0, 9, 10, 29, 30, 69):
        expected = 0.3 / math.sqrt(cycle(step, 10)[1])
        assert float(found(step)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"arguments": ("weight_decay=0.1",)}, "one of --normalized-decay and --set weight_decay"),
        ({"normalized_decay": -1.0}, "AdamW: `rate` must be a positive number"),
        ({"optimizer": "SGD", "normalized_decay": math.nan}, "SGD: `rate` must be a positive"),
    ],
)
def test_a_wrong_normalized_decay_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        train.optimizer(replace(RUN, **{"normalized_decay": 0.3} | change), 10)


# The curves


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("curves")
    return out, curves.curves(RUN, out)


def test_all_runs_are_drawn_over_all_their_epochs(drawn):
    out, picture = drawn
    assert picture == out / "AdamW.png" and picture.read_bytes().startswith(b"\x89PNG")
    for folder in ("AdamW_l2", "AdamW_cosine", "AdamW_restarts"):
        found = curves.logged(out / folder / "tensorboard")
        assert found.keys() >= curves.PANELS.keys()
        assert list(found["train_loss"]) == [1, 2, 3, 4, 5, 6, 7]
    rates = found["learning_rate"]
    assert [rates[epoch] for epoch in (1, 2, 4)] == pytest.approx([0.004] * 3, rel=1e-5)


def test_curves_that_are_there_are_drawn_again_without_training(drawn, capsys):
    out, picture = drawn
    before = picture.read_bytes()
    assert curves.curves(RUN, out) == picture
    said = capsys.readouterr().out
    assert "epoch 1:" not in said and "AdamWR, warm restarts: test error" in said
    assert picture.read_bytes() == before


def test_a_half_written_log_of_a_killed_run_is_read_as_far_as_it_goes(drawn, tmp_path):
    out, _ = drawn
    logs = (out / "AdamW_cosine" / "tensorboard").iterdir()  # the second run's is empty
    log = max(logs, key=lambda path: path.stat().st_size)
    (tmp_path / log.name).write_bytes(log.read_bytes()[:-20])
    assert list(curves.logged(tmp_path)["train_loss"]) == [1, 2, 3, 4, 5, 6, 7]
    assert list(curves.logged(tmp_path)["validation_error"]) == [1, 2, 3, 4, 5, 6]


def test_the_curves_have_a_rate_and_a_decay_unless_they_are_given():
    run = curves._with_defaults(replace(RUN, optimizer="SGDW", arguments=("momentum=0.5",)))
    assert run.arguments == ("learning_rate=0.1", "momentum=0.5")
    assert run.normalized_decay == curves.NORMALIZED_DECAY
    with pytest.raises(InputError, match="Lion needs a rate: --set learning_rate"):
        curves.curves(replace(RUN, optimizer="Lion"), None)


def test_the_coupled_form_beside_it_has_the_rate_and_a_decay_of_its_own():
    run = replace(RUN, optimizer="SGDW", arguments=("momentum=0.5",))
    l2, cosine, restarts = curves.planned(run, l2=0.02)
    assert [l2.title, restarts.title] == ["SGD + L2 of 0.02, one cosine", "SGDWR, warm restarts"]
    made = train.optimizer(l2.run, 10)
    assert type(made) is td.SGD and made.get_config()["l2"] == 0.02
    assert float(made.weight_decay) == 0.0
    assert l2.run.arguments == (*cosine.run.arguments, "l2=0.02")
    assert [line.run.schedule for line in (l2, cosine, restarts)] == ["cosine"] * 2 + ["restarts"]
    assert curves.planned(run, l2=0) == [cosine, restarts]
    assert curves.planned(run)[0].run.arguments[-1] == f"l2={curves.L2S['SGDW']}"


def test_an_optimizer_without_a_coupled_form_has_two_curves():
    run = replace(RUN, optimizer="Lion", arguments=("learning_rate=0.001",))
    assert len(curves.planned(run)) == 2
    with pytest.raises(InputError, match=r"Lion has no coupled form: .* Received: 0.1"):
        curves.planned(run, l2=0.1)


def test_the_restarts_are_drawn_where_they_are():
    assert curves.restarts(14) == [2, 6]


# The estimate


def dataset(count, shape=(8, 8, 3)):
    random = np.random.RandomState(0)
    images, labels = random.randint(0, 256, (count, *shape)).astype("uint8"), np.arange(count) % 10
    split = data.Split(images, labels.astype(np.int64))
    return data.Dataset("cifar10", split, split, split, classes=10)


def test_an_estimate_is_that_of_all_missing_runs_on_all_workers():
    settings = grid.preset("paper", "adam", examples=25_600)
    words = estimate.in_words(Estimate(2.0, 3e9), settings, dataset(30_000, (1, 1, 1)), 1000, 4)
    assert "2 s an update, 6.7 min an epoch of 200, 11 h a run." in words
    assert "1000 runs are missing: 116 days with 4 workers, each with 3.0 GB" in words
    assert [estimate.spoken(s) for s in (0.0123, 90, 1e9)] == ["0.012 s", "1.5 min", "32 years"]


def test_an_estimate_is_measured_with_the_settings_own_model():
    settings = grid.preset("paper", "adam", model="resnet8", batch_size=4)
    computed = []

    class Watched(Here):
        def compute(self, cells):
            computed.append((self.cells.settings.epochs, self.cells.steps, len(cells)))
            return super().__call__(cells)

    pool = lambda *given: contextlib.nullcontext(Watched(*given))  # noqa: E731
    found = estimate.measure(settings, dataset(40), pool)
    assert computed == [(3, 6, 1)] * 2 and 0 < found.update < 10


@pytest.mark.slow
def test_the_papers_setting_runs_from_end_to_end_with_its_estimate(tmp_path, monkeypatch, capsys):
    """Two cells of two epochs of 200 images, in processes."""
    images, few = dataset(200, (32, 32, 3)), dataset(20, (32, 32, 3))
    images = images._replace(validation=few.validation, test=few.test)
    monkeypatch.setattr(data, "load", lambda *_: images)
    small = ("--epochs=2", "--examples=200", "--batch-size=20", "--schedule=cosine")
    cells = ("--alphas=0.001", "--lambdas=0.0005", "--workers=2", f"--out={tmp_path}")
    app.main(app.parse(["tf-decoupled", "sweep", "--preset=paper", *small, *cells]))
    said = capsys.readouterr().out
    assert said.startswith("Estimated from 6 updates of one worker: ")
    assert "an epoch of 10, " in said and "2 runs are missing" in said and " GB of memory." in said
    found = read(tmp_path / "adam.csv")
    assert found.settings.model == "shake_shake_26_2x64d" and len(found.outcomes) == 2
    assert all(math.isfinite(outcome.train_loss) for outcome in found.outcomes.values())
