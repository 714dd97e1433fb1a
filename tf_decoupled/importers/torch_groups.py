"""What PyTorch's `param_groups` say: who is in them, and with which options."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_decoupled.engine.checking import Where

MEMBERS = ("params", "param_names")  # of a param_group: who is in it
EXECUTION = ("foreach", "fused", "capturable", "differentiable", "initial_lr")  # changes no number


def checked_groups(where: Where, value: Any) -> Mapping:
    """A state_dict as far as its structure goes: entries, and groups with parameters and a rate."""
    words = "`optimizer.state_dict()` of PyTorch, or its entries by parameter name"
    if not isinstance(value, Mapping):
        where.refuse(TypeError, words, value)
    entries = value
    if "param_groups" in value:
        entries, groups = value.get("state"), value["param_groups"]
        if not isinstance(groups, (list, tuple)) or not groups or not all(map(_is_group, groups)):
            where = where.at("'param_groups'")
            where.refuse(ValueError, "groups, each a mapping with 'params' and 'lr'", groups)
    if not isinstance(entries, Mapping) or not all(map(_is_mapping, entries.values())):
        where.refuse(ValueError, f"{words}, each a mapping", value)
    return value


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_group(value: Any) -> bool:
    return _is_mapping(value) and {"params", "lr"} <= value.keys()


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
            f"Received: parameters={parameters} for {keys}, the keys of `state_dict`"
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
