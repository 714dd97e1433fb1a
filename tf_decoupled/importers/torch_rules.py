"""PyTorch's optimizers and ours: which is which, by what names, and what differs."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Cell
from tf_decoupled.importers.resuming import refuse_unless_told
from tf_decoupled.optimizers.adadelta import AdadeltaW
from tf_decoupled.optimizers.adafactor import Adafactor
from tf_decoupled.optimizers.adagrad import AdagradW
from tf_decoupled.optimizers.adam import Adam
from tf_decoupled.optimizers.adamax import AdaMaxW
from tf_decoupled.optimizers.adamw import AdamW
from tf_decoupled.optimizers.nadamw import NAdamW
from tf_decoupled.optimizers.radam import RAdam
from tf_decoupled.optimizers.rmsprop import RMSpropW
from tf_decoupled.optimizers.sgd import SGD
from tf_decoupled.optimizers.sgdw import SGDW
from tf_decoupled.schedules import InverseSquareRoot, InverseTime

MOMENTS = {"exp_avg": "m", "exp_avg_sq": "v"}
SLOTS = {
    AdamW: MOMENTS | {"max_exp_avg_sq": "v_max"},
    SGDW: {"momentum_buffer": "m"},
    RMSpropW: {"square_avg": "v", "grad_avg": "a", "momentum_buffer": "m"},
    AdagradW: {"sum": "n"},
    AdadeltaW: {"square_avg": "squares", "acc_delta": "steps"},
    AdaMaxW: {"exp_avg": "m", "exp_inf": "n"},
    NAdamW: MOMENTS | {"mu_product": "product"},
    RAdam: MOMENTS,
    Adafactor: {"row_var": "r", "col_var": "c", "variance": "v"},
}


def counterpart(common: Mapping, λ: float, decoupled: bool | None, changed: Mapping) -> Optimizer:
    """Our optimizer for PyTorch's options, and for the caller's in their place."""
    options = dict(common)
    rate, said = options.pop("lr"), options.pop("decoupled_weight_decay", None)
    make = MAKERS.get(frozenset(options))
    if make is None or (decoupled is not None and "betas" not in options):
        names = "Adam, AdamW, SGD, RMSprop, Adagrad, Adadelta, Adamax, NAdam, RAdam or Adafactor"
        raise ValueError(
            f"The `param_groups` must be those of PyTorch's {names}. Received: groups with "
            f"{sorted(options)} and decoupled={decoupled}"
        )
    said = said if decoupled is None else decoupled
    cls, arguments = make(options, λ, said, changed)
    return cls(**{"learning_rate": rate, **arguments(rate), **changed})


Arguments = Callable[[float], dict[str, Any]]  # of ours, at PyTorch's rate


def _adam(o: Mapping, λ: float, decoupled: bool | None, changed: Mapping) -> Any:
    if decoupled is None and λ != 0:
        raise ValueError(
            "This state_dict doesn't say whether its decay is AdamW's or the L2 of Adam. Pass "
            f"`decoupled=True` or False. Received: weight_decay={λ}"
        )
    own = _betas(o) | dict(epsilon=float(o["eps"]), amsgrad=bool(o["amsgrad"]))
    if decoupled:
        return AdamW, lambda rate: own | dict(weight_decay=λ)
    return Adam, lambda rate: own | dict(l2=λ)


def _sgd(o: Mapping, λ: float, decoupled: None, changed: Mapping) -> Any:
    return SGD, lambda rate: dict(momentum=o["momentum"], nesterov=o["nesterov"], l2=λ)


def _rmsprop(o: Mapping, λ: float, decoupled: None, changed: Mapping) -> Any:
    _no_l2("RMSprop", λ, changed)
    _epsilon("RMSprop", "adds ε to the root, ours inside of it", o["eps"], changed)
    own = dict(rho=o["alpha"], momentum=o["momentum"], centered=bool(o["centered"]))
    return RMSpropW, lambda rate: own | dict(epsilon=0.0, weight_decay=0.0)


def _adagrad(o: Mapping, λ: float, decoupled: None, changed: Mapping) -> Any:
    _no_l2("Adagrad", λ, changed)
    own = dict(initial_accumulator_value=o["initial_accumulator_value"], epsilon=o["eps"])
    own |= dict(weight_decay=0.0)
    if not o["lr_decay"]:
        return AdagradW, lambda rate: own
    return AdagradW, lambda rate: own | dict(learning_rate=InverseTime(rate, 1, o["lr_decay"]))


def _adadelta(o: Mapping, λ: float, decoupled: None, changed: Mapping) -> Any:
    _no_l2("Adadelta", λ, changed)
    return AdadeltaW, lambda rate: dict(rho=o["rho"], epsilon=o["eps"], weight_decay=0.0)


def _adamax_or_radam(o: Mapping, λ: float, decoupled: bool | None, changed: Mapping) -> Any:
    """Groups of RAdam say whether it decays decoupled, those of Adamax don't."""
    if decoupled is None:
        _no_l2("Adamax", λ, changed)
        where = "adds ε to each |g| before the maximum, ours to the maximum"
        _epsilon("Adamax", where, o["eps"], changed)
        return AdaMaxW, lambda rate: _betas(o) | dict(epsilon=0.0, weight_decay=0.0)
    _no_l2("RAdam", 0.0 if decoupled else λ, changed)
    where = "adds ε before v is corrected for its start, which counts until β₂ᵗ is 0, ours after it"
    _epsilon("RAdam", where, o["eps"], changed)
    return RAdam, lambda rate: _betas(o) | dict(epsilon=0.0, weight_decay=λ)


