"""How saved state finds its variables: a slot follows the variable that the same file restores.

Weights come back by structure, and Keras numbers layers anew ("dense" becomes "dense_2"), so a name
alone is no proof. Three things tell a variable, and the first that can decides:

    value      the variable holds, bit for bit, what it held when the state was saved
    position   as many variables of the same shapes, in the same order
    name       the same path; or, where the structure changed, a path that differs only in how Keras
               names things

Where position and name say two different things and no value decides, matching raises.
"""

import itertools
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Known(NamedTuple):
    """What is known of a variable, of a saved one or of one that is here.

    shape: None if the file doesn't say. checksum: of the value; None where that proves nothing.
    position: among the variables that were built together; None for those that came later.
    """

    path: str
    shape: tuple[int, ...] | None = None
    checksum: int | None = None
    position: int | None = None


def checksum(value: np.ndarray) -> int | None:
    """32 bits that tell values apart; None for zeros or ones only, with which many begin."""
    value = np.asarray(value)
    if not value.size or (value.flat[0] in (0, 1) and (value == value.flat[0]).all()):
        return None
    return zlib.crc32(np.ascontiguousarray(value).reshape(-1).view(np.uint8))


def match(saved: Sequence[Known], own: Sequence[Known], by: str | None = None) -> dict[int, int]:
    """Index of a saved variable to index of the variable here, for those that belong together.

    `by` is "name" or "position" to let that alone decide. Pairs found by name may differ in shape.

    Raises ValueError where name and position differ and nothing tells which is right.
    """
    if by is not None:
        return _by_position(saved, own, {}) if by == "position" else _by_name(saved, own)
    pairs = _by_value(saved, own)
    pairs |= _in_the_same_layers(pairs, saved, own)
    positions = _by_position(saved, own, pairs)
    names = _by_name(saved, own, pairs)
    wrong_names = {saved[s].path for s, o in pairs.items() if saved[s].path != own[o].path}
    names_mislead = not wrong_names.isdisjoint(known.path for known in own)
    if positions:
        if not names_mislead:
            _check_agreement(saved, own, positions)
        return pairs | positions
    if names_mislead and any(_agree(saved[s], own[o]) for s, o in names.items()):
        _raise_undecided(saved, own, names, {})
    return pairs if names_mislead else pairs | names


def _agree(saved: Known, own: Known) -> bool:
    return saved.shape is None or own.shape is None or saved.shape == own.shape


def _by_value(saved: Sequence[Known], own: Sequence[Known]) -> dict[int, int]:
    """Variables whose values nobody else has, here or there."""
    theirs, ours = (
        Counter((k.shape, k.checksum) for k in side if k.checksum is not None)
        for side in (saved, own)
    )
    index = {(k.shape, k.checksum): o for o, k in enumerate(own)}
    return {
        s: index[k.shape, k.checksum]
        for s, k in enumerate(saved)
        if theirs[k.shape, k.checksum] == ours[k.shape, k.checksum] == 1
    }


def _in_the_same_layers(
    pairs: Mapping[int, int], saved: Sequence[Known], own: Sequence[Known]
) -> dict[int, int]:
    """What stands beside variables that were found: a layer's bias, once its kernel is known."""
    layers: defaultdict[str, set[str]] = defaultdict(set)
    for s, o in pairs.items():
        layers[_layer(saved[s].path)].add(_layer(own[o].path))
    taken = set(pairs.values())
    index = {known.path: o for o, known in enumerate(own) if o not in taken}
    found = {}
    for s, known in enumerate(saved):
        here = layers.get(_layer(known.path), ())
        if s not in pairs and len(here) == 1 and (layer := next(iter(here))):
            o = index.get(f"{layer}/{known.path.rpartition('/')[2]}")
            if o is not None and _agree(known, own[o]):
                found[s] = o
    return found


def _layer(path: str) -> str:
    return path.rpartition("/")[0]


def _by_position(
    saved: Sequence[Known], own: Sequence[Known], pairs: Mapping[int, int]
) -> dict[int, int]:
    """The n-th to the n-th, where all shapes agree and no pair says otherwise; else nothing."""
    placed = {known.position: s for s, known in enumerate(saved) if known.position is not None}
    if len(placed) != len(own) or any(known.position not in placed for known in own):
        return {}
    found = {placed[known.position]: o for o, known in enumerate(own)}
    fits = all(_agree(saved[s], own[o]) for s, o in found.items())
    fits = fits and all(found.get(s) == o for s, o in pairs.items())
    return {s: o for s, o in found.items() if s not in pairs} if fits else {}


