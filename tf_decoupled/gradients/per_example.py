"""Gradients of single examples: clipped one by one, as differential privacy needs them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_decoupled.engine import replicas
from tf_decoupled.engine.checking import checked
from tf_decoupled.gradients.kinds import (
    Batch,
    Count,
    LossOfBatch,
    NotNegative,
    Positive,
    Seed,
    Variables,
)
from tf_decoupled.gradients.random import probes, seeds
from tf_decoupled.gradients.tape import dense_gradient, full, loss_of, norm, own, scalar
from tf_decoupled.math import clip_factor


class PerExample(NamedTuple):
    """What `per_example` gives.

    losses, norms: of each example, [B]; norms before clipping. gradients: one per variable.
    """

    losses: tf.Tensor
    gradients: list[tf.Tensor]
    norms: tf.Tensor


@checked
def per_example(
    loss_fn: LossOfBatch,
    variables: Variables,
    batch: Batch,
    clip_norm: Positive,
    *,
    noise_multiplier: NotNegative = 0.0,
    seed: Seed = None,
    lot_size: Positive = None,
    microbatch_size: Count = None,
) -> PerExample:
    """The mean of gradients that are clipped one example at a time: DP-SGD's, with noise.

        gᵢ = ∇L(θ, xᵢ)        ḡᵢ = gᵢ / max(1, ‖gᵢ‖ / C)
        g̃ = (Σᵢ ḡᵢ + N(0, σ² C² I)) / L

    Norms are over all variables. A gradient that isn't finite counts as 0: one example may not
    spoil a step, or show in it. Any optimizer takes g̃; `td.DPSGD` adds the noise itself, so leave
    it out here. How much privacy σ, the rate of sampling and the number of steps give, an
    accountant tells: the package `dp-accounting`.

    Use it for private data, and to see which examples have large gradients; not with batch
    normalization, which mixes examples.

    Args:
        loss_fn: gets one example, of the structure of `batch`, with its first axis, of length 1;
            returns the loss, or a tuple that begins with it. Not scaled for float16.
        variables: to take the gradient of.
        batch: tensors, or a structure of them, with examples along the first axis.
        clip_norm: C.
        noise_multiplier: σ; 0 adds nothing.
        seed: an integer, or two, as [seed, step], another one for each step. Noise hides nothing
            from those who know it: draw it by `secrets.randbits(31)`.
        lot_size: L. By default the number of examples on all replicas, so that the gradients of
            replicas add up. Where each example is drawn by itself, the mean of that number.
        microbatch_size: how many examples are taken at once; by default all. Each takes the memory
            of a gradient.

    Under replicas each adds its share of the noise: the sum over them has σ C.

    Abadi et al., "Deep Learning with Differential Privacy", 2016, algorithm 1. arXiv:1607.00133
    """
    variables = own(variables)
    clipped = lambda examples: _clipped(loss_fn, variables, examples, clip_norm)  # noqa: E731
    size = _size(batch)
    if microbatch_size is None:
        grads, losses, norms = clipped(batch)
        sums = [tf.reduce_sum(g, 0) for g in grads]
    else:
        sums, losses, norms = _in_parts(clipped, variables, batch, size, microbatch_size)
    replica, count = replicas.place()
    if not (isinstance(noise_multiplier, (int, float)) and noise_multiplier == 0):
        deviation = noise_multiplier * clip_norm / count**0.5
        sums = _with_noise(sums, deviation, _own_seed(seed, replica))
    lot = size * count if lot_size is None else lot_size
    return PerExample(losses, [g / scalar(lot, g.dtype) for g in sums], norms)


def _size(batch: Any) -> Any:
    """The number of examples: of Python's kind where it is known."""
    first = tf.nest.flatten(batch)[0]
    return tf.shape(first)[0] if first.shape[0] is None else first.shape[0]


def _clipped(loss_fn: Callable, variables: list, examples: Any, clip_norm: Any) -> tuple:
    """The clipped gradient of each of some examples, [m, ...]; their losses and norms."""

    def one(example: Any) -> tuple:
        example = tf.nest.map_structure(lambda x: x[None], example)
        outputs, g = dense_gradient(lambda: loss_fn(example), variables)
        length, loss = norm(g), tf.reshape(full(loss_of(outputs)), [])
        limit = scalar(clip_norm, length.dtype)
        factor, finite = clip_factor(length, limit), tf.math.is_finite(length)
        kept = [tf.where(finite, tf.cast(factor, x.dtype) * x, tf.zeros_like(x)) for x in g]
        return kept, loss, length

    return tf.vectorized_map(one, examples)


def _in_parts(clipped: Callable, variables: list, batch: Any, size: Any, at_once: int) -> tuple:
    """As `_clipped`, some examples after the others, and gradients added up."""
    rounds, precision = -(-size // at_once), full(variables[0]).dtype

    def body(i: tf.Tensor, sums: list, losses: Any, norms: Any) -> tuple:
        rows = i * at_once + tf.range(at_once)  # the last ones may be beyond the end
        part = tf.nest.map_structure(lambda x: tf.gather(x, tf.minimum(rows, size - 1)), batch)
        grads, loss, length = clipped(part)
        there = [tf.cast(rows < size, g.dtype) for g in grads]
        sums = [s + tf.tensordot(w, g, 1) for s, w, g in zip(sums, there, grads, strict=True)]
        losses = losses.write(i, tf.cast(loss, precision))
        return i + 1, sums, losses, norms.write(i, tf.cast(length, precision))

    arrays = [tf.TensorArray(precision, rounds, element_shape=[at_once]) for _ in range(2)]
    start = [0, [tf.zeros_like(full(v)) for v in variables], *arrays]
    _, sums, *arrays = tf.while_loop(lambda i, *_: i < rounds, body, start)
    return sums, *(tf.reshape(array.stack(), [-1])[:size] for array in arrays)


def _own_seed(seed: Any, replica: Any) -> tf.Tensor:
    """A seed of this replica: each has other noise, also where all were given the same seed."""
    if seed is None:
        raise ValueError(
            "Noise needs a seed, another one at each step: `seed=[secret, step]`. "
            "Received: seed=None"
        )
    drawn = seeds(seed)
    return tf.stack([drawn[0], drawn[1] ^ tf.cast(replica, tf.int32)])


def _with_noise(sums: list, deviation: Any, seed: tf.Tensor) -> list:
    noise = probes(sums, seeds(seed, len(sums)), "normal")
    return [g + scalar(deviation, g.dtype) * each for g, each in zip(sums, noise, strict=True)]
