"""Rule: what a paper says of one variable, and the arguments that belong to it."""

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from tf_decoupled import masks
from tf_decoupled.engine import decay
from tf_decoupled.engine.hyperparameters import Declared, Hyperparameter, Scalar, resolve
from tf_decoupled.engine.state import Slot, Slots, place_of


class Rule(Declared):
    """θ ← θ − η u(g, s) − δ(θ): pure functions on the arrays of one variable.

    p: value, g: gradient, s: slots by name, h: hyperparameters by name. `h.t` counts updates from
    1, `h.step` is the same as an integer, `h.decay` is κ_t of δ(θ) = κ_t θ, and
    `h.correction.beta_1` is 1 − β₁ᵗ, computed once for all variables.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    decay_coupling: str | None = decay.Coupling("decay_coupling", str | None, None)
    decay_mask: Any = None
    base_learning_rate: Scalar = None

    masked = ("decay",)  # the hyperparameters that are zero where the mask leaves a variable out

    # What a subclass writes.

    def init(self, p: tf.Variable) -> Slots:
        """Declares the slots of a variable: `dict(m=zeros(p))`. Only `p.shape` may be asked."""
        return {}

    def update(self, p, g, s, h) -> tuple[tf.Tensor, Slots]:
        """The paper: value, gradient, slots and hyperparameters to direction u and new slots."""
        raise NotImplementedError(f"{type(self).__name__} must define `update` or `step`.")

    def step(self, p, g, s, h) -> tuple[tf.Tensor, Slots]:
        """θ − η u − δ(θ), and the new slots. For rules whose direction needs the rate or decay."""
        u, slots = self.update(p, g, s, h)
        return p - h.learning_rate * u - h.decay * p, slots

    def refuses(self, p: tf.Variable) -> str | None:
        """Why the rule can't step a variable of this shape; None if it can."""
        return None

    def shared(self) -> dict[str, Slot]:
        """Scalars of the whole optimizer: `dict(d=Slot((), 1e-6))`. They are among `h`."""
        return {}

    def reduce(self, p, g, s, h) -> dict[str, tf.Tensor]:
        """One variable's summands; the engine adds each up over all variables of the rule."""
        return {}

    def combine(self, sums: SimpleNamespace, h: SimpleNamespace) -> dict[str, tf.Tensor]:
        """What the sums come to, once per step. It joins `h`, and `shared` scalars are kept."""
        return {}

    def observe(self, p, e, s, h) -> Slots:
        """New slots from an estimate `e` of the variable's shape, as of its Hessian's diagonal."""
        return {}

    def evaluation(self, p, s, h) -> tf.Tensor:
        """The value for evaluation, where that isn't `p`."""
        return p

    def training(self, x, s, h) -> tf.Tensor:
        """The inverse of `evaluation`: the value to train from the value for evaluation."""
        return x

    def catch_up(
        self, p: tf.Tensor, s: SimpleNamespace, h: SimpleNamespace, k: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """Value and slots after k updates with gradient 0, in closed form; for `sparse="lazy"`.

        p: [n, ...], rows of a variable, and slots likewise; k: [n, 1, ...]. Hyperparameters of the
        present step stand for those of the missed ones. Slots must be exact; the value may be
        approximate. A class that defines `init`, `update` or `step` must define `catch_up`, too.
        """
        raise NotImplementedError

    def measure(self, variables: Sequence, everything: Sequence) -> Sequence[float] | None:
        """A number of each variable, fixed at the build, for `multiplier`; None for none.

        `everything`: these, and those that other members of a Partition step.
        """
        return None

    def multiplier(self, numbers: tf.Tensor, h: SimpleNamespace) -> tf.Tensor:
        """By what the rate of variables with these numbers is multiplied."""
        return tf.ones_like(numbers)

    # What the engine asks.

    @classmethod
    def defines(cls, name: str) -> bool:
        """Whether a subclass has written this method."""
        return getattr(cls, name) is not getattr(Rule, name)

    def reduces(self) -> bool:
        """Whether there is something to be computed once for all variables."""
        return self.defines("reduce") or self.defines("combine")

    def evaluates(self) -> bool:
        """Whether the variables are not what a model is judged by."""
        return self.defines("evaluation")

    def tree(self) -> Iterator[tuple[str, "Rule"]]:
        """The rule, and those inside of it, each with its place among slots: "", "inner", ..."""
        yield "", self

    def branches(self) -> Sequence[tuple[str, "Rule"]]:
        """The rules that step the variables, each with its place among hyperparameters."""
        return [("", self)]

    def rules(self) -> Iterator[tuple[str, "Rule"]]:
        """All rules inside of this one, and itself if it is one, with their places."""
        for branch, member in self.branches():
            for place, rule in member.tree():
                yield place_of(branch, place), rule

    def innermost(self) -> "Rule":
        """The rule whose rate, decay and mask count: itself, unless it wraps one."""
        return self

    def kind(self) -> str:
        """Whose slots these are: the class that declares them, and that of what it wraps."""
        return next(cls.__name__ for cls in type(self).__mro__ if "init" in vars(cls))

    @classmethod
    def own_arguments(cls) -> dict[str, Hyperparameter]:
        """The arguments of the rule; the engine's are the others."""
        return cls.declared

    @classmethod
    def interpret_rule(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments once checked, with defaults that depend on other arguments filled in."""
        return decay.interpret(given | {"decay_mask": masks.as_mask(given["decay_mask"])})

    def rule_at(self, step: tf.Tensor) -> dict[str, Any]:
        """Its hyperparameters after `step` updates: schedules resolved, and t, step, decay."""
        h = {"t": tf.cast(step + 1, tf.float32), "step": step + 1}
        h |= self.resolved(self.own_arguments(), step)
        return h | {"decay": self.decay_of(h)}

    def resolved(self, arguments: Mapping[str, Hyperparameter], step: tf.Tensor) -> dict[str, Any]:
        """The live ones of these arguments after `step` updates, as tensors."""
        values = {n: resolve(getattr(self.given, n), step) for n, a in arguments.items() if a.live}
        return {
            name: None if value is None else tf.cast(value, arguments[name].dtype)
            for name, value in values.items()
        }

    def decay_of(self, h: Mapping[str, Any], scale: Any = 1.0) -> tf.Tensor:
        """κ_t of δ(θ) = κ_t θ, where the rate and its base are multiplied by `scale`."""
        base = h["base_learning_rate"]
        base = decay.base_rate(self.given.learning_rate) if base is None else base
        coupling = decay.COUPLINGS[self.decay_coupling]
        base = None if base is None else scale * base
        return coupling(scale * h["learning_rate"], base, h["weight_decay"])

    def hyperparameters_of(
        self, block: Any, h: dict[str, Any], scale: Any = None
    ) -> dict[str, Any]:
        """Those that a block's variables see; numbers that differ among them as one array.

        The rate is multiplied by `scale`; where the mask leaves a variable out, nothing decays.
        """
        if scale is not None:
            h = h | {"learning_rate": scale * h["learning_rate"], "decay": self.decay_of(h, scale)}
        decays = [cell.decays for cell in block.cells]
        if all(decays):
            return h
        factor = tf.cast(decays, block.precision) if any(decays) else 0.0
        return h | {name: factor * h[name] for name in self.masked}

    def scale_of(self, block: Any, h: dict[str, Any], scale: Any) -> Any:
        """This rule's multiplier for a block's variables, times that of the rules around it."""
        if not self.defines("measure"):
            return scale
        numbers = [cell.numbers[id(self)] for cell in block.cells]
        own = self.multiplier(
            tf.constant(numbers if block.stacked else numbers[0], block.precision),
            SimpleNamespace(**h),
        )
        return own if scale is None else own * scale
