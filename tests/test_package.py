"""What is handed out: source archive and wheel, and an environment with the wheel in it."""

import os
import pathlib
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import pytest

pytestmark = pytest.mark.slow
HOUSE = pathlib.Path(__file__).parents[1]
USE = """\
import tf_decoupled as td, keras, numpy as np, pathlib
assert pathlib.Path(td.__file__).is_relative_to({folder!r}), td.__file__
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(td.AdamW(0.01), "mse")
model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
from tf_decoupled.experiments import data
print(len(data.load("fashion_mnist_small", None).train.labels))
"""


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source archive and the wheel, made of what git would hand out."""
    pytest.importorskip("build")
    source, out = (tmp_path_factory.mktemp(name) for name in ("source", "dist"))
    archive = source / "house.tar"
    run("git", "archive", "-o", archive, "HEAD", cwd=HOUSE)
    with tarfile.open(archive) as files:
        files.extractall(source, filter="data")
    archive.unlink()
    run(sys.executable, "-m", "build", "--outdir", out, source)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def test_the_wheel_has_the_types_the_stub_the_images_and_no_tests(built):
    names = zipfile.ZipFile(built[1]).namelist()
    for file in ("py.typed", "__init__.pyi", "experiments/fashion_mnist_small/NOTICE"):
        assert f"tf_decoupled/{file}" in names
    top = {name.split("/")[0] for name in names if "dist-info" not in name}
    assert top == {"tf_decoupled", "tf_decoupled_command.py"}


def test_the_index_would_take_both(built):
    pytest.importorskip("twine")
    run(sys.executable, "-m", "twine", "check", "--strict", *built)


def test_the_wheel_works_in_an_environment_of_its_own(built, tmp_path):
    venv.create(tmp_path / "own", with_pip=False)
    python = tmp_path / "own/bin/python"
    folder = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", folder, built[1])
    # What it needs comes from here: to download TensorFlow again would prove nothing more.
    libraries = pathlib.Path(folder, "libraries.pth")
    libraries.write_text(sysconfig.get_path("purelib") + "\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    said = run(python, "-c", USE.format(folder=folder), cwd=tmp_path, env=environment)
    assert said.split()[-1] == "5000"
