"""Every public callable with arguments that are right: what the test of errors goes wrong from."""

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import fixtures
import keras
import numpy as np
import tensorflow as tf
from cases import tell_loss

import tf_decoupled as td


class Entry(NamedTuple):
    """How something public is called.

    right: its arguments, made anew for each call. use: what shows that a result is sound.
    """

    call: Callable[..., Any]
    right: Callable[[], dict[str, Any]] = dict
    use: Callable[[Any], Any] = lambda result: None

    @property
    def arguments(self) -> list[str]:
        parameters = inspect.signature(self.call).parameters.values()
        own = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        return list(dict.fromkeys([*own, *self.right()]))


def public_names() -> set[str]:
    """Names of all that `td` and its modules offer for calling, as "schedules.Cosine"."""
    names = set()
    for name in td.__all__:
        value = getattr(td, name)
        inside = [f"{name}.{each}" for each in value.__all__] if is_module(value) else [name]
        names |= {each for each in inside if is_called(found(each))}
    return names - RESULTS - BASES


def is_module(value: Any) -> bool:
    return isinstance(value, ModuleType)


def is_called(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isfunction(value)


def found(name: str) -> Any:
    return functools.reduce(getattr, name.split("."), td)


# What functions return, and what is there to be derived from.
RESULTS = {"Minimized", "diagnostics.NoiseScale", "gradients.Eigenpairs", "gradients.PerExample"}
RESULTS |= {"RateCurve", "migrate.Finding"}
BASES = {"Beta", "Positive", "Scalar", "Steps", "Wrapper", "constraints.Projection"}
BASES |= {"masks.Mask", "schedules.LearningRateSchedule", "schedules.Schedule"}
BASES |= {"addons.DecoupledWeightDecayExtension", "training.TrainStep", "transforms.Transform"}


def matrix() -> tf.Variable:
    return tf.Variable([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], name="kernel")


def step_once(optimizer: Any) -> None:
    variable = matrix()
    optimizer.build([variable])
    tell_loss(optimizer, 1.0)
    if isinstance(optimizer, td.Optimizer):
        optimizer.scale_loss(tf.constant(1.0))
    optimizer.apply([tf.ones_like(variable)], [variable])


def sgd(**given: Any) -> td.Optimizer:
    return td.SGD(jit_compile=False, **given)


def optimizer_entry(name: str) -> Entry:
    cls = getattr(td, name)
    given = dict(
        inner=sgd, members=lambda: [(None, td.SGD())], factors=lambda: [(td.masks.matrices, 0.5)]
    )

    def right() -> dict[str, Any]:
        wrapped = {n: given[n]() for n in cls.positional if n in given}
        return wrapped | dict(jit_compile=False)

    return Entry(cls, right, step_once)


def addons_entry(name: str, **right: Any) -> Entry:
    around = name in ("Lookahead", "MovingAverage", "SWA")
    given = lambda: right | (dict(inner=sgd()) if around else {})  # noqa: E731
    return Entry(getattr(td.addons, name), lambda: given() | dict(jit_compile=False), step_once)


def schedule_entry(name: str, **right: Any) -> Entry:
    return Entry(getattr(td.schedules, name), lambda: dict(right), lambda s: (s(3), s.peak))


def cycle_entry(name: str, **right: Any) -> Entry:
    right |= dict(initial_learning_rate=0.1, maximal_learning_rate=0.2, step_size=3)
    return Entry(getattr(td.addons, name), lambda: dict(right), lambda s: s(3))


def transform_entry(name: str, **right: Any) -> Entry:
    def use(transform: Any) -> None:
        step_once(sgd(gradient_transforms=[transform]))

    return Entry(getattr(td.transforms, name), lambda: dict(right), use)


def constraint_entry(name: str, **right: Any) -> Entry:
    use = lambda constraint: constraint(matrix())  # noqa: E731
    return Entry(getattr(td.constraints, name), lambda: dict(right), use)


@functools.cache
def model() -> keras.Model:
    layers = [keras.layers.Dense(2, name="a"), keras.layers.BatchNormalization(name="b")]
    model = keras.Sequential([keras.layers.Input((3,)), *layers, keras.layers.Dense(1, name="c")])
    model.compile(td.SGD(jit_compile=False), "mse", run_eagerly=True)
    return model


def adam_state() -> dict[str, Any]:
    groups = dict(params=[0], lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    groups |= dict(amsgrad=False, decoupled_weight_decay=True)
    slots = dict(step=3, exp_avg=np.ones((3, 2)), exp_avg_sq=np.ones((3, 2)))
    return dict(state={0: slots}, param_groups=[groups])


def torch_right() -> dict[str, Any]:
    names = dict(names={"kernel": "weight"}, parameters=["weight"])
    return dict(state_dict=adam_state(), variables=[matrix()]) | names


def torch_state_right() -> dict[str, Any]:
    right = torch_right()
    optimizer = td.AdamW(jit_compile=False)
    optimizer.build(right.pop("variables"))
    return right | dict(optimizer=optimizer)


def keras_right() -> dict[str, Any]:
    variables, source = [matrix()], keras.optimizers.SGD(0.1, momentum=0.5)
    source.build(variables)
    return dict(source=source, variables=variables)


def keras_state_right() -> dict[str, Any]:
    right = keras_right()
    optimizer = td.SGD(0.1, momentum=0.5, jit_compile=False)
    optimizer.build(right.pop("variables"))
    return right | dict(optimizer=optimizer)


def keras2_right() -> dict[str, Any]:
    path, variables, _ = fixtures.source("keras2.zip", "SGD", ending=".h5")
    return dict(path=str(path), variables=variables)


def keras2_state_right() -> dict[str, Any]:
    right = keras2_right()
    optimizer = td.SGD(0.1, momentum=0.5, jit_compile=False)
    optimizer.build(right.pop("variables"))
    return right | dict(optimizer=optimizer)


def optax_right() -> dict[str, Any]:
    optimizer = td.AdamW(jit_compile=False)
    optimizer.build([matrix()])
    moments = dict(kernel=np.ones((2, 3), "float32"))
    return dict(state=dict(count=np.int32(3), mu=moments, nu=moments), optimizer=optimizer)


def pairs_of_layers() -> dict[str, Any]:
    return dict(optimizers_and_layers=[(td.SGD(), model())], jit_compile=False)


def of_loss(call: Callable, **more: Any) -> Entry:
    """Something that differentiates a loss of a variable."""

    def right() -> dict[str, Any]:
        variable = matrix()
        loss_fn = lambda: tf.reduce_sum(tf.square(variable))  # noqa: E731
        return dict(loss_fn=loss_fn, variables=[variable]) | more

    return Entry(call, right)


def of_batch(call: Callable, **more: Any) -> Entry:
    """The same, of a loss of examples, too."""

    def right() -> dict[str, Any]:
        variable = matrix()
        loss_fn = lambda x: tf.reduce_mean(tf.square(x @ variable))  # noqa: E731
        return dict(loss_fn=loss_fn, variables=[variable]) | more

    return Entry(call, right)


def bartlett() -> dict[str, Any]:
    variable = matrix()
    return dict(logits_fn=lambda: tf.ones([4, 2]) @ variable, variables=[variable], seed=1)


ROWS = np.ones((4, 2), "float32")
GRADS = [[tf.ones([2])], [tf.zeros([2])]]
gradients, diagnostics = td.gradients, td.diagnostics

TABLE: dict[str, Entry] = {
    **{entry.name: optimizer_entry(entry.name) for entry in td.list_optimizers()},
    "Optimizer": Entry(td.Optimizer, lambda: dict(jit_compile=False)),
    "DynamicLossScale": Entry(
        td.DynamicLossScale, use=lambda scale: step_once(sgd(loss_scale=scale))
    ),
    "NormalizedDecay": Entry(
        td.NormalizedDecay,
        lambda: dict(rate=0.1, batch_size=8, train_size=64, epochs=2),
        lambda decay: decay(tf.constant(3)),
    ),
    "decouple": Entry(td.decouple, lambda: dict(keras_class=keras.optimizers.RMSprop)),
    "grad_init": of_batch(td.grad_init, batches=[ROWS, ROWS], learning_rate=0.1),
    "list_optimizers": Entry(td.list_optimizers),
    "minimize_lbfgs": of_loss(td.minimize_lbfgs, memory=1, max_iterations=1),
    "refresh_batch_norm": Entry(
        td.refresh_batch_norm,
        lambda: dict(model=model(), data=np.ones((4, 3), "float32")),
    ),
    "create": Entry(td.create, lambda: dict(optimizer="adamw", jit_compile=False)),
    "find_lr": Entry(
        td.find_lr,
        lambda: dict(model=model(), data=(np.ones((8, 3), "f4"), np.ones((8, 1), "f4")), steps=5),
    ),
    **{
        f"addons.{name}": addons_entry(name)
        for name in ("COCOB", "LAMB", "AdaBelief", "LazyAdam", "NovoGrad", "ProximalAdagrad")
    },
    **{
        f"addons.{name}": addons_entry(name)
        for name in ("RectifiedAdam", "Yogi", "Lookahead", "MovingAverage", "SWA")
    },
    "addons.AdamW": addons_entry("AdamW", weight_decay=0.1),
    "addons.SGDW": addons_entry("SGDW", weight_decay=0.1),
    "addons.ConditionalGradient": addons_entry(
        "ConditionalGradient", learning_rate=0.9, lambda_=0.1
    ),
    "addons.AverageModelCheckpoint": Entry(
        td.addons.AverageModelCheckpoint, lambda: dict(update_weights=False, filepath="a.keras")
    ),
    "addons.MultiOptimizer": Entry(td.addons.MultiOptimizer, pairs_of_layers),
    "addons.extend_with_decoupled_weight_decay": Entry(
        td.addons.extend_with_decoupled_weight_decay,
        lambda: dict(base_optimizer=keras.optimizers.RMSprop),
    ),
    "addons.CyclicalLearningRate": cycle_entry("CyclicalLearningRate", scale_fn=tf.exp),
    **{
        f"addons.{name}CyclicalLearningRate": cycle_entry(f"{name}CyclicalLearningRate")
        for name in ("Exponential", "Triangular", "Triangular2")
    },
    "callbacks.Monitor": Entry(td.callbacks.Monitor),
    "huggingface.create_optimizer": Entry(
        td.huggingface.create_optimizer,
        lambda: dict(init_lr=0.1, num_train_steps=9, num_warmup_steps=3),
        lambda result: result[1](3),
    ),
    "migrate.findings": Entry(td.migrate.findings, lambda: dict(source="import keras")),
    "importers.from_keras2": Entry(td.importers.from_keras2, keras2_right),
    "importers.keras2_state": Entry(td.importers.keras2_state, keras2_state_right),
    "importers.optax_state": Entry(td.importers.optax_state, optax_right),
    "masks.hidden": Entry(td.masks.hidden),
    "callbacks.HyperparameterLogger": Entry(
        td.callbacks.HyperparameterLogger, lambda: dict(log_dir="logs")
    ),
    "callbacks.ReduceOnPlateau": Entry(td.callbacks.ReduceOnPlateau),
    "callbacks.SwapAveraged": Entry(td.callbacks.SwapAveraged),
    "constraints.Box": constraint_entry("Box", low=0.0, high=1.0),
    **{
        f"constraints.{name}": constraint_entry(name)
        for name in ("KeepNonNegative", "L1Ball", "L2Ball", "LinfBall", "Simplex")
    },
    "diagnostics.gradient_noise_scale": Entry(
        diagnostics.gradient_noise_scale, lambda: dict(gradients=GRADS, batch_size=4)
    ),
    "diagnostics.linear_scaling": Entry(
        diagnostics.linear_scaling,
        lambda: dict(batch_size=4, new_batch_size=8, learning_rate=0.1),
    ),
    "diagnostics.r_med": Entry(diagnostics.r_med, lambda: dict(diagonal=[tf.ones([3])])),
    "diagnostics.sharpness": of_loss(diagnostics.sharpness, iterations=2),
    "diagnostics.square_root_scaling": Entry(
        diagnostics.square_root_scaling,
        lambda: dict(
            batch_size=4, new_batch_size=8, learning_rate=0.1, beta_1=0.9, rho=0.9, epsilon=1e-8
        ),
    ),
    "export.TrainableModel": Entry(td.export.TrainableModel, lambda: dict(model=model())),
    "gradients.fisher_diagonal": of_batch(gradients.fisher_diagonal, batch=ROWS),
    "gradients.gauss_newton_bartlett": Entry(gradients.gauss_newton_bartlett, bartlett),
    "gradients.gsam_rho": Entry(
        gradients.gsam_rho,
        lambda: dict(learning_rate=0.1, rho_min=0.1, rho_max=0.2, rate_min=0.0, rate_max=0.2),
    ),
    "gradients.hessian_diagonal": of_loss(gradients.hessian_diagonal),
    "gradients.hessian_eigenvalues": of_loss(gradients.hessian_eigenvalues, iterations=2),
    "gradients.hessian_vector_product": of_loss(
        gradients.hessian_vector_product, vectors=[tf.ones([2, 3])]
    ),
    "gradients.hutchinson": of_loss(gradients.hutchinson, seed=1),
    "gradients.per_example": of_batch(gradients.per_example, batch=ROWS, clip_norm=1.0, seed=1),
    "gradients.sam": of_loss(gradients.sam),
    "importers.from_keras": Entry(td.importers.from_keras, keras_right),
    "importers.from_torch": Entry(td.importers.from_torch, torch_right),
    "importers.keras_state": Entry(td.importers.keras_state, keras_state_right),
    "importers.torch_layout": Entry(
        td.importers.torch_layout, lambda: dict(variable=matrix(), array=np.ones((3, 2)))
    ),
    "importers.torch_state": Entry(td.importers.torch_state, torch_state_right),
    "masks.exclude": Entry(lambda regexes: td.masks.exclude(regexes), lambda: dict(regexes="b")),
    "masks.only": Entry(lambda regexes: td.masks.only(regexes), lambda: dict(regexes="b")),
    **{
        f"schedules.{name}": schedule_entry(name, initial_learning_rate=0.1, decay_steps=9)
        for name in ("Cosine", "Linear", "Polynomial", "REX")
    },
    **{
        f"schedules.{name}": schedule_entry(name, initial_learning_rate=0.1, first_decay_steps=9)
        for name in ("CosineRestarts", "SGDR")
    },
    **{
        f"schedules.{name}": schedule_entry(
            name, initial_learning_rate=0.1, decay_steps=9, decay_rate=0.5
        )
        for name in ("Exponential", "InverseTime")
    },
    "schedules.Cyclical": schedule_entry(
        "Cyclical", initial_learning_rate=0.1, maximal_learning_rate=0.2, step_size=3
    ),
    "schedules.InverseSquareRoot": schedule_entry("InverseSquareRoot"),
    "schedules.Join": schedule_entry("Join", schedules=[0.1, 0.2], boundaries=[3]),
    "schedules.OneCycle": schedule_entry("OneCycle", peak_learning_rate=0.1, total_steps=99),
    "schedules.PiecewiseConstant": schedule_entry(
        "PiecewiseConstant", boundaries=[3], values=[0.1, 0.2]
    ),
    "schedules.PiecewiseInterpolate": schedule_entry(
        "PiecewiseInterpolate", boundaries=[3], values=[0.1, 0.2]
    ),
    "schedules.Plateau": schedule_entry("Plateau", learning_rate=0.1),
    "schedules.Warmup": schedule_entry("Warmup", learning_rate=0.1, warmup_steps=3),
    "schedules.WarmupStableDecay": schedule_entry(
        "WarmupStableDecay", peak_learning_rate=0.1, warmup_steps=3, stable_steps=3, decay_steps=3
    ),
    "schedules.peak_of": Entry(
        td.schedules.peak_of, lambda: dict(rate_or_schedule=td.schedules.Linear(0.1, 9))
    ),
    "training.Model": Entry(td.training.Model, lambda: dict(inner=model())),
    "transforms.AddNoise": transform_entry("AddNoise", eta=0.1),
    **{
        f"transforms.{name}": transform_entry(name, limit=0.1)
        for name in ("AdaptiveGradientClip", "ClipByBlockRMS", "ClipByNorm", "ClipByValue")
    },
    **{
        f"transforms.{name}": transform_entry(name)
        for name in ("Centralize", "EMA", "NormalizeUpdate", "Trace", "ZeroNans")
    },
}
