"""Learning rates, and anything else that changes with the step, as Keras schedules.

`schedule(step)` is a float32 tensor of the shape of `step`, which is an integer or any tensor of
integers: the updates already done, 0 at the first. Steps are subtracted as int64 before anything is
rounded to float32, so that a boundary is exact, also near step 2³¹.
A rate is a number or a scalar variable. A variable is read at every call: assigning to it acts at
the next step, without a retrace; the configuration keeps the value that it has when it is saved.
"""

from keras.optimizers.schedules import LearningRateSchedule

from tf_decoupled.schedules.cosine import Cosine, CosineRestarts
from tf_decoupled.schedules.cycles import Cyclical, OneCycle
from tf_decoupled.schedules.decays import (
    REX,
    Exponential,
    InverseSquareRoot,
    InverseTime,
    Linear,
    Polynomial,
)
from tf_decoupled.schedules.phases import Join, Warmup, WarmupStableDecay
from tf_decoupled.schedules.piecewise import PiecewiseConstant, PiecewiseInterpolate
from tf_decoupled.schedules.plateau import Plateau
from tf_decoupled.schedules.schedule import Schedule, peak_of

SGDR = CosineRestarts  # the paper's name

__all__ = [
    "REX",
    "SGDR",
    "Cosine",
    "CosineRestarts",
    "Cyclical",
    "Exponential",
    "InverseSquareRoot",
    "InverseTime",
    "Join",
    "LearningRateSchedule",
    "Linear",
    "OneCycle",
    "PiecewiseConstant",
    "PiecewiseInterpolate",
    "Plateau",
    "Polynomial",
    "Schedule",
    "Warmup",
    "WarmupStableDecay",
    "peak_of",
]