def _nadam(o: Mapping, λ: float, decoupled: bool | None, changed: Mapping) -> Any:
    _no_l2("NAdam", 0.0 if decoupled else λ, changed)
    own = dict(epsilon=o["eps"], momentum_decay=o["momentum_decay"], weight_decay=λ)
    return NAdamW, lambda rate: _betas(o) | own


def _adafactor(o: Mapping, λ: float, decoupled: None, changed: Mapping) -> Any:
    """The decay is the rate times λ there, whatever 1/√t is: independent of ours."""
    own = dict(decay_exponent=-o["beta2_decay"], epsilon_2=o["eps"][1], clip_threshold=o["d"])
    own |= dict(decay_coupling="independent")
    return (
        Adafactor,
        lambda rate: own | dict(learning_rate=InverseSquareRoot(rate), weight_decay=rate * λ),
    )


MAKERS = {
    frozenset({"betas", "eps", "amsgrad"}): _adam,
    frozenset({"momentum", "nesterov"}): _sgd,
    frozenset({"momentum", "alpha", "eps", "centered"}): _rmsprop,
    frozenset({"lr_decay", "eps", "initial_accumulator_value"}): _adagrad,
    frozenset({"rho", "eps"}): _adadelta,
    frozenset({"betas", "eps"}): _adamax_or_radam,
    frozenset({"betas", "eps", "momentum_decay"}): _nadam,
    frozenset({"beta2_decay", "eps", "d"}): _adafactor,
}


def _betas(o: Mapping) -> dict[str, float]:
    return dict(zip(("beta_1", "beta_2"), map(float, o["betas"]), strict=True))


def _no_l2(name: str, λ: float, changed: Mapping) -> None:
    why = f"The decay of PyTorch's {name} is L2, which only td.Adam and td.SGD have here."
    refuse_unless_told(changed, "weight_decay", λ != 0, why, f"{name} with weight_decay={λ}")


def _epsilon(name: str, where: str, ε: float, changed: Mapping) -> None:
    why = f"PyTorch's {name} {where}: steps differ by about ε / √v of themselves."
    refuse_unless_told(changed, "epsilon", ε != 0, why, f"{name} with eps={ε}")


def check_start(optimizer: Optimizer, updates: int) -> None:
    """Raises for an RAdam that is still to take the step that only ours rectifies, ρ in (4, 5]."""
    if not isinstance(optimizer, RAdam):
        return
    β = float(optimizer.beta_2)
    longest = 2 / (1 - β) - 1
    ρ = lambda t: longest - 2 * t * β**t / (1 - β**t)  # noqa: E731
    last = next((t for t in range(1, 1000) if ρ(t) > 5), None)  # the first after it
    if longest > 4 and (last is None or any(ρ(t) > 4 for t in range(updates + 1, last))):
        raise ValueError(
            "PyTorch's RAdam rectifies from ρ > 5 on, ours from ρ > 4. Import it once it has: "
            f"after {'no number of' if last is None else last - 1} updates with beta_2={β:g}. "
            f"Received: {updates} updates"
        )


def factored(cell: Cell, entry: Mapping, layout: Callable) -> Mapping:
    """Adafactor's entry with rows and columns as ours: which are which, the layout tells."""
    if "row_var" not in entry:
        return entry
    row, column = (np.asarray(entry[name]) for name in ("row_var", "col_var"))
    if row.ndim != 2:
        raise ValueError(
            "PyTorch's Adafactor factors the window of a convolution, ours its channels: the one "
            f"can't be made from the other. Received: {cell.path!r} {tuple(cell.variable.shape)}"
        )
    numbers = np.arange(row.size * column.size).reshape(row.size, column.size)
    found = np.asarray(layout(cell.variable, numbers))
    pair = (row.ravel(), column.ravel())
    if not np.array_equal(found, numbers):
        if not np.array_equal(found, numbers.T):
            raise ValueError(
                "Rows and columns of Adafactor need a `layout` that transposes or does nothing. "
                f"Received: another one for {cell.path!r} {tuple(cell.variable.shape)}"
            )
        pair = pair[::-1]
    return {**entry, "row_var": pair[0], "col_var": pair[1]}