def _by_name(
    saved: Sequence[Known], own: Sequence[Known], pairs: Mapping[int, int] | None = None
) -> dict[int, int]:
    pairs = pairs or {}
    theirs = {known.path: s for s, known in enumerate(saved) if s not in pairs}
    taken = set(pairs.values())
    ours = {known.path: o for o, known in enumerate(own) if o not in taken}
    names = {path: path for path in theirs.keys() & ours.keys()}
    for path, here in aligned_paths(theirs, ours).items():
        if _agree(saved[theirs[path]], own[ours[here]]):
            names[path] = here
    return {theirs[path]: ours[here] for path, here in names.items()}


def _check_agreement(
    saved: Sequence[Known], own: Sequence[Known], positions: Mapping[int, int]
) -> None:
    """Raises if a saved name is here, too, but of a variable at another position."""
    here = {known.path: o for o, known in enumerate(own)}
    names = {s: here[saved[s].path] for s in positions if saved[s].path in here}
    names = {s: o for s, o in names.items() if _agree(saved[s], own[o])}
    if any(positions[s] != o for s, o in names.items()):
        _raise_undecided(saved, own, names, positions)


def _raise_undecided(
    saved: Sequence[Known],
    own: Sequence[Known],
    names: Mapping[int, int],
    positions: Mapping[int, int],
) -> None:
    s = next(s for s, o in names.items() if positions.get(s) != o)
    by_position = repr(own[positions[s]].path) if positions else "nothing"
    raise ValueError(
        "The saved state fits these variables in two ways, and nothing was loaded. By name "
        f"{saved[s].path!r} is {own[names[s]].path!r}, by position it is {by_position}, and the "
        "weights that were loaded don't tell. Load the weights of the same file first; or say "
        'what is right: `optimizer.restore_by = "name"` or "position".'
    )


def aligned_paths(saved: Iterable[str], own: Iterable[str]) -> dict[str, str]:
    """Saved path to own path, where only Keras's naming differs, without a doubt.

    Keras leaves a model's name out of paths when it loads the model ("dense/kernel" for
    "sequential/dense/kernel"), and numbers layers on when a model is built twice ("dense_1"). The
    second counts only if it explains all paths. A path that is here under its own name stays.
    """
    saved, own = set(saved), set(own)
    pairs = _by_end(saved - own, own - saved)
    if len(pairs) == len(saved - own):
        return pairs
    renumbered = _by_end(saved, own, _ranks)
    moved = {s for s, o in renumbered.items() if s != o}
    whole = len(renumbered) == len(saved) == len(own) and not moved & own
    return renumbered if whole else pairs


def _by_end(
    saved: set[str], own: set[str], rewrite: Callable[[set[str]], dict[str, str]] | None = None
) -> dict[str, str]:
    """Saved path to own path, for those of which one ends with the other, and with no third."""
    theirs = rewrite(saved) if rewrite else {path: path for path in saved}
    ours = rewrite(own) if rewrite else {path: path for path in own}
    saved_by_path, own_by_path = _inverse(theirs), _inverse(ours)
    saved_by_end = _inverse_many((end, path) for path in saved for end in _ends(theirs[path]))
    own_by_end = _inverse_many((end, path) for path in own for end in _ends(ours[path]))
    fits = {(s, o) for s in saved for o in own_by_end[theirs[s]]}
    fits |= {(s, o) for o in own for s in saved_by_end[ours[o]]}
    fits |= {(s, o) for name, s in saved_by_path.items() if (o := own_by_path.get(name))}
    times_saved, times_own = Counter(s for s, _ in fits), Counter(o for _, o in fits)
    return {s: o for s, o in fits if times_saved[s] == times_own[o] == 1}


def _ends(path: str) -> Iterable[str]:
    """The shorter paths that a path ends with: "b/c" and "c" of "a/b/c"."""
    parts = path.split("/")
    return ("/".join(parts[i:]) for i in range(1, len(parts)))


def free(path: str, taken: Container[str]) -> str:
    """The path, or with a number, `path~1`, where it is taken already."""
    candidates = (f"{path}~{n}" for n in itertools.count(1))
    return path if path not in taken else next(c for c in candidates if c not in taken)


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {name: path for path, name in names.items()}


def _inverse_many(pairs: Iterable[tuple[str, str]]) -> defaultdict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for end, path in pairs:
        found[end].append(path)
    return found


def _ranks(paths: set[str]) -> dict[str, str]:
    """Each path with the numbers that end its parts replaced by their rank: dense_7 as dense#0."""

    def stem_and_number(part: str) -> tuple[str, int]:
        stem, number = re.fullmatch(r"(.*?)(?:_(\d+))?", part, re.DOTALL).groups()
        return stem, int(number or 0)

    numbered = sorted({stem_and_number(part) for path in paths for part in path.split("/")})
    seen: Counter[str] = Counter()
    rank: dict[Any, str] = {}
    for stem, number in numbered:
        rank[stem, number] = f"{stem}#{seen[stem]}"
        seen[stem] += 1
    return {
        path: "/".join(rank[stem_and_number(part)] for part in path.split("/")) for path in paths
    }
