"""Training in `fit` that needs more than one gradient: SAM, and estimates of the Hessian.

model = td.training.Model(model, rho=0.05)
model.compile(td.AdamW(1e-3), loss="sparse_categorical_crossentropy")
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import keras
import tensorflow as tf

from tf_decoupled.engine import arguments, kinds, replicas
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.gradients.curvature import gauss_newton_bartlett, hutchinson
from tf_decoupled.gradients.kinds import COUNT, Flag
from tf_decoupled.gradients.sam import sam
from tf_decoupled.gradients.tape import full, own, unchanged

__all__ = ["Model", "TrainStep"]

size = kinds.limit("at least 0", lambda x: x >= 0)


def _rho(where: Where, value: Any) -> Any:
    is_one = callable(value) and not inspect.isclass(value) and arguments.takes(value, 1)
    return value if is_one else size(where, value)


Inner = Annotated[keras.Model, kinds.instance(keras.Model, "a keras.Model")]
Rho = Annotated[Any, _rho]
Size = Annotated[float, size]
Every = Annotated[int, kinds.whole("at least 0, whole", 0, below=COUNT)]
Estimator = Annotated[str, kinds.choice("hutchinson", "gauss_newton_bartlett")]
Seed = Annotated[int, kinds.whole("an integer that int32 holds", -COUNT, below=COUNT)]


class TrainStep:
    """The training step of a model of your own: write it before `keras.Model` among the bases.

        class Mine(td.training.TrainStep, keras.Model):
            rho = 0.05

    With SAM each batch is passed twice. The loss and metrics that `fit` shows are those of the
    first pass, at the weights themselves, and batch statistics are updated once. It calls
    `compute_loss` and `compute_metrics`, which may be overridden as in Keras.

    Attributes, read when the step is traced:
        rho, adaptive, eta, alpha: of `td.gradients.sam`. rho may be a schedule of the updates done;
            0 is Keras's own training step.
        estimate_every: every so many updates, from the first, the optimizer gets an estimate of the
            Hessian's diagonal, before the step: for `td.Sophia`. 0: never.
        estimator: "hutchinson", or "gauss_newton_bartlett" for a model that returns logits.
        seed: of the estimates.
    """

    rho: Any = 0.0
    adaptive: bool = False
    eta: float = 0.01
    alpha: float = 0.0
    estimate_every: int = 0
    estimator: str = "hutchinson"
    seed: int = 0

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not self.built:
            self(x)
        if self.optimizer is None or not self.trainable_variables:
            return super().train_step(data)

        # Overrides from before Keras 3.3 don't take it.
        takes_training = "training" in inspect.signature(self.compute_loss).parameters
        training = {"training": True} if takes_training else {}

        def loss_fn() -> tuple:
            y_pred = self(x, training=True)
            given = dict(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
            return self.compute_loss(**given, **training), y_pred

        if self.estimate_every:
            logits_fn = lambda: self(x, training=True)  # noqa: E731
            self._estimate(lambda: loss_fn()[0], logits_fn, sample_weight)
        if isinstance(self.rho, (int, float)) and self.rho == 0:
            return super().train_step(data)
        loss, y_pred = self._step(loss_fn)
        self._show(loss, x)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _step(self, loss_fn: Callable[[], tuple]) -> tuple:
        """One step by SAM: the loss and the predictions of the first pass."""

        def scaled() -> tuple:
            loss, y_pred = loss_fn()
            return self.optimizer.scale_loss(loss), loss, y_pred

        rho = self.rho(self.optimizer.iterations) if callable(self.rho) else self.rho
        options = dict(adaptive=self.adaptive, eta=self.eta, alpha=self.alpha)
        (_, loss, y_pred), gradients = sam(
            scaled, self.trainable_variables, rho, state=self._changing(), **options
        )
        if hasattr(self.optimizer, "observe_loss"):
            # `scale_loss` saw that of the second pass last. Schedules hear losses of epochs.
            self.optimizer.observe_loss(loss, schedules=False)
        self.optimizer.apply(gradients, self.trainable_variables)
        return loss, y_pred

    def _changing(self) -> list:
        """What a pass may change: batch statistics, seeds of dropout, metrics."""
        variables = (*self.non_trainable_variables, *self.metrics_variables)
        return list({id(v): v for v in variables}.values())

    def _estimate(
        self, loss_fn: Callable[[], Any], logits_fn: Callable[[], Any], weights: Any
    ) -> None:
        """Hands an estimate of the Hessian's diagonal to the optimizer, where it is time to."""
        variables = self.trainable_variables
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if not hasattr(optimizer, "apply_estimates"):
            raise TypeError(
                "`estimate_every` needs an optimizer of this library that uses estimates, as "
                f"td.Sophia. Received: {type(optimizer).__name__}"
            )
        due = tf.cast(optimizer.iterations, tf.int32) % self.estimate_every == 0
        seed = tf.stack([self.seed, tf.cast(optimizer.iterations, tf.int32)])
        _, count = replicas.place()

        def estimates() -> list[tf.Tensor]:
            with unchanged(own(self._changing())):
                if self.estimator == "hutchinson":
                    return hutchinson(loss_fn, variables, seed)
                found = gauss_newton_bartlett(logits_fn, variables, seed, weights=weights)
                return [e / count for e in found]

        if not replicas.in_strategy():
            optimizer.build(variables)

            def tell() -> tf.Tensor:
                optimizer.apply_estimates(estimates(), variables)
                return tf.constant(True)

            tf.cond(due, tell, lambda: tf.constant(False))
            return
        # Replicas can't meet inside of a condition; of estimates that are no numbers none is used.
        nothing = lambda: [full(v) * float("nan") for v in own(variables)]  # noqa: E731
        optimizer.apply_estimates(tf.cond(due, estimates, nothing), variables)

    def _show(self, loss: tf.Tensor, x: Any) -> None:
        """Takes the loss into the mean that `fit` shows, as Keras's own training step does."""
        _, count = replicas.place()
        rows = tf.shape(keras.tree.flatten(x)[0])[0]
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss * tf.cast(count, loss.dtype), sample_weight=rows)


