"""How Addons' optimizers were called: `lr=`, `decay=`, `exclude_from_weight_decay=`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from tf_decoupled.engine import arguments
from tf_decoupled.engine.hyperparameters import is_number
from tf_decoupled.schedules import InverseTime


class FromAddons:
    """Mixed into an optimizer: its constructor takes what that of Addons took.

    needed: the arguments that have no default there. renamed: by Addons' name, ours.
    """

    needed: ClassVar[tuple[str, ...]] = ()
    renamed: ClassVar[Mapping[str, str]] = {"lr": "learning_rate"}

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs = _by_our_names(type(self), kwargs)
        excluded = kwargs.pop("exclude_from_weight_decay", None)
        if decay := kwargs.pop("decay", 0.0):
            given = arguments.bind(type(self), args, kwargs)
            args, kwargs = (), given | _falling(type(self), given, decay)
        _check_needed(type(self), args, kwargs)
        super().__init__(*args, **kwargs)
        if excluded:
            self.exclude_from_weight_decay(var_names=excluded)


def _by_our_names(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with old names replaced; TypeError for one that is given by both."""
    both = [name for name in given if cls.renamed.get(name) in given]
    if both:
        raise TypeError(
            f"`{both[0]}` and `{cls.renamed[both[0]]}` are one argument of {cls.__name__}. "
            f"Received: {arguments.call(cls.__name__, (), given)}"
        )
    return {cls.renamed.get(name, name): value for name, value in given.items()}


def _falling(cls: type, given: Mapping[str, Any], decay: Any) -> dict[str, Any]:
    """The rate over 1 + `decay` · updates, as old Keras has it."""
    rate = given.get("learning_rate")
    if not (is_number(decay) and is_number(rate)):
        raise TypeError(
            f"`decay` of {cls.__name__} goes with a rate that is a number; the rate over "
            "1 + decay · updates is `learning_rate=td.schedules.InverseTime(rate, 1, decay)`. "
            f"Received: learning_rate={rate!r}, decay={decay!r}"
        )
    return dict(learning_rate=InverseTime(rate, 1, decay))


def _check_needed(cls: type, args: tuple, given: Mapping[str, Any]) -> None:
    """Raises TypeError where an argument without a default is missing."""
    for name in cls.needed:
        if name not in given and len(args) <= cls.positional.index(name):
            raise TypeError(
                f"{cls.__name__} needs `{name}`, as it did in Addons. Received: "
                f"{arguments.call(cls.__name__, args, given)}"
            )
