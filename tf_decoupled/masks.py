"""Decay masks: which variables decay. Each is a callable `variable -> bool`, True = decays.

    td.masks.matrices                         kernels and embeddings; no biases, no norm scales
    td.masks.exclude("embedding", "norm")     all but the paths in which a pattern is found
    td.masks.only("kernel$")                  none but those
    td.masks.kernels                          as matrices, without biases that are matrices
    td.masks.hidden()                         kernels, but no embeddings and not the last layer
    td.masks.matrices & ~td.masks.only("head")

They combine with &, | and ~, are saved with the optimizer, and say why (`opt.decay_report()`).
"""

import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tf_decoupled.engine import arguments, registry
from tf_decoupled.layers import depths

__all__ = ["Mask", "everything", "exclude", "hidden", "kernels", "matrices", "only"]


def path_of(variable: Any) -> str:
    """Keras's `path`; the name, without its ":0", of a bare `tf.Variable`."""
    return getattr(variable, "path", None) or variable.name.rsplit(":", 1)[0]


class Mask:
    """A decay mask that can be combined, saved and explained."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        registry.register(cls, "tf_decoupled.masks")

    def __call__(self, variable: Any) -> bool:
        raise NotImplementedError(f"{type(self).__name__} must say `variable -> bool`.")

    def reason(self, variable: Any) -> str:
        """Why the variable decays, or doesn't, in a few words."""
        return repr(self)

    def parts(self) -> Iterator["Mask"]:
        """The masks that this one is made of: itself, if it is no combination."""
        yield self

    def patterns(self) -> Iterator[str]:
        """Its own patterns, each of which must match some variable."""
        yield from ()

    def settle(self, paths: Sequence[str]) -> None:
        """Learns the paths of the variables that it will be asked about."""

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Mask":
        return cls(**config)

    def __and__(self, other: Any) -> "Mask":
        return Both(self, other)

    def __or__(self, other: Any) -> "Mask":
        return Either(self, other)

    def __rand__(self, other: Any) -> "Mask":
        return Both(other, self)

    def __ror__(self, other: Any) -> "Mask":
        return Either(other, self)

    def __invert__(self) -> "Mask":
        return Not(self)

    def __eq__(self, other: Any) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(repr(self))


class Everything(Mask):
    """Every variable decays."""

    def __call__(self, variable: Any) -> bool:
        return True

    def __repr__(self) -> str:
        return "everything"


class Matrices(Mask):
    """Variables of rank 2 and more: kernels and embeddings, not biases, scales or scalars."""

    def __call__(self, variable: Any) -> bool:
        return len(variable.shape) >= 2

    def reason(self, variable: Any) -> str:
        return f"rank {len(variable.shape)}"

    def __repr__(self) -> str:
        return "matrices"


class Kernels(Matrices):
    """As Matrices, without what is no kernel by its name: GRUs and attention have biases of rank 2,
    normalizations over several axes have such scales."""

    others = re.compile(r"(?:^|[/_])(?:bias|beta|gamma|scale)$")

    def __call__(self, variable: Any) -> bool:
        return super().__call__(variable) and not self.others.search(path_of(variable))

    def reason(self, variable: Any) -> str:
        other = self.others.search(path_of(variable))
        return "by its name no kernel" if other else super().reason(variable)

    def __repr__(self) -> str:
        return "kernels"


class Hidden(Kernels):
    """Kernels inside of a model, for Muon and its like: no embedding, and not the last layer.

    By the paths, as `td.layers.depths` reads them, of all variables at the build. A model whose
    last layer doesn't come last, or with several, needs patterns of its own in place of this.
    """

    embedding = re.compile(r"embed|token|(?:^|[/_])(?:pos|cls)(?:[/_]|$)", re.I)

    def __init__(self):
        self.last: frozenset[str] = frozenset()

    def settle(self, paths: Sequence[str]) -> None:
        depth = depths(paths)
        last = max(depth.values(), default=0)
        self.last = frozenset(path for path in paths if depth[path] == last)

    def __call__(self, variable: Any) -> bool:
        path = path_of(variable)
        inside = path not in self.last and not self.embedding.search(path)
        return inside and super().__call__(variable)

    def reason(self, variable: Any) -> str:
        path = path_of(variable)
        if self.embedding.search(path):
            return "an embedding"
        return "the last layer" if path in self.last else super().reason(variable)

    def __repr__(self) -> str:
        return "hidden()"


