"""Writes `docs/api/*.md`: which public names stand on which page of the site.

    python tools/write_api.py

mkdocstrings fills in signatures and docstrings. A test holds the pages to the package.
"""

import inspect
import pathlib
import textwrap
import types
from typing import Any

import tf_decoupled as td

FOLDER = pathlib.Path(__file__).parents[1] / "docs/api"
WIDTH = 88
ENGINE = ("Optimizer", "NormalizedDecay", "DynamicLossScale", "Wrapper", "create")
TOOLS = ("find_lr", "list_optimizers", "refresh_batch_norm", "grad_init")
# By page: its title, what it says, and modules of `td` that it holds whole.
PAGES = {
    "optimizers": (
        "Optimizers and wrappers",
        "Each is `td.NAME` and takes the arguments of [every optimizer](engine.md), too. "
        "[The list](../optimizers.md) has papers and state.",
        (),
    ),
    "engine": ("Around every optimizer", "The arguments that all optimizers share.", ()),
    "schedules": ("Schedules", "Each is `td.schedules.NAME`.", ("schedules",)),
    "masks": (
        "Masks, transforms, constraints",
        "`td.masks`, `td.transforms`, `td.constraints`.",
        ("masks", "transforms", "constraints"),
    ),
    "gradients": (
        "Gradients and training",
        "`td.gradients`, `td.training`.",
        ("gradients", "training"),
    ),
    "tools": (
        "Callbacks and tools",
        "`td.callbacks`, `td.diagnostics`.",
        ("callbacks", "diagnostics"),
    ),
    "state": (
        "Saving, importing, exporting",
        "`td.export`, `td.importers`, and the names of Addons and Hugging Face.",
        ("export", "importers", "addons", "huggingface"),
    ),
}


def written() -> dict[str, str]:
    """The text of each page by its name."""
    own: dict[str, list[str]] = {name: [] for name in PAGES}
    own["optimizers"] = [entry.name for entry in td.list_optimizers()]
    own |= {"engine": list(ENGINE), "tools": list(TOOLS), "gradients": ["minimize_lbfgs"]}
    pages = {}
    for page, (title, text, modules) in PAGES.items():
        names = own[page] + [f"{m}.{name}" for m in modules for name in _public(getattr(td, m))]
        # The methods of a rule are the engine's business.
        bare = "\n    options: {members: []}" if page == "optimizers" else ""
        lines = [f"# {title}", text, *(_entry(name) + bare for name in names)]
        pages[page] = "\n\n".join(lines) + "\n"
    return pages


def _entry(name: str) -> str:
    """A heading, the call, and where mkdocstrings finds the rest."""
    module, _, own = name.rpartition(".")
    value = getattr(getattr(td, module) if module else td, own)
    told = f"::: {value.__module__}.{value.__qualname__}"
    return f"## `td.{name}`\n\n```py\n{_call(own, value)}\n```\n\n{told}"


def _call(name: str, value: Any) -> str:
    """The call with all defaults; of an optimizer without what every optimizer takes."""
    parameters = dict(inspect.signature(value).parameters)
    shared = {*td.Optimizer.engine_arguments, "name"}
    if inspect.isclass(value) and issubclass(value, td.Optimizer) and value is not td.Optimizer:
        parameters = {n: p for n, p in parameters.items() if n not in shared}
    told = [p.replace(annotation=p.empty, default=_Shown.of(p)) for p in parameters.values()]
    plain = f"{name}{inspect.Signature(told)}"
    if len(plain) <= WIDTH:
        return plain
    return textwrap.fill(plain, WIDTH, subsequent_indent=" " * 4, break_on_hyphens=False)


class _Shown:
    """A default as the call shows it, without the address of an object."""

    def __init__(self, value: Any):
        self.value = value

    @classmethod
    def of(cls, parameter: inspect.Parameter) -> Any:
        return parameter.empty if parameter.default is parameter.empty else cls(parameter.default)

    def __repr__(self) -> str:
        return getattr(self.value, "__name__", None) or repr(self.value)


def _public(module: types.ModuleType) -> list[str]:
    """The classes and functions that a module names, or else defines, and documents."""
    named = getattr(module, "__all__", None)
    found = {n: x for n, x in vars(module).items() if n in (named or vars(module)) and n[0] != "_"}
    return [
        name
        for name, value in found.items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__.startswith("tf_decoupled" if named else module.__name__)
        and inspect.getdoc(value)
    ]


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in written().items():
        (FOLDER / f"{name}.md").write_text(text)
