"""What a sweep computes: its settings, its presets, and the cells of its grid."""

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from tf_decoupled.experiments import data, optimizers, own
from tf_decoupled.experiments.errors import InputError

SCHEDULES = ("fixed", "drop", "cosine", "restarts")
# What float32 holds with all its digits, and what the random generators take.
SMALLEST, LARGEST = float.fromhex("0x1p-126"), float.fromhex("0x1.fffffep127")
LARGEST_SEED, MOST_SEEDS, MOST_UPDATES = 2**31 - 1, 1000, 2**31 - 1
COUPLINGS = ("learning_rate", "schedule", "independent", "corrected")


@dataclass(frozen=True)
class Preset:
    """Settings under a name. Grids are text, as `rates` reads it, by optimizer."""

    help: str
    dataset: str
    model: str
    epochs: int
    batch_size: int
    schedules: str
    seeds: str
    alphas: dict[str, str]
    l2s: dict[str, str]
    weight_decays: dict[str, str]


# The paper draws its axes in multiples of 0.1 and of 0.001 by powers of two, but doesn't list its
# grids; that they reach from 1/1024 to 1 is our reading of its figures.
PAPER_ALPHAS = f"{0.1 / 1024}:0.1"
PAPER_LAMBDAS = f"0,{0.001 / 1024}:0.001"

PRESETS = {
    "quick": Preset(
        help="four to five minutes on two cores: one schedule, a coarse grid, the embedded data",
        dataset="fashion_mnist_small",
        model="sbw16",
        epochs=4,
        batch_size=128,
        schedules="cosine",
        seeds="0:4",
        alphas={"adam": "0.002:0.016", "sgd": "0.0125:0.1"},
        l2s=dict.fromkeys(("adam", "sgd"), "0,0.0125,0.04,0.125,0.4"),
        weight_decays=dict.fromkeys(("adam", "sgd"), "0,0.00625,0.02,0.0625,0.2"),
    ),
    "standard": Preset(
        help="about half an hour on two cores: all schedules, finer and longer",
        dataset="fashion_mnist_small",
        model="sbw16",
        epochs=10,
        batch_size=128,
        schedules="fixed,drop,cosine",
        seeds="0:2",
        alphas={"adam": "0.001:0.016", "sgd": "0.0125:0.2"},
        l2s=dict.fromkeys(("adam", "sgd"), "0,0.0125:0.4"),
        weight_decays=dict.fromkeys(("adam", "sgd"), "0,0.00625:0.2"),
    ),
    "paper": Preset(
        help="the paper's own setting: weeks of one fast GPU",
        dataset="cifar10",
        model="shake_shake_26_2x64d",
        epochs=100,
        batch_size=128,
        schedules="fixed,drop,cosine",
        seeds="0",
        alphas={"adam": PAPER_ALPHAS, "sgd": PAPER_ALPHAS},
        l2s={"adam": PAPER_LAMBDAS, "sgd": PAPER_LAMBDAS},
        weight_decays={"adam": PAPER_LAMBDAS, "sgd": PAPER_LAMBDAS},
    ),
}


class Cell(NamedTuple):
    """One training run. `form` is "both" at λ = 0, where the two forms are the same run."""

    form: str
    schedule: str
    alpha: float
    lam: float
    seed: int


