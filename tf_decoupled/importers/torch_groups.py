"""What PyTorch's `param_groups` say: who is in them, and with which options."""

from collections.abc import Mapping, Sequence
from typing import Any

MEMBERS = ("params", "param_names")  # of a param_group: who is in it
EXECUTION = ("foreach", "fused", "capturable", "differentiable", "initial_lr")  # changes no number


def parameter_names(state_dict: Mapping, parameters: Sequence[str] | None) -> dict[Any, str]:
    """The parameter name of each key under which the state_dict has entries."""
    groups = state_dict.get("param_groups", ())
    keys = [key for group in groups for key in group["params"]] if groups else list(state_dict)
    named = [name for group in groups for name in group.get("param_names", group["params"])]
    found = list((named or keys) if parameters is None else parameters)
    unasked = parameters is not None and any(isinstance(key, str) for key in keys)
    if unasked or len(found) != len(keys) or not all(isinstance(name, str) for name in found):
        raise ValueError(
            "Parameters that PyTorch numbers, and no others, must be named in the order in which "
            "its optimizer got them: `parameters=[name for name, _ in model.named_parameters()]`. "
            f"Received: parameters={parameters} for {keys}"
        )
    return dict(zip(keys, found, strict=True))


def options(groups: Sequence[Mapping]) -> tuple[dict[str, Any], float]:
    """What all groups have in common, and the λ of those that decay."""
    aside = MEMBERS + EXECUTION
    each = [{k: v for k, v in group.items() if k not in aside} for group in groups]
    decays = {float(group.pop("weight_decay", 0.0)) for group in each}
    common = dict(each[0])
    absent = common.pop("dampening", 0) or common.pop("maximize", False)
    if absent or len(decays - {0.0}) > 1 or any(group != each[0] for group in each):
        raise ValueError(
            "Groups may differ in whether they decay, not in more, and `dampening` and `maximize` "
            f"don't exist here. Received: {each} and weight_decay in {sorted(decays)}"
        )
    return common | {"lr": float(common["lr"])}, max(decays)
