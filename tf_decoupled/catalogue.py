"""The catalogue: each optimizer and wrapper of the package, whose it is, and what it remembers."""

import difflib
import fnmatch
import functools
import importlib
import inspect
import math
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple

import tensorflow as tf

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import checked

MATRIX = SimpleNamespace(shape=(1024, 1024))  # what state is counted for
AUTHORS = r"(?P<authors>[^\W\d_][^\".;:]*?(?: et al\.)?)"
NAMED = re.compile(rf'(?:^|(?<=[.;:] )){AUTHORS}, "(?P<title>[^"]+)", (?P<year>\d{{4}})')
ARXIV = re.compile(r"arXiv:([\w.-]+(?:/\d+)?\w)")
NEXT = re.compile(r", (?:19|20)\d\d\b")  # of another paper: a number after it isn't this one's
PAGE = """\
# Optimizers

`td.list_optimizers()` and `tf-decoupled optimizers` print this list, `td.list_optimizers("*adam*")`
and `tf-decoupled optimizers "*adam*"` a part of it. State is in bytes per parameter of a
1024 × 1024 matrix, in float32; what a wrapper keeps comes on top of what it wraps.
`td.decouple(cls)` gives the optimizer classes of Keras this decay; `td.schedules` and
`td.transforms` go with all of them.

`td.create("lookahead_adamw", learning_rate=1e-3)` makes one by its name, as from a configuration,
and gives Muon its fallback; `td.find_lr(model, data)` finds a rate to begin with.

`python benchmarks/which_optimizer.py` runs all of them on seven small problems, at many rates, from
several seeds. `python benchmarks/paths.py` draws the way of each on two functions:
[Rosenbrock's](rosenbrock.png) and [Rastrigin's](rastrigin.png), at its best rate for them.
"""


class Paper(NamedTuple):
    """Where a method comes from; `arxiv` is its number there, None for what isn't there."""

    authors: str
    title: str
    year: int
    arxiv: str | None


class Entry(NamedTuple):
    """One optimizer: its name in `td`, what it is, and how much state it keeps.

    state_bytes: per parameter of a 1024 x 1024 matrix, in float32. wraps: whether it goes around
    other optimizers; their state is not counted.
    """

    name: str
    summary: str
    paper: Paper | None
    state_bytes: float
    wraps: bool

    @property
    def state(self) -> str:
        """The bytes as the tables show them."""
        size = f"{self.state_bytes:.2g}" if self.state_bytes < 10 else f"{self.state_bytes:.0f}"
        return f"+ {size}" if self.wraps else size


class Catalogue(tuple):
    """Entries, printed as a table."""

    def __repr__(self) -> str:
        rows = [("name", "bytes", "paper", "what it is")]
        rows += [(e.name, e.state, _short(e.paper), e.summary) for e in self]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = []
        for name, state, paper, summary in rows:
            cells = (name.ljust(widths[0]), state.rjust(widths[1]), paper.ljust(widths[2]), summary)
            lines.append("  ".join(cells))
        return "\n".join(lines)

    def markdown(self) -> str:
        """The same as the page docs/optimizers.md."""
        lines = ["| optimizer | what it is | paper | state, bytes |", "|---|---|---|---|"]
        for entry in self:
            cells = (f"`{entry.name}`", entry.summary, _linked(entry.paper), entry.state)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return PAGE + "\n" + "\n".join(lines) + "\n"


@checked
def list_optimizers(pattern: Annotated[str, kinds.text] = "*") -> Catalogue:
    """The optimizers and wrappers whose name fits the pattern, as a table: print it.

        td.list_optimizers("*adam*")

    Each entry has `name`, `summary`, `paper` and `state_bytes`; `getattr(td, name)` is the class.

    Args:
        pattern: as of file names, `*` for anything, `?` for one letter; capitals don't count.

    Raises ValueError with names that are similar, if none fits.
    """
    classes = optimizers()
    wanted = pattern.lower()
    found = [name for name in classes if fnmatch.fnmatchcase(name.lower(), wanted)]
    if not found:
        raise ValueError(
            f"No optimizer's name fits {pattern!r}.{suggested(wanted, classes)} "
            f"`list_optimizers()` lists all. Received: pattern={pattern!r}"
        )
    found = sorted(found, key=lambda name: (name.lower(), name))
    return Catalogue(_entry(name, classes[name]) for name in found)


def _package() -> Any:
    return importlib.import_module(__package__)


def optimizers() -> dict[str, type]:
    """The optimizer classes among the package's public names, without the two base classes."""
    package = _package()
    public = {name: getattr(package, name) for name in package.__all__}
    bases = (package.Optimizer, package.Wrapper)
    return {
        name: value
        for name, value in public.items()
        if inspect.isclass(value) and issubclass(value, package.Optimizer) and value not in bases
    }


def suggested(wanted: str, classes: Mapping[str, type]) -> str:
    """The question whether another name was meant, after a blank; "" if none is like it."""
    plain = wanted.replace("*", "").replace("?", "")
    lower = {name.lower(): name for name in classes}
    inside = [each for each in lower if plain and plain in each]
    names = dict.fromkeys([*inside, *difflib.get_close_matches(plain, lower, 3, 0.5)])
    return f" Did you mean {', '.join(lower[each] for each in names)}?" if names else ""


@functools.cache
def _entry(name: str, cls: type) -> Entry:
    paragraphs = [" ".join(each.split()) for each in inspect.getdoc(cls).split("\n\n")]
    example = _example(cls)
    wraps = "learning_rate" not in cls.positional
    own = {n: slots for n, slots in example.init(MATRIX).items() if not (wraps and n == "inner")}
    size = _bytes(own) / math.prod(MATRIX.shape)
    summary = re.split(r"(?<=\w\.) (?=[A-Z])", paragraphs[0])[0]
    return Entry(name, summary, _paper(paragraphs), size, wraps)


def _example(cls: type) -> Any:
    """One optimizer of the class; those that wrap others go around an AdamW."""
    if "learning_rate" in cls.positional:
        return cls()
    adamw = _package().AdamW()
    given = dict(inner=adamw, members=[(None, adamw)], factors=[(None, 1.0)])
    return cls(**{name: given[name] for name in cls.positional if name in given})


def _bytes(slots: Mapping[str, Any]) -> int:
    size = 0
    for slot in slots.values():
        if isinstance(slot, Mapping):
            size += _bytes(slot)
        else:
            size += math.prod(slot.shape) * tf.as_dtype(slot.dtype or "float32").size
    return size


def _paper(paragraphs: list[str]) -> Paper | None:
    """The first paper that a docstring names as `Authors, "Title", year ... arXiv:number`."""
    for paragraph in paragraphs:
        if found := NAMED.search(paragraph):
            rest = paragraph[found.end() :]
            number = ARXIV.search(NEXT.split(rest)[0])
            year = int(found["year"])
            return Paper(found["authors"], found["title"], year, number and number[1])
    return None


def _short(paper: Paper | None) -> str:
    if paper is None:
        return ""
    return f"{paper.authors} {paper.year}" + (f", arXiv:{paper.arxiv}" if paper.arxiv else "")


def _linked(paper: Paper | None) -> str:
    if paper is None:
        return ""
    link = f"[{paper.year}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else paper.year
    return f"{paper.authors}, “{paper.title}”, {link}"
