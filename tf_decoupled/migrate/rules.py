"""What stands for each name of other libraries, and for its arguments: a table.

`tests/test_migrate.py` holds it to the signatures on both sides, and to docs/migrating.md.
"""

from collections.abc import Mapping
from typing import NamedTuple

KERAS, ADDONS = "keras.optimizers", "tensorflow_addons"
SAME_STEPS = "the same steps"


class Rule(NamedTuple):
    """What a call becomes.

    to: the name of ours. order: their parameters, as they may be given without a name; None: all
    arguments stay as they are. names: ours for theirs, where they differ; None: left out.
    given: what is written where it isn't given, because defaults differ. squared: the argument of
    ours whose number is theirs squared. by_hand: `to` is only an example, and no arguments are
    taken over. why: what the reader should know.
    """

    to: str
    order: tuple[str, ...] | None = None
    names: Mapping[str, str | None] = {}
    given: Mapping[str, str] = {}
    squared: str | None = None
    by_hand: bool = False
    why: str = ""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_EPSILON = {"epsilon": "1e-7"}  # Keras's default
_HAT = _EPSILON | {"epsilon_hat": "True"}
_MOMENTS = _words("learning_rate beta_1 beta_2 epsilon")
_KEPT = {"is_legacy_optimizer": None, "gradient_aggregator": None, "jit_compile": None}


def _keras(to: str, order: tuple[str, ...], given: Mapping[str, str] = {}, why: str = "") -> Rule:
    return Rule(f"td.{to}", order, _KEPT, given, why=why or SAME_STEPS)


