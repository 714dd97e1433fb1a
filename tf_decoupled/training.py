"""Training in `fit` that needs more than one gradient: SAM.

model = td.training.Model(model, rho=0.05)
model.compile(td.AdamW(1e-3), loss="sparse_categorical_crossentropy")
"""

from typing import Any

import keras
import tensorflow as tf

from tf_decoupled.engine import replicas
from tf_decoupled.gradients.sam import sam


class TrainStep:
    """The training step of a model of your own: write it before `keras.Model` among the bases.

        class Mine(td.training.TrainStep, keras.Model):
            rho = 0.05

    Each batch is passed twice. The loss and metrics that `fit` shows are those of the first pass,
    at the weights themselves; batch statistics are updated once. It calls `compute_loss` and
    `compute_metrics`, which may be overridden as in Keras.

    Attributes:
        rho, adaptive, eta, alpha: of `td.gradients.sam`. rho may be a schedule of the updates done;
            0 is Keras's own training step. They are read when the step is traced.
    """

    rho: Any = 0.0
    adaptive: bool = False
    eta: float = 0.01
    alpha: float = 0.0

    def train_step(self, data: Any) -> dict[str, Any]:
        if self.optimizer is None or not self.trainable_variables or self._is_zero(self.rho):
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)

        def loss_fn() -> tuple:
            y_pred = self(x, training=True)
            loss = self.compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
            )
            return self.optimizer.scale_loss(loss), loss, y_pred

        (_, loss, y_pred), gradients = self.gradients(loss_fn)
        self._show(loss, x)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def gradients(self, loss_fn: Any) -> tuple[Any, list]:
        """What `loss_fn` returned, and the gradients that the optimizer is to apply."""
        rho = self.rho(self.optimizer.iterations) if callable(self.rho) else self.rho
        changed = {id(v): v for v in (*self.non_trainable_variables, *self.metrics_variables)}
        return sam(
            loss_fn,
            self.trainable_variables,
            rho,
            adaptive=self.adaptive,
            eta=self.eta,
            alpha=self.alpha,
            state=list(changed.values()),
        )

    @staticmethod
    def _is_zero(rho: Any) -> bool:
        return isinstance(rho, (int, float)) and rho == 0

    def _show(self, loss: tf.Tensor, x: Any) -> None:
        """Takes the loss into the mean that `fit` shows, as Keras's own training step does."""
        _, count = replicas.place()
        rows = tf.shape(keras.tree.flatten(x)[0])[0]
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss * tf.cast(count, loss.dtype), sample_weight=rows)


@keras.saving.register_keras_serializable("tf_decoupled")
class Model(TrainStep, keras.Model):
    """A model around any Keras model, that trains it by SAM.

        model = td.training.Model(keras.Sequential([...]), rho=0.05)

    Compile, fit, evaluate, predict and save this one. The model inside is `model.inner`: its
    weights are the same, so save or export that for use without this package.

    Its own `train_step` and `compute_loss`, if it has any, are not called: derive such a class from
    `td.training.TrainStep` instead.

    Args:
        inner: a functional, sequential or subclassed model; a subclassed one must be registered
            with Keras to be saved.
        rho: ρ of SAM: a number, or a LearningRateSchedule of the updates done. GSAM's ρ is as
            large as its rate: the same schedule as the rate's, with ρ for its peak. 0 is plain.
        adaptive, eta: ASAM, with ρ about 10 times larger.
        alpha: GSAM's α.

    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", 2021,
    algorithm 1. arXiv:2010.01412
    """

    def __init__(
        self,
        inner: keras.Model,
        rho: Any = 0.05,
        *,
        adaptive: bool = False,
        eta: float = 0.01,
        alpha: float = 0.0,
        name: str | None = None,
        **kwargs: Any,
    ):
        if not isinstance(inner, keras.Model):
            raise TypeError(f"`inner` must be a keras.Model. Received: {inner!r}")
        for argument, value in dict(rho=rho, eta=eta, alpha=alpha).items():
            if not callable(value) and not value >= 0:
                raise ValueError(f"`{argument}` must be at least 0. Received: {argument}={value!r}")
        super().__init__(name=name or inner.name, autocast=False, **kwargs)
        self.inner, self.rho = inner, rho
        self.adaptive, self.eta, self.alpha = adaptive, eta, alpha

    def build(self, input_shape: Any) -> None:
        if not self.inner.built:
            self.inner.build(input_shape)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return self.inner(inputs, training=training, mask=mask)

    def get_config(self) -> dict[str, Any]:
        rho = keras.saving.serialize_keras_object(self.rho) if callable(self.rho) else self.rho
        return dict(
            inner=keras.saving.serialize_keras_object(self.inner),
            rho=rho,
            adaptive=self.adaptive,
            eta=self.eta,
            alpha=self.alpha,
            name=self.name,
            trainable=self.trainable,
        )

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Model":
        read = keras.saving.deserialize_keras_object
        given = dict(config, inner=read(config["inner"], custom_objects=custom_objects))
        if isinstance(given["rho"], dict):
            given["rho"] = read(given["rho"], custom_objects=custom_objects)
        return cls(**given)
