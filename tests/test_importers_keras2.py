"""Training begun in Keras 2 or TensorFlow Addons goes on here with the same numbers."""

import functools
import json
import shutil

import fixtures
import h5py
import numpy as np
import pytest
from fixtures import PLAIN, assert_goes_on, built, variables

import tf_decoupled as td
from tf_decoupled import importers

pytestmark = pytest.mark.usefixtures("untraced")

CLASSES = {
    "Adam": td.Adam,
    "SGD": td.SGD,
    "SGD-scheduled": td.SGD,
    "RMSprop": td.RMSprop,
    "Adagrad": td.AdagradW,
    "Adadelta": td.Adadelta,
    "Adamax": td.Adamax,
    "Nadam": td.Nadam,
    "Ftrl": td.Ftrl,
    "AdamW": td.AdamW,
    "SGDW": td.SGDW,
    "LAMB": td.LAMB,
}


source = functools.partial(fixtures.source, "keras2.zip", ending=".h5")


@pytest.mark.parametrize("name", CLASSES)
def test_an_optimizer_of_keras_2_goes_on_here(name):
    path, trainable, end = source(name)
    ours = importers.from_keras2(path, trainable, **PLAIN)
    assert type(ours) is CLASSES[name]
    assert_goes_on(ours, trainable, end)


def test_rmsprop_without_momentum_goes_on_once_its_epsilon_is_told():
    path, trainable, end = source("RMSprop-plain")
    with pytest.raises(ValueError, match=r"adds ε to the root.*pass `epsilon=`.*RMSprop with"):
        importers.from_keras2(path, trainable)
    ours = importers.from_keras2(path, trainable, epsilon=0.0, **PLAIN)
    assert_goes_on(ours, trainable, end)


@pytest.mark.parametrize("name", ["Adam", "Nadam"])
def test_a_checkpoint_goes_on_in_an_optimizer_of_the_same_arguments(name):
    path, trainable, end = source(name)
    of_file = importers.from_keras2(path, variables(), **PLAIN)
    ours = built(type(of_file).from_config(of_file.get_config()), trainable)
    state = importers.keras2_state(path.with_name(f"{name}-checkpoint"), ours)
    ours.set_state(state)
    assert_goes_on(ours, trainable, end)


def test_what_addons_leave_out_of_the_decay_stays_out():
    path, trainable, _ = source("AdamW")
    ours = importers.from_keras2(path, trainable)
    assert [cell.decays for cell in ours.cells] == [True, False, True, False]
    assert ours.decay_coupling == "independent"


def test_names_that_are_others_here_are_told():
    path, trainable, _ = source("Adamax")
    strangers = trainable[::-1]
    names = {v.path: v.path.partition("/")[2] for v in strangers}
    by_mapping = importers.from_keras2(path, strangers, names, **PLAIN)
    by_call = importers.from_keras2(path, strangers, names.get, **PLAIN)
    a, b = by_mapping.get_state(), by_call.get_state()
    assert all(np.array_equal(a[name], b[name]) for name in a)
    with pytest.raises(ValueError, match=r"a name of its own in Keras 2.*head/bias': None"):
        importers.from_keras2(path, strangers, {})
    with pytest.raises(ValueError, match=r"must be those of the file.*\['other/.*of \['head/"):
        importers.from_keras2(path, strangers, lambda path: f"other/{path}")


def changed(path, folder, **config):
    """A copy of the file that says other hyperparameters."""
    copy = shutil.copy(path, folder / "changed.h5")
    with h5py.File(copy, "r+") as file:
        said = json.loads(file.attrs["training_config"])
        said["optimizer_config"]["class_name"] = config.pop(
            "class_name", said["optimizer_config"]["class_name"]
        )
        said["optimizer_config"]["config"] |= config
        file.attrs["training_config"] = json.dumps(said)
    return copy