class Only(Mask):
    """Variables in whose path one of the regular expressions is found (`re.search`)."""

    def __init__(self, *regexes: str):
        self.regexes = list(regexes)
        if not self.regexes or not all(isinstance(r, str) for r in self.regexes):
            raise TypeError(
                "A mask by path needs one or more regular expressions, each a string. "
                f"Received: regexes={self.regexes!r}"
            )
        for regex in self.regexes:
            try:
                re.compile(regex)
            except re.error as error:
                raise ValueError(
                    f"Not a regular expression: {regex!r} ({error}). "
                    f"Received: regexes={self.regexes!r}"
                ) from error

    def matches(self, variable: Any) -> list[str]:
        return [regex for regex in self.regexes if re.search(regex, path_of(variable))]

    def __call__(self, variable: Any) -> bool:
        return bool(self.matches(variable))

    def reason(self, variable: Any) -> str:
        found = self.matches(variable)
        return f"matches {found[0]!r}" if found else f"matches none of {self.regexes}"

    def patterns(self) -> Iterator[str]:
        yield from self.regexes

    def get_config(self) -> dict[str, Any]:
        return dict(regexes=self.regexes)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Mask":
        return cls(*config["regexes"])

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()}({', '.join(map(repr, self.regexes))})"


class Exclude(Only):
    """Variables in whose path none of the regular expressions is found."""

    def __call__(self, variable: Any) -> bool:
        return not super().__call__(variable)


class ExcludeSome(Exclude):
    """As Exclude, by names that are usual: a model may lack some, and a warning says so of all."""

    def patterns(self) -> Iterator[str]:
        yield from ()

    def settle(self, paths: Sequence[str]) -> None:
        if not any(re.search(regex, path) for regex in self.regexes for path in paths):
            warnings.warn(
                "`exclude_from_weight_decay` leaves nothing out of the decay: no path contains "
                f"one of `var_names`, none of {self.regexes}. The paths are: {list(paths)}",
                stacklevel=4,
            )

    def __repr__(self) -> str:
        return f"exclude({', '.join(map(repr, self.regexes))})"


class AllBut(Mask):
    """All variables but these; with or without the model's name, which Keras adds at will."""

    def __init__(self, *paths: str):
        self.paths = list(paths)

    def __call__(self, variable: Any) -> bool:
        return path_of(variable) not in self.paths

    def reason(self, variable: Any) -> str:
        return "not excluded" if self(variable) else "excluded"

    def patterns(self) -> Iterator[str]:
        yield from (f"^{re.escape(path)}$" for path in self.paths)

    def settle(self, paths: Sequence[str]) -> None:
        self.paths = [_same(path, paths) for path in self.paths]

    def get_config(self) -> dict[str, Any]:
        return dict(paths=self.paths)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Mask":
        return cls(*config["paths"])

    def __repr__(self) -> str:
        return f"all_but({', '.join(map(repr, self.paths))})"


def _same(path: str, paths: Sequence[str]) -> str:
    """The path as it is among `paths`, where it may have lost or got a first part."""
    if path in paths:
        return path
    similar = [p for p in paths if path == _rest(p) or p == _rest(path)]
    return similar[0] if len(similar) == 1 else path


def _rest(path: str) -> str:
    return path.partition("/")[2]


class Combined(Mask):
    """Two masks and an operator between them; plain callables may be one of the two."""

    sign = "?"

    def __init__(self, left: Any, right: Any):
        self.left, self.right = as_mask(left), as_mask(right)

    def reason(self, variable: Any) -> str:
        return f"{reason(self.left, variable)} {self.sign} {reason(self.right, variable)}"

    def parts(self) -> Iterator[Mask]:
        yield from parts(self.left)
        yield from parts(self.right)

    def get_config(self) -> dict[str, Any]:
        return dict(left=registry.serialize(self.left), right=registry.serialize(self.right))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Mask":
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})

    def __repr__(self) -> str:
        return f"({self.left!r} {self.sign} {self.right!r})"


class Both(Combined):
    """left & right."""

    sign = "&"

    def __call__(self, variable: Any) -> bool:
        return self.left(variable) and self.right(variable)


class Either(Combined):
    """left | right."""

    sign = "|"

    def __call__(self, variable: Any) -> bool:
        return self.left(variable) or self.right(variable)


