"""Writes `docs/api/*.md`: which public names stand on which page of the site.

    python tools/write_api.py

mkdocstrings fills in signatures and docstrings. A test holds the pages to the package.
"""

import inspect
import pathlib
import types

import tf_decoupled as td

FOLDER = pathlib.Path(__file__).parents[1] / "docs/api"
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
    own = {name: list(_classes()) if name == "optimizers" else [] for name in PAGES}
    own["engine"] = [getattr(td, name) for name in ENGINE]
    own["tools"] = [getattr(td, name) for name in TOOLS]
    own["gradients"] = [td.minimize_lbfgs]
    pages = {}
    for name, (title, text, modules) in PAGES.items():
        objects = own[name] + [each for module in modules for each in _of(getattr(td, module))]
        lines = [f"# {title}", text, *(_entry(each, name) for each in objects)]
        pages[name] = "\n\n".join(lines) + "\n"
    return pages


def _entry(value: type | types.FunctionType, page: str) -> str:
    """An object as mkdocstrings finds it; of rules without their methods."""
    bare = "\n    options: {members: []}" if page == "optimizers" else ""
    return f"::: {value.__module__}.{value.__qualname__}{bare}"


def _classes() -> list[type]:
    return [getattr(td, entry.name) for entry in td.list_optimizers()]


def _of(module: types.ModuleType) -> list:
    """The public classes and functions of a module: those it names, or those that it defines."""
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    found = [(name, getattr(module, name)) for name in names]
    named = hasattr(module, "__all__")
    return [
        value
        for name, value in found
        if (inspect.isclass(value) or inspect.isfunction(value))
        and (value.__module__.startswith(module.__name__) if not named else _is_ours(value))
    ]


def _is_ours(value: type | types.FunctionType) -> bool:
    return value.__module__.startswith("tf_decoupled") and bool(inspect.getdoc(value))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in written().items():
        (FOLDER / f"{name}.md").write_text(text)
