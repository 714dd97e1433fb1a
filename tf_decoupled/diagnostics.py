"""What a training run can be asked: how noisy its gradients are, how sharp and uneven its loss is.

Pure functions of gradients and curvature; `td.gradients` computes those. And two rules by which
hyperparameters follow the batch size.
"""

import math
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import tensorflow as tf

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.gradients import hessian_eigenvalues
from tf_decoupled.gradients.kinds import Count, Loss, Seed, Tensors, Variables, tensor
from tf_decoupled.gradients.tape import flat

__all__ = [
    "NoiseScale",
    "gradient_noise_scale",
    "linear_scaling",
    "r_med",
    "sharpness",
    "square_root_scaling",
]

beta = kinds.limit("a number in [0, 1)", lambda x: 0 <= x < 1)
positive = kinds.limit("a finite number > 0", lambda x: x > 0)
Rate = Annotated[float, positive]
Size = Annotated[
    float, kinds.limit("a number of examples, > 0", lambda x: x > 0, kind="a number of examples")
]
Gradients = Annotated[
    Sequence[Sequence],
    kinds.sequence(
        kinds.sequence(kinds.optional(tensor), "a list of tensors"), "a list of lists of tensors"
    ),
]


class NoiseScale(NamedTuple):
    """The gradient noise scale, and the two estimates of which it is the quotient.

    noise_scale: tr(Σ) / |G|², a number of examples. trace: tr(Σ). squared_norm: |G|².
    """

    noise_scale: tf.Tensor
    trace: tf.Tensor
    squared_norm: tf.Tensor


@checked
def gradient_noise_scale(gradients: Gradients, batch_size: Size) -> NoiseScale:
    """The simple noise scale B = tr(Σ) / |G|², from gradients of n ≥ 2 batches of equal size b.

        |G_b|²: the mean of the batches' |g|²        |G_nb|²: |g|² of the mean of their gradients
        |G|² = (n |G_nb|² − |G_b|²) / (n − 1)        tr(Σ) = (|G_b|² − |G_nb|²) / (1/b − 1/nb)

    G is the true gradient, Σ the covariance of single examples' gradients. Batches far smaller
    than B make almost as much progress with more examples; far larger ones waste them.

    trace and squared_norm are unbiased, and vary much; their quotient is neither unbiased nor
    always positive. Average both over some steps, then divide: `noise_scale` alone is for many
    batches. The gradients of accumulation's parts, or of replicas, will do.

    Args:
        gradients: of each batch a list, one tensor per variable; None is 0.
        batch_size: b, examples in a batch.

    McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, appendix A.1, with b as
    the small and n b as the large batch. arXiv:1812.06162
    """
    batches = [list(grads) for grads in gradients]
    n, columns = len(batches), list(zip(*batches, strict=False))
    columns = [[g for g in each if g is not None] for each in columns]
    columns = [each for each in columns if each]
    if n < 2 or len({len(grads) for grads in batches}) > 1 or not columns:
        raise ValueError(
            "`gradient_noise_scale` compares the gradients of two or more batches, each a list of "
            "one tensor per variable. Received: `gradients`, lists of "
            f"{[len(each) for each in batches]}"
        )
    mean = [tf.add_n(each) / n for each in columns]
    small = tf.add_n([_squared_norm(each) for each in columns]) / n
    large = _squared_norm(mean)
    squared_norm = (n * large - small) / (n - 1)
    trace = (small - large) / (1 / batch_size - 1 / (n * batch_size))
    return NoiseScale(trace / squared_norm, trace, squared_norm)


@checked
def linear_scaling(
    batch_size: Size, new_batch_size: Size, *, learning_rate: Rate
) -> dict[str, float]:
    """Hyperparameters of SGD for another batch size: the rate goes with it.

        κ = new_batch_size / batch_size        η ← κ η

    For SGD, with or without momentum, up to batches of about the noise scale, and with a warm-up;
    with `decay_coupling="learning_rate"` the decay goes with the rate by itself.

    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017, section 2.1.
    arXiv:1706.02677
    """
    return dict(learning_rate=new_batch_size / batch_size * learning_rate)


