"""RateMultipliers."""

from collections.abc import Sequence
from typing import Any, ClassVar

from tf_decoupled import masks
from tf_decoupled.engine.hyperparameters import serialize
from tf_decoupled.wrappers.wrapper import Scaled


class RateMultipliers(Scaled):
    """Other rates for some variables: the first mask that says yes multiplies the rate.

        td.RateMultipliers(td.AdamW(1e-3), [(td.masks.only("embedding"), 0.1)])

        η of a variable ← η · factor        1 where no mask says yes

    The factor counts in the decay, too, as the rate itself does. 0 freezes a variable, decay
    included unless its coupling is "independent" or "schedule".

    Args:
        inner: the optimizer that steps.
        factors: pairs of a mask, as `decay_mask` takes it, and a number >= 0.

    Raises ValueError at the build for a mask with a pattern that fits no variable. No paper:
    PyTorch calls this parameter groups.
    """

    factors: Any = ()
    positional: ClassVar = ("inner", "factors")

    @classmethod
    def interpret_rule(cls, given: dict[str, Any]) -> dict[str, Any]:
        given = super().interpret_rule(given)
        return given | dict(factors=Factors(_checked(given["factors"])))

    def measure(self, variables: Sequence, everything: Sequence) -> Sequence[float]:
        """The factor of each variable."""
        for mask, _ in self.factors:
            masks.settle(mask, variables, "A rate multiplier's mask")
        return [
            next(
                (
                    k
                    for mask, k in self.factors
                    if masks.decide(mask, variable, "A rate multiplier's mask").decays
                ),
                1.0,
            )
            for variable in variables
        ]

    def multiplier(self, numbers, h):
        return numbers

    def get_config(self) -> dict[str, Any]:
        pairs = [[serialize(mask), factor] for mask, factor in self.factors]
        return super().get_config() | dict(factors=pairs)


class Factors(tuple):
    """The pairs of mask and factor: a tuple of its own, so that nothing takes it apart."""

    def __repr__(self) -> str:
        return repr(list(self))


def _checked(pairs: Any) -> list[tuple[Any, float]]:
    fits = isinstance(pairs, (list, tuple)) and len(pairs) > 0
    fits = fits and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs)
    numbers = fits and all(isinstance(k, (int, float)) and 0 <= k < float("inf") for _, k in pairs)
    if not numbers:
        raise TypeError(
            "RateMultipliers needs pairs of a mask and a number >= 0, "
            "`[(td.masks.only('embedding'), 0.1)]`. "
            f"Received: factors={pairs!r}"
        )
    return [
        (masks.as_mask(mask, f"factors[{i}][0]"), float(factor))
        for i, (mask, factor) in enumerate(pairs)
    ]