_OF_KERAS = {
    "SGD": _keras("SGD", _words("learning_rate momentum nesterov")),
    "RMSprop": _keras("RMSprop", _words("learning_rate rho momentum epsilon centered")),
    "Adam": _keras("Adam", (*_MOMENTS, "amsgrad"), _HAT),
    "AdamW": _keras(
        "AdamW",
        _words("learning_rate weight_decay beta_1 beta_2 epsilon amsgrad"),
        {"weight_decay": "0.004"} | _HAT,
    ),
    "Nadam": _keras("Nadam", _MOMENTS),
    "Adamax": _keras("Adamax", _MOMENTS),
    "Adagrad": _keras("Adagrad", _words("learning_rate initial_accumulator_value epsilon")),
    "Adadelta": _keras("Adadelta", _words("learning_rate rho epsilon")),
    "Ftrl": _keras(
        "Ftrl",
        _words(
            "learning_rate learning_rate_power initial_accumulator_value l1_regularization_strength"
            " l2_regularization_strength l2_shrinkage_regularization_strength beta"
        ),
    ),
    "Lion": _keras("Lion", _words("learning_rate beta_1 beta_2"), {"learning_rate": "1e-3"}),
    "Lamb": _keras("Lamb", _MOMENTS, why="with a decay, λ θ is inside of the trust ratio here"),
    "Adafactor": Rule(
        "td.Adafactor(td.schedules.InverseSquareRoot(1e-3))",
        by_hand=True,
        why="Keras's default rate; its `beta_2_decay=-0.8` is `decay_exponent=0.8`",
    ),
    "Muon": Rule(
        "td.Partition([(td.masks.matrices & ~td.masks.only('embedding'), "
        "td.Muon(0.02, weight_decay=0.004)), (None, td.AdamW(1e-3, weight_decay=0.004))])",
        by_hand=True,
        why="a mask says which variables are Muon's; Keras's defaults of λ",
    ),
    "MultiOptimizer": Rule(
        "td.Partition([(td.masks.only('dense'), td.SGD(0.01)), (None, td.AdamW(1e-3))])",
        by_hand=True,
        why="the first mask that says yes; Keras's is a regular expression on `variable.path`",
    ),
    "LossScaleOptimizer": Rule(
        "td.AdamW(1e-3, loss_scale='dynamic')",
        by_hand=True,
        why="each optimizer scales by itself, and does so under mixed_float16 unasked",
    ),
}
_OF_ADDONS = _words(
    "AdaBelief AdamW COCOB ConditionalGradient CyclicalLearningRate"
    " ExponentialCyclicalLearningRate LAMB LazyAdam Lookahead MovingAverage MultiOptimizer NovoGrad"
    " ProximalAdagrad RectifiedAdam SGDW SWA Triangular2CyclicalLearningRate"
    " TriangularCyclicalLearningRate Yogi extend_with_decoupled_weight_decay"
)
_ADDONS_WHY = "Addons is given up and doesn't run with Keras 3; arguments and steps are the same"
_RATE = {"b1": "beta_1", "b2": "beta_2", "eps": "epsilon", "mu_dtype": None, "eps_root": None}
_MASK = {"mask": None}
_OPTAX_ADAM = _words("learning_rate b1 b2 eps eps_root mu_dtype")
_OF_OPTAX = {
    "adam": Rule("td.Adam", _OPTAX_ADAM, _RATE),
    "adamw": Rule(
        *("td.AdamW", (*_OPTAX_ADAM, "weight_decay", "mask"), _RATE | _MASK),
        {"weight_decay": "1e-4"},
    ),
    "adamax": Rule("td.Adamax", _words("learning_rate b1 b2 eps"), _RATE, {"epsilon": "1e-8"}),
    "adabelief": Rule(
        *("td.AdaBelief", _words("learning_rate b1 b2 eps eps_root"), _RATE),
    ),
    "radam": Rule(
        *("td.RAdam", _words("learning_rate b1 b2 eps eps_root threshold")),
        _RATE | {"threshold": None},
        why="rectified from ρ > 4 on, as in the paper; optax waits for 5, one step longer",
    ),
    "yogi": Rule("td.Yogi", _words("learning_rate b1 b2 eps"), _RATE),
    "lamb": Rule(
        "td.LAMB",
        _words("learning_rate b1 b2 eps eps_root weight_decay mask"),
        _RATE | _MASK,
        {"weight_decay": "0.0"},
    ),
    "lion": Rule(
        *("td.Lion", _words("learning_rate b1 b2 mu_dtype weight_decay mask"), _RATE | _MASK),
        {"weight_decay": "1e-3"},
    ),
    "sgd": Rule(
        *("td.SGD", _words("learning_rate momentum nesterov accumulator_dtype")),
        {"accumulator_dtype": None},
        why="the momentum holds the rate here, which shows where that changes",
    ),
    "adagrad": Rule(
        *("td.Adagrad", _words("learning_rate initial_accumulator_value eps"), _RATE),
    ),
    "lookahead": Rule(
        "td.Lookahead(td.SGD(0.1), sync_period=6, slow_step_size=0.5)",
        by_hand=True,
        why="one optimizer, no LookaheadParams: the slow weights are its state",
    ),
    "MultiSteps": Rule(
        "td.AdamW(1e-3, weight_decay=1e-4, gradient_accumulation_steps=4)",
        by_hand=True,
        why="an argument of every optimizer; schedules count updates",
    ),
    "inject_hyperparams": Rule(
        "td.AdamW(1e-3, weight_decay=1e-4)",
        by_hand=True,
        why="every number is live: `opt.weight_decay = 0.02`",
    ),
    "chain": Rule(
        "td.Adam(1e-3, global_clipnorm=1.0)",
        by_hand=True,
        why="clips are arguments; other transforms go into `gradient_transforms=[...]`",
    ),
    "partition": Rule(
        "td.Partition([(td.masks.matrices, td.Muon(0.02)), (None, td.AdamW(1e-3))])",
        by_hand=True,
        why="masks of variables in place of labels",
    ),
    "warmup_cosine_decay_schedule": Rule(
        "td.schedules.Cosine(0.0, 9_500, warmup_target=1e-3, warmup_steps=500)",
        by_hand=True,
        why="optax's `decay_steps` has the warm-up in it, ours has not",
    ),
}
_OF_OPTAX["multi_transform"] = _OF_OPTAX["partition"]
# Known by name only: which argument is which isn't told.
_NAMED = "td's of that kind; docs/peers.md says what differs, the rest is in its documentation"
_OF_OPTAX |= {
    name: Rule(f"td.{ours}", by_hand=True, why=_NAMED)
    for name, ours in {
        **{"adadelta": "AdadeltaW", "adafactor": "Adafactor", "adan": "Adan", "lars": "LARS"},
        **{"amsgrad": "AMSGradW", "fromage": "Fromage", "nadam": "NAdamW", "nadamw": "NAdamW"},
        **{"noisy_sgd": "NoisySGD", "novograd": "NovoGrad", "rmsprop": "RMSpropW", "sm3": "SM3"},
        "optimistic_gradient_descent": "OptimisticSGD",
        **{"contrib.muon": "Muon", "contrib.prodigy": "Prodigy", "contrib.sophia": "Sophia"},
        **{"contrib.schedule_free": "ScheduleFree", "contrib.mechanize": "Mechanic"},
        **{"contrib.dog": "DoG", "contrib.dowg": "DoWG", "contrib.cocob": "COCOB"},
    }.items()
}
_TORCH = {
    **{"params": None, "lr": "learning_rate", "eps": "epsilon"},
    **dict.fromkeys(("foreach", "capturable", "differentiable", "fused", "maximize")),
}
_TORCH |= {"decoupled_weight_decay": None}
_L2 = _TORCH | {"weight_decay": "l2"}
_TORCH_ADAM = _words("params lr betas eps weight_decay amsgrad")
_OF_TORCH = {
    "AdamW": Rule("td.AdamW", _TORCH_ADAM, _TORCH, why=SAME_STEPS),
    "Adam": Rule("td.Adam", _TORCH_ADAM, _L2, why="its weight_decay is L2 in the gradient"),
    "SGD": Rule(
        *("td.SGD", _words("params lr momentum dampening weight_decay nesterov")),
        _L2 | {"dampening": None},
        {"learning_rate": "1e-3"},
        why="its weight_decay is L2, and the momentum holds the rate here",
    ),
    "RMSprop": Rule(
        *("td.RMSprop", _words("params lr alpha eps weight_decay momentum centered")),
        _TORCH | {"alpha": "rho"},
        {"learning_rate": "0.01", "rho": "0.99", "epsilon": "1e-16"},
        squared="epsilon",
        why="ε is inside of the root here: PyTorch's, squared; its weight_decay was L2",
    ),
    "NAdam": Rule(
        "td.NAdamW",
        _words("params lr betas eps weight_decay momentum_decay"),
        _TORCH,
        {"weight_decay": "0.0"},
        why="the decay is decoupled here",
    ),
    "RAdam": Rule(
        *("td.RAdam", _words("params lr betas eps weight_decay")),
        _TORCH,
        why="the decay is decoupled here, and rectified from ρ > 4 on, not 5",
    ),
    "Adagrad": Rule(
        *("td.AdagradW", _words("params lr lr_decay weight_decay initial_accumulator_value eps")),
        _TORCH | {"lr_decay": None},
        {"weight_decay": "0.0"},
        why="the decay is decoupled here; `lr_decay` is td.schedules.InverseTime",
    ),
    "Adamax": Rule(
        *("td.AdaMaxW", _words("params lr betas eps weight_decay"), _TORCH),
        {"weight_decay": "0.0"},
        why="the decay is decoupled here",
    ),
    "Adadelta": Rule(
        *("td.AdadeltaW", _words("params lr rho eps weight_decay"), _TORCH),
        {"rho": "0.9", "weight_decay": "0.0"},
        why="the decay is decoupled here",
    ),
    "LBFGS": Rule(
        "td.minimize_lbfgs", by_hand=True, why="a function that runs to the end, on full batches"
    ),
    "swa_utils.AveragedModel": Rule(
        "td.IterateAverage(td.SGD(0.1, momentum=0.9), start_averaging=1000, average_period=100)",
        by_hand=True,
        why="the average is the optimizer's, and saved with it",
    ),
}
_OF_TORCH |= {name: Rule(f"td.{name}", by_hand=True, why=_NAMED) for name in ("Adafactor", "Muon")}
_OF_TORCH["lr_scheduler"] = Rule(
    "td.schedules", by_hand=True, why="the optimizer takes a schedule as its learning rate"
)
_HF_ADAM = _words("learning_rate beta_1 beta_2 epsilon amsgrad weight_decay_rate")
_HF_ADAM += _words("include_in_weight_decay exclude_from_weight_decay")
_OF_TRANSFORMERS = {
    "create_optimizer": Rule(
        "td.huggingface.create_optimizer", why="the same arguments, schedule and steps"
    ),
    "AdamWeightDecay": Rule(
        *("td.AdamW", _HF_ADAM),
        {
            **{"weight_decay_rate": "weight_decay", "include_in_weight_decay": None},
            "exclude_from_weight_decay": "decay_mask",
        },
        {"weight_decay": "0.0"} | _HAT,
        why="a list as `decay_mask` leaves out what it finds in `variable.path`, and refuses what "
        "is found nowhere: strike such patterns",
    ),
    "WarmUp": Rule(
        "td.schedules.Warmup",
        _words("initial_learning_rate decay_schedule_fn warmup_steps power name"),
        {"initial_learning_rate": None, "decay_schedule_fn": "learning_rate", "power": None},
        why="it rises on a line to what the schedule begins with",
    ),
    "GradientAccumulator": Rule(
        "td.AdamW(1e-3, gradient_accumulation_steps=4)",
        by_hand=True,
        why="an argument of every optimizer",
    ),
}
_TIMM = Rule(
    "td.create",
    _words("model_or_params opt lr weight_decay momentum"),
    {"model_or_params": "model", "lr": "learning_rate"},
    {"decay_mask": "'kernels'"},
    why="names and layer decay as timm's; the mask leaves out biases and normalizations, as there",
)

