"""The notebooks of colab/: in step with their text forms, and executed from top to bottom."""

import importlib.util
import json
import os
import pathlib
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from tf_decoupled.experiments import results

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "colab"
spec = importlib.util.spec_from_file_location("pair", FOLDER / "pair.py")
pair = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pair)

every = pytest.mark.parametrize("name", pair.NAMES)

# What a machine with a TPU would answer to the notebook: its strategy, here of emulated cores.
EMULATION = """\
import tensorflow as tf
from tf_decoupled.testing import tpu

tf.distribute.cluster_resolver.TPUClusterResolver.connect = lambda tpu: 2
tf.distribute.TPUStrategy = type("TPUStrategy", (tpu.EmulatedTPUStrategy,), {})
"""


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def first_code_cell(name):
    return next(cell.source for cell in read(name).cells if cell.cell_type == "code")


def execute(name, folder, probe, before=""):
    """Runs a notebook in a fresh kernel and an empty folder, with the cell `before` it, if any.

    Returns what `probe`, evaluated after its last cell, gives; what was printed; and the notebook.
    """
    notebook, path = read(name), os.environ.get("PYTHONPATH", "")
    first, last = new_code_cell(before), new_code_cell(f"import json\nprint(json.dumps({probe}))")
    notebook.cells = [first, *notebook.cells, last]
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    own = {"PYTHONPATH": f"{ROOT}{os.pathsep}{path}", "IPYTHONDIR": str(folder / ".ipython")}
    client.execute(env={**os.environ, **own})
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    printed = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    return SimpleNamespace(**json.loads(printed.splitlines()[-1])), printed, notebook


