"""Which layer of a model a variable belongs to, counted from the input, by the paths alone.

depths([v.path for v in model.trainable_variables])
depths(paths, layers=["embed", "layer_[0-5]/", "layer_", "pooled|logits"])
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any

# A part of a path that numbers a block: "3", "block_3", "conv2_block1" of "conv2_block1_1_conv".
_BLOCK = re.compile(
    r"\d+$|.*(?:block|layer|stage|group|unit|cell)s?(?:_\._|_)?\d+[a-z]?(?![a-zA-Z0-9])", re.I
)
_INNER_BLOCK = re.compile(r"blocks?_?\d+", re.I)  # below a numbered part: a block of a stage
_NORM = re.compile(r"norm(?!al(?:_|$))|(?:^|_)(?:bn|ln)(?:_|\d|$)", re.I)
_STEM = re.compile(r"embed|token|patch|stem|(?:^|_)(?:pos|cls)(?:_|$)", re.I)


def depths(paths: Sequence[str], layers: Sequence[str] | None = None) -> dict[str, int]:
    """Each path's depth: 0 for the layer next to the input, then 1, 2, … without a gap.

    Without `layers`, from the paths, in the order of the model's variables:

    - Numbered blocks are a layer each, with all that is inside: "block_3/dense", "layers/3/mlp",
      "conv2_block1_1_conv". Blocks of one kind stand in the order of their numbers.
    - Other layers of the model are a layer each, in the order in which they appear.
    - Embeddings, tokens, patches and stems that follow one another are one layer.
    - A normalization belongs to the layer before it; behind a block, to the layer after it.

    A model with other names needs `layers`: regular expressions from the bottom to the top, each a
    layer. The first that is found in a path counts.
    """
    if layers is not None:
        return _by_patterns(paths, layers)
    parts = {path: path.split("/")[:-1] or [path] for path in paths}
    blocks = {path: _block_of(of) for path, of in parts.items()}
    containers = {key[:n] for key in blocks.values() for n in range(len(key))}
    containers |= _shared_containers(list(parts.values()))
    keys = {path: blocks[path] or _first_outside(parts[path], containers) for path in parts}
    order = _in_order_of_numbers(list(dict.fromkeys(keys.values())), set(blocks.values()))
    depth = _joined(order, set(blocks.values()))
    return {path: depth[key] for path, key in keys.items()}


def _block_of(parts: list[str]) -> tuple[str, ...]:
    """The path down to the numbered block that the parts are in; () where they are in none."""
    for i, part in enumerate(parts):
        if match := _BLOCK.match(part):
            inner = _INNER_BLOCK.match(parts[i + 1]) if parts[i + 1 :] else None
            return (*parts[:i], part, inner[0]) if inner else (*parts[:i], match[0])
    return ()


def _shared_containers(all_parts: list[list[str]]) -> set[tuple[str, ...]]:
    """The names that all paths begin with, as that of the model."""
    shared = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*all_parts, strict=False))
    shared = [names[0] for names in shared]
    return {tuple(shared[:n]) for n in range(len(shared) + 1)}


def _first_outside(parts: list[str], containers: set[tuple[str, ...]]) -> tuple[str, ...]:
    """The shortest beginning of the path that is no container of several layers."""
    beginnings = (tuple(parts[:n]) for n in range(1, len(parts)))
    return next((key for key in beginnings if key not in containers), tuple(parts))


def _in_order_of_numbers(
    keys: list[tuple[str, ...]], blocks: set[tuple[str, ...]]
) -> list[tuple[str, ...]]:
    """The keys, blocks that differ in their numbers only changed round to follow these."""

    def numbers(key: tuple[str, ...]) -> list[tuple[int, str]]:
        found = re.findall(r"(\d+)([a-z]?)(?![a-z])", "/".join(key))
        return [(int(number), letter) for number, letter in found]

    kinds: dict[str, list[tuple[str, ...]]] = {}
    for key in keys:
        kind = re.sub(r"\d+[a-z]?(?![a-z])", "#", "/".join(key)) if key in blocks else "/".join(key)
        kinds.setdefault(kind, []).append(key)
    kind_of = {key: kind for kind, members in kinds.items() for key in members}
    queues = {kind: iter(sorted(members, key=numbers)) for kind, members in kinds.items()}
    return [next(queues[kind_of[key]]) for key in keys]


def _joined(
    order: list[tuple[str, ...]], blocks: set[tuple[str, ...]]
) -> dict[tuple[str, ...], int]:
    """The depth of each key, once stems and normalizations have joined their neighbours."""
    groups: list[list[tuple[str, ...]]] = []
    waiting = False  # the last group is a normalization that the next layer joins
    for key in order:
        before = groups[-1][-1] if groups else ()
        alone = before and before not in blocks and key not in blocks
        both_stems = alone and _STEM.search(before[-1]) and _STEM.search(key[-1])
        is_norm = key not in blocks and bool(_NORM.search(key[-1]))
        if groups and (both_stems or (alone and (is_norm or waiting))):
            groups[-1].append(key)
            waiting = waiting and is_norm
        else:
            groups.append([key])
            waiting = is_norm
    return {key: depth for depth, group in enumerate(groups) for key in group}


def check_patterns(layers: Any) -> None:
    """Raises for what is no list of regular expressions."""
    is_list = isinstance(layers, (list, tuple)) and len(layers) > 0
    if not is_list or not all(isinstance(layer, str) for layer in layers):
        raise TypeError(
            "`layers` must be a list of regular expressions, from the bottom of the model to its "
            f"top. Received: layers={layers!r}"
        )
    for layer in layers:
        try:
            re.compile(layer)
        except re.error as error:
            raise ValueError(
                f"Not a regular expression: {layer!r} ({error}). Received: layers={layers!r}"
            ) from error


def _by_patterns(paths: Sequence[str], layers: Sequence[str]) -> dict[str, int]:
    check_patterns(layers)
    found = {path: [i for i, r in enumerate(layers) if re.search(r, path)] for path in paths}
    if missing := [path for path, matches in found.items() if not matches]:
        raise ValueError(
            "`layers` must cover every variable: add a regular expression for those that none is "
            f"found in: {missing}. Received: layers={list(layers)}"
        )
    depth = {path: matches[0] for path, matches in found.items()}
    if idle := [layer for i, layer in enumerate(layers) if i not in depth.values()]:
        raise ValueError(
            f"Some of `layers` are a layer of no variable: {idle}. Correct or remove them, or move "
            f"them before those that match first. The paths are: {list(paths)}"
        )
    return depth
