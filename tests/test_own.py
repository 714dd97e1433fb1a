"""A user's own model and data, and any optimizer: what is taken, and what is refused in words."""

import contextlib
import sys
import textwrap
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_documentation import Here

from tf_decoupled.experiments import data, figures, loop, optimizers, own, ranking, tasks, train
from tf_decoupled.experiments.cells import Cells
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.grid import Cell, Settings, preset
from tf_decoupled.experiments.results import Outcome
from tf_decoupled.experiments.sweep import sweep
from tf_decoupled.experiments.train import Run

MODULE = """
import keras
import numpy as np
import tensorflow as tf

def arrays(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 6))
    return x, (x[:, :3].argmax(1)).astype("int32")

def load():
    return arrays(48, 0), arrays(16, 1), arrays(16, 2)

def datasets():
    return [tf.data.Dataset.from_tensor_slices(part) for part in load()]

def batched():
    return [each.batch(5) for each in datasets()]

def layers():
    return [keras.layers.Dense(8, "gelu"), keras.layers.Dropout(0.1), keras.layers.Dense(3)]

def build():
    return keras.Sequential([keras.Input((6,)), *layers()])

def built(shape, classes):
    return keras.Sequential([keras.Input(shape), keras.layers.Dense(classes)])

class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.parts = layers()
    def call(self, x, training=False):
        for part in self.parts:
            x = part(x, training=training) if isinstance(part, keras.layers.Dropout) else part(x)
        return x

def probabilities():
    return keras.Sequential([build(), keras.layers.Softmax()])

def compiled():
    model = probabilities()
    model.compile(loss="sparse_categorical_crossentropy")
    return model
"""
SETTINGS = Settings(
    alphas=(0.01,), l2s=(0.0, 0.1), weight_decays=(0.0, 0.1), batch_size=16, epochs=2
)


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """The module `mine` in the current folder; its name."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield name
    sys.modules.pop(name, None)


# Data


@pytest.mark.parametrize("function", ["datasets", "batched"])
def test_datasets_and_arrays_of_the_same_examples_are_the_same(mine, function):
    expected, found = own.load(f"{mine}:load"), own.load(f"{mine}:{function}")
    assert found.classes == expected.classes == 3
    for ours, others in zip(found[1:4], expected[1:4], strict=True):
        assert ours.images.dtype == np.float32 and ours.labels.dtype == np.int64
        np.testing.assert_array_equal(ours.images, others.images)
        np.testing.assert_array_equal(ours.labels, others.labels)


def test_own_numbers_are_not_standardised(mine):
    dataset = own.load(f"{mine}:load")
    assert data.standardise(dataset) is dataset


X, Y = np.zeros((4, 2)), np.arange(4)


@pytest.mark.parametrize(
    "returned, words",
    [
        (None, r"must return \(train, validation, test\), .* Received: NoneType"),
        ((X, Y), r"must return \(train, validation, test\)"),
        ([X, X, X], "train of .* must be a pair of arrays"),
        ([(X, Y[:3])] * 3, r"an n as of y, 3\. Received: shape \[4, 2\]"),
        ([(X, Y / 3)] * 3, "must be classes, whole numbers from 0: .* float32"),
        ([(X, Y - 1)] * 3, "must be classes"),
        ([(X, np.eye(4))] * 3, r"must be classes.* shape \[4, 4\]"),
        ([(X.astype(str), Y)] * 3, "must be numbers"),
        ([([[1], [1, 2]], [0, 1])] * 3, "must be a pair of arrays"),
        ([(X, Y), (X, Y), (X[:, :1], Y)], "must have one shape in all three parts"),
        ([tf.data.Dataset.from_tensor_slices(X)] * 3, "must be a pair of arrays"),
        ([tf.data.Dataset.from_tensor_slices((X, Y)).repeat()] * 3, "that ends. Received: <_R"),
        ([tf.data.Dataset.from_tensor_slices((X, Y)).take(0)] * 3, "train of .* is empty"),
    ],
)
def test_data_that_a_sweep_cannot_take_are_refused_in_words(monkeypatch, returned, words):
    monkeypatch.setattr(own, "function", lambda name: lambda: returned)
    with pytest.raises(InputError, match=words):
        own.load("mine:load")


# Model


@pytest.mark.parametrize("function", ["build", "built", "Own", "compiled"])
def test_a_seed_gives_an_own_model_the_same_values_again_and_another_seed_others(mine, function):
    dataset = own.load(f"{mine}:load")
    model, reinitialize = tasks.network(f"{mine}:{function}", dataset)
    values = []
    for seed in (1, 2, 1):
        reinitialize(seed)
        values.append([v.numpy() for v in model.variables])
    for first, second, third in zip(*values, strict=True):
        np.testing.assert_array_equal(first, third)
        assert not first.any() or (first != second).any()


def test_the_loss_is_the_models_own_where_it_is_compiled_and_cross_entropy_of_logits_else(mine):
    dataset = own.load(f"{mine}:load")
    x, y = (tf.constant(part) for part in dataset.test)
    losses = []
    for function in ("build", "compiled"):
        model, reinitialize = tasks.network(f"{mine}:{function}", dataset)
        reinitialize(3)
        loss, error = loop.objective(model)(y, model(x))
        assert loss.shape == error.shape == (16,)
        losses.append(float(loss[0]))
        logits = model(x) if function == "build" else np.log(model(x))
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert losses[-1] == pytest.approx(-np.log(p[np.arange(16), y]).mean(), rel=1e-5)
        np.testing.assert_array_equal(error, p.argmax(1) != y)


@pytest.mark.parametrize(
    "returned, words",
    [
        (lambda: None, "must return a keras.Model. Received: NoneType"),
        (lambda a: None, "must take nothing, or the shape of an example and the classes"),
        (lambda: keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)]), "the 3 classes"),
        (lambda: keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)]), "doesn't take the"),
        (
            lambda: keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")]),
            "returns probabilities. Leave out its softmax, or compile it",
        ),
    ],
)
def test_a_model_that_a_sweep_cannot_take_is_refused_in_words(mine, monkeypatch, returned, words):
    dataset = own.load(f"{mine}:load")
    monkeypatch.setattr(own, "function", lambda name: returned)
    with pytest.raises(InputError, match=words):
        own.network("mine:build", dataset)


def test_a_model_of_images_is_not_given_other_data(mine):
    with pytest.raises(InputError, match=r"sbw16 takes images, .* --model=module:function"):
        tasks.network("sbw16", own.load(f"{mine}:load"))


def test_an_own_model_may_take_the_datasets_of_the_experiments(mine):
    flat = "\ndef flat(shape, classes):\n    return keras.Sequential([keras.Input(shape), "
    flat += "keras.layers.Flatten(), keras.layers.Dense(classes)])\n"
    with open(f"{mine}.py", "a") as file:
        file.write(flat)
    settings = replace(SETTINGS, model=f"{mine}:flat", examples=16, epochs=1)
    outcome = Cells(settings, data.load("fashion_mnist_small"))(settings.cells()[0])
    assert 0 <= outcome.test_error <= 1


# Sweeps


def test_a_sweep_of_ones_own_is_run_drawn_and_summed_up(mine, capsys, tmp_path):
    settings = preset(
        *("quick", "lion"),
        model=f"{mine}:Own",
        dataset=f"{mine}:datasets",
        alphas=(0.001, 0.01),
        weight_decays=(0.0, 0.1),
        seeds=(0, 1),
        batch_size=16,
    )
    pool = lambda *given: contextlib.nullcontext(Here(*given))  # noqa: E731
    picture = sweep(settings, tmp_path / "out", pool=pool)
    said = capsys.readouterr().out
    assert picture.name == "Lion.png" and "best cells (validation)" in said
    assert said.startswith(f"Lion: {mine}:datasets, {mine}:Own, 4 epochs, batch size 16, 2 seeds")
    with open(f"{mine}.py", "a") as file:
        file.write(textwrap.dedent("def datasets():\n    return arrays(48, 9), *load()[1:]\n"))
    del sys.modules[mine]
    with pytest.raises(InputError, match=r"Lion.csv holds another sweep \(fingerprint: "):
        sweep(settings, tmp_path / "out", pool=pool)


def test_cells_of_ones_own_do_not_depend_on_what_ran_before(mine):
    settings = replace(SETTINGS, model=f"{mine}:build", dataset=f"{mine}:load")
    cells = Cells(settings, own.load(f"{mine}:load"))
    chosen = [Cell(*kind, seed) for kind in (("both", "cosine", 0.01, 0.0),) for seed in (0, 1)]
    chosen += [Cell(form, "cosine", 0.01, 0.1, 0) for form in ("coupled", "decoupled")]
    outcomes = {cell: cells(cell) for cell in chosen}
    assert len({outcome.train_loss for outcome in outcomes.values()}) == 4
    assert {cell: cells(cell) for cell in reversed(chosen)} == outcomes
    assert cells.traces == {"coupled": 1, "decoupled": 1}


# One form


def test_an_optimizer_without_a_coupled_form_has_one_panel_and_its_best_cells():
    settings = preset("quick", "LION", seeds=(0, 1))
    assert settings.optimizer == "Lion" and settings.l2s == ()
    assert {cell.form for cell in settings.cells()} == {"both", "decoupled"}
    outcomes = {c: Outcome(0.1, c.alpha + c.lam / 10, 0.2) for c in settings.cells()}
    (ax, *_) = figures.heat_maps(settings, outcomes).axes
    assert ax.get_title() == "Lion, cosine annealing"
    first = ranking.summary(settings, outcomes).splitlines()[3]
    assert f"α = {settings.alphas[0]:<10.4g} λ = 0 " in first and "20.00 % ± 0.00" in first


def test_adamw_and_sgdw_are_swept_beside_their_coupled_forms():
    names = ["AdamW", "adam", "SGDW", "Sgd", "LARS", "muon"]
    assert [optimizers.swept(name) for name in names] == [
        "adam",
        "adam",
        "sgd",
        "sgd",
        "lars",
        "Muon",
    ]


def test_a_preset_moves_its_rates_with_the_optimizers_default():
    adam, lion = (preset("quick", name).alphas for name in ("adam", "lion"))
    assert lion == pytest.approx([rate * 1e-4 / 1e-3 for rate in adam])


def test_the_arguments_of_a_sweep_reach_its_optimizers():
    made = optimizers.in_form(
        "sgd", "decoupled", ("momentum=0.5", "nesterov=True"), 0.1, "schedule"
    )
    assert float(made.momentum) == 0.5 and made.get_config()["nesterov"]
    assert float(
        optimizers.in_form("sgd", "coupled", (), 0.1, "schedule").momentum
    ) == pytest.approx(0.9)


ALONE = [name for name in optimizers.OPTIMIZERS if optimizers.swept(name) == name]


def test_an_optimizer_that_cannot_step_the_model_says_so(mine):
    settings = Settings(
        **dict(alphas=(0.01,), l2s=(), weight_decays=(0.0,), optimizer="Muon", batch_size=16),
        **dict(model=f"{mine}:build", dataset=f"{mine}:load"),
    )
    with pytest.raises(InputError, match=r"Muon: Muon steps matrices, and .* Received: .*bias"):
        Cells(settings, own.load(f"{mine}:load"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALONE if name != "Muon"])  # above
def test_every_optimizer_can_be_swept(mine, name):
    settings = Settings(
        **dict(alphas=(0.01,), l2s=(), weight_decays=(0.0, 0.1), optimizer=name, epochs=2),
        **dict(model=f"{mine}:build", dataset=f"{mine}:load", batch_size=16),
    )
    cells = Cells(settings, own.load(f"{mine}:load"))
    first, second, again = (
        cells(Cell("decoupled", "cosine", 0.01, lam, 0)) for lam in (0.0, 0.1, 0.0)
    )
    assert first == again and first.train_loss != second.train_loss
    assert not first.diverged and cells.traces == {"decoupled": 1}


# Training


def test_a_run_of_ones_own_is_resumed_exported_and_known_again(mine, tmp_path):
    run = Run(model=f"{mine}:Own", dataset=f"{mine}:load", epochs=2, batch_size=16)
    epochs = []
    train.train(run, tmp_path / "run", tmp_path / "exported", report=epochs.append)
    assert epochs[1].train_loss < epochs[0].train_loss
    serve = tf.saved_model.load(str(tmp_path / "exported")).signatures["serve"]
    assert serve(images=tf.zeros([2, 6]))["outputs"].shape == (2, 3)
    again = []
    train.train(run, tmp_path / "run", report=again.append)
    assert not again
    with open(f"{mine}.py", "a") as file:
        file.write("def load():\n    return arrays(48, 9), arrays(16, 1), arrays(16, 2)\n")
    del sys.modules[mine]
    with pytest.raises(InputError, match=r"holds another run \(fingerprint: "):
        train.train(run, tmp_path / "run")
