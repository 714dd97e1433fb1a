"""Addons' MultiOptimizer."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from tf_decoupled import masks
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.hyperparameters import Scalar
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.wrappers.partition import Partition

INSTEAD = (
    "pairs, `[(td.SGD(1e-4), layers), ...]`; by the names of variables write "
    "td.Partition([(td.masks.only('dense'), td.SGD(1e-4)), ...])"
)


class Still(Optimizer):
    """Leaves variables as they are: those that a MultiOptimizer has no optimizer for."""

    learning_rate: Scalar = 0.0

    def step(self, p, g, s, h):
        return p, {}


def _pairs(where: Where, value: Any) -> Sequence:
    fits = isinstance(value, (list, tuple)) and len(value) > 0
    if not fits or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in value):
        where.refuse(TypeError, INSTEAD, value)
    return value


@checked
def MultiOptimizer(
    optimizers_and_layers: Annotated[Sequence | None, _pairs] = None,
    optimizer_specs: Any = None,
    name: str | None = None,
    **kwargs: Any,
) -> Partition:
    """A `td.Partition` of the variables of layers, each to its layer's optimizer.

        pairs = [(td.SGD(1e-4), model.layers[:-1]), (td.Adam(1e-3), model.layers[-1])]
        opt = td.addons.MultiOptimizer(pairs)

    Variables of no layer in it stay as they are.

    Args:
        optimizers_and_layers: pairs of an optimizer of this library and a layer, a model or a list
            of them, whose variables exist.
        kwargs: arguments of the engine, as `clipnorm`, for all of them.

    Raises ValueError for a variable in two pairs, and for layers without variables.
    """
    if optimizer_specs is not None or optimizers_and_layers is None:
        raise TypeError(
            f"`optimizers_and_layers` must be {INSTEAD}. Received: "
            f"optimizers_and_layers={optimizers_and_layers!r}, optimizer_specs={optimizer_specs!r}"
        )
    paths = [_paths(layers) for _, layers in optimizers_and_layers]
    told = [path for each in paths for path in each]
    if twice := sorted({path for path in told if told.count(path) > 1}):
        raise ValueError(
            "Each variable can have one optimizer: leave the layer out of the other pair. "
            f"Received twice: {twice}"
        )
    pairs = [
        (masks.only(*(f"^{re.escape(path)}$" for path in own)), optimizer)
        for own, (optimizer, _) in zip(paths, optimizers_and_layers, strict=True)
    ]
    return Partition([*pairs, (None, Still())], name=name, **kwargs)


def _paths(layers: Any) -> list[str]:
    """The paths of the trainable variables of a layer, or of several."""
    layers = layers if isinstance(layers, (list, tuple)) else [layers]
    paths = [masks.path_of(v) for layer in layers for v in layer.trainable_variables]
    if not paths:
        raise ValueError(
            "The layers of a pair have no variables to train: build the model before, as with "
            f"`model.build(input_shape)`. Received: {layers!r}"
        )
    return paths
