"""Every optimizer in NumPy float64, from its paper: what the library is compared with."""

from references.adam import adafactor, adam, adamw, lamb, rmsprop
from references.matrices import muon
from references.momentum import lion, sgd, sgdw
from references.paper import decay, normalized_decay, reference
from references.privacy import dpsgd
from references.rate_free import prodigy
from references.wrappers import lookahead, schedule_free

__all__ = [
    "adafactor",
    "adam",
    "adamw",
    "decay",
    "dpsgd",
    "lamb",
    "lion",
    "lookahead",
    "muon",
    "normalized_decay",
    "prodigy",
    "reference",
    "rmsprop",
    "schedule_free",
    "sgd",
    "sgdw",
]
