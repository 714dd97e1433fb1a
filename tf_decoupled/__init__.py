"""Optimizers for TensorFlow 2 / Keras 3 with decoupled weight decay: θ ← θ − η u(g, s) − δ(θ)."""

import os as _os

if _os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
    raise ImportError(
        "tf_decoupled needs Keras 3, and TF_USE_LEGACY_KERAS asks for Keras 2 (tf_keras), whose "
        "optimizers are other classes. Unset it before importing TensorFlow. "
        f"Received: TF_USE_LEGACY_KERAS={_os.environ['TF_USE_LEGACY_KERAS']!r}"
    )

_backend = _os.environ.get("KERAS_BACKEND") or "tensorflow"
if _backend == "tensorflow":
    import keras as _keras

    _backend = _keras.backend.backend()  # a file in the home directory may choose another
if _backend != "tensorflow":
    raise ImportError(
        "tf_decoupled needs Keras's TensorFlow backend: set KERAS_BACKEND=tensorflow. "
        f"Received: {_backend!r}"
    )

from tf_decoupled import callbacks, export, importers, masks, schedules, transforms
from tf_decoupled.batch_norm import refresh_batch_norm
from tf_decoupled.catalogue import list_optimizers
from tf_decoupled.engine.concerns.loss_scale import DynamicLossScale
from tf_decoupled.engine.decay import NormalizedDecay
from tf_decoupled.engine.hyperparameters import Beta, Positive, Scalar, Steps
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.optimizers.adafactor import Adafactor
from tf_decoupled.optimizers.adam import Adam
from tf_decoupled.optimizers.adamw import AdamW
from tf_decoupled.optimizers.lamb import LAMB
from tf_decoupled.optimizers.lion import Lion
from tf_decoupled.optimizers.muon import Muon
from tf_decoupled.optimizers.prodigy import Prodigy
from tf_decoupled.optimizers.sgd import SGD
from tf_decoupled.optimizers.sgdw import SGDW
from tf_decoupled.wrappers.decouple import decouple
from tf_decoupled.wrappers.layerwise_decay import LayerwiseDecay
from tf_decoupled.wrappers.lookahead import Lookahead
from tf_decoupled.wrappers.partition import Partition
from tf_decoupled.wrappers.rate_multipliers import RateMultipliers
from tf_decoupled.wrappers.schedule_free import ScheduleFree
from tf_decoupled.wrappers.wrapper import Wrapper

__version__ = "0.1.0"

__all__ = [
    "LAMB",
    "SGD",
    "SGDW",
    "Adafactor",
    "Adam",
    "AdamW",
    "Beta",
    "DynamicLossScale",
    "LayerwiseDecay",
    "Lion",
    "Lookahead",
    "Muon",
    "NormalizedDecay",
    "Optimizer",
    "Partition",
    "Positive",
    "Prodigy",
    "RateMultipliers",
    "Scalar",
    "ScheduleFree",
    "Steps",
    "Wrapper",
    "callbacks",
    "decouple",
    "export",
    "importers",
    "list_optimizers",
    "masks",
    "refresh_batch_norm",
    "schedules",
    "transforms",
]
