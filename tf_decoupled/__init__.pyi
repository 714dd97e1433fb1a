# Written by tools/write_stub.py.
"""Optimizers for TensorFlow 2 / Keras 3 with decoupled weight decay: θ ← θ − η u(g, s) − δ(θ)."""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from typing_extensions import Unpack

from tf_decoupled import addons as addons
from tf_decoupled import callbacks as callbacks
from tf_decoupled import constraints as constraints
from tf_decoupled import diagnostics as diagnostics
from tf_decoupled import export as export
from tf_decoupled import gradients as gradients
from tf_decoupled import huggingface as huggingface
from tf_decoupled import importers as importers
from tf_decoupled import masks as masks
from tf_decoupled import migrate as migrate
from tf_decoupled import schedules as schedules
from tf_decoupled import training as training
from tf_decoupled import transforms as transforms
from tf_decoupled.batch_norm import refresh_batch_norm as refresh_batch_norm
from tf_decoupled.catalogue import list_optimizers as list_optimizers
from tf_decoupled.create import create as create
from tf_decoupled.engine.concerns.loss_scale import DynamicLossScale as DynamicLossScale
from tf_decoupled.engine.decay import NormalizedDecay as NormalizedDecay
from tf_decoupled.engine.hyperparameters import Beta as Beta
from tf_decoupled.engine.hyperparameters import Constant as Constant
from tf_decoupled.engine.hyperparameters import Count as Count
from tf_decoupled.engine.hyperparameters import Fraction as Fraction
from tf_decoupled.engine.hyperparameters import Growth as Growth
from tf_decoupled.engine.hyperparameters import Initial as Initial
from tf_decoupled.engine.hyperparameters import NonPositive as NonPositive
from tf_decoupled.engine.hyperparameters import Positive as Positive
from tf_decoupled.engine.hyperparameters import Scalar as Scalar
from tf_decoupled.engine.hyperparameters import Steps as Steps
from tf_decoupled.engine.hyperparameters import Whole as Whole
from tf_decoupled.engine.optimizer import Optimizer as _Optimizer
from tf_decoupled.find_lr import find_lr as find_lr
from tf_decoupled.grad_init import grad_init as grad_init
from tf_decoupled.lbfgs import Minimized as Minimized
from tf_decoupled.lbfgs import minimize_lbfgs as minimize_lbfgs
from tf_decoupled.rate_curve import RateCurve as RateCurve
from tf_decoupled.wrappers.decouple import decouple as decouple
from tf_decoupled.wrappers.wrapper import Wrapper as _Wrapper

class EngineArguments(TypedDict, total=False):
    state_dtype: str
    jit_compile: bool | str
    gradient_accumulation_steps: Steps
    loss_scale_factor: Positive
    loss_scale: Any
    skip_nonfinite: bool
    max_consecutive_skips: Steps
    track_gradient_norm: bool
    clipnorm: Positive
    clipvalue: Positive
    global_clipnorm: Positive
    gradient_transforms: Sequence[Any]
    cautious: bool
    cautious_decay: bool
    sparse: str
    use_ema: bool
    ema_momentum: Beta
    ema_warmup: bool
    ema_overwrite_frequency: Steps
    low_precision: str
    name: str | None

class Optimizer(_Optimizer):
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def observe_loss(self, loss: Any, schedules: Any = ...) -> Any: ...
    def apply_estimates(self, estimates: Any, trainable_variables: Any = ...) -> Any: ...
    micro_steps: Any
    def flush_accumulated(self) -> Any: ...
    dynamic_scale: Any
    finite_steps: Any
    def scale_loss(self, loss: Any) -> Any: ...
    skipped_steps: Any
    consecutive_skips: Any
    def check_skips(self) -> Any: ...
    gradient_norm: Any
    def ask_for_gradient_norms(self, asked: Any = ...) -> Any: ...
    def gradient_norms(self) -> Any: ...
    def keeping_gradient_norms(self) -> Any: ...
    def catch_up_rows(self, variables: Any = ...) -> Any: ...
    def averaged(self) -> Any: ...
    def evaluation_weights(self) -> Any: ...
    def has_evaluation_weights(self) -> Any: ...
    def holds_evaluation_weights(self) -> Any: ...
    def restore_training_weights(self) -> Any: ...
    def say_held(self, held: Any) -> Any: ...
    def training_parts(self) -> Any: ...

