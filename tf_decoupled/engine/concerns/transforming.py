"""Gradient transforms: the user's sequence of them, after clipping."""

from collections.abc import Mapping
from typing import Any, ClassVar

from tf_decoupled.engine.concern import Concern
from tf_decoupled.engine.hyperparameters import namespace
from tf_decoupled.engine.state import Slots, own_seed

SEED = "noise_seed"


class Transforms(Concern):
    """g ← transform(θ, g, h), one after the other, for each variable by itself.

    Args:
        gradient_transforms: a sequence of `td.transforms`, or of functions (value, gradient,
            hyperparameters) -> gradient, after clipping.
    """

    gradient_transforms: tuple = ()

    of_whole_arrays: ClassVar = ("gradient_transforms",)

    @classmethod
    def interpret(cls, given: dict[str, Any], optimizer: type) -> dict[str, Any]:
        transforms = given["gradient_transforms"]
        if not isinstance(transforms, (list, tuple)) or not all(map(callable, transforms)):
            raise TypeError(
                "`gradient_transforms` must be a sequence of td.transforms, or of callables "
                "(value, gradient, hyperparameters) -> gradient. "
                f"Received: gradient_transforms={transforms!r}"
            )
        return given | dict(gradient_transforms=tuple(transforms))

    @classmethod
    def asked(cls, given: Mapping[str, Any]) -> bool:
        return bool(given["gradient_transforms"])

    def mapped(self) -> Any:
        return tuple(map(repr, self.optimizer.gradient_transforms))

    def slots(self, variable: Any, path: str) -> Slots:
        transforms = self.optimizer.gradient_transforms
        return {SEED: own_seed()} if any(getattr(t, "random", False) for t in transforms) else {}

    def before(self, step: Any) -> None:
        for part in step.parts:
            step.read(part)
            own = part.kept(SEED) if SEED in part.block.kept else None
            for transform in self.optimizer.gradient_transforms:
                part.g = self._transformed(transform, part, own)

    def _transformed(self, transform: Any, part: Any, own: Any) -> Any:
        def one(p: Any, g: Any, *own: Any) -> Any:
            *own, h = own
            return transform(p, g, namespace(vars(h) | {"seed": own[0] if own else None}))

        return part.map(one, part.p, part.g, *([] if own is None else [own]))
