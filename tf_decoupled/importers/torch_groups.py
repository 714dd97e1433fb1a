"""What PyTorch's `param_groups` say: who is in them, with which options, and what that is here."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_decoupled.engine.checking import Where
from tf_decoupled.optimizers.adam import Adam
from tf_decoupled.optimizers.adamw import AdamW
from tf_decoupled.optimizers.sgd import SGD

MEMBERS = ("params", "param_names")  # of a param_group: who is in it
EXECUTION = ("foreach", "fused", "capturable", "differentiable", "initial_lr")  # changes no number


def state_dict_of_torch(where: Where, value: Any) -> Mapping:
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


def counterpart(common: Mapping, λ: float, decoupled: bool | None) -> tuple[type, dict]:
    """Our class and its arguments for PyTorch's options."""
    options = dict(common)
    arguments = dict(learning_rate=options.pop("lr"))
    said = options.pop("decoupled_weight_decay", None)
    if options.keys() == {"momentum", "nesterov"} and decoupled is None:
        return SGD, arguments | options | dict(l2=λ)
    if options.keys() != {"betas", "eps", "amsgrad"}:
        raise ValueError(
            "The `param_groups` must be those of PyTorch's Adam, AdamW or SGD. Received: groups "
            f"with {sorted(options)} and decoupled={decoupled}"
        )
    if said is None and decoupled is None and λ != 0:
        raise ValueError(
            "This state_dict doesn't say whether its decay is AdamW's or the L2 of Adam. Pass "
            f"`decoupled=True` or False. Received: weight_decay={λ}"
        )
    arguments |= dict(zip(("beta_1", "beta_2"), map(float, options["betas"]), strict=True))
    arguments |= dict(epsilon=float(options["eps"]), amsgrad=bool(options["amsgrad"]))
    if said if decoupled is None else decoupled:
        return AdamW, arguments | dict(weight_decay=λ)
    return Adam, arguments | dict(l2=λ)
