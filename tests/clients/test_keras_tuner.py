"""keras-tuner: searches that make a model anew per trial, and load the best from its weights."""

import keras
import numpy as np
import pytest
from client import goes_on

import tf_decoupled as td

CLIENT = "keras_tuner"
pytestmark = [
    pytest.mark.slow,
    # Its locks call Python's threads by their old names.
    pytest.mark.filterwarnings("ignore:(getName|currentThread).*deprecated:DeprecationWarning"),
    # Keras loads the best weights before its own optimizer is built, and leaves its state out.
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning"),
]

X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
Y = X.sum(1, keepdims=True)
DATA = dict(validation_data=(X, Y), batch_size=16, shuffle=False, verbose=0)


def builder(optimizer):
    """What a tuner builds models with: `optimizer` gets the trial's rate and decay."""

    def build(trial):
        rate = trial.Float("learning_rate", 1e-3, 1e-1, sampling="log")
        decay = trial.Choice("weight_decay", [0.0, 0.1])
        units = trial.Int("units", 4, 8, step=4)
        layers = [keras.layers.Dense(units, "relu"), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((4,)), *layers])
        model.compile(optimizer(rate, weight_decay=decay), "mse", jit_compile=False)
        return model

    return build


def best_model(tuner):
    """The best model, which scores as it did in its trial."""
    (model,) = tuner.get_best_models()
    (trial,) = tuner.oracle.get_best_trials()
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(trial.score)
    return model, trial.hyperparameters


def test_the_best_model_of_a_random_search_trains_on_and_from_a_file(client, library, tmp_path):
    how = dict(objective="val_loss", max_trials=2, seed=0, directory=tmp_path)
    tuner = client.RandomSearch(builder(library.AdamW), **how)
    tuner.search(X, Y, epochs=2, **DATA)
    model, chosen = best_model(tuner)
    assert type(model.optimizer) is library.AdamW
    assert float(model.optimizer.learning_rate) == np.float32(chosen["learning_rate"])
    assert float(model.optimizer.weight_decay) == pytest.approx(chosen["weight_decay"])
    model.fit(X, Y, **DATA)
    assert goes_on(model, tmp_path / "model.keras", X, Y, batch_size=16)
    best_model(client.RandomSearch(builder(library.AdamW), overwrite=False, **how))


def test_hyperband_goes_on_from_its_own_trials_with_the_tuners_optimizer(client, library, tmp_path):
    given = library.AdamW(0.125, weight_decay=0.25)
    how = dict(objective="val_loss", max_epochs=2, factor=2, seed=0, directory=tmp_path)
    tuner = client.Hyperband(builder(keras.optimizers.SGD), optimizer=given, **how)
    tuner.search(X, Y, **DATA)
    trials = tuner.oracle.trials.values()
    assert any(trial.hyperparameters["tuner/initial_epoch"] > 0 for trial in trials)
    assert all(trial.status == "COMPLETED" for trial in trials)
    model, _ = best_model(tuner)
    assert type(model.optimizer) is library.AdamW and not given.built
    for each in (given, model.optimizer):
        assert (float(each.learning_rate), float(each.weight_decay)) == (0.125, 0.25)
    model.fit(X, Y, **DATA)
    assert goes_on(model, tmp_path / "model.keras", X, Y, batch_size=16)


def test_a_tuner_finds_our_optimizers_by_their_registered_names(client, tmp_path):
    how = dict(objective="val_loss", max_trials=1, seed=0, directory=tmp_path)
    tuner = client.RandomSearch(builder(keras.optimizers.SGD), optimizer="tf_decoupled>Lion", **how)
    tuner.search(X, Y, **DATA)
    assert type(best_model(tuner)[0].optimizer) is td.Lion
