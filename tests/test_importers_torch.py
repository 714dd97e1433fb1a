"""Files of PyTorch are read without PyTorch, and training goes on here with the same numbers."""

import functools
import pickle
import zipfile

import fixtures
import keras
import numpy as np
import pytest
from fixtures import PLAIN, assert_goes_on, built, variables

import tf_decoupled as td
from tf_decoupled import importers
from tf_decoupled.engine.checking import Where
from tf_decoupled.importers.torch_files import state_dict_of

read = functools.partial(state_dict_of, Where("state_dict"))
pytestmark = pytest.mark.usefixtures("untraced")

PARAMETERS = ["hidden.weight", "hidden.bias", "head.weight", "head.bias"]
CLASSES = {
    "Adam": (td.Adam, {}),
    "AdamW": (td.AdamW, {}),
    "SGD": (td.SGD, {}),
    "RMSprop": (td.RMSpropW, dict(epsilon=0.0)),
    "RMSprop-centered": (td.RMSpropW, dict(epsilon=0.0)),
    "Adagrad": (td.AdagradW, {}),
    "Adadelta": (td.AdadeltaW, {}),
    "Adamax": (td.AdaMaxW, dict(epsilon=0.0)),
    "NAdam": (td.NAdamW, {}),
    "RAdam": (td.RAdam, dict(epsilon=1e-8)),
    "Adafactor": (td.Adafactor, {}),
}


def named(path):
    """PyTorch's name of "sequential/hidden/kernel"."""
    layer, name = path.split("/")[-2:]
    return f"{layer}.{'weight' if name == 'kernel' else name}"


source = functools.partial(fixtures.source, "torch.zip", ending=".pt")


@pytest.mark.parametrize("name", CLASSES)
def test_an_optimizer_from_a_file_of_pytorch_goes_on_here(name):
    path, trainable, end = source(name)
    cls, told = CLASSES[name]
    given = dict(parameters=PARAMETERS, **told, **PLAIN)
    if name == "SGD":  # which PyTorch doesn't count
        given["iterations"] = 6
    ours = importers.from_torch(path, trainable, named, **given)
    assert type(ours) is cls
    assert_goes_on(ours, trainable, end)


def test_updates_that_are_told_count_for_sgd_without_momentum():
    """It has no state at all; a schedule goes on where it was."""
    group = dict(lr=0.1, momentum=0, dampening=0, weight_decay=0, nesterov=False, maximize=False)
    state = dict(state={}, param_groups=[dict(group, params=[0])])
    v = keras.Variable([1.0], name="v")
    schedule = td.schedules.Cosine(0.1, 1000)
    ours = importers.from_torch(
        state, [v], lambda _: "w", parameters=["w"], iterations=900, learning_rate=schedule
    )
    assert int(ours.iterations) == 900
    assert float(ours.learning_rate) == pytest.approx(float(schedule(900)))


@pytest.mark.slow
def test_pytorch_reads_the_files_as_they_are_read_here():
    torch = pytest.importorskip("torch", reason="compares with `torch.load`")
    for name in CLASSES:
        path, *_ = source(name)
        theirs, ours = torch.load(path, weights_only=True)["optimizer"], read(path)
        assert ours["param_groups"] == theirs["param_groups"]
        for number, entry in theirs["state"].items():
            assert entry.keys() == ours["state"][number].keys()
            for key, value in entry.items():
                np.testing.assert_array_equal(value, ours["state"][number][key])


def test_tensors_of_all_kinds_and_strides_are_read():
    folder, _ = fixtures.unpacked("torch.zip")
    state = read(folder / "kinds.pt")["state"]
    assert len(state) == 12
    for name, found in state.items():
        expected = np.arange(6).reshape(2, 3).T
        expected = expected[1:, 1] if name == "slice" else expected
        np.testing.assert_array_equal(found, expected.astype(bool) if name == "bool" else expected)


@pytest.mark.parametrize("name", ["RMSprop", "Adamax", "RAdam"])
def test_an_epsilon_that_stands_elsewhere_must_be_told(name):
    path, trainable, _ = source(name)
    with pytest.raises(ValueError, match=rf"PyTorch's {name} adds ε.*pass `epsilon=`.*eps="):
        importers.from_torch(path, trainable, named, parameters=PARAMETERS)


