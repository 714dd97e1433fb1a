"""GradInit: scales of the weights at the start, learned so that the first step lowers the loss."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import tensorflow as tf

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.state import tf_variable
from tf_decoupled.gradients.kinds import AnyVariables, LossOfBatch, examples
from tf_decoupled.gradients.tape import all_dense, dense_gradient, loss_of, unchanged
from tf_decoupled.masks import path_of
from tf_decoupled.optimizers.adam import Adam


class GradInit(NamedTuple):
    """What `grad_init` found.

    scales: by the path of each variable. losses: L̃ after each first step that was tried; norms:
    ‖g‖ at each iteration. Both are lists of floats.
    """

    scales: dict[str, float]
    losses: list[float]
    norms: list[float]


Number = Annotated[float, kinds.limit("a finite number", lambda x: True)]
Limit = Annotated[float, kinds.limit("a finite number >= 0", lambda x: x >= 0)]
FirstStep = Annotated[str, kinds.choice("sgd", "adam")]
Batches = Annotated[Iterable, kinds.iterable("an iterable of batches")]


@checked
def grad_init(
    loss_fn: LossOfBatch,
    variables: AnyVariables,
    batches: Batches,
    *,
    learning_rate: Number,
    first_step: FirstStep = "adam",
    gradient_limit: Limit = None,
    scale_rate: Number = 1e-2,
    least_scale: Limit = 0.01,
    state: AnyVariables = (),
) -> GradInit:
    """Multiplies each variable by a scale m, learned so that one step of training lowers the loss.

        g = ∇L(mθ₀; S)        A[g] = g, p = 2 ("sgd")  or  sign(g), p = 1 ("adam")
        where ‖g‖_p > γ:      m ← m − τ ∇_m ‖g‖_p
        elsewhere:            m ← m − τ ∇_m L(mθ₀ − η A[g]; S̃)
        m ← max(m, α)

    S̃ is half of S and half of the next batch; A[g] counts as a constant, as in the authors' code.
    The ∇_m are clipped to ±1 and go through Adam with the rate τ. What starts at zero, as biases
    do, stays.

        td.grad_init(
            lambda batch: loss(batch[1], model(batch[0], training=False)),
            model.trainable_variables, dataset.take(400), learning_rate=1e-3)

    Use it before training, for deep networks without normalization, or with another nonlinearity
    than their initializer is made for. With normalization the scale of a layer before it changes
    nothing but the size of its gradient. Some hundred batches are needed, and an iteration costs
    about two steps of training, three where ‖g‖ is too large. Scales that are better for the first
    step needn't be so for the last.

    Args:
        loss_fn: gets a batch; returns the loss, or a tuple that begins with it. Without
            dropout, which would be other noise in each of the two losses; batch normalization
            with `training=True`.
        variables: θ₀, and where the result is written. For one device.
        batches: tensors or structures of them, each with examples along the first axis; as many
            iterations as there are pairs of neighbours.
        learning_rate: η, of the training to come.
        first_step: whose first step it is.
        gradient_limit: γ; by default 1 for "sgd", and none for "adam", as in the authors' scripts.
        scale_rate: τ; the authors take 1e-3 to 1e-1, by network.
        least_scale: α.
        state: what the passes change, and what is put back after them: batch statistics, as
            `model.non_trainable_variables`.

    Zhu et al., "GradInit: Learning to Initialize Neural Networks for Stable and Efficient
    Training", 2021, algorithm 1. arXiv:2102.08098. Departs from the authors' code: one Adam for
    both kinds of ∇_m, which have a first moment each there; they also divide SGD's g by its norm.
    """
    _check(variables, learning_rate, scale_rate)
    limit = gradient_limit
    if limit is None:
        limit = 1.0 if first_step == "sgd" else math.inf
    search = _Search(loss_fn, variables, learning_rate, first_step, scale_rate, least_scale)
    losses, norms = [], []
    with unchanged([tf_variable(v) for v in state]):
        for batch, following in itertools.pairwise(_examples(batches)):
            g, length = search.gradient(batch)
            norms.append(float(length))
            if norms[-1] > limit:
                search.shorten(batch)
            else:
                losses.append(float(search.improve(g, _halves(batch, following))))
    if not norms:
        raise ValueError(
            "`batches` must be two or more: an iteration takes half of the next one. "
            f"Received: batches={batches!r}"
        )
    scales = dict(zip(map(path_of, variables), search.scales.numpy().tolist(), strict=True))
    return GradInit(scales, losses, norms)


class _Search:
    """The scales, and the two ways to better them, each traced once."""

    def __init__(
        self,
        loss_fn: Callable,
        variables: Sequence,
        eta: float,
        kind: str,
        tau: float,
        least: float,
    ):
        self.loss_fn, self.eta, self.kind, self.least = loss_fn, eta, kind, least
        self.variables = [tf_variable(v) for v in variables]
        self.starts = [tf.identity(v) for v in self.variables]
        self.scales = tf.Variable(tf.ones([len(self.variables)]), name="scales")
        self.adam = Adam(tau, clipvalue=1.0, skip_nonfinite=True, jit_compile=False)
        self.adam.build([self.scales])
        traced = tf.function(autograph=False)
        self.gradient, self.shorten = traced(self._gradient), traced(self._shorten)
        self.improve = traced(self._improve)

    def _gradient(self, batch: Any) -> tuple[list[tf.Tensor], tf.Tensor]:
        _, g = self._differentiated(batch)
        return g, self._norm(g)

    def _shorten(self, batch: Any) -> None:
        """A step that makes ‖g‖ smaller."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.variables)
            _, length = self._gradient(batch)
        self._step(all_dense(tape.gradient(length, self.variables), self.variables))

    def _improve(self, g: list[tf.Tensor], batch: Any) -> tf.Tensor:
        """A step that makes the loss after the first step of training smaller: that loss."""
        for variable, each in zip(self.variables, g, strict=True):
            step = each if self.kind == "sgd" else tf.sign(each)
            variable.assign_sub(tf.cast(self.eta * step, variable.dtype))
        loss, grads = self._differentiated(batch)
        with tf.control_dependencies([loss, *grads]):
            self._step(grads)
        return loss

    def _step(self, grads: list) -> None:
        """One step of the scales along the gradients of what they multiply; then they do so."""
        pairs = zip(grads, self.starts, strict=True)
        along = [tf.cast(tf.reduce_sum(g * tf.cast(p, g.dtype)), tf.float32) for g, p in pairs]
        self.adam.apply([tf.stack(along)], [self.scales])
        self.scales.assign(tf.maximum(self.scales, self.least))
        scales = tf.unstack(self.scales.read_value())
        for variable, start, scale in zip(self.variables, self.starts, scales, strict=True):
            variable.assign(tf.cast(scale, start.dtype) * start)

    def _differentiated(self, batch: Any) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The loss of a batch, and its gradients, 0 where there is none."""
        outputs, g = dense_gradient(lambda: self.loss_fn(batch), self.variables)
        return loss_of(outputs), g

    def _norm(self, g: list[tf.Tensor]) -> tf.Tensor:
        sizes = [tf.square(each) if self.kind == "sgd" else tf.abs(each) for each in g]
        total = tf.add_n([tf.cast(tf.reduce_sum(each), tf.float32) for each in sizes])
        return tf.sqrt(total) if self.kind == "sgd" else total


def _halves(batch: Any, following: Any) -> Any:
    """The first half of a batch and the second of the next one."""

    def mixed(a: Any, b: Any) -> tf.Tensor:
        half = tf.shape(a)[0] // 2
        return tf.concat([a[:half], b[tf.shape(b)[0] // 2 :]], 0)

    return tf.nest.map_structure(mixed, batch, following)


def _examples(batches: Iterable) -> Iterator[Any]:
    """The batches, checked one by one."""
    for i, batch in enumerate(batches):
        yield examples(Where("batches").at(i), batch)


def _check(variables: list, *rates: float) -> None:
    """Raises for rates that don't move anything, and for nothing to move."""
    if not all(rate > 0 for rate in rates):
        raise ValueError(f"`learning_rate` and `scale_rate` must be > 0. Received: {rates}")
    if not variables:
        raise ValueError("`variables` must be at least one. Received: variables=[]")
