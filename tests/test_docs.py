"""The documents are true: each of their examples runs, page by page, and the site builds."""

import os
import pathlib
import re
import subprocess
import sys

import matplotlib
import pytest

matplotlib.use("Agg")
HOUSE = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(HOUSE / "tools"))
import write_api  # noqa: E402

PAGES = ("docs/index.md", "docs/start.md", "docs/decay.md", "docs/recipes.md")


def examples(page):
    """The Python of a page, each example at the line where it stands."""
    text = (HOUSE / page).read_text()
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
        yield text[: found.start(1)].count("\n"), found[1]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "examples"}
    for line, code in examples(page):
        exec(compile("\n" * line + code, str(HOUSE / page), "exec"), names)
    assert len(names) > 1


def test_every_page_with_python_is_run_here_or_by_a_test_of_its_own():
    elsewhere = {f"docs/{n}.md" for n in ("command-line", "distributed", "migrating")}
    pages = [f"docs/{path.relative_to(HOUSE / 'docs')}" for path in HOUSE.glob("docs/**/*.md")]
    with_python = {page for page in pages if any(examples(page))}
    assert with_python - elsewhere <= set(PAGES)


def test_the_pages_of_the_api_are_those_that_the_package_asks_for():
    pages = {path.stem: path.read_text() for path in write_api.FOLDER.glob("*.md")}
    assert pages == write_api.written()


@pytest.mark.slow
def test_the_site_builds_and_every_link_leads_somewhere(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "site/api/optimizers/index.html").read_text()
    assert "AdamW" in page and "weight_decay" in page
