"""scikeras: Keras's models as estimators of scikit-learn, which clones, copies and pickles them."""

import copy
import importlib
import os
import pathlib
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from client import goes_on, same_weights

import tf_decoupled as td

CLIENT = "scikeras.wrappers"
pytestmark = pytest.mark.slow

X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
Y = (X.sum(1) > 0).astype(int)


def network():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, "relu"), keras.layers.Dense(1, "sigmoid")]
    return keras.Sequential([keras.Input((4,)), *layers])


def classifier(client, **given):
    how = dict(batch_size=16, epochs=2, shuffle=False, verbose=0, compile__jit_compile=False)
    return client.KerasClassifier(network, loss="binary_crossentropy", **how, **given)


def clone(estimator):
    from sklearn.base import clone

    return clone(estimator)


def grid_search(estimator, grid):
    """The search of a grid on one split, fitted."""
    from sklearn.model_selection import GridSearchCV

    split = [(np.arange(32), np.arange(32, 64))]
    return GridSearchCV(estimator, grid, cv=split, error_score="raise").fit(X, Y)


def test_a_fitted_classifier_its_copy_and_its_pickle_train_on_alike(client, library):
    fitted = classifier(client, optimizer=library.AdamW(0.01, weight_decay=0.1)).fit(X, Y)
    copies = [copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))]
    for each in (fitted, *copies):
        each.partial_fit(X, Y)
        assert type(each.model_.optimizer) is library.AdamW
        assert int(each.model_.optimizer.iterations) == 12
    assert same_weights(*(each.model_ for each in (fitted, *copies)))


def test_a_fitted_classifiers_model_goes_on_from_a_file(client, library, tmp_path):
    fitted = classifier(client, optimizer=library.AdamW(0.01, weight_decay=0.1)).fit(X, Y)
    assert goes_on(fitted.model_, tmp_path / "model.keras", X, Y)


def test_clones_of_an_estimator_are_fitted_alike_each_with_its_own_optimizer(client, library):
    estimator = classifier(client, optimizer=library.AdamW(0.01, weight_decay=0.1))
    clones = [clone(estimator).fit(X, Y), copy.deepcopy(estimator).fit(X, Y)]
    clones.append(clone(clones[0]).fit(X, Y))  # of a fitted one: begins anew
    assert same_weights(*(each.model_ for each in clones))
    optimizers = [each.model_.optimizer for each in (*clones,)] + [estimator.optimizer]
    assert len({id(each) for each in optimizers}) == 4 and not estimator.optimizer.built


def test_a_class_gets_its_arguments_by_routing(client, library):
    routed = dict(optimizer__learning_rate=0.25, optimizer__weight_decay=0.125)
    fitted = classifier(client, optimizer=library.AdamW, **routed).fit(X, Y)
    optimizer = pickle.loads(pickle.dumps(fitted)).model_.optimizer
    assert type(optimizer) is library.AdamW
    assert (float(optimizer.learning_rate), float(optimizer.weight_decay)) == (0.25, 0.125)


def test_a_grid_search_over_rate_and_decay_refits_with_the_best(client, library):
    grid = {"optimizer__learning_rate": [1e-6, 0.125], "optimizer__weight_decay": [0.0, 0.25]}
    search = grid_search(classifier(client, optimizer=library.AdamW), grid)
    best, optimizer = search.best_params_, search.best_estimator_.model_.optimizer
    assert float(optimizer.learning_rate) == best["optimizer__learning_rate"] == 0.125
    assert float(optimizer.weight_decay) == best["optimizer__weight_decay"]


def test_a_grid_search_over_optimizers_leaves_them_as_they_are(client, library):
    grid = {"optimizer": [library.AdamW(1e-6), library.AdamW(0.125, weight_decay=0.25)]}
    search = grid_search(classifier(client), grid)
    assert float(search.best_estimator_.model_.optimizer.learning_rate) == 0.125
    assert not any(optimizer.built for optimizer in grid["optimizer"])


def kernels(variable):
    """A mask as one writes it, unknown to Keras."""
    return "kernel" in variable.path


@pytest.mark.parametrize(
    "make",
    [
        lambda: td.AdamW(td.schedules.Cosine(0.01, 50), decay_mask=td.masks.exclude("bias")),
        lambda: td.AdamW(weight_decay=td.NormalizedDecay(0.1, 16, 64, 2), decay_mask=kernels),
        lambda: td.Lookahead(td.AdamW(0.01, decay_mask=["bias"])),
        lambda: td.Partition([(td.masks.matrices, td.Muon(0.02)), (None, td.AdamW())]),
        lambda: td.AdamW(gradient_transforms=[td.transforms.Centralize()], skip_nonfinite=True),
    ],
    ids=["schedule and mask", "function", "wrapper", "partition", "transform"],
)
def test_an_estimator_is_cloned_and_pickled_with_whatever_its_optimizer_was_given(client, make):
    estimator = classifier(client, optimizer=make())
    for each in (clone(estimator), pickle.loads(pickle.dumps(estimator))):
        assert each.optimizer is not estimator.optimizer
        assert repr(each.optimizer) == repr(estimator.optimizer)


def test_an_estimator_is_cloned_and_pickled_with_a_decoupled_class_of_keras(client):
    optimizer = td.decouple(keras.optimizers.RMSprop)(0.25, weight_decay=0.5, decay_mask=kernels)
    estimator = classifier(client, optimizer=optimizer)
    for each in (clone(estimator), pickle.loads(pickle.dumps(estimator))):
        assert type(each.optimizer) is type(optimizer) and each.optimizer is not optimizer
        assert float(each.optimizer.weight_decay) == 0.5


def test_an_optimizer_pickled_beside_scikeras_is_known_to_a_new_process(client, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('mine')\n"
        "def kernels(variable): return 'kernel' in variable.path\n"
    )
    program = "import pickle, sys; print(repr(pickle.load(sys.stdin.buffer)))"
    paths = [str(tmp_path), str(pathlib.Path(td.__file__).parents[1])]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        optimizer = td.Lookahead(td.AdamW(0.5, decay_mask=importlib.import_module("mine").kernels))
    process = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        input=pickle.dumps(optimizer),
        capture_output=True,
    )
    assert not process.returncode, process.stderr.decode()
    assert process.stdout.decode().strip() == repr(optimizer)
