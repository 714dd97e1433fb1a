"""The Hessian without building it: products with vectors, and estimates of its diagonal."""

from collections.abc import Callable
from typing import Annotated, Any

import tensorflow as tf

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.gradients.kinds import (
    Batch,
    Count,
    Loss,
    LossOfBatch,
    Seed,
    Tensors,
    Variables,
    tensor,
)
from tf_decoupled.gradients.random import probes, sampled_classes, seeds
from tf_decoupled.gradients.tape import all_dense, dense_gradient, dot, full, own

Distribution = Annotated[str, kinds.choice("rademacher", "normal")]
Logits = Annotated[
    Callable[[], tf.Tensor], kinds.function(0, "a function of no arguments that returns logits")
]
Weights = Annotated[tf.Tensor | None, kinds.optional(tensor)]


@checked
def hessian_vector_product(
    loss_fn: Loss, variables: Variables, vectors: Tensors
) -> list[tf.Tensor]:
    """H v = ∇⟨∇L, v⟩: one tensor per variable, for the cost of about two gradients.

    Args:
        loss_fn: no argument; the loss, or a tuple that begins with it.
        variables: θ.
        vectors: v, one tensor per variable, of its shape.

    Pearlmutter, "Fast Exact Multiplication by the Hessian", 1994.
    """
    shapes = [tuple(v.shape) for v in variables]
    if [tuple(v.shape) for v in vectors] != shapes:
        Where("vectors").refuse(ValueError, f"one per variable, of the shapes {shapes}", vectors)
    return product(loss_fn, own(variables), vectors)[1]


@checked
def hutchinson(
    loss_fn: Loss,
    variables: Variables,
    seed: Seed,
    *,
    samples: Count = 1,
    distribution: Distribution = "rademacher",
) -> list[tf.Tensor]:
    """An estimate of the diagonal of the Hessian, one tensor per variable.

        ĥ = mean of z ∘ H z        z = ±1, or N(0, 1)

    Its expectation is the diagonal. With ±1 it is exact where the Hessian is diagonal, and never
    varies more than with N(0, 1). The same seed gives the same z on all replicas, so that the sum
    of ĥ over replicas belongs to the sum of their losses.

    Use it for AdaHessian and Sophia-H, every few steps; an estimate may be negative.

    Args:
        loss_fn: no argument; the loss, or a tuple that begins with it.
        variables: θ.
        seed: an integer, or two, as [seed, step].
        samples: how many z, one after the other.
        distribution: "rademacher" for ±1, "normal".

    Liu et al., "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
    Pre-training", 2023, algorithm 1. arXiv:2305.14342, where z is normal.
    """
    variables, total = own(variables), None
    for each in tf.unstack(seeds(seed, samples, len(variables))):
        z = probes([full(v) for v in variables], each, distribution)
        _, products = product(loss_fn, variables, z)
        terms = [a * b for a, b in zip(z, products, strict=True)]
        total = terms if total is None else [a + b for a, b in zip(total, terms, strict=True)]
    return [each / samples for each in total]


@checked
def gauss_newton_bartlett(
    logits_fn: Logits,
    variables: Variables,
    seed: Seed,
    *,
    weights: Weights = None,
) -> list[tf.Tensor]:
    """An estimate of the Gauss-Newton matrix's diagonal, for classification: never negative.

        ŷ ~ softmax(logits)        ĝ = ∇ (1/B) Σ CE(logits, ŷ)        ĥ = B ĝ ∘ ĝ

    One gradient, and no second derivatives. It tells of the data of this replica alone: take the
    mean over replicas.

    Use it for Sophia-G with a softmax's cross-entropy; not for other losses.

    Args:
        logits_fn: no argument; logits, [..., classes], of two or more classes.
        variables: θ.
        seed: an integer, or two, as [seed, step].
        weights: of the shape of `logits` without classes, or of its first axes: 1 counts, 0 is
            padding. B is its sum.

    Liu et al., "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
    Pre-training", 2023, algorithm 2. arXiv:2305.14342
    """
    variables, count = own(variables), []

    def loss_fn() -> tf.Tensor:
        logits = logits_fn()
        if not tf.is_tensor(logits):
            Where("logits_fn").refuse(TypeError, "a function that returns a tensor", logits)
        logits = full(logits)
        if logits.shape[-1] == 1:
            raise ValueError(
                "The logits must be of at least two classes: beside a single one put zeros, "
                f"`tf.concat([0 * x, x], -1)`. Received: logits of shape {logits.shape}"
            )
        labels = sampled_classes(tf.stop_gradient(logits), seed)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        counts = tf.ones_like(losses) if weights is None else _spread(weights, losses)
        if not counts.shape.is_compatible_with(losses.shape):
            words = f"of the shape of the logits without classes, {losses.shape}"
            Where("weights").refuse(ValueError, words, weights)
        count.append(tf.reduce_sum(counts))
        return tf.math.divide_no_nan(tf.reduce_sum(counts * losses), count[-1])

    _, g = dense_gradient(loss_fn, variables)
    return [tf.cast(count[-1], x.dtype) * tf.square(x) for x in g]


