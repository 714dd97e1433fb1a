"""The rules of the house: who imports whom, what is documented, what stays private."""

import ast
import inspect
import os
import pathlib
import subprocess
import sys

import keras
import pytest
from cases import CASES

import tf_decoupled as td

PACKAGE = pathlib.Path(td.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(pathlib.Path(__file__).parent.rglob("*.py"))

# Layers from the bottom up; a file of `engine`, or a folder in it, is a layer of its own.
MAY_IMPORT = {
    "math": set(),
    "matrices": {"math"},
    "registry": set(),
    "arguments": set(),
    "keras_hooks": set(),
    "replicas": set(),
    "masks": {"arguments", "layers", "registry"},
    "layers": set(),
    "hyperparameters": {"arguments", "registry", "math"},
    "checking": {"arguments"},
    "kinds": {"arguments", "checking", "hyperparameters"},
    "schedules": {"checking", "kinds", "registry", "replicas"},
    "decay": {"checking", "hyperparameters", "kinds", "schedules"},
    "transforms": {"math", "registry", "arguments", "checking", "kinds", "state"},
    "constraints": {"arguments", "checking", "hyperparameters", "kinds", "registry"},
    "state": set(),
    "pieces": {"state", "replicas"},
    "overwriting": set(),
    "concern": {"hyperparameters", "state"},
    "reports": {"arguments", "decay", "hyperparameters", "state"},
    "rule": {"decay", "hyperparameters", "masks", "state"},
    "blocks": {"hyperparameters", "pieces", "replicas", "state"},
    "slices": {"blocks", "replicas"},
    "sums": {"hyperparameters", "state"},
    "step": {"blocks", "hyperparameters", "masks", "replicas", "slices", "state", "sums"},
    "stacking": {"blocks", "replicas", "state", "step", "sums"},
    "concerns": {
        *("arguments", "blocks", "checking", "concern", "hyperparameters", "math", "replicas"),
        *("state", "step"),
    },
    "order": {"concern", "concerns"},
    "building": {"concerns", "stacking", "masks", "overwriting", "replicas", "state"},
    "persistence": {"hyperparameters", "masks", "pieces", "registry", "state"},
    "optimizer": {
        *("arguments", "blocks", "building", "checking", "concern", "decay", "hyperparameters"),
        *("keras_hooks", "kinds", "masks", "order", "persistence", "replicas", "reports", "rule"),
        *("state", "step"),
    },
    "optimizers": {"optimizer", "state", "math", "matrices", "schedules", "hyperparameters"},
    "wrappers": {
        *("arguments", "building", "checking", "decay", "hyperparameters", "layers", "masks"),
        *("optimizer", "registry", "replicas", "reports", "schedules", "state"),
    },
    "gradients": {"checking", "hyperparameters", "kinds", "math", "replicas", "state"},
    "lbfgs": {"checking", "gradients", "kinds", "replicas", "state"},
    "training": {"arguments", "checking", "gradients", "kinds", "replicas"},
    "batch_norm": {"checking", "kinds", "state"},
    "diagnostics": {"checking", "gradients", "hyperparameters", "kinds"},
    "grad_init": {"checking", "gradients", "kinds", "masks", "optimizers", "state"},
    "addons": {
        *("arguments", "callbacks", "decay", "hyperparameters", "masks", "math", "optimizer"),
        *("checking", "kinds", "optimizers", "registry", "schedules", "state", "wrappers"),
    },
    "huggingface": {"checking", "kinds", "masks", "optimizers", "schedules"},
    "migrate": set(),
    "catalogue": {"checking", "kinds"},
    "rate_curve": {"checking", "kinds"},
    "trial": {"decay", "gradients", "hyperparameters", "optimizer", "replicas", "state"},
    "batches": set(),
    "find_lr": {
        *("batches", "checking", "hyperparameters", "kinds", "optimizer", "rate_curve", "trial"),
    },
    "by_name": {"arguments", "catalogue", "decay", "optimizer", "schedules", "wrappers"},
    "create": {
        *("arguments", "by_name", "checking", "hyperparameters", "kinds", "masks", "optimizer"),
        *("optimizers", "wrappers"),
    },
    "export": {"arguments", "checking", "kinds", "pieces", "state"},
    "callbacks": {
        *("blocks", "checking", "hyperparameters", "kinds", "math", "optimizer", "state"),
    },
    "importers": {
        *("arguments", "checking", "hyperparameters", "kinds", "masks", "optimizer", "optimizers"),
        *("persistence", "schedules", "state"),
    },
}
SCHEDULES = ("cosine", "cycles", "decays", "phases", "piecewise", "plateau")
IMPORTERS = ("keras", "keras2", "torch", "optax")
CALLBACKS = ("hyperparameter_logger", "monitor", "reduce_on_plateau", "swap_averaged")
SAME_LAYER = {
    *(("adam", "adamw"), ("sgd", "sgdw"), ("lookahead", "wrapper"), ("schedule_free", "wrapper")),
    ("amsgradw", "adamw"),
    *(("layerwise_decay", "wrapper"), ("rate_multipliers", "wrapper"), ("partition", "wrapper")),
    *(("mechanic", "wrapper"), ("iterate_average", "wrapper")),
    *((source, base) for source in IMPORTERS for base in ("naming", "resuming")),
    *(("keras", f"keras_{part}") for part in ("rules", "sources")),
    *(("keras_sources", base) for base in ("checkpoints", "h5", "keras_rules", "resuming")),
    *(("keras2", f"keras2_{part}") for part in ("files", "rules")),
    *(("keras2_files", base) for base in ("checkpoints", "h5")),
    *(("torch", f"torch_{part}") for part in ("files", "groups", "rules")),
    *(("optax", f"optax_{part}") for part in ("files", "states")),
    *(("torch_files", "pickles"), ("optax_files", "pickles"), ("optax_files", "optax_states")),
    *((f"{source}_rules", "resuming") for source in IMPORTERS),
    *(("torch", "layouts"), ("optax", "layouts"), ("checkpoints", "saved_state")),
    *(("restoring", "saved_state"), ("restoring", "naming"), ("saving", "naming")),
    *(("saving", "saved_state"), ("saved_state", "naming")),
    *((family, base) for family in SCHEDULES for base in ("curves", "kinds", "schedule")),
    *(("schedule", "curves"), ("schedule", "kinds")),
    *(("sam", "tape"), ("per_example", "tape"), ("per_example", "random"), ("curvature", "tape")),
    *(("curvature", "random"), ("eigenvalues", "tape"), ("eigenvalues", "random")),
    *(("eigenvalues", "curvature"), ("eigenvalues", "kinds"), ("curvature", "kinds")),
    *(("per_example", "kinds"), ("sam", "kinds")),
    *((own, "constructor") for own in ("declared", "lamb", "novograd", "rectified", "wrapped")),
    *(("yogi", "constructor"), ("callbacks", "wrapped")),
    *(("command", "finding"), ("finding", "names"), ("finding", "rewriting"), ("finding", "rules")),
    *(("rewriting", "names"), ("rewriting", "rules"), ("names", "rules")),
    *((callback, "of_model") for callback in (*CALLBACKS, "measuring")),
    *((callback, "sampling") for callback in ("hyperparameter_logger", "monitor", "measuring")),
    *(("monitor", "measuring"), ("monitor", "monitor_figure")),
}


def layer_of(parts):
    """The layer that a file or a name is of, and what is below it."""
    return (parts[1], parts[2:]) if parts[0] == "engine" else (parts[0], parts[1:])


PACKAGES = ("tf_decoupled", "tf_decoupled.callbacks")
PACKAGES += tuple(f"tf_decoupled.{name}" for name in ("experiments", "engine"))
PACKAGES += ("tf_decoupled.engine.concerns", "tf_decoupled.engine.persistence")
PACKAGES += ("tf_decoupled.importers",)


def imports(path):
    """Names that a file imports: "tf_decoupled.math", "keras", ..."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module in PACKAGES:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_the_layers_below_it(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[-1] in ("__init__", "__main__"):
        return
    inside = [name.split(".")[1:] for name in imports(path) if name.startswith("tf_decoupled.")]
    if parts[0] == "experiments":  # the public package, and its own files
        assert all(name[0] == "experiments" or name[0] in td.__all__ for name in inside)
        return
    if parts[0] == "testing":
        assert all(name[0] == "testing" for name in inside)
        return
    layer, _ = layer_of(parts)
    folders = [name.split(".")[1:] for name in PACKAGES[1:]]
    for name, below in (layer_of(name) for name in inside if name not in folders):
        same_layer = name == layer and below and (path.stem, below[0]) in SAME_LAYER
        assert same_layer or name in MAY_IMPORT[layer], f"{path.name} imports {name}"
    assert "tf_decoupled" not in imports(path) or inside, "nobody imports __init__ from inside"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_private_of_keras_or_tensorflow_is_used(path):
    if "testing" in path.relative_to(PACKAGE).parts:
        return  # it fakes what TensorFlow keeps private
    assert not [n for n in imports(path) if n and n.startswith(("keras.src", "tensorflow.python"))]
    assert "tf.__internal__" not in path.read_text()


@pytest.mark.parametrize("name", td.__all__)
def test_every_public_name_is_documented(name):
    documentation = inspect.getdoc(getattr(td, name))
    assert documentation and documentation[0].isupper()


OPTIMIZERS = [
    value
    for name in td.__all__
    if inspect.isclass(value := getattr(td, name)) and issubclass(value, td.Optimizer)
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda cls: cls.__name__)
def test_every_optimizer_names_its_paper_and_stands_in_the_table_and_the_readme(optimizer):
    if optimizer in (td.Optimizer, td.Wrapper):
        return
    readme = (PACKAGE.parent / "README.md").read_text()
    assert f"`{optimizer.__name__}`" in readme
    if optimizer in (td.Partition, td.RateMultipliers, td.LayerwiseDecay):
        return  # no equations of their own: tests/test_partition.py
    assert "arXiv:" in optimizer.__doc__ and "algorithm" in optimizer.__doc__
    assert any(case.optimizer is optimizer for case in CASES)


def test_a_rule_may_not_cast_assign_or_ask_for_names():
    for path in (PACKAGE / "optimizers").glob("*.py"):
        for word in ("tf.cast", ".assign", ".dtype", ".path", ".name", "tf.device", "tf.Variable"):
            assert word not in path.read_text(), f"{path.name} contains {word}"


def strings(*nodes):
    """The strings among some expressions, and in tuples, lists and sets of them."""
    for node in nodes:
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            yield from strings(*node.elts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def asked_by_name(tree):
    """What is compared with a `.name`, or looked up or listed by a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            yield from strings(*node.keys)
        elif isinstance(node, ast.Subscript):
            yield from strings(node.slice)
        elif isinstance(node, ast.Compare):
            yield from strings(node.left, *node.comparators)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "startswith":
            yield from strings(*node.args)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_no_test_asks_for_a_row_by_its_name(path):
    """What is special about a row stands in the row: see `rows.row.Case`."""
    tree = ast.parse(path.read_text())
    if path.parent.name == "rows" or "CASES" not in {
        n.id for n in ast.walk(tree) if type(n) is ast.Name
    }:
        return
    rows = [case.name for case in CASES]
    asked = {string.rstrip("-") for string in asked_by_name(tree) if len(string) > 2}
    assert not [s for s in asked if any(r.startswith(s) or s in r.split("-") for r in rows)]


def test_a_plain_step_is_followed_in_four_files_of_700_lines():
    names = ("engine/step.py", "engine/blocks.py", "engine/rule.py", "optimizers/adamw.py")
    lines = sum(len((PACKAGE / name).read_text().splitlines()) for name in names)
    assert lines <= 700, lines
    assert len((PACKAGE / "engine/optimizer.py").read_text().splitlines()) <= 300


def test_functions_stay_short():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert lines <= 30, f"{path.name}: {node.name} has {lines} lines"


@pytest.mark.parametrize(
    "variable,value,words",
    [
        ("TF_USE_LEGACY_KERAS", "1", "TF_USE_LEGACY_KERAS asks for Keras 2"),
        ("KERAS_BACKEND", "numpy", "set KERAS_BACKEND=tensorflow"),
    ],
)
def test_the_wrong_keras_raises_on_import(variable, value, words):
    environment = {**os.environ, variable: value}
    command = [sys.executable, "-c", "import tf_decoupled"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode and "ImportError" in run.stderr and words in run.stderr


def test_optimizers_are_keras_optimizers_by_name():
    assert issubclass(td.AdamW, keras.optimizers.Optimizer)
    assert keras.saving.get_registered_name(td.AdamW) == "tf_decoupled>AdamW"
