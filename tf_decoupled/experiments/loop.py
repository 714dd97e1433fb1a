"""Training and evaluation, an epoch at a time, each one compiled graph over data in memory."""

import functools
import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tf_decoupled import schedules
from tf_decoupled.experiments.data import Split, augment
from tf_decoupled.experiments.strategies import share

EVALUATION_BATCH = 1000
DROPS = (0.3, 0.6, 0.8)
CYCLES = 3


def schedule(
    name: str, rate: float, steps: int, warmup: int = 0
) -> float | schedules.LearningRateSchedule:
    """`rate`, as it changes over `steps` updates in the paper's schedules, after a linear warm-up.

    `fixed`: not at all. `drop`: by 10 after 30, 60 and 80 % of the updates. `cosine`: to 0.
    `restarts`: to 0 three times, over cycles each twice as long as the one before.
    """
    if name == "restarts":
        first = math.ceil(steps / (2**CYCLES - 1))
        return schedules.CosineRestarts(rate, first, t_mul=2.0, warmup_steps=warmup)
    after = {"fixed": _fixed, "drop": _drop, "cosine": schedules.Cosine}[name](rate, steps)
    return schedules.Warmup(after, warmup) if warmup else after


def _fixed(rate: float, steps: int) -> float:
    return rate


def _drop(rate: float, steps: int) -> schedules.LearningRateSchedule:
    last = sorted({max(0, round(share * steps) - 1) for share in DROPS})
    return schedules.PiecewiseConstant(last, [rate / 10**i for i in range(len(last) + 1)])


def multipliers(name: str, steps: int) -> np.ndarray:
    """η of every update, float32 [steps]: the schedule's value where the rate is 1."""
    eta = schedule(name, 1.0, steps)
    return eta(tf.range(steps)).numpy() if callable(eta) else np.full(steps, eta, np.float32)


def order(seed: int, epoch: int, examples: int, batch_size: int) -> np.ndarray:
    """The images of each batch of an epoch, int32 [steps, batch_size], decided by (seed, epoch).

    A last batch that isn't full is left out; the images in it are others in each epoch.
    """
    shuffled = np.random.default_rng([seed, epoch]).permutation(examples)
    steps = examples // batch_size
    return shuffled[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)


def objective(model: keras.Model) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Labels and outputs to loss and error, [n] each: by a compiled model's own loss, if it is one.

    What a layer adds to the loss, a regularizer for one, is in that.
    """

    def compiled(labels: tf.Tensor, outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loss, error = model.compute_loss(y=labels, y_pred=outputs), wrong(labels, outputs)
        return tf.broadcast_to(tf.cast(loss, tf.float32), tf.shape(error)), error

    return compiled if model.compiled else loss_and_error


class Loop:
    """Trains `model` with `optimizer` on `train`, standardised images in memory.

    Each batch is shared out to the replicas of `strategy`, in whose scope model and optimizer were
    made; so they see together what one device would. Workers of parameter servers take whole
    batches, each as soon as it is free. `traces` counts how often the training graph was made.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        train: Split,
        augmented: bool = False,
        strategy: tf.distribute.Strategy | None = None,
    ):
        self.model, self.optimizer, self.augmented = model, optimizer, augmented
        self.objective = objective(model)
        self.images, self.labels = (tf.constant(part) for part in train)
        self.strategy = strategy or tf.distribute.get_strategy()
        self.traces = 0
        if isinstance(strategy, tf.distribute.ParameterServerStrategy):
            self._coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
            self._batch, self._update = (
                tf.function(f, autograph=False) for f in (self._batch, self._update)
            )
            self._epoch = self._scheduled_epoch
        else:
            self._epoch = tf.function(self._epoch, autograph=False)
        optimizer.build(model.trainable_variables)

    def step(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One update from images [n, height, width, channels]: mean loss, and share of errors.

        In a replica, its n images' part of both, which are the sums over all replicas.
        """
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            loss, error = self.objective(labels, logits)
            loss, error = tf.reduce_mean(loss) / replicas, tf.reduce_mean(error) / replicas
            scaled = self.optimizer.scale_loss(loss)
        variables = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, [v.value for v in variables]), variables)
        return loss, error

    def epoch(self, seed: int, epoch: int, batch_size: int) -> tuple[float, float]:
        """One epoch in the order of (seed, epoch): mean loss and share of errors while training."""
        batches = order(seed, epoch, len(self.labels), batch_size)
        loss, error = self._epoch(tf.constant(batches), tf.constant([seed, epoch], tf.int32))
        return float(loss), float(error)

    def _epoch(self, batches: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        steps = tf.shape(batches)[0]

        def one(i, losses, errors):
            loss, error = self._update(*self._batch(batches, seed, i))
            return i + 1, losses + loss, errors + error

        _, losses, errors = tf.while_loop(lambda i, *_: i < steps, one, (0, 0.0, 0.0))
        return losses / tf.cast(steps, tf.float32), errors / tf.cast(steps, tf.float32)

    def _scheduled_epoch(self, batches: tf.Tensor, seed: tf.Tensor) -> tuple[float, float]:
        given = (self._batch(batches, seed, i) for i in tf.range(len(batches)))
        results = [self._coordinator.schedule(self._update, batch) for batch in given]
        self._coordinator.join()
        losses, errors = zip(*self._coordinator.fetch(results), strict=True)
        return np.mean(losses), np.mean(errors)

    def _batch(self, batches: tf.Tensor, seed: tf.Tensor, i: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Images and labels of batch i of an epoch."""
        images = tf.gather(self.images, batches[i])
        if self.augmented:
            images = augment(images, tf.stack([seed[0], seed[1] * batches.shape[0] + i]))
        return images, tf.gather(self.labels, batches[i])

    def _update(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """`step` on all replicas, each with its share of a batch."""
        self.traces += 1
        parts = [
            self.strategy.experimental_distribute_values_from_function(functools.partial(share, x))
            for x in (images, labels)
        ]
        both = self.strategy.run(self.step, parts)
        return tuple(self.strategy.reduce(tf.distribute.ReduceOp.SUM, x, None) for x in both)


class Evaluation:
    """Mean loss and share of errors of `model` on a split of standardised images."""

    def __init__(self, model: keras.Model, split: Split):
        self.model, self.objective = model, objective(model)
        self.images, self.labels = (tf.constant(part) for part in split)
        self._sums = tf.function(self._sums, autograph=False)

    def __call__(self) -> tuple[float, float]:
        loss, wrong = self._sums()
        return float(loss) / len(self.labels), float(wrong) / len(self.labels)

    def _sums(self) -> tuple[tf.Tensor, tf.Tensor]:
        examples = len(self.labels)

        def one(start, losses, errors):
            labels = self.labels[start : start + EVALUATION_BATCH]
            logits = self.model(self.images[start : start + EVALUATION_BATCH], training=False)
            loss, error = self.objective(labels, logits)
            losses, errors = losses + tf.reduce_sum(loss), errors + tf.reduce_sum(error)
            return start + EVALUATION_BATCH, losses, errors

        _, losses, errors = tf.while_loop(lambda start, *_: start < examples, one, (0, 0.0, 0.0))
        return losses, errors


def loss_and_error(labels: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cross-entropy, and 1 where the largest logit isn't the label's: float32 [n] each."""
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return loss, wrong(labels, logits)


def wrong(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.argmax(logits, -1) != labels, tf.float32)
