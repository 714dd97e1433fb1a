"""Addons' LAMB."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from tf_decoupled import masks
from tf_decoupled.addons.constructor import FromAddons
from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where
from tf_decoupled.engine.hyperparameters import Scalar
from tf_decoupled.optimizers import lamb

PATTERNS = kinds.optional(kinds.sequence(kinds.text, "a list of regular expressions"))


class LAMB(FromAddons, lamb.LAMB):
    """LAMB as TensorFlow Addons has it: some variables may be left out of the trust ratio.

    Args:
        exclude_from_layer_adaptation: regular expressions on `variable.path`; by default those of
            `exclude_from_weight_decay`.
    """

    weight_decay: Scalar = 0.0
    exclude_from_layer_adaptation: Any = None

    positional: ClassVar = ("learning_rate", "beta_1", "beta_2", "epsilon", "weight_decay")
    renamed: ClassVar = FromAddons.renamed | {"weight_decay_rate": "weight_decay"}

    def __init__(self, *args: Any, **kwargs: Any):
        name = "exclude_from_layer_adaptation"
        patterns = PATTERNS(Where(name), kwargs.get(name))
        kwargs[name] = patterns or kwargs.get("exclude_from_weight_decay")
        super().__init__(*args, **kwargs)

    @classmethod
    def interpret_rule(cls, given: dict[str, Any]) -> dict[str, Any]:
        patterns = given["exclude_from_layer_adaptation"]
        if patterns is not None:
            masks.only(*patterns)  # raises for what are no regular expressions
            given = given | dict(exclude_from_layer_adaptation=tuple(patterns))
        return super().interpret_rule(given)

    def measure(self, variables: Sequence, everything: Sequence) -> Sequence[float]:
        """1 for each variable that adapts, 0 for the others."""
        left_out = self.exclude_from_layer_adaptation or ()
        found = (any(re.search(r, masks.path_of(v)) for r in left_out) for v in variables)
        return [float(not each) for each in found]

    def hyperparameters_of(self, block, h, scale=None):
        h = super().hyperparameters_of(block, h, scale)
        adapts = [cell.numbers[id(self)] for cell in block.cells]
        return h | {"adapts": tf.constant(adapts if block.stacked else adapts[0]) > 0}

    def ratio(self, p, r, h):
        return tf.where(h.adapts, super().ratio(p, r, h), 1.0)