GROUP = dict(lr=0.1, weight_decay=0.5, params=[0, 1, 2, 3], maximize=False)
OPTIONS = {
    "RMSprop": dict(momentum=0.0, alpha=0.9, eps=0.0, centered=False),
    "Adagrad": dict(lr_decay=0.0, eps=0.1, initial_accumulator_value=0.0),
    "Adadelta": dict(rho=0.9, eps=0.1),
    "Adamax": dict(betas=(0.9, 0.99), eps=0.0),
    "NAdam": dict(betas=(0.9, 0.9), eps=1.0, momentum_decay=0.1, decoupled_weight_decay=False),
    "RAdam": dict(betas=(0.9, 0.9), eps=0.0, decoupled_weight_decay=False),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_l2_that_only_adam_and_sgd_have_here_must_be_told(name):
    fresh = dict(state={}, param_groups=[GROUP | OPTIONS[name]])
    given = dict(parameters=PARAMETERS)
    with pytest.raises(ValueError, match=f"PyTorch's {name} is L2.*pass `weight_decay=`"):
        importers.from_torch(fresh, variables(), named, **given)
    ours = importers.from_torch(fresh, variables(), named, weight_decay=0.25, **given)
    assert float(ours.weight_decay) == 0.25 and float(ours.learning_rate) == np.float32(0.1)


def test_an_radam_that_is_still_to_rectify_raises():
    trainable = variables()
    moments = {key: np.zeros((), "float32") for key in ("exp_avg", "exp_avg_sq")}
    ours = built(td.RAdam(), trainable)
    early = {name: dict(step=3, **moments) for name in PARAMETERS}
    with pytest.raises(ValueError, match=r"after 5 updates with beta_2=0.999. Received: 3"):
        importers.torch_state(early, ours, named)
    never = built(td.RAdam(beta_2=0.65), trainable)
    with pytest.raises(ValueError, match="after no number of updates"):
        importers.torch_state(early, never, named)
    momentum = built(td.RAdam(beta_2=0.5), trainable)  # neither rectifies
    assert importers.torch_state(early, momentum, named)["iterations"] == 3


def test_an_adafactor_of_convolutions_or_of_other_layouts_raises():
    path, trainable, _ = source("Adafactor")
    given = dict(parameters=PARAMETERS)
    with pytest.raises(ValueError, match="a `layout` that transposes or does nothing"):
        importers.from_torch(path, trainable, named, layout=lambda v, a: a[::-1], **given)
    ours = built(td.Adafactor(), trainable)
    windows = {name: dict(row_var=np.ones((2, 2, 3, 1))) for name in PARAMETERS}
    windows = {n: entry | dict(col_var=np.ones((2, 2, 1, 3))) for n, entry in windows.items()}
    with pytest.raises(ValueError, match="factors the window of a convolution"):
        importers.torch_state(windows, ours, named)


def archive(path, content, **more):
    """A file as `torch.save` lays it out."""
    with zipfile.ZipFile(path, "w") as file:
        for name, data in {"data.pkl": content, **more}.items():
            file.writestr(f"archive/{name}", data)
    return path


class Evil:
    def __reduce__(self):
        return (eval, ("[].append(0)",))


@pytest.mark.parametrize(
    "whole,words",
    [
        ({"state": Evil(), "param_groups": []}, "run nothing.*asks for __builtin__.eval"),
        ([1, 2], "with a list"),
        ({"model": {}}, r"Received: 0 in .*\['model'\]"),
    ],
)
def test_a_file_without_one_state_dict_raises_and_runs_nothing(whole, words, tmp_path):
    path = archive(tmp_path / "file.pt", pickle.dumps(whole, 2))
    with pytest.raises(ValueError, match=words):
        importers.from_torch(path, variables(), named)


def test_a_tensor_that_would_lie_outside_of_its_storage_raises(tmp_path):
    path, trainable, _ = source("AdamW")
    with zipfile.ZipFile(path) as file:
        parts = {n.split("/", 1)[1]: file.read(n) for n in file.namelist()}
    parts["data/1"] = b"abcd"  # in place of twelve numbers
    with pytest.raises(ValueError, match="can't be read"):
        importers.from_torch(
            archive(tmp_path / "short.pt", parts.pop("data.pkl"), **parts), trainable, named
        )


def test_bytes_that_are_no_archive_raise(tmp_path):
    with pytest.raises(TypeError, match=r"`optimizer.state_dict\(\)`.*Received: state_dict=5"):
        importers.torch_state(5, built(td.Adam(), variables()), named)
    (tmp_path / "old.pt").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match=r"since 1.6. Load this one there"):
        importers.from_torch(tmp_path / "old.pt", variables(), named)
    with zipfile.ZipFile(tmp_path / "other.pt", "w"):
        pass
    with pytest.raises(ValueError, match=r"no file of `torch.save`"):
        importers.from_torch(tmp_path / "other.pt", variables(), named)