@dataclass(frozen=True)
class Settings:
    """All that decides the numbers of a sweep.

    `l2s` are the λ of the coupled form, `weight_decays` those of the decoupled one. The whole grid
    is run with each of `seeds`. `examples` keeps the first so many of every split.
    `arguments` are the optimizer's, "name=value". `model` and `dataset` may be a user's own,
    `module:function`; `fingerprint` is then what these were.
    """

    alphas: tuple[float, ...]
    l2s: tuple[float, ...]
    weight_decays: tuple[float, ...]
    optimizer: str = "adam"
    schedules: tuple[str, ...] = ("cosine",)
    coupling: str = "schedule"
    dataset: str = "fashion_mnist_small"
    data_dir: str | None = None
    model: str = "sbw16"
    epochs: int = 5
    batch_size: int = 128
    seeds: tuple[int, ...] = (0,)
    examples: int | None = None
    arguments: tuple[str, ...] = ()
    fingerprint: str = ""

    def __post_init__(self):
        for name in ("alphas", "l2s", "weight_decays", "seeds"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        self._check_names()
        self._check_numbers()

    def _check_names(self) -> None:
        object.__setattr__(self, "optimizer", optimizers.swept(self.optimizer))
        check_name("coupling", self.coupling, COUPLINGS)
        check_task(self)
        for schedule in self.schedules:
            check_name("schedule", schedule, SCHEDULES)

    def _check_numbers(self) -> None:
        if "coupled" not in self.forms and self.l2s:
            raise InputError(f"{self.optimizer} has no coupled form: leave l2s out.")
        for name in ("alphas", "l2s", "weight_decays", "schedules", "seeds"):
            if not getattr(self, name) and (name != "l2s" or "coupled" in self.forms):
                raise InputError(f"The grid is empty: {name} has no value.")
        for name, least in (
            ("alphas", "above"),
            ("l2s", "at least"),
            ("weight_decays", "at least"),
        ):
            for x in getattr(self, name):
                if not (SMALLEST <= x <= LARGEST or (x == 0 and least == "at least")):
                    raise InputError(
                        f"{name} must be {least} 0 and finite, in float32. Received: {x}"
                    )
        check_whole(self)
        check_seeds(self.seeds)

    @property
    def forms(self) -> dict[str, optimizers.Form]:
        return optimizers.forms(self.optimizer)

    def lambdas(self, form: str) -> tuple[float, ...]:
        return self.l2s if form == "coupled" else self.weight_decays

    def cells(self) -> list[Cell]:
        """The whole grid in the order in which it is computed and written; no cell twice."""
        grid = {
            cell(form, schedule, alpha, lam, seed): None
            for seed in self.seeds
            for schedule in self.schedules
            for form in self.forms
            for alpha in self.alphas
            for lam in self.lambdas(form)
        }
        return list(grid)

    def to_json(self) -> dict:
        """Plain values; `from_json` of it equals the settings. Without `data_dir`: it moves."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "data_dir"}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_json(cls, values: dict) -> "Settings":
        """Also of older sweeps, which had `best_seeds`: further seeds of the best cells alone."""
        known = {k: v for k, v in values.items() if k != "best_seeds"}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in known.items()})

    def differences(self, other: "Settings") -> list[str]:
        """ "name: self's value, not other's" for each field in which the two differ."""
        ours, theirs = self.to_json(), other.to_json()
        return [f"{k}: {ours[k]}, not {theirs[k]}" for k in ours if ours[k] != theirs[k]]


def cell(form: str, schedule: str, alpha: float, lam: float, seed: int) -> Cell:
    return Cell("both" if lam == 0 else form, schedule, alpha, lam, seed)


def preset(name: str, optimizer: str, **given: object) -> Settings:
    """The settings of `PRESETS[name]` for `optimizer`, save for what is `given` and not None."""
    check_name("preset", name, tuple(PRESETS))
    chosen, optimizer = PRESETS[name], optimizers.swept(optimizer)
    given = {k: v for k, v in given.items() if v is not None}
    decays = given.get("weight_decays")
    grids = {"weight_decays": rates("weight_decays", chosen.weight_decays[_like(optimizer)])}
    if "coupled" in optimizers.forms(optimizer):
        grids["l2s"] = decays if decays is not None else rates("l2s", chosen.l2s[_like(optimizer)])
    if "alphas" not in given:
        grids["alphas"] = _rates(chosen, optimizer)
    settings = dict(
        optimizer=optimizer,
        dataset=chosen.dataset,
        model=chosen.model,
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        schedules=tuple(chosen.schedules.split(",")),
        seeds=integers("seeds", chosen.seeds),
    )
    return Settings(**{"l2s": ()} | settings | grids | given)


def _like(optimizer: str) -> str:
    """Whose grid a preset gives it."""
    return "sgd" if optimizer in ("sgd", "lars") else "adam"


def _rates(chosen: Preset, optimizer: str) -> tuple[float, ...]:
    """The rates of Adam's or SGD's grid, moved by how much larger the optimizer's default is."""
    model = _like(optimizer)
    found = rates("alphas", chosen.alphas[model])
    if optimizer == model:
        return found
    ours, theirs = (
        optimizers.forms(each)["decoupled"].optimizer.declared["learning_rate"].default
        for each in (optimizer, model)
    )
    if isinstance(ours, bool) or not isinstance(ours, (int, float)) or ours <= 0:
        raise InputError(f"{optimizer} has no rate of its own: give --alphas. Received: {ours!r}")
    return tuple(rate * ours / theirs for rate in found)


def rates(name: str, text: str) -> tuple[float, ...]:
    """ "0,0.01:0.08" is (0, 0.01, 0.02, 0.04, 0.08): numbers, and ranges that go up by factor 2."""
    values = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        low, colon, high = item.partition(":")
        low, high = _number(name, low), _number(name, high if colon else low)
        if colon and not 0 < low <= high < math.inf:
            raise InputError(f"A range of {name} must go up from above 0. Received: {item!r}")
        doublings = int(math.log2(high / low) + 1e-9) if colon else 0
        values += [low * 2**i for i in range(doublings + 1)]
    return tuple(values)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{name} must be numbers. Received: {text!r}") from None


def integers(name: str, text: str) -> tuple[int, ...]:
    """ "0,3:5" is (0, 3, 4, 5)."""
    try:
        pairs = [item.partition(":") for item in text.split(",") if item.strip()]
        ranges = [range(int(a), int(b or a) + 1) for a, _, b in pairs]
    except ValueError:
        raise InputError(f"{name} must be whole numbers. Received: {text!r}") from None
    if not all(ranges):
        raise InputError(f"A range of {name} must go up. Received: {text!r}")
    if any(each[-1] - each[0] >= MOST_SEEDS for each in ranges):
        raise InputError(f"{name} must be at most {MOST_SEEDS} numbers. Received: {text!r}")
    return tuple(i for each in ranges for i in each)


def check_whole(settings: Any) -> None:
    """Raises where one of the numbers that count something is below 1."""
    for name in ("epochs", "batch_size", "examples"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise InputError(f"{name} must be at least 1. Received: {value}")


def check_seeds(seeds: tuple[int, ...]) -> None:
    for seed in seeds:
        if not 0 <= seed <= LARGEST_SEED:
            raise InputError(f"A seed must be from 0 to {LARGEST_SEED}. Received: {seed}")


def check_updates(updates: int) -> None:
    """Raises for more than schedules are exact for."""
    if updates > MOST_UPDATES:
        raise InputError(f"A run must have at most {MOST_UPDATES} updates. Received: {updates}")


def check_task(settings: Any) -> None:
    """Raises for a dataset that is neither known nor a user's own."""
    if not own.is_own(settings.dataset):
        check_name("dataset", settings.dataset, data.NAMES)


def check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise InputError(f"Unknown {what} {name!r}. Known: {', '.join(known)}.")