@pytest.fixture(autouse=True)
def connections_of_its_own(tmp_path, monkeypatch):
    """Jupyter writes a file per kernel; not into the home directory."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / ".runtime"))


@every
def test_a_notebook_is_in_step_with_its_text_form(name):
    written = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert written == pair.text(name), "run `python colab/pair.py`"


def test_every_notebook_has_a_text_form():
    forms = {path.stem for path in FOLDER.glob("*.py")} - {"pair"}
    assert forms == {path.stem for path in FOLDER.glob("*.ipynb")} == set(pair.NAMES)


@every
def test_a_notebook_is_valid_and_has_no_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


@every
def test_a_notebook_opens_in_colab_from_the_badge_above_it(name):
    badge = read(name).cells[0]
    address = "https://colab.research.google.com/github/"
    assert badge.cell_type == "markdown" and badge.source.startswith("[![Open in Colab]")
    assert f"({address}{pair.REPOSITORY}/blob/main/colab/{name}.ipynb)" in badge.source


def installed_by(source):
    """What a cell asks %pip for."""
    asked = []
    shell = SimpleNamespace(run_line_magic=lambda magic, line: asked.append(f"{magic} {line}"))
    exec(TransformerManager().transform_cell(source), {"get_ipython": lambda: shell})
    return asked


@every
def test_the_first_code_cell_installs_the_package_where_there_is_none(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    *others, own = installed_by(first_code_cell(name))
    assert own.startswith("pip install") and own.endswith(
        f"git+https://github.com/{pair.REPOSITORY}"
    )
    assert ("--no-deps" in own) == bool(others) == (name == "tpu_training")


def test_on_a_tpu_the_wheels_that_work_together_are_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    remove, wheels, _ = installed_by(first_code_cell("tpu_training"))
    assert remove == "pip uninstall -q -y tensorflow"
    assert wheels.endswith('tensorflow-tpu==2.20.0 "libtpu<=0.0.24"')


@every
def test_where_the_package_is_nothing_is_installed(name):
    assert not installed_by(first_code_cell(name))


@pytest.mark.slow
def test_quickstart_resumes_bit_for_bit(tmp_path):
    probe = """dict(
        equal=equal, steps=steps, accuracy=accuracy,
        updates=[int(each.optimizer.iterations) for each in (model, resumed)],
        weight_decay=float(resumed.optimizer.weight_decay),
        decay=[(row.shape, row.decays) for row in optimizer.decay_report().rows],
    )"""
    found, printed, _ = execute("quickstart", tmp_path, probe)
    assert found.equal and "Every weight is equal, bit for bit: True" in printed
    assert found.updates == [found.steps, found.steps] == [160, 160]
    assert found.weight_decay == pytest.approx(0.1)
    assert all(decays == (len(shape) > 1) for shape, decays in found.decay)
    assert found.accuracy > 0.75


TPU_PROBE = """dict(
    cores=strategy.num_replicas_in_sync, difference=float(difference), accuracy=accuracy,
    updates=[int(each.optimizer.iterations.numpy()) for each in (model, resumed)],
    dtypes=sorted({weight.dtype for weight in low.trainable_variables}),
    foreign=[cluster.without_kernel() for cluster in getattr(strategy, "clusters", ())],
    float64=[cluster.using("float64") for cluster in getattr(strategy, "clusters", ())],
)"""


def assert_resumed(found, printed, cores):
    steps = 5000 // (64 * cores)
    assert found.cores == cores
    assert printed.count("Restored update") == printed.count(f"Restored update {steps}\n") == 1
    assert found.difference == 0.0
    assert found.updates == [2 * steps, 2 * steps]
    assert found.dtypes == ["bfloat16"]
    assert found.accuracy > 0.65


@pytest.mark.slow
def test_without_a_tpu_its_notebook_says_so_and_resumes_on_the_default_strategy(tmp_path):
    found, printed, _ = execute("tpu_training", tmp_path, TPU_PROBE)
    assert "No TPU was found: NotFoundError. Running on the default strategy." in printed
    assert_resumed(found, printed, cores=1)


@pytest.mark.slow
def test_on_emulated_tpu_cores_its_notebook_resumes_with_kernels_that_tpus_have(tmp_path):
    found, printed, _ = execute("tpu_training", tmp_path, TPU_PROBE, EMULATION)
    assert "Running on 2 TPU cores." in printed
    assert_resumed(found, printed, cores=2)
    assert found.foreign and not any(found.foreign) and not any(found.float64)


@pytest.mark.slow
def test_the_heat_map_is_drawn_from_all_runs(tmp_path):
    found, _, notebook = execute("decay_heatmap", tmp_path, "dict(picture=str(picture))")
    settings, outcomes, *_ = results.read((tmp_path / found.picture).with_suffix(".csv"))
    assert set(outcomes) == set(settings.cells()) and len(outcomes) == 3 * 21
    assert min(outcome.test_error for outcome in outcomes.values()) < 0.25
    assert [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in str(o)]


@pytest.mark.slow
def test_an_optimizer_of_ones_own_is_right_and_has_what_the_engine_has(tmp_path):
    probe = """dict(
        errors=[float(e) for e in (error, xla_error, accumulation_error, wrapper_error)],
        saved=equal, wrapped=wrapped.tolist() == plain.tolist(), losses=losses,
        moved=float(np.abs(ours - theta).min()), beta_1=float(loaded.optimizer.beta_1),
    )"""
    found, _, _ = execute("write_your_own", tmp_path, probe)
    assert max(found.errors) < 1e-6 < 1e-3 < found.moved
    assert found.saved and all(found.saved) and found.wrapped
    assert found.beta_1 == pytest.approx(0.8)
    assert found.losses[-1] < 0.7 * found.losses[0]


@pytest.mark.slow
def test_ten_optimizers_walk_down_the_valley_and_learn(tmp_path):
    probe = """dict(
        losses={name: loss for name, (_, loss) in valley.items()}, errors=errors,
        starts=[path[0].tolist() for path, _ in valley.values()],
    )"""
    found, printed, notebook = execute("which_optimizer", tmp_path, probe)
    assert len(found.losses) == len(found.errors) == 10
    assert all(loss < 0.5 for loss in found.losses.values())  # 24 at the start
    assert max(found.errors.values()) < 40 and min(found.errors.values()) < 25
    assert all(np.allclose(start, [-1.2, 1.0]) for start in found.starts)
    assert "AdamW" in printed
    assert [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in str(o)]
