"""What a configuration says by name: strings and mappings as classes and their arguments.

"lookahead_adamw"
"muon(learning_rate=0.02, weight_decay=0.1)"                literals only: nothing is executed
{"name": "cosine", "initial_learning_rate": 1e-3, "decay_steps": 1000}
"""

import ast
import inspect
from collections.abc import Mapping
from typing import Any

from tf_decoupled import schedules
from tf_decoupled.catalogue import optimizers, suggested
from tf_decoupled.engine.arguments import INSTEAD, check_names
from tf_decoupled.engine.decay import NormalizedDecay
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.wrappers.partition import Partition
from tf_decoupled.wrappers.wrapper import Wrapper

SEPARATORS = "_- "


def method(name: str) -> tuple[type[Optimizer], list[type[Wrapper]]]:
    """The class that a name means, and the wrappers that stand before it, the outermost first."""
    classes, around, outer, rest = optimizers(), wrapper_classes(), [], name
    while not _fits(rest, classes):
        cuts = [i for i, letter in enumerate(rest) if letter in SEPARATORS]
        first = next((i for i in cuts if _fits(rest[:i], around)), None)
        if first is None:
            break
        outer.append(_class(rest[:first], around, "wrapper"))
        rest = rest[first + 1 :]
    cls = _class(rest, classes, "optimizer")
    if issubclass(cls, Wrapper):
        raise ValueError(
            f"{cls.__name__} goes around an optimizer: name that as well, '{rest}_adamw'. "
            f"Received: {name!r}"
        )
    if issubclass(cls, Partition):
        raise ValueError(
            "`create` makes a Partition where there is a fallback; for others call td.Partition "
            f"with its masks and optimizers. Received: {name!r}"
        )
    return cls, outer


def wrapper(value: Any) -> tuple[type[Wrapper], dict[str, Any]]:
    """The class and the arguments of a wrapper."""
    name, options = named(value, "A wrapper")
    cls = _class(name, wrapper_classes(), "wrapper")
    own = [n for n in inspect.signature(cls).parameters if n != "inner"]
    check_names(cls.__name__, options, own, INSTEAD)
    return cls, options


def wrapper_classes() -> dict[str, type[Wrapper]]:
    return {name: cls for name, cls in optimizers().items() if issubclass(cls, Wrapper)}


def _plain(name: str) -> str:
    return name.lower().translate({ord(letter): None for letter in SEPARATORS})


def _fits(name: str, classes: Mapping[str, type]) -> list[str]:
    """The names that are meant: the very same, or those that differ in capitals and the like."""
    return [name] if name in classes else [n for n in classes if _plain(n) == _plain(name)]


def _class(name: str, classes: Mapping[str, type], kind: str) -> type:
    found = _fits(name, classes)
    if len(found) == 1:
        return classes[found[0]]
    if found:
        raise ValueError(
            f"{name!r} may be {' or '.join(found)}: write the one that you mean. Received: {name!r}"
        )
    known = "`td.list_optimizers()` lists all."
    if kind == "schedule":
        known = "td.schedules has all; a number stands without quotes, in YAML as 1.0e-3."
    raise ValueError(
        f"No {kind} is called {name!r}.{suggested(_plain(name), classes)} {known} "
        f"Received: {name!r}"
    )


def schedule(value: Any) -> Any:
    """The schedule that is named, with those inside of it; anything else as it is."""
    if not isinstance(value, (str, Mapping)):
        return value
    name, options = named(value, "A schedule")
    cls = _class(name, schedule_classes(), "schedule")
    check_names(cls.__name__, options, inspect.signature(cls).parameters)
    return cls(**{n: _inside(v) for n, v in options.items()})


def _inside(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_inside(each) for each in value]
    return schedule(value) if isinstance(value, Mapping) else value


def schedule_classes() -> dict[str, type]:
    public = {name: getattr(schedules, name) for name in schedules.__all__}
    own = {
        name: value
        for name, value in public.items()
        if inspect.isclass(value)
        and issubclass(value, schedules.Schedule)
        and value is not schedules.Schedule
    }
    return own | {"NormalizedDecay": NormalizedDecay}


def named(value: Any, what: str) -> tuple[str, dict[str, Any]]:
    """The name and the arguments that a string or a mapping says."""
    if isinstance(value, str):
        value = _read(value)
    is_named = isinstance(value, Mapping) and isinstance(value.get("name"), str)
    if not is_named or not all(isinstance(key, str) for key in value):
        raise TypeError(
            f"{what} is told by its name, 'adamw', a call, 'adamw(learning_rate=1e-3)', or a "
            f"mapping with the key 'name'. Received: {value!r}"
        )
    return value["name"].strip(), {n: v for n, v in value.items() if n != "name"}


def _read(text: str) -> dict[str, Any]:
    """A name, or a call with literals by name, as a mapping. Nothing is executed."""
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return dict(name=name)
    try:
        call = ast.parse(f"name({rest}", mode="eval").body
        return _call(call) | dict(name=name)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(
            "A string is a name, or a call whose arguments are literals by name, strings in "
            f"quotes: 'muon(learning_rate=0.02, scale=\"original\")'. Received: {text!r} ({error})"
        ) from error


def _call(node: ast.expr) -> dict[str, Any]:
    by_name = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args
    if not by_name or not all(each.arg for each in node.keywords):
        raise ValueError("no call with arguments by name")
    given = {each.arg: _literal(each.value) for each in node.keywords}
    if len(given) < len(node.keywords):
        raise ValueError("an argument is given twice")
    if "name" in given:
        raise ValueError("`name` is what stands before the bracket")
    return given | dict(name=node.func.id)


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(each) for each in node.elts]
    return ast.literal_eval(node)