class Wrapper(_Wrapper, Optimizer):
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

class ACProp(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-16,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class ADOPT(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.9999,
        epsilon: Scalar = 1e-06,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class AMSGradW(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.01,
        *,
        amsgrad: bool = True,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-08,
        epsilon_hat: bool = False,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class AdEMAMix(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        beta_3: Beta = 0.9999,
        alpha: Scalar = 5.0,
        alpha_warmup: Positive = 1.0,
        beta_3_warmup: Positive = 1.0,
        epsilon: Scalar = 1e-08,
        fast_average: bool = True,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class AdaBelief(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-16,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class AdaMaxW(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.002,
        weight_decay: Scalar = 0.01,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-08,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class AdaPNM(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        beta_0: Scalar = 1.0,
        epsilon: Scalar = 1e-08,
        amsgrad: bool = True,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Adadelta(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        *,
        weight_decay: Scalar = 0.0,
        epsilon: Scalar = 1e-07,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        rho: Beta = 0.95,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class AdadeltaW(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 1.0,
        weight_decay: Scalar = 1e-05,
        *,
        rho: Beta = 0.95,
        epsilon: Scalar = 1e-06,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Adafactor(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = ...,
        weight_decay: Scalar = 0.0,
        *,
        decay_exponent: Positive = 0.8,
        epsilon_1: Scalar = 1e-30,
        epsilon_2: Scalar = 0.001,
        clip_threshold: Positive = 1.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Adagrad(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        *,
        weight_decay: Scalar = 0.0,
        initial_accumulator_value: Initial = 0.1,
        epsilon: Scalar = 1e-07,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class AdagradW(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.01,
        weight_decay: Scalar = 0.01,
        *,
        initial_accumulator_value: Initial = 0.0,
        epsilon: Scalar = 1e-10,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Adam(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.0,
        *,
        l2: Scalar = 0.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-08,
        amsgrad: bool = False,
        epsilon_hat: bool = False,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class AdamW(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.01,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-08,
        amsgrad: bool = False,
        epsilon_hat: bool = False,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Adamax(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        *,
        weight_decay: Scalar = 0.0,
        epsilon: Scalar = 1e-07,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Adan(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.98,
        beta_2: Beta = 0.92,
        beta_3: Beta = 0.99,
        epsilon: Scalar = 1e-08,
        proximal: bool = True,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Amos(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.0,
        *,
        eta: Positive = None,
        beta: Beta = 0.999,
        zeta: Scalar = 0.25,
        slices: Literal["columns", "rows"] = "columns",
        epsilon: Positive = 2.350988701644575e-38,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class COCOB(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 1.0,
        weight_decay: Scalar = 0.0,
        *,
        alpha: Positive = 100.0,
        epsilon: Constant = 1e-08,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class ConditionalGradient(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.01,
        weight_decay: Scalar = 0.0,
        *,
        lambda_: Scalar = 0.01,
        epsilon: Scalar = 1e-07,
        ord: Literal["fro", "nuclear"] = "fro",
        power_steps: Count = 16,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class DAdaptAdamW(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 1.0,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-08,
        d0: Constant = 1e-06,
        growth_rate: Growth = ...,
        use_bias_correction: bool = False,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class DPSGD(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.01,
        weight_decay: Scalar = 0.0,
        *,
        momentum: Beta = 0.0,
        clip_norm: Positive = 1.0,
        noise_multiplier: Scalar = 1.0,
        lot_size: Growth = 1.0,
        seed: Count = 1,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class DiffGrad(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-08,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class DoG(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 1.0,
        weight_decay: Scalar = 0.0,
        *,
        reps_rel: Constant = 1e-06,
        epsilon: Scalar = 1e-08,
        layerwise: bool = False,
        averaging: bool = False,
        gamma: Scalar = 8.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class DoWG(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 1.0,
        weight_decay: Scalar = 0.0,
        *,
        init_estim_sq_dist: Constant = 0.0001,
        epsilon: Scalar = 0.0001,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Fromage(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.01,
        weight_decay: Scalar = 0.0,
        *,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Ftrl(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        *,
        weight_decay: Scalar = 0.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        learning_rate_power: NonPositive = -0.5,
        initial_accumulator_value: Initial = 0.1,
        l1_regularization_strength: Scalar = 0.0,
        l2_regularization_strength: Scalar = 0.0,
        l2_shrinkage_regularization_strength: Scalar = 0.0,
        beta: Scalar = 0.0,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class FtrlW(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.01,
        *,
        learning_rate_power: NonPositive = -0.5,
        initial_accumulator_value: Initial = 0.1,
        l1_regularization_strength: Scalar = 0.0,
        l2_regularization_strength: Scalar = 0.0,
        l2_shrinkage_regularization_strength: Scalar = 0.0,
        beta: Scalar = 0.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class GeneralizedSignSGD(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-08,
        use_bias_correction: bool = False,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class IterateAverage(Wrapper):
    def __init__(
        self,
        inner: Any = None,
        *,
        start_averaging: Steps = 1,
        average_period: Steps = 1,
        window: Any = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class KOALAM(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 1.0,
        weight_decay: Scalar = 0.0,
        *,
        sw: Constant = 0.1,
        sv: Constant = 0.1,
        a: Beta = 0.9,
        qw: Constant = 0.01,
        qv: Scalar = 0.01,
        alpha_r: Beta = 0.9,
        target: Scalar = 0.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class KOALAV(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 1.0,
        weight_decay: Scalar = 0.0,
        *,
        sigma: Constant = 1.0,
        q: Scalar = 1.0,
        alpha_r: Beta = 0.9,
        target: Scalar = 0.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Kron(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.0003,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        precond_lr: Positive = 0.1,
        precondition_frequency: Steps = 1,
        max_precond_dim: Count = 8192,
        damping: Scalar = 0.00035,
        max_rms: Positive = 1.1,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class LAMB(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.01,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-06,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class LARS(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 1.0,
        weight_decay: Scalar = 0.0,
        *,
        momentum: Beta = 0.9,
        trust_coefficient: Positive = 0.001,
        l2: Scalar = 0.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Lamb(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        *,
        weight_decay: Scalar = 0.0,
        epsilon: Scalar = 1e-07,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class LayerwiseDecay(Wrapper):
    def __init__(
        self,
        inner: Any = None,
        *,
        rate: Positive = 0.75,
        layers: Any = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Lion(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.0001,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.99,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Lookahead(Wrapper):
    def __init__(
        self,
        inner: Any = None,
        *,
        sync_period: Steps = 6,
        slow_step_size: Scalar = 0.5,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class MARS(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.003,
        weight_decay: Scalar = 0.0,
        *,
        form: Literal["adamw", "lion", "shampoo"] = "adamw",
        gamma: Scalar = 0.025,
        beta_1: Beta = 0.95,
        beta_2: Beta = 0.99,
        epsilon: Scalar = 1e-08,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Mechanic(Wrapper):
    def __init__(
        self,
        inner: Any = None,
        *,
        s_init: Constant = 1e-08,
        s_decay: Scalar = 0.01,
        epsilon: Scalar = 1e-08,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Muon(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.02,
        weight_decay: Scalar = 0.0,
        *,
        momentum: Beta = 0.95,
        nesterov: bool = True,
        steps: Count = 5,
        coefficients: Literal["original", "quintic", "polar_express"] = "original",
        scale: Literal["original", "match_rms_adamw", "rms_to_rms"] = "original",
        precise: bool = False,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class NAdamW(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.002,
        weight_decay: Scalar = 0.01,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-08,
        momentum_decay: Scalar = 0.004,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Nadam(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        *,
        weight_decay: Scalar = 0.0,
        epsilon: Scalar = 1e-07,
        momentum_decay: Scalar = 1.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class NoisySGD(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.01,
        weight_decay: Scalar = 0.0,
        *,
        eta: Scalar = 0.01,
        gamma: Scalar = 0.55,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class NovoGrad(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.95,
        beta_2: Beta = 0.98,
        epsilon: Scalar = 1e-08,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class OptimisticSGD(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.01,
        weight_decay: Scalar = 0.0,
        *,
        alpha: Scalar = 1.0,
        beta: Scalar = 1.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class PNM(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.01,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_0: Scalar = 1.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Partition(Optimizer):
    def __init__(
        self,
        members: Any = ...,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Prodigy(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 1.0,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-08,
        d0: Constant = 1e-06,
        d_coef: Positive = 1.0,
        growth_rate: Growth = ...,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class ProximalAdagrad(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.0,
        *,
        initial_accumulator_value: Initial = 0.1,
        l1_regularization_strength: Scalar = 0.0,
        l2_regularization_strength: Scalar = 0.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class RAdam(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-08,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class RMSprop(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        *,
        weight_decay: Scalar = 0.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        rho: Beta = 0.9,
        momentum: Beta = 0.0,
        epsilon: Scalar = 1e-07,
        centered: bool = False,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class RMSpropW(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.01,
        *,
        rho: Beta = 0.9,
        momentum: Beta = 0.0,
        epsilon: Scalar = 1e-07,
        centered: bool = False,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class RateMultipliers(Wrapper):
    def __init__(
        self,
        inner: Any = None,
        factors: Any = ...,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class RowwiseAdagrad(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.01,
        weight_decay: Scalar = 0.0,
        *,
        initial_accumulator_value: Initial = 0.0,
        epsilon: Scalar = 1e-10,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class SGD(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.01,
        weight_decay: Scalar = 0.0,
        *,
        momentum: Beta = 0.0,
        l2: Scalar = 0.0,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        nesterov: bool = False,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class SGDW(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.01,
        weight_decay: Scalar = 0.0005,
        *,
        momentum: Beta = 0.9,
        nesterov: bool = False,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class SM3(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.1,
        weight_decay: Scalar = 0.0,
        *,
        momentum: Beta = 0.9,
        epsilon: Scalar = 1e-30,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class SOAP(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.003,
        weight_decay: Scalar = 0.01,
        *,
        beta_1: Beta = 0.95,
        beta_2: Beta = 0.95,
        shampoo_beta: Beta = 0.95,
        epsilon: Scalar = 1e-08,
        precondition_frequency: Steps = 10,
        max_precond_dim: Count = 10000,
        precondition_1d: bool = False,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class ScheduleFree(Wrapper):
    def __init__(
        self,
        inner: Any = None,
        *,
        beta: Fraction = 0.9,
        weight_power: Scalar = 2.0,
        r: Scalar = 0.0,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Scion(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 1.0,
        *,
        norm: Literal["spectral", "sign", "column", "row"] = "spectral",
        scale: Positive = 1.0,
        momentum: Beta = 0.9,
        steps: Count = 5,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Shampoo(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.01,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 1e-06,
        graft: Literal["sgd", "adagrad", "rmsprop"] = "sgd",
        graft_epsilon: Scalar = 1e-10,
        nesterov: bool = True,
        block_size: Count = 128,
        precondition_frequency: Steps = 10,
        steps: Count = 25,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Signum(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.0001,
        weight_decay: Scalar = 0.0,
        *,
        momentum: Beta = 0.9,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Sophia(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.0001,
        weight_decay: Scalar = 0.2,
        *,
        beta_1: Beta = 0.96,
        beta_2: Beta = 0.99,
        gamma: Scalar = 0.01,
        epsilon: Positive = 1e-12,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class StableAdamW(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.001,
        weight_decay: Scalar = 0.01,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.99,
        epsilon: Scalar = 1e-08,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

class Yogi(Optimizer):
    def __init__(
        self,
        learning_rate: Scalar = 0.01,
        weight_decay: Scalar = 0.0,
        *,
        beta_1: Beta = 0.9,
        beta_2: Beta = 0.999,
        epsilon: Scalar = 0.001,
        initial_accumulator_value: Constant = 1e-06,
        decay_coupling: str | None = None,
        decay_mask: Any = None,
        base_learning_rate: Scalar = None,
        **engine: Unpack[EngineArguments],
    ) -> None: ...

__version__: str