RULES: dict[str, Rule] = {
    **{f"{KERAS}.{name}": rule for name, rule in _OF_KERAS.items()},
    **{
        f"{ADDONS}.optimizers.{name}": Rule(f"td.addons.{name}", why=_ADDONS_WHY)
        for name in _OF_ADDONS
    },
    f"{ADDONS}.optimizers.DecoupledWeightDecayExtension": Rule(
        "td.decouple(keras.optimizers.Adam)",
        by_hand=True,
        why="a class to derive from, to which `decay_coupling='independent'` gives Addons' decay",
    ),
    f"{ADDONS}.callbacks.AverageModelCheckpoint": Rule(
        "td.addons.AverageModelCheckpoint", why=_ADDONS_WHY
    ),
    f"{ADDONS}.callbacks.TimeStopping": Rule(
        "keras.callbacks.LambdaCallback", by_hand=True, why="docs/migrating.md has its lines"
    ),
    f"{ADDONS}.callbacks.TQDMProgressBar": Rule(
        "tqdm.keras.TqdmCallback()", by_hand=True, why="tqdm has its own by now"
    ),
    f"{ADDONS}.optimizers.utils.fit_bn": Rule(
        "td.refresh_batch_norm", by_hand=True, why="it takes the model and its inputs"
    ),
    "keras.callbacks.SwapEMAWeights": Rule(
        "td.callbacks.SwapAveraged()", by_hand=True, why="it knows these optimizers' averages"
    ),
    **{f"optax.{name}": rule for name, rule in _OF_OPTAX.items()},
    **{f"torch.optim.{name}": rule for name, rule in _OF_TORCH.items()},
    **{f"transformers.{name}": rule for name, rule in _OF_TRANSFORMERS.items()},
    "timm.optim.create_optimizer_v2": _TIMM,
}

# Modules, and what they are called in the table.
SAME_MODULES = {
    "tensorflow.compat.v2": "tensorflow",
    "tensorflow.python.keras": "keras",
    "tensorflow.keras": "keras",
    "tensorflow.optimizers": KERAS,
    "tf_keras": "keras",
    "keras.api": "keras",
    "keras.mixed_precision": KERAS,
    "keras.optimizers.legacy": KERAS,
    "keras.optimizers.experimental": KERAS,
    "transformers.optimization_tf": "transformers",
    "timm.optim.optim_factory": "timm.optim",
}
GONE = {
    "keras.optimizers.legacy": "`optimizers.legacy` is gone in Keras 3",
    "keras.optimizers.experimental": "`optimizers.experimental` is gone in Keras 3",
}
OF_OPTIMIZERS = {  # attributes of an optimizer that Keras 2 had
    "lr": ("learning_rate", "`lr` is gone in Keras 3"),
    "minimize": (None, "gone in Keras 3: take gradients with tf.GradientTape, then `opt.apply`"),
    "get_updates": (None, "gone in Keras 3: take gradients with tf.GradientTape, then `opt.apply`"),
}