@pytest.mark.parametrize(
    "name,config,words",
    [
        ("Adam", dict(class_name="Custom>Mine"), r"Adam, SGD, .*Received: 'Custom>Mine'"),
        ("Adam", dict(is_legacy_optimizer=False), "newer optimizers of Keras 2.11"),
        ("SGD", dict(learning_rate=dict(class_name="Own", config={})), "pass `learning_rate=`"),
        ("SGD-scheduled", dict(decay=0.1), "A schedule that `decay` shrinks.*decay=0.1"),
        ("LAMB", dict(exclude_from_layer_adaptation=["bias"]), "adapts the rate of all variables"),
    ],
)
def test_what_can_not_be_imported_from_keras_2_raises(name, config, words, tmp_path):
    path, trainable, _ = source(name)
    with pytest.raises(ValueError, match=words):
        importers.from_keras2(changed(path, tmp_path, **config), trainable)


def test_a_rate_of_the_callers_replaces_a_schedule_that_is_unknown(tmp_path):
    path, trainable, _ = source("SGD")
    copy = changed(path, tmp_path, learning_rate=dict(class_name="Own", config={}))
    assert float(importers.from_keras2(copy, trainable, learning_rate=0.5).learning_rate) == 0.5


def test_files_without_an_optimizer_of_keras_2_raise(tmp_path):
    path, trainable, _ = source("Adam")
    ours = built(td.Adam(), trainable)
    with pytest.raises(TypeError, match=r"path of a whole-model.*Received: path=Adam"):
        importers.from_keras2(ours, trainable)
    with pytest.raises(FileNotFoundError, match=r"no such file.*absent.h5"):
        importers.from_keras2("absent.h5", trainable)
    with pytest.raises(ValueError, match=r"stand in whole-model `.h5` files only"):
        importers.from_keras2(path.with_name("Adam-checkpoint"), trainable)
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(ValueError, match="is in HDF5"):
        importers.keras2_state(tmp_path / "text.h5", ours)
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(ValueError, match="no state of an optimizer"):
        importers.keras2_state(tmp_path / "empty.h5", ours)
    with pytest.raises(ValueError, match=r"says no optimizer.*training_config is None"):
        importers.from_keras2(tmp_path / "empty.h5", trainable)
    copy = changed(path, tmp_path)
    with h5py.File(copy, "r+") as file:
        group = file["optimizer_weights"]
        group.attrs["weight_names"] = [n for n in group.attrs["weight_names"] if "iter" not in n]
    with pytest.raises(ValueError, match="weights of one `OptimizerV2`"):
        importers.keras2_state(copy, ours)


def test_many_names_that_keras_cuts_in_pieces_are_joined(tmp_path):
    path, trainable, _ = source("Adam")
    copy = changed(path, tmp_path)
    with h5py.File(copy, "r+") as file:
        attributes = file["optimizer_weights"].attrs
        names = list(attributes["weight_names"])
        del attributes["weight_names"]
        attributes["weight_names0"], attributes["weight_names1"] = names[:5], names[5:]
    of_one, of_two = (importers.from_keras2(p, trainable).get_state() for p in (path, copy))
    assert all(np.array_equal(of_one[name], of_two[name]) for name in of_one)


def test_state_of_another_rule_is_listed_and_nothing_is_loaded():
    path, trainable, _ = source("Adam")
    ours = built(td.Adam(), trainable)
    before = ours.get_state()
    with pytest.raises(ValueError, match=r"unexpected: \['sequential/head/bias:v_max'"):
        ours.set_state(importers.keras2_state(path, ours))
    with pytest.raises(TypeError, match=r"imported into td\.Adadelta, .*Received: .*Lion"):
        importers.keras2_state(path, built(td.Lion(), trainable))
    assert all(np.array_equal(before[name], value) for name, value in ours.get_state().items())


def test_a_link_in_the_file_is_not_followed(tmp_path):
    path, trainable, _ = source("SGD")
    copy = changed(path, tmp_path)
    with h5py.File(copy, "r+") as file:
        group = file["optimizer_weights/SGD/head/bias"]
        del group["momentum:0"]
        group["momentum:0"] = h5py.ExternalLink("elsewhere.h5", "secret")
    with pytest.raises(ValueError, match=r"own numbers only.*bias/momentum:0"):
        importers.from_keras2(copy, trainable)
