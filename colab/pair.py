"""Makes the notebooks from their text forms: `python colab/pair.py`.

    quickstart.py (percent format)  →  quickstart.ipynb

A notebook is its text form, with Colab's badge above it and, as the first code cell, what installs
the package where there is none. Edit the text form, run this, and commit both.
"""

import json
import pathlib

import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

REPOSITORY = "OWNER/tf_decoupled"  # on GitHub
NAMES = ("quickstart", "tpu_training", "decay_heatmap", "write_your_own", "which_optimizer")
FOLDER = pathlib.Path(__file__).parent

BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repository}/blob/main/colab/{name}.ipynb)"
)
IF_MISSING = """\
import importlib.util

if importlib.util.find_spec("tf_decoupled") is None:
"""
SOURCE = f"git+https://github.com/{REPOSITORY}"
INSTALL = f"    %pip install -q {SOURCE}"
# tensorflow-tpu contains the package `tensorflow`, and the wheel of that name would overwrite it.
INSTALL_FOR_TPU = f"""\
    %pip uninstall -q -y tensorflow
    %pip install -q tensorflow-tpu==2.20.0 "libtpu<=0.0.24"
    %pip install -q --no-deps {SOURCE}"""

KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
ON_TPU = {"accelerator": "TPU", "colab": {"gpuType": "V5E1"}}


def notebook(name: str) -> NotebookNode:
    """The notebook of a text form, without outputs."""
    made = jupytext.read(FOLDER / f"{name}.py", fmt="py:percent")
    on_tpu = name == "tpu_training"
    first_code = [cell.cell_type for cell in made.cells].index("code")
    install = IF_MISSING + (INSTALL_FOR_TPU if on_tpu else INSTALL)
    made.cells.insert(first_code, new_code_cell(install))
    made.cells.insert(0, new_markdown_cell(BADGE.format(repository=REPOSITORY, name=name)))
    for i, cell in enumerate(made.cells):
        cell.id = f"{name}-{i}"  # by default a random one, another at every run
        cell.metadata = {}
    made.metadata = KERNEL | (ON_TPU if on_tpu else {})
    made.nbformat, made.nbformat_minor = 4, 5
    return made


def text(name: str) -> str:
    """What `name.ipynb` is to contain."""
    made = notebook(name)
    for cell in made.cells:
        cell.source = cell.source.splitlines(keepends=True)
    return json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> None:
    for name in NAMES:
        (FOLDER / f"{name}.ipynb").write_text(text(name), encoding="utf-8")


if __name__ == "__main__":
    main()
