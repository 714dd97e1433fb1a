"""Which of ours a name elsewhere means: as the caller says, or where only its start differs."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from tf_decoupled.engine import arguments, kinds
from tf_decoupled.engine.checking import Where
from tf_decoupled.engine.persistence.naming import aligned_paths


def _names(where: Where, value: Any) -> Any:
    is_function = callable(value) and not inspect.isclass(value) and arguments.takes(value, 1)
    if not isinstance(value, Mapping) and not is_function:
        where.refuse(TypeError, "a mapping from path to the name there, or a callable", value)
    return value


Names = Annotated[Mapping[str, str] | Callable[[str], str], _names]
NamesOrNone = Annotated[Mapping[str, str] | Callable[[str], str] | None, kinds.optional(_names)]


def names_there(paths: Sequence[str], names: Names, whose: str) -> dict[str, str]:
    """The name there of each path here; all must have one, of their own."""
    found = {path: names(path) if callable(names) else names.get(path) for path in paths}
    texts = all(isinstance(name, str) for name in found.values())
    if not texts or len(set(found.values())) < len(found):
        raise ValueError(
            f"`names` must give each variable a name of its own in {whose}. Received: {found}"
        )
    return found


def check_told(told: Iterable[str], there: Collection[str], where: str) -> None:
    """Raises for names of the caller that the source, where it has any, doesn't have."""
    absent = sorted(set(told).difference(there)) if there else []
    if absent:
        raise ValueError(
            f"`names` must be those of {where}. Received: {absent}, which are none of "
            f"{sorted(there)}"
        )


def aligned(slots: Mapping[str, Any], paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays named "path:slot" under the paths here, where only Keras's naming differs."""
    split = {name: name.rpartition(":") for name in slots}
    pairs = aligned_paths({path for path, colon, _ in split.values() if colon}, paths)
    return {
        f"{pairs.get(path, path)}{colon}{slot}": slots[name]
        for name, (path, colon, slot) in split.items()
    }
