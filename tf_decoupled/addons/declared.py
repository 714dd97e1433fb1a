"""Addons' optimizers that are this library's but for arguments, defaults and where ε stands."""

from collections.abc import Iterable
from typing import Any, ClassVar

from tf_decoupled.addons.constructor import FromAddons
from tf_decoupled.engine.decay import Coupling
from tf_decoupled.engine.hyperparameters import Beta, Count, Growth, Initial, Scalar
from tf_decoupled.optimizers import adam, adamw, cocob, conditional_gradient, proximal_adagrad, sgdw


class Decaying(FromAddons):
    """What AdamW and SGDW had besides: an argument of their `apply_gradients`."""

    def apply_gradients(
        self, grads_and_vars: Iterable, name: str | None = None, decay_var_list: Any = None
    ) -> Any:
        if decay_var_list is not None:
            raise TypeError(
                "Which variables decay is fixed when the optimizer is built: in place of "
                "`decay_var_list` give the constructor `decay_mask=`, a callable "
                f"`variable -> bool` or td.masks. Received: decay_var_list={decay_var_list!r}"
            )
        return super().apply_gradients(grads_and_vars)


class AdamW(Decaying, adamw.AdamW):
    """AdamW as TensorFlow Addons has it: θ loses λ θ a step, whatever the rate is.

    `weight_decay` comes first and has no default. Under a schedule of the rate the decay falls
    only if it gets a schedule of its own.
    """

    weight_decay: Scalar = None
    learning_rate: Scalar = 1e-3
    epsilon: Scalar = 1e-7
    epsilon_hat: bool = True
    decay_coupling: str | None = Coupling("decay_coupling", str | None, "independent")

    needed: ClassVar = ("weight_decay",)
    positional: ClassVar = (
        *("weight_decay", "learning_rate", "beta_1", "beta_2", "epsilon", "amsgrad"),
    )


class SGDW(Decaying, sgdw.SGDW):
    """SGDW as TensorFlow Addons has it: θ loses λ θ a step, whatever the rate is."""

    weight_decay: Scalar = None
    learning_rate: Scalar = 1e-3
    momentum: Beta = 0.0
    decay_coupling: str | None = Coupling("decay_coupling", str | None, "independent")

    needed: ClassVar = ("weight_decay",)
    positional: ClassVar = ("weight_decay", "learning_rate", "momentum", "nesterov")


class LazyAdam(FromAddons, adam.Adam):
    """Adam that leaves rows alone which a sparse gradient hasn't: values, m and v stand still.

    With `td.Adam(sparse="lazy")` m and v of absent rows shrink as they do in Adam.
    """

    epsilon: Scalar = 1e-7
    epsilon_hat: bool = True
    sparse: str = "lazy"

    positional: ClassVar = ("learning_rate", "beta_1", "beta_2", "epsilon", "amsgrad")

    def catch_up(self, p, s, h, k):
        return p, dict(vars(s))


class COCOB(FromAddons, cocob.COCOB):
    """COCOB with Addons' one argument."""

    alpha: Growth = 100.0

    positional: ClassVar = ("alpha",)


class ProximalAdagrad(FromAddons, proximal_adagrad.ProximalAdagrad):
    """Proximal Adagrad; its second argument is not the decay."""

    initial_accumulator_value: Initial = 0.1

    positional: ClassVar = (
        *("learning_rate", "initial_accumulator_value"),
        *("l1_regularization_strength", "l2_regularization_strength"),
    )


class ConditionalGradient(FromAddons, conditional_gradient.ConditionalGradient):
    """Conditional gradient whose rate is the share of θ that is kept: θ ← η θ − (1 − η) λ s."""

    learning_rate: Beta = None
    power_steps: Count = 32  # Addons decomposes the matrix

    needed: ClassVar = ("learning_rate",)
    positional: ClassVar = ("learning_rate", "lambda_", "epsilon", "ord")

    def resolved(self, own, step):
        h = super().resolved(own, step)
        return h | {"learning_rate": 1 - h["learning_rate"]} if "learning_rate" in h else h
