"""Every optimizer in NumPy float64, from its paper: what the library is compared with."""

from references.adam import adafactor, adam, adamw, lamb, rmsprop
from references.matrices import muon
from references.momentum import lion, sgd, sgdw
from references.paper import decay, normalized_decay, reference
from references.privacy import dpsgd
from references.rate_free import (
    cocob,
    dadapt_adamw,
    dog,
    dowg,
    polynomial_average,
    prodigy,
)
from references.wrappers import iterate_average, lookahead, mechanic, schedule_free

__all__ = [
    "adafactor",
    "adam",
    "adamw",
    "cocob",
    "dadapt_adamw",
    "decay",
    "dog",
    "dowg",
    "dpsgd",
    "iterate_average",
    "lamb",
    "lion",
    "lookahead",
    "mechanic",
    "muon",
    "normalized_decay",
    "polynomial_average",
    "prodigy",
    "reference",
    "rmsprop",
    "schedule_free",
    "sgd",
    "sgdw",
]