def _spread(weights: Any, losses: tf.Tensor) -> tf.Tensor:
    """Weights of the first axes, as [B] or Keras's [B, 1], for each loss [B, ...]."""
    weights, rank = tf.cast(weights, losses.dtype), losses.shape.rank
    if weights.shape.rank == rank + 1 and weights.shape[-1] == 1:
        return tf.squeeze(weights, -1)
    if weights.shape.rank in (None, 0) or weights.shape.rank >= rank:
        return weights
    if not weights.shape.is_compatible_with(losses.shape[: weights.shape.rank]):
        return weights
    shape = tf.concat([tf.shape(weights), tf.ones(rank - weights.shape.rank, tf.int32)], 0)
    return tf.reshape(weights, shape) * tf.ones_like(losses)


@checked
def hessian_diagonal(loss_fn: Loss, variables: Variables) -> list[tf.Tensor]:
    """The diagonal of the Hessian, exactly: one tensor per variable.

    Use it for small models, and to judge estimates: it takes one product with the Hessian for each
    number of a variable, all at once, and the memory of the variable's whole block.

    Args:
        loss_fn: no argument; the loss, or a tuple that begins with it.
        variables: θ.
    """
    variables = own(variables)
    with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
        tape.watch(variables)
        _, g = dense_gradient(loss_fn, variables)
    return [_diagonal(tape.jacobian(x, v), full(v)) for x, v in zip(g, variables, strict=True)]


@checked
def fisher_diagonal(loss_fn: LossOfBatch, variables: Variables, batch: Batch) -> list[tf.Tensor]:
    """The diagonal of the empirical Fisher matrix: one tensor per variable.

        f = (1/B) Σᵢ ∇L(θ, xᵢ)²        L = −log p(y | x)

    With the labels of the data it is the empirical one; with labels drawn from the model's own
    predictions its expectation is the Fisher matrix's diagonal.

    Use it for elastic weight consolidation, pruning and Laplace approximations.

    Args:
        loss_fn: gets one example, of the structure of `batch`, with its first axis, of length 1;
            returns the loss, or a tuple that begins with it.
        variables: θ.
        batch: tensors, or a structure of them, with examples along the first axis.

    Kunstner et al., "Limitations of the Empirical Fisher Approximation for Natural Gradient
    Descent", 2019, for what it isn't. arXiv:1905.12558
    """
    variables = own(variables)

    def squares(example: Any) -> list[tf.Tensor]:
        example = tf.nest.map_structure(lambda x: x[None], example)
        return [tf.square(g) for g in dense_gradient(lambda: loss_fn(example), variables)[1]]

    return [tf.reduce_mean(g, 0) for g in tf.vectorized_map(squares, batch)]


def product(loss_fn: Callable, variables: list, vectors: list) -> tuple[list, list]:
    """The gradient, and H v, both in full precision, with zeros where there is none."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        _, g = dense_gradient(loss_fn, variables)
        along = dot(g, [tf.cast(v, x.dtype) for x, v in zip(g, vectors, strict=True)])
    return g, all_dense(tape.gradient(along, variables), variables)


def _diagonal(jacobian: Any, v: tf.Tensor) -> tf.Tensor:
    """The diagonal of a variable's own block, in its shape; zeros where there is none."""
    if jacobian is None:
        return tf.zeros_like(v)
    n = v.shape.num_elements()
    return tf.reshape(tf.linalg.diag_part(tf.reshape(full(jacobian), [n, n])), v.shape)
