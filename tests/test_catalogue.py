"""The catalogue: every optimizer is in it, with its paper and the state that it keeps."""

import inspect
import pathlib

import cases
import pytest

import tf_decoupled as td
from tf_decoupled.experiments import app

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "optimizers.md"
PUBLIC = {
    name
    for name in td.__all__
    if inspect.isclass(value := getattr(td, name)) and issubclass(value, td.Optimizer)
}


def one(name):
    (entry,) = td.list_optimizers(name)
    return entry


def printed(capsys, *arguments):
    app.main(app.parse(["tf-decoupled", "optimizers", *arguments]))
    return capsys.readouterr().out


def test_every_optimizer_of_the_package_is_in_it_once_in_the_order_of_the_alphabet():
    names = [entry.name for entry in td.list_optimizers()]
    assert set(names) == PUBLIC - {"Optimizer", "Wrapper"}
    assert names == sorted(set(names), key=lambda name: (name.lower(), name))


@pytest.mark.parametrize("entry", td.list_optimizers(), ids=lambda entry: entry.name)
def test_an_entry_is_told_by_its_class(entry):
    documentation = " ".join(inspect.getdoc(getattr(td, entry.name)).split())
    assert documentation.startswith(entry.summary) and entry.summary.endswith(".")
    assert len(entry.summary) <= 100
    cited = '", 19' in documentation or '", 20' in documentation
    assert cited == (entry.paper is not None), 'a paper stands as: Authors, "Title", year'
    if cited:
        authors, title, year, arxiv = entry.paper
        assert f'{authors}, "{title}", {year}' in documentation and 1900 < year < 2100
        assert arxiv is None or f"arXiv:{arxiv}" in documentation
        assert len(authors) <= 60 and authors[0].isupper()


def test_a_paper_is_the_first_that_is_named_with_its_own_number():
    assert one("AdamW").paper == (
        "Loshchilov & Hutter",
        "Decoupled Weight Decay Regularization",
        2019,
        "1711.05101",
    )
    assert one("Muon").paper[::2] == ("Jordan", 2024)
    assert one("Muon").paper.arxiv is None  # that is the second's
    assert one("Partition").paper is None


@pytest.mark.parametrize(
    "name, size",
    [
        ("AdamW", 8),
        ("SGDW", 4),
        ("Prodigy", 16),
        ("Lookahead", 4),
        ("LayerwiseDecay", 0),
        ("Partition", 0),
        ("Adafactor", 8 / 1024),
    ],
)
def test_state_is_counted_per_parameter_and_without_what_is_wrapped(name, size):
    assert one(name).state_bytes == pytest.approx(size, rel=1e-3, abs=1e-5)


def test_a_pattern_is_as_of_file_names_and_small_letters_are_large_ones():
    names = [entry.name for entry in td.list_optimizers("?DAM*")]
    assert {"Adam", "AdamW"} <= set(names) and "Lion" not in names
    assert [entry.name for entry in td.list_optimizers("sgd")] == ["SGD"]


@pytest.mark.parametrize("pattern, words", [("lio", "Did you mean Lion"), ("muom", "mean Muon")])
def test_a_pattern_that_fits_nothing_raises_and_names_what_is_similar(pattern, words):
    with pytest.raises(ValueError, match=words):
        td.list_optimizers(pattern)
    with pytest.raises(ValueError, match=r"fits '%%%'. `list_optimizers\(\)` lists all"):
        td.list_optimizers("%%%")


def test_the_command_prints_the_table(capsys):
    assert printed(capsys) == f"{td.list_optimizers()!r}\n"
    assert (
        printed(capsys, "*w") == printed(capsys, "--pattern=*w") == f"{td.list_optimizers('*w')}\n"
    )
    head, row = repr(td.list_optimizers("lion")).splitlines()
    assert head.split() == ["name", "bytes", "paper", "what", "it", "is"]
    assert row.startswith("Lion") and "Chen et al. 2023, arXiv:2302.06675" in row


def test_the_page_is_what_the_command_prints(capsys):
    expected = printed(capsys, "--markdown")
    assert expected == PAGE.read_text(), (
        "run `tf-decoupled optimizers --markdown > docs/optimizers.md`"
    )
    assert printed(capsys, "lion", "--markdown") != expected


def test_the_readme_counts_them_and_the_table_has_a_row_for_each():
    readme = (PAGE.parents[1] / "README.md").read_text()
    assert f"{len(td.list_optimizers())} optimizers and wrappers" in readme
    assert len(cases.CASES) >= 55
