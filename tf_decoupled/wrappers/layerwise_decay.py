"""LayerwiseDecay."""

from collections.abc import Sequence
from typing import Any

from tf_decoupled.engine.hyperparameters import Positive
from tf_decoupled.layers import check_patterns, depths
from tf_decoupled.masks import path_of
from tf_decoupled.wrappers.wrapper import Scaled


class LayerwiseDecay(Scaled):
    """Smaller rates for lower layers, to fine-tune what has been trained before.

        η of layer i ← η · γ^(L − i)        i: 0 at the input, L at the output

    The rate's factor counts in the decay, too, as the rate itself does: λ η γ^(L − i) θ with the
    default coupling. `td.layers.depths` says which layer a variable is in; print its result for
    `[v.path for v in model.trainable_variables]`.

    Args:
        inner: the optimizer that steps, with the rate of the highest layer.
        rate: γ; 0.65 to 0.9 are usual, 1 changes nothing.
        layers: regular expressions on `variable.path` from the bottom of the model to its top, the
            first that is found counts; None tells the layers by the paths' own numbers. As a member
            of a Partition: None counts the layers of the whole model, `layers` those that the
            member steps.

    Raises ValueError at the build for variables that none of `layers` covers.

    Clark et al., "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators",
    2020, appendix B. arXiv:2003.10555; Bao et al., "BEiT", 2021, appendix H. arXiv:2106.08254. No
    algorithm number: both say it in a sentence. Departs from ELECTRA's code, which leaves out one
    layer number below the head.
    """

    rate: Positive = 0.75
    layers: Any = None

    @classmethod
    def interpret_rule(cls, given: dict[str, Any]) -> dict[str, Any]:
        given = super().interpret_rule(given)
        layers = given["layers"]
        if layers is not None:
            check_patterns(layers)
        return given | dict(layers=tuple(layers) if isinstance(layers, list) else layers)

    def measure(self, variables: Sequence, everything: Sequence) -> Sequence[float]:
        """How many layers are above each variable's."""
        counted = everything if self.layers is None else variables
        depth = depths([path_of(variable) for variable in counted], self.layers)
        last = max(depth.values(), default=0)
        return [float(last - depth[path_of(variable)]) for variable in variables]

    def multiplier(self, numbers, h):
        return h.rate**numbers
