"""Gradient transforms: the user's sequence of them, after clipping."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from tf_decoupled.engine import arguments
from tf_decoupled.engine.concern import Concern
from tf_decoupled.engine.hyperparameters import namespace
from tf_decoupled.engine.state import Slots, flatten, nest, own_seed, tf_variable

SEED = "noise_seed"


class Transforms(Concern):
    """g ← transform(θ, g, h), one after the other, for each variable by itself.

    What the i-th of them keeps is called "transforms/i/...".

    Args:
        gradient_transforms: a sequence of `td.transforms`, or of functions (value, gradient,
            hyperparameters) -> gradient, after clipping.
    """

    gradient_transforms: tuple = ()

    of_whole_arrays: ClassVar = ("gradient_transforms",)

    @classmethod
    def interpret(cls, given: dict[str, Any], optimizer: type) -> dict[str, Any]:
        transforms = given["gradient_transforms"]
        if not isinstance(transforms, (list, tuple)) or not all(map(_transforms, transforms)):
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

    def slots(self, cell: Any) -> Slots:
        transforms = self.optimizer.gradient_transforms
        random = any(getattr(t, "random", False) for t in transforms)
        kept: dict[str, Any] = {SEED: own_seed()} if random else {}
        for i, transform in enumerate(transforms):
            if hasattr(transform, "init"):
                own = transform.init(tf_variable(cell.variable))
                kept |= flatten(own, f"transforms/{i}/")
        return kept

    def before(self, step: Any) -> None:
        for part in step.parts:
            step.read(part)
            for i, transform in enumerate(self.optimizer.gradient_transforms):
                self._transform(part, transform, f"transforms/{i}/")

    def _transform(self, part: Any, transform: Any, place: str) -> None:
        """Changes the part's gradient, and what is kept at this place."""
        slots = part.block.concern_slots
        kept = {name: part.slot(name) for name in slots if name.startswith(place)}
        own = [part.slot(SEED)] if SEED in slots else []
        update = getattr(transform, "update", lambda p, g, s, h: (transform(p, g, h), {}))

        def one(p: Any, g: Any, kept: Any, *own: Any) -> Any:
            *own, h = own
            h = namespace(vars(h) | {"seed": own[0] if own else None})
            s = nest({name.removeprefix(place): value for name, value in kept.items()})
            g, after = update(p, g, s, h)
            return g, dict(flatten(after, place))

        part.g, new = part.map(one, part.p, part.g, kept, *own)
        if new.keys() != kept.keys():
            raise ValueError(
                "A transform must return the slots that its `init` declares, all of them and no "
                f"others. Declared: {sorted(kept)}. Received: {sorted(new)}"
            )
        part.new |= new


def _transforms(value: Any) -> bool:
    """Whether it is one: an object with `update`, or a function of three; no class of them."""
    if inspect.isclass(value) or not callable(value):
        return False
    return hasattr(value, "update") or arguments.takes(value, 3)
