"""`create`: an optimizer by its name, with all that its parts need, from one line."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import keras
import tensorflow as tf

from tf_decoupled import by_name, masks
from tf_decoupled.engine import kinds
from tf_decoupled.engine.arguments import INSTEAD, check_names, shown
from tf_decoupled.engine.checking import Check, Where, checked
from tf_decoupled.engine.hyperparameters import is_variable
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.optimizers.adamw import AdamW
from tf_decoupled.wrappers.layerwise_decay import LayerwiseDecay
from tf_decoupled.wrappers.partition import Partition
from tf_decoupled.wrappers.wrapper import Wrapper

FALLBACK = "adamw"
OWN = ("wrappers", "layer_decay", "fallback", "fallback_learning_rate", "fallback_patterns")
DECAY = ("weight_decay", "decay_mask", "decay_coupling")  # what a fallback has in common

Around = Sequence[tuple[type[Wrapper], dict[str, Any]]]  # the outermost first


def _config(where: Where, value: Any) -> str | Mapping[str, Any]:
    if not isinstance(value, (str, Mapping)):
        words = "a name, 'adamw', a call, 'adamw(learning_rate=1e-3)', or a mapping with 'name'"
        where.refuse(TypeError, words, value)
    return value


def _number(of: type[Optimizer], name: str) -> Check:
    """The check of what is given to another argument, also by the name of a schedule."""

    def check(where: Where, value: Any) -> Any:
        try:
            made = by_name.schedule(value)
            of.declared[name].check(made, of)
        except (TypeError, ValueError) as error:
            told = f"`{where.name}` goes to {of.__name__}: {error}"
            raise type(error)(f"{told} Received: {where.name}={value!r}") from None
        return made

    return check


def _wrapper(where: Where, value: Any) -> str | Mapping[str, Any]:
    config = _config(where, value)
    try:
        by_name.wrapper(config)
    except (TypeError, ValueError) as error:
        raise type(error)(f"`{where.name}`: {error}") from None
    return config


Config = Annotated[str | Mapping[str, Any], _config]
ConfigOrNone = Annotated[str | Mapping[str, Any] | None, kinds.optional(_config)]
Configs = Annotated[
    Sequence[str | Mapping[str, Any]] | None,
    kinds.optional(kinds.sequence(_wrapper, "a list of names, the outermost first")),
]
Model = Annotated[keras.Model | None, kinds.optional(kinds.instance(keras.Model, "a keras.Model"))]
Patterns = Annotated[
    Sequence[str] | None,
    kinds.optional(kinds.sequence(kinds.text, "a list of regular expressions")),
]
LayerDecay = Annotated[Any, kinds.optional(_number(LayerwiseDecay, "rate"))]
Rate = Annotated[Any, kinds.optional(_number(AdamW, "learning_rate"))]


@checked
def create(
    optimizer: Config,
    model: Model = None,
    *,
    wrappers: Configs = None,
    layer_decay: LayerDecay = None,
    decay_mask: Any = None,
    fallback: ConfigOrNone = None,
    fallback_learning_rate: Rate = None,
    fallback_patterns: Patterns = None,
    **arguments: Any,
) -> Optimizer:
    """An optimizer by its name: what a line of a configuration says, and what goes with it.

        td.create("adamw", learning_rate=1e-3, weight_decay=0.05, decay_mask="kernels")
        td.create("lookahead_lion", model, learning_rate=1e-4, layer_decay=0.75)
        td.create("muon", model, learning_rate=0.02, fallback_learning_rate=1e-3)
        td.create("muon(learning_rate=cosine(initial_learning_rate=0.02, decay_steps=1000))")
        td.create({"name": "muon", "learning_rate": 0.02, "fallback": "lion", "clipnorm": 1.0})

    What it returns is an optimizer as its class makes it, and is saved and loaded as such.
    `print` it to see what was made.

    Methods that refuse vectors, as Muon, get a fallback: the result is a `td.Partition`, in which
    they step `td.masks.hidden()`, the kernels but for embeddings and the last layer, and the
    fallback the rest. Decay, its mask and its coupling are those of both; wrappers and
    `layer_decay` go around each of the two; `clipnorm`, `use_ema` and the like are the whole's.

    Args:
        optimizer: a name of `td.list_optimizers()`; capitals, "_" and "-" don't count. With the
            names of wrappers before it, the outermost first: "lookahead_adamw". As a call with
            literals by name, "lion(learning_rate=1e-4)", or a mapping with the key "name", it
            holds any of the arguments below. Of two answers the keyword's counts, unless it is
            None. Nothing of a string is executed.
        model: built on its trainable variables at once, so that what doesn't fit raises here, and
            `print` shows what decays. Without it the first step decides, with the same result.
        wrappers: names, calls or mappings, the outermost first: ["lookahead(sync_period=5)"].
        layer_decay: γ of `td.LayerwiseDecay`, the innermost wrapper.
        decay_mask: as ever, or the name of a mask: "kernels" leaves out biases and normalizations,
            and is the usual choice; "matrices" by rank alone. By default all decay.
        fallback: what steps the rest, with arguments of its own where it is a call or mapping.
            None: AdamW where a method needs one.
        fallback_learning_rate: by default the fallback's own. To be given beside a schedule.
        fallback_patterns: regular expressions on `variable.path` of what the fallback steps beside
            what is refused, in place of embeddings and the last layer; [] for no more. With any
            method: ["head"].
        arguments: those of the optimizer's class. Where numbers are taken, a schedule may be given
            by its name in `td.schedules`, as a call or mapping; "normalized_decay" is
            `td.NormalizedDecay`.

    Raises ValueError for unknown names, with those that are similar, TypeError for unknown
    arguments; and what the classes raise.
    """
    told = dict(wrappers=wrappers, layer_decay=layer_decay, decay_mask=decay_mask)
    told |= dict(fallback=fallback, fallback_learning_rate=fallback_learning_rate)
    told |= dict(fallback_patterns=fallback_patterns)
    name, given = by_name.named(optimizer, "An optimizer")
    given |= {name: value for name, value in told.items() if value is not None} | arguments
    method, outer = by_name.method(name)
    check_names(method.__name__, given, [*inspect.signature(method).parameters, *OWN], INSTEAD)
    own = {name: given.pop(name, None) for name in OWN}
    given, around = _resolved(method, given), _around(outer, own)
    mask = _stepped(method, given, own["fallback_patterns"])
    rest = {name: own[name] for name in ("fallback", "fallback_learning_rate")}
    if mask is None:
        made = _alone(method, given, around, rest)
    else:
        made = _partition(method, given, around, mask, rest)
    if model is not None:
        _build(made, model)
    return made


def _alone(
    method: type[Optimizer], given: dict[str, Any], around: Around, rest: Mapping[str, Any]
) -> Optimizer:
    """The method for all variables; the outermost optimizer has the name."""
    if any(value is not None for value in rest.values()):
        raise ValueError(
            f"{method.__name__} steps every variable and needs no fallback: leave it out, or "
            f"say what it steps, as fallback_patterns=['head']. Received: {rest}"
        )
    if not around:
        return method(**given)
    name = {n: given.pop(n) for n in ("name",) if n in given}
    (outermost, options), *inside = around
    return outermost(_wrapped(method(**given), inside), **options, **name)


def _partition(
    method: type[Optimizer],
    given: dict[str, Any],
    around: Around,
    mask: masks.Mask,
    rest: Mapping[str, Any],
) -> Optimizer:
    """The method for what its mask says, the fallback for the rest."""
    of_all = {n: v for n, v in given.items() if n in (*Optimizer.engine_arguments, "name")}
    given = {n: v for n, v in given.items() if n not in of_all}
    fallback, options = _fallback(method, given, **rest)
    members = [(mask, method(**given)), (None, fallback(**options))]
    return Partition([(mask, _wrapped(each, around)) for mask, each in members], **of_all)


def _wrapped(made: Optimizer, around: Around) -> Optimizer:
    for wrapper, options in reversed(around):
        made = wrapper(made, **options)
    return made


def _stepped(
    method: type[Optimizer], given: Mapping[str, Any], patterns: Sequence[str] | None
) -> masks.Mask | None:
    """What the method is to step: None for all."""
    if isinstance(patterns, str):
        raise TypeError(
            "`fallback_patterns` must be a list of regular expressions. "
            f"Received: fallback_patterns={patterns!r}"
        )
    refuses = method.defines("refuses") and _refuses_vectors(method, given)
    if patterns is None:
        return masks.hidden() if refuses else None
    left = masks.exclude(*patterns) if patterns else None
    if refuses:
        return masks.kernels if left is None else masks.kernels & left
    return left


def _refuses_vectors(method: type[Optimizer], given: Mapping[str, Any]) -> bool:
    own = {n: v for n, v in given.items() if n in method.own_arguments()}
    return method(**own).refuses(tf.zeros((2,))) is not None


def _fallback(
    method: type[Optimizer], given: Mapping[str, Any], fallback: Any, fallback_learning_rate: Any
) -> tuple[type[Optimizer], dict[str, Any]]:
    """The fallback's class and arguments: its decay is the method's, its rate its own."""
    name, config = by_name.named(FALLBACK if fallback is None else fallback, "A fallback")
    cls, outer = by_name.method(name)
    if outer:
        raise ValueError(
            "What is around the optimizer goes around its fallback, too: name that alone. "
            f"Received: fallback={fallback!r}"
        )
    if fallback_learning_rate is not None:
        config = config | dict(learning_rate=fallback_learning_rate)
    check_names(cls.__name__, config, inspect.signature(cls).parameters, INSTEAD)
    rate = given.get("learning_rate", method.declared["learning_rate"].default)
    if callable(rate) and not is_variable(rate) and "learning_rate" not in config:
        raise ValueError(
            f"{method.__name__} follows a schedule, and its fallback {cls.__name__} would stay at "
            "its own rate: give `fallback_learning_rate` a schedule, too, or a number. "
            f"Received: learning_rate={shown(rate)}"
        )
    shared = {name: given.get(name, method.declared[name].default) for name in DECAY}
    return cls, shared | _resolved(cls, config)


def _build(made: Optimizer, model: keras.Model) -> None:
    if not model.built:
        raise ValueError(
            "Build the model first, as by calling it on a batch, `model(x)`; or leave `model` out. "
            f"Received: model={model.name!r}, not built"
        )
    made.build(model.trainable_variables)


def _around(outer: list[type[Wrapper]], own: Mapping[str, Any]) -> Around:
    """The wrappers with their arguments: of the name, of `wrappers`, of `layer_decay`."""
    names = own["wrappers"] or ()
    if isinstance(names, (str, Mapping)) or not isinstance(names, Sequence):
        raise TypeError(
            "`wrappers` must be a list of names, the outermost first, as ['lookahead']. "
            f"Received: wrappers={names!r}"
        )
    found = [by_name.wrapper(each) for each in names]
    around = [(cls, {}) for cls in outer]
    around += [(cls, _resolved(cls, options)) for cls, options in found]
    if own["layer_decay"] is not None:
        around.append((LayerwiseDecay, dict(rate=own["layer_decay"])))
    return around


def _resolved(cls: type[Optimizer], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an optimizer with schedules and masks made of their names."""
    numbers = {name for name, each in cls.declared.items() if each.live}
    made = {n: by_name.schedule(v) if n in numbers else v for n, v in given.items()}
    if isinstance(made.get("decay_mask"), str):
        made["decay_mask"] = masks.named(made["decay_mask"])
    return made