class Not(Mask):
    """~mask."""

    def __init__(self, mask: Any):
        self.mask = as_mask(mask)

    def __call__(self, variable: Any) -> bool:
        return not self.mask(variable)

    def reason(self, variable: Any) -> str:
        return f"not ({reason(self.mask, variable)})"

    def parts(self) -> Iterator[Mask]:
        yield from parts(self.mask)

    def get_config(self) -> dict[str, Any]:
        return dict(mask=registry.serialize(self.mask))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Mask":
        return cls(keras.saving.deserialize_keras_object(config["mask"]))

    def __repr__(self) -> str:
        return f"~{self.mask!r}"


everything = Everything()
matrices = Matrices()
kernels = Kernels()


def exclude(*regexes: str) -> Mask:
    """All variables decay but those in whose path a regular expression is found."""
    return Exclude(*regexes)


def only(*regexes: str) -> Mask:
    """No variable decays but those in whose path a regular expression is found."""
    return Only(*regexes)


def hidden() -> Mask:
    """The kernels inside of a model; make one for each optimizer, as it learns the model's paths.

    td.Partition([(td.masks.hidden(), td.Muon(0.02)), (None, td.AdamW(1e-3))])
    """
    return Hidden()


def named(name: str) -> Mask:
    """The mask of this name, as a configuration has it: "kernels"."""
    known = {n: mask for n, mask in globals().items() if isinstance(mask, Mask)}
    if name not in known:
        raise ValueError(
            f"`decay_mask` must be None, one of {', '.join(known)}, or a list of patterns to leave "
            f"out. Received: decay_mask={name!r}"
        )
    return known[name]


def as_mask(value: Any, name: str = "decay_mask") -> Callable[[Any], bool]:
    """What `decay_mask` accepts, as a callable: None is all, a list of patterns excludes them."""
    if value is None:
        return everything
    is_list = isinstance(value, (list, tuple))
    if is_list and all(isinstance(regex, str) for regex in value):
        return Exclude(*value) if value else everything
    if is_list or not callable(value) or inspect.isclass(value) or not arguments.takes(value, 1):
        raise TypeError(
            f"`{name}` must be None, a callable `variable -> bool`, one of td.masks, or a list "
            f"of regular expressions to leave out. Received: {name}={value!r}"
        )
    return value


class Decision(NamedTuple):
    """Whether one variable decays, and why."""

    decays: bool
    reason: str


def decide(mask: Callable[[Any], bool], variable: Any, whose: str = "`decay_mask`") -> Decision:
    """Asks the mask about one variable."""
    decays = mask(variable)
    if not isinstance(decays, (bool, np.bool_)):
        raise TypeError(
            f"{whose} must return True or False for each variable. "
            f"Received: {decays!r} for {path_of(variable)!r} from {mask!r}"
        )
    return Decision(bool(decays), reason(mask, variable))


def settle(
    mask: Callable[[Any], bool], variables: Sequence[Any], whose: str = "Decay mask"
) -> None:
    """Tells a mask the variables; raises, naming them, if it has patterns that match none."""
    paths, idle = [path_of(v) for v in variables], []
    for part in parts(mask):
        part.settle(paths)
        idle += [r for r in part.patterns() if not any(re.search(r, path) for path in paths)]
    if idle:
        raise ValueError(
            f"{whose} patterns that match no variable: {idle}. Correct or remove them: a typing "
            f"error would treat variables otherwise than you meant. The paths are: {paths}"
        )


def exclude_more(
    optimizer: Any, given: Any, variables: Sequence | None, patterns: Sequence[str] | None
) -> None:
    """`exclude_from_weight_decay`: leaves more out of `given.decay_mask`, before the build only."""
    if optimizer.built:
        raise ValueError(
            "`exclude_from_weight_decay()` must come before the optimizer is built. To change the "
            f"mask later, make another {type(optimizer).__name__} and load this one's state."
        )
    for name, value in dict(var_list=variables, var_names=patterns).items():
        if not (value is None or isinstance(value, (list, tuple))):
            raise TypeError(f"`{name}` must be a list. Received: {name}={value!r}")
    if variables:
        given.decay_mask = Both(AllBut(*map(path_of, variables)), given.decay_mask)
    if patterns:
        given.decay_mask = Both(ExcludeSome(*patterns), given.decay_mask)


def reason(mask: Callable[[Any], bool], variable: Any) -> str:
    if isinstance(mask, Mask):
        return mask.reason(variable)
    return f"{getattr(mask, '__name__', type(mask).__name__)}()"


def parts(mask: Callable[[Any], bool]) -> Iterator[Mask]:
    return mask.parts() if isinstance(mask, Mask) else iter(())
