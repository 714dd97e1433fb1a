"""Writes `tf_decoupled/__init__.pyi`, by which editors know the arguments of each optimizer.

    python tools/write_stub.py

Constructors are made from declarations when the package is imported, which type checkers don't see.
A test holds the file to the package.
"""

import inspect
import math
import pathlib
import subprocess
import sys
import types
from typing import Annotated, Any, Literal, get_args, get_origin

import tf_decoupled as td
from tf_decoupled.engine import hyperparameters
from tf_decoupled.engine.order import ORDER

HOUSE = pathlib.Path(__file__).parents[1]
STUB = HOUSE / "tf_decoupled/__init__.pyi"
DECLARATIONS = "tf_decoupled.engine.hyperparameters"
KINDS = {
    name: kind for name, kind in vars(hyperparameters).items() if get_origin(kind) is Annotated
}
HEAD = '''\
# Written by tools/write_stub.py.
"""{doc}"""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from typing_extensions import Unpack

'''


def written() -> str:
    """The text of the stub."""
    public = {name: getattr(td, name) for name in td.__all__}
    optimizers = {n: x for n, x in public.items() if inspect.isclass(x) and _is_optimizer(x)}
    others = {name: x for name, x in public.items() if name not in optimizers}
    lines = [HEAD.format(doc=td.__doc__.strip()) + "\n".join(_imports(others)), "", _engine(), ""]
    lines += [_base(name, optimizers.pop(name)) for name in ("Optimizer", "Wrapper")]
    lines += [_class(name, optimizers[name]) for name in sorted(optimizers)]
    return _formatted("\n".join([*lines, "__version__: str", ""]))


def _formatted(text: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(STUB), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def _is_optimizer(cls: type) -> bool:
    return issubclass(cls, td.Optimizer)


def _imports(public: dict[str, Any]) -> list[str]:
    """One import of each public name that is no optimizer, and those that the stub itself needs."""
    lines = [f"from {DECLARATIONS} import {n} as {n}" for n in KINDS if n not in public]
    lines += [
        "from tf_decoupled.engine.optimizer import Optimizer as _Optimizer",
        "from tf_decoupled.wrappers.wrapper import Wrapper as _Wrapper",
    ]
    for name, value in public.items():
        if isinstance(value, types.ModuleType):
            package, _, module = value.__name__.rpartition(".")
            lines.append(f"from {package} import {module} as {name}")
        else:
            module = DECLARATIONS if name in KINDS else value.__module__
            lines.append(f"from {module} import {name} as {name}")
    return sorted(lines)


def _engine() -> str:
    """The arguments that all optimizers share."""
    declared = td.Optimizer.engine_arguments
    lines = [f"    {name}: {_kind(each.kind)}" for name, each in declared.items()]
    return "\n".join(
        ["class EngineArguments(TypedDict, total=False):", *lines, "    name: str | None"]
    )


def _base(name: str, cls: type) -> str:
    """A class to be subclassed: its constructor takes what the subclass declares."""
    above = "_Optimizer" if name == "Optimizer" else "_Wrapper, Optimizer"
    lines = [
        f"class {name}({above}):",
        "    def __init__(self, *args: Any, **kwargs: Any) -> None: ...",
    ]
    if name == "Optimizer":
        lines += [line for concern in ORDER for line in _attributes(concern)]
    return "\n".join(lines) + "\n"


def _attributes(concern: type) -> list[str]:
    """The counters and the public methods of a concern."""
    lines = [f"    {name}: Any" for name in concern.counters]
    for name, method in inspect.getmembers(concern, lambda m: getattr(m, "public", False)):
        parameters = inspect.signature(method).parameters.values()
        told = [p.name if p.name == "self" else _untyped(p) for p in parameters]
        lines.append(f"    def {name}({', '.join(told)}) -> Any: ...")
    return lines


def _untyped(parameter: inspect.Parameter) -> str:
    return f"{parameter.name}: Any" + " = ..." * (parameter.default is not parameter.empty)


def _class(name: str, cls: type) -> str:
    """The constructor of one optimizer: its own arguments, and the engine's."""
    shared = {*td.Optimizer.engine_arguments, "name"}
    own = [p for n, p in cls.__signature__.parameters.items() if n not in shared]
    told, keyword = ["self"], False
    for parameter in own:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword:
            told, keyword = [*told, "*"], True
        told.append(_argument(cls, parameter))
    above = "Wrapper" if issubclass(cls, td.Wrapper) else "Optimizer"
    told = ",\n        ".join([*told, "**engine: Unpack[EngineArguments]"])
    return f"class {name}({above}):\n    def __init__(\n        {told},\n    ) -> None: ...\n"


def _argument(cls: type, parameter: inspect.Parameter) -> str:
    kind = _kind(cls.declared[parameter.name].kind)
    if parameter.default is parameter.empty:
        return f"{parameter.name}: {kind}"
    value = parameter.default
    simple = value is None or (isinstance(value, (bool, int, float, str)) and value != math.inf)
    return (
        f"{parameter.name}: {kind} = {parameter.default!r}"
        if simple
        else f"{parameter.name}: {kind} = ..."
    )


def _kind(kind: Any) -> str:
    """How a stub spells a declared kind."""
    for name, known in KINDS.items():
        if kind is known:
            return name
    if get_origin(kind) is Literal:
        return f"Literal[{', '.join(map(repr, get_args(kind)))}]"
    if isinstance(kind, types.UnionType):
        return str(kind)
    if kind is tuple:
        return "Sequence[Any]"
    return kind.__name__ if kind in (bool, int, str, float) else "Any"


if __name__ == "__main__":
    STUB.write_text(written())
