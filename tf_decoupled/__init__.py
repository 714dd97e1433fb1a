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

from tf_decoupled import (
    addons,
    callbacks,
    constraints,
    diagnostics,
    export,
    gradients,
    huggingface,
    importers,
    masks,
    migrate,
    schedules,
    training,
    transforms,
)
from tf_decoupled.batch_norm import refresh_batch_norm
from tf_decoupled.catalogue import list_optimizers
from tf_decoupled.create import create
from tf_decoupled.engine.concerns.loss_scale import DynamicLossScale
from tf_decoupled.engine.decay import NormalizedDecay
from tf_decoupled.engine.hyperparameters import Beta, Positive, Scalar, Steps
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.find_lr import find_lr
from tf_decoupled.grad_init import grad_init
from tf_decoupled.lbfgs import Minimized, minimize_lbfgs
from tf_decoupled.optimizers.acprop import ACProp
from tf_decoupled.optimizers.adabelief import AdaBelief
from tf_decoupled.optimizers.adadelta import Adadelta, AdadeltaW
from tf_decoupled.optimizers.adafactor import Adafactor
from tf_decoupled.optimizers.adagrad import Adagrad, AdagradW, RowwiseAdagrad
from tf_decoupled.optimizers.adam import Adam
from tf_decoupled.optimizers.adamax import Adamax, AdaMaxW
from tf_decoupled.optimizers.adamw import AdamW
from tf_decoupled.optimizers.adan import Adan
from tf_decoupled.optimizers.ademamix import AdEMAMix
from tf_decoupled.optimizers.adopt import ADOPT
from tf_decoupled.optimizers.amos import Amos
from tf_decoupled.optimizers.amsgradw import AMSGradW
from tf_decoupled.optimizers.cocob import COCOB
from tf_decoupled.optimizers.conditional_gradient import ConditionalGradient
from tf_decoupled.optimizers.dadapt_adamw import DAdaptAdamW
from tf_decoupled.optimizers.diffgrad import DiffGrad
from tf_decoupled.optimizers.dog import DoG
from tf_decoupled.optimizers.dowg import DoWG
from tf_decoupled.optimizers.dpsgd import DPSGD
from tf_decoupled.optimizers.fromage import Fromage
from tf_decoupled.optimizers.ftrl import Ftrl, FtrlW
from tf_decoupled.optimizers.generalized_sign_sgd import GeneralizedSignSGD
from tf_decoupled.optimizers.koala import KOALAM, KOALAV
from tf_decoupled.optimizers.kron import Kron
from tf_decoupled.optimizers.lamb import LAMB, Lamb
from tf_decoupled.optimizers.lars import LARS
from tf_decoupled.optimizers.lion import Lion
from tf_decoupled.optimizers.mars import MARS
from tf_decoupled.optimizers.muon import Muon
from tf_decoupled.optimizers.nadamw import Nadam, NAdamW
from tf_decoupled.optimizers.noisy_sgd import NoisySGD
from tf_decoupled.optimizers.novograd import NovoGrad
from tf_decoupled.optimizers.optimistic_sgd import OptimisticSGD
from tf_decoupled.optimizers.pnm import PNM, AdaPNM
from tf_decoupled.optimizers.prodigy import Prodigy
from tf_decoupled.optimizers.proximal_adagrad import ProximalAdagrad
from tf_decoupled.optimizers.radam import RAdam
from tf_decoupled.optimizers.rmsprop import RMSprop, RMSpropW
from tf_decoupled.optimizers.scion import Scion
from tf_decoupled.optimizers.sgd import SGD
from tf_decoupled.optimizers.sgdw import SGDW
from tf_decoupled.optimizers.shampoo import Shampoo
from tf_decoupled.optimizers.signum import Signum
from tf_decoupled.optimizers.sm3 import SM3
from tf_decoupled.optimizers.soap import SOAP
from tf_decoupled.optimizers.sophia import Sophia
from tf_decoupled.optimizers.stable_adamw import StableAdamW
from tf_decoupled.optimizers.yogi import Yogi
from tf_decoupled.rate_curve import RateCurve
from tf_decoupled.wrappers.decouple import decouple
from tf_decoupled.wrappers.iterate_average import IterateAverage
from tf_decoupled.wrappers.layerwise_decay import LayerwiseDecay
from tf_decoupled.wrappers.lookahead import Lookahead
from tf_decoupled.wrappers.mechanic import Mechanic
from tf_decoupled.wrappers.partition import Partition
from tf_decoupled.wrappers.rate_multipliers import RateMultipliers
from tf_decoupled.wrappers.schedule_free import ScheduleFree
from tf_decoupled.wrappers.wrapper import Wrapper

__version__ = "0.1.0"

__all__ = [
    "ADOPT",
    "COCOB",
    "DPSGD",
    "KOALAM",
    "KOALAV",
    "LAMB",
    "LARS",
    "MARS",
    "PNM",
    "SGD",
    "SGDW",
    "SM3",
    "SOAP",
    "ACProp",
    "AMSGradW",
    "AdEMAMix",
    "AdaBelief",
    "AdaMaxW",
    "AdaPNM",
    "Adadelta",
    "AdadeltaW",
    "Adafactor",
    "Adagrad",
    "AdagradW",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Amos",
    "Beta",
    "ConditionalGradient",
    "DAdaptAdamW",
    "DiffGrad",
    "DoG",
    "DoWG",
    "DynamicLossScale",
    "Fromage",
    "Ftrl",
    "FtrlW",
    "GeneralizedSignSGD",
    "IterateAverage",
    "Kron",
    "Lamb",
    "LayerwiseDecay",
    "Lion",
    "Lookahead",
    "Mechanic",
    "Minimized",
    "Muon",
    "NAdamW",
    "Nadam",
    "NoisySGD",
    "NormalizedDecay",
    "NovoGrad",
    "OptimisticSGD",
    "Optimizer",
    "Partition",
    "Positive",
    "Prodigy",
    "ProximalAdagrad",
    "RAdam",
    "RMSprop",
    "RMSpropW",
    "RateCurve",
    "RateMultipliers",
    "RowwiseAdagrad",
    "Scalar",
    "ScheduleFree",
    "Scion",
    "Shampoo",
    "Signum",
    "Sophia",
    "StableAdamW",
    "Steps",
    "Wrapper",
    "Yogi",
    "addons",
    "callbacks",
    "constraints",
    "create",
    "decouple",
    "diagnostics",
    "export",
    "find_lr",
    "grad_init",
    "gradients",
    "huggingface",
    "importers",
    "list_optimizers",
    "masks",
    "migrate",
    "minimize_lbfgs",
    "refresh_batch_norm",
    "schedules",
    "training",
    "transforms",
]