@keras.saving.register_keras_serializable("tf_decoupled")
class Model(TrainStep, keras.Model):
    """A model around any Keras model, that trains it by SAM, and estimates its Hessian.

        model = td.training.Model(keras.Sequential([...]), rho=0.05)

    Compile, fit, evaluate, predict and save this one. The model inside is `model.inner`: its
    weights are the same, so save or export that for use without this package.

    Its own `train_step` and `compute_loss`, if it has any, are not called: derive such a class from
    `td.training.TrainStep` instead.

    Args:
        inner: a functional, sequential or subclassed model; a subclassed one must be registered
            with Keras to be saved.
        rho: ρ of SAM: a number, or a LearningRateSchedule of the updates done. GSAM's ρ is as
            large as its rate: the same schedule as the rate's, with ρ for its peak. 0: no SAM.
        adaptive, eta: ASAM, with ρ about 10 times larger.
        alpha: GSAM's α.
        estimate_every: every so many updates, from the first, the optimizer gets an estimate of the
            Hessian's diagonal, before the step: for `td.Sophia`. 0: never. With accumulated
            gradients, at each part of such an update.
        estimator: "hutchinson", or "gauss_newton_bartlett" for a model that returns logits.
        seed: of the estimates.

    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", 2021,
    algorithm 1. arXiv:2010.01412
    """

    @checked
    def __init__(
        self,
        inner: Inner,
        rho: Rho = 0.05,
        *,
        adaptive: Flag = False,
        eta: Size = 0.01,
        alpha: Size = 0.0,
        estimate_every: Every = 0,
        estimator: Estimator = "hutchinson",
        seed: Seed = 0,
        name: Annotated[str | None, kinds.name] = None,
        **kwargs: Any,
    ):
        super().__init__(name=name or inner.name, autocast=False, **kwargs)
        self.inner, self.rho, self.built = inner, rho, inner.built
        self.adaptive, self.eta, self.alpha = adaptive, eta, alpha
        self.estimate_every, self.estimator, self.seed = estimate_every, estimator, seed

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.inner(inputs)  # Keras hands `training` and masks on

    def get_config(self) -> dict[str, Any]:
        save = keras.saving.serialize_keras_object
        names = ("adaptive", "eta", "alpha", "estimate_every", "estimator", "seed", "name")
        config = {name: getattr(self, name) for name in (*names, "trainable")}
        rho = save(self.rho) if callable(self.rho) else self.rho
        return dict(inner=save(self.inner), rho=rho, **config)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Model":
        read = keras.saving.deserialize_keras_object
        given = dict(config, inner=read(config["inner"], custom_objects=custom_objects))
        if isinstance(given["rho"], dict):
            given["rho"] = read(given["rho"], custom_objects=custom_objects)
        return cls(**given)
