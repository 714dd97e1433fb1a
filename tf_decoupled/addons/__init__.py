"""TensorFlow Addons' optimizers, by their names, arguments and defaults, with their steps.

    import tf_decoupled as td

    opt = td.addons.AdamW(weight_decay=1e-4, learning_rate=1e-3)  # was tfa.optimizers.AdamW

Each is one of this library's, declared as it was there: where the two differ on purpose, as in
where ε stands or what the decay is multiplied by, this is Addons'. All arguments of this library go
with them, too, and so do `lr=` and `decay=` of old Keras. What can't be as it was says what to
write instead. docs/migrating.md has a line for each.

Two things are otherwise in all of them. A sparse gradient acts as the dense one, so that absent
rows decay like the others; Addons decayed the rows of the gradient only. And averages are in the
model at the end of `fit`, as Keras has it.
"""

from typing import Any, NoReturn

from tf_decoupled.addons.callbacks import AverageModelCheckpoint
from tf_decoupled.addons.declared import (
    COCOB,
    SGDW,
    AdamW,
    ConditionalGradient,
    LazyAdam,
    ProximalAdagrad,
)
from tf_decoupled.addons.extension import (
    DecoupledWeightDecayExtension,
    extend_with_decoupled_weight_decay,
)
from tf_decoupled.addons.lamb import LAMB
from tf_decoupled.addons.layers import MultiOptimizer
from tf_decoupled.addons.novograd import NovoGrad
from tf_decoupled.addons.rectified import AdaBelief, RectifiedAdam
from tf_decoupled.addons.schedules import (
    CyclicalLearningRate,
    ExponentialCyclicalLearningRate,
    Triangular2CyclicalLearningRate,
    TriangularCyclicalLearningRate,
)
from tf_decoupled.addons.wrapped import SWA, Lookahead, MovingAverage
from tf_decoupled.addons.yogi import Yogi

__all__ = [
    "COCOB",
    "LAMB",
    "SGDW",
    "SWA",
    "AdaBelief",
    "AdamW",
    "AverageModelCheckpoint",
    "ConditionalGradient",
    "CyclicalLearningRate",
    "DecoupledWeightDecayExtension",
    "ExponentialCyclicalLearningRate",
    "LazyAdam",
    "Lookahead",
    "MovingAverage",
    "MultiOptimizer",
    "NovoGrad",
    "ProximalAdagrad",
    "RectifiedAdam",
    "Triangular2CyclicalLearningRate",
    "TriangularCyclicalLearningRate",
    "Yogi",
    "extend_with_decoupled_weight_decay",
]

INSTEAD = {
    "TimeStopping": "a callback that sets `model.stop_training`; docs/migrating.md has it",
    "TQDMProgressBar": "`tqdm.keras.TqdmCallback()`",
    "fit_bn": "`td.refresh_batch_norm(model, x)`",
    "AveragedOptimizerWrapper": "a subclass of `td.Wrapper` with an `evaluation`",
}


def __getattr__(name: str) -> Any:
    return _refuse(name)


def _refuse(name: str) -> NoReturn:
    told = f"Instead of it use {INSTEAD[name]}." if name in INSTEAD else f"It has {__all__}."
    raise AttributeError(f"td.addons has no {name!r}. {told}")