@checked
def square_root_scaling(
    batch_size: Size, new_batch_size: Size, *, learning_rate: Rate, **others: float
) -> dict[str, float]:
    """Hyperparameters of Adam or RMSprop for another batch size: the rate goes with its root.

        κ = new_batch_size / batch_size
        η ← √κ η        β ← 1 − κ (1 − β)        ε ← ε / √κ

        td.AdamW(**td.diagnostics.square_root_scaling(
            256, 1024, learning_rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8))

    The number of steps is to be divided by κ. It holds while gradients are mostly noise, and while
    κ (1 − β) is far below 1.

    Args:
        batch_size, new_batch_size: before and after.
        learning_rate: η.
        others: `beta_1`, `beta_2` or `rho`, and `epsilon`, those that are to be scaled as well.

    Raises ValueError where a β would be below 0.

    Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", 2022,
    section 5. arXiv:2205.10287
    """
    ratio = new_batch_size / batch_size
    scaled = dict(learning_rate=math.sqrt(ratio) * learning_rate)
    for name, value in others.items():
        if name not in ("beta_1", "beta_2", "rho", "epsilon"):
            raise TypeError(
                "`square_root_scaling` scales `learning_rate`, `beta_1`, `beta_2`, `rho` and "
                f"`epsilon`. Received: {name}={value!r}"
            )
        is_epsilon = name == "epsilon"
        value = (positive if is_epsilon else beta)(Where(name), value)
        scaled[name] = value / math.sqrt(ratio) if is_epsilon else 1 - ratio * (1 - value)
        if scaled[name] < 0:
            raise ValueError(
                f"A batch {ratio:g} times as large is too large for this rule: `{name}` would be "
                f"{scaled[name]:g}. Received: {name}={value!r}, batch_size={batch_size!r}, "
                f"new_batch_size={new_batch_size!r}"
            )
    return scaled


@checked
def r_med(diagonal: Tensors) -> tf.Tensor:
    """How uneven the curvature is: the largest over the median |H_ii|.

        R = max_i |H_ii| / median_i |H_ii|

        td.diagnostics.r_med(td.gradients.hessian_diagonal(loss_fn, model.trainable_variables))

    It plays the part of a condition number on the path of an optimizer; the paper finds it smaller
    on Adam's path than on SGD's. Of one variable, or of all together; where half of the diagonal
    is 0, as with dead units, it is inf. An estimate of the diagonal, as `hutchinson`'s, makes its
    largest entry too large.

    Args:
        diagonal: of the Hessian of the loss, one tensor per variable.

    Jiang, Malik & Li, "How Does Adaptive Optimization Impact Local Neural Network Geometry?", 2022.
    arXiv:2211.02254
    """
    n = sum(d.shape.num_elements() for d in diagonal)
    if not n:
        Where("diagonal").refuse(ValueError, "tensors with at least one number", diagonal)
    sizes = tf.sort(tf.abs(flat(diagonal)))
    return sizes[-1] / (0.5 * (sizes[(n - 1) // 2] + sizes[n // 2]))


@checked
def sharpness(
    loss_fn: Loss, variables: Variables, *, iterations: Count = 30, seed: Seed = 0
) -> tf.Tensor:
    """The largest eigenvalue λ of the Hessian of the loss.

    Gradient descent with rate η is stable where λ < 2 / η, and trains at that edge for long.

    Args:
        loss_fn, variables, iterations, seed: as in `td.gradients.hessian_eigenvalues`.

    Cohen et al., "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability",
    2021. arXiv:2103.00065
    """
    pairs = hessian_eigenvalues(
        loss_fn, variables, iterations=iterations, seed=seed, which="largest"
    )
    return pairs.values[0]


def _squared_norm(grads: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.add_n([tf.reduce_sum(tf.square(g)) for g in grads])
