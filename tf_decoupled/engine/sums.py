"""Sums over all variables, for rules that have them, and the scalars that such a rule shares."""

from typing import Any

import tensorflow as tf

from tf_decoupled.engine.hyperparameters import corrected, in_precision, namespace
from tf_decoupled.engine.state import nest, place_of


def reduce(step: Any) -> None:
    """Asks each rule for its sums; what comes of them joins its hyperparameters."""
    for branch in dict.fromkeys(part.block.branch for part in step.parts):
        parts = [part for part in step.parts if part.block.branch == branch]
        for place, rule in parts[0].block.rule.tree():
            if rule.reduces():
                _reduce(step, rule, branch, place, parts)


def _reduce(step: Any, rule: Any, branch: str, place: str, parts: list) -> None:
    own = at(step.h_of(branch), place)
    sums, h = _sums(step, rule, place, parts), corrected(in_precision(own, tf.float32))
    joined = rule.combine(namespace(sums), namespace(h))
    for name in rule.shared():
        new = joined.get(name, own[name])
        new = new if step.accept is None else tf.where(step.accept, new, own[name])
        step.results[place_of(branch, place, name)] = new
    step.join(own, joined)


def _sums(step: Any, rule: Any, place: str, parts: list) -> dict[str, tf.Tensor]:
    """The rule's summands, added up over all variables that have a gradient."""

    def summands(p, g, s, h):
        return rule.reduce(p, g, at(nest(s), place), at(h, place))

    sums: dict[str, Any] = {}
    for part in parts:
        step.read(part)
        for name, each in part.map(summands, part.p, part.g, part.s).items():
            if part.present is not None:
                each = tf.where(part.present, each, tf.zeros_like(each))
            sums[name] = sums.get(name, 0.0) + tf.cast(tf.reduce_sum(each), tf.float32)
    return sums


def at(tree: Any, place: str) -> Any:
    """What stands at a place, "inner/inner", of nested dicts or namespaces."""
    for name in filter(None, place.split("/")):
        tree = tree[name] if isinstance(tree, dict) else getattr(tree, name)
    return tree
