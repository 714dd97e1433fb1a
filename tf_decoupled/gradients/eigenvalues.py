"""The outermost eigenvalues of a Hessian, by Lanczos's method."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from tf_decoupled.gradients.curvature import product
from tf_decoupled.gradients.random import Seed, seeds
from tf_decoupled.gradients.tape import full, own
from tf_decoupled.math import norm, normal


class Eigenpairs(NamedTuple):
    """Eigenvalues, with what they were found by.

    values: [k]. residuals: [k], ‖H x − λ x‖ by Lanczos's own estimate: an eigenvalue is within it.
    vectors: one tensor per variable, [k, *shape]; together each has length 1.
    """

    values: tf.Tensor
    residuals: tf.Tensor
    vectors: list[tf.Tensor]


@tf.autograph.experimental.do_not_convert
def hessian_eigenvalues(
    loss_fn: Callable[[], Any],
    variables: Sequence,
    k: int = 1,
    *,
    iterations: int = 30,
    seed: Seed = 0,
    which: Literal["magnitude", "largest", "smallest"] = "magnitude",
) -> Eigenpairs:
    """The k outermost eigenvalues of the Hessian of the loss: its sharpest directions.

        w = H qᵢ,  αᵢ = ⟨qᵢ, w⟩,  w ← w − Σ ⟨qⱼ, w⟩ qⱼ,  βᵢ = ‖w‖,  qᵢ₊₁ = w / βᵢ
        eigenvalues of the tridiagonal matrix of α and β

    All q are kept, and w is made orthogonal to them twice, so that no eigenvalue is found again.
    Where w vanishes, a random direction goes on: eigenvalues that coincide are found, too.

    Use it to see what SAM or a learning rate does to the sharpness; an iteration costs about two
    gradients, and the memory of one more model.

    Args:
        loss_fn: no argument; the loss, or a tuple that begins with it.
        variables: θ.
        k: how many.
        iterations: at least k; more is more exact. At most the count of θ's numbers, when all
            eigenvalues are exact.
        seed: an integer, or two, of the first direction.
        which: the largest by size, or by value, or the smallest by value. They come in that order.

    Lanczos, "An Iteration Method for the Solution of the Eigenvalue Problem", 1950.
    """
    variables = own(variables)
    sizes = [v.shape.num_elements() for v in variables]
    iterations = min(iterations, sum(sizes))
    if not 1 <= k <= iterations:
        raise ValueError(
            "`k` must be at least 1, and at most `iterations` and the count of all numbers, "
            f"{sum(sizes)}. Received: k={k}, iterations={iterations}"
        )
    H = lambda q: _flat(product(loss_fn, variables, _parts(q, variables))[1])  # noqa: E731, N806
    q, alpha, beta = _lanczos(H, _flat([full(v) for v in variables]), iterations, seed)
    matrix = tf.linalg.diag(alpha) + tf.linalg.diag(beta[:-1], k=1) + tf.linalg.diag(beta[:-1], k=-1)
    values, s = tf.linalg.eigh(matrix)
    key = {"magnitude": tf.abs(values), "largest": values, "smallest": -values}[which]
    order = tf.argsort(key, direction="DESCENDING", stable=True)[:k]
    s = tf.gather(s, order, axis=1)
    vectors = tf.matmul(s, q, transpose_a=True)
    shaped = [
        tf.reshape(part, [k, *v.shape])
        for part, v in zip(tf.split(vectors, sizes, 1), variables, strict=True)
    ]
    return Eigenpairs(tf.gather(values, order), tf.abs(beta[-1] * s[-1]), shaped)


def _lanczos(H: Callable, like: tf.Tensor, iterations: int, seed: Seed) -> tuple:  # noqa: N803
    """The orthonormal q, [iterations, n], and α and β."""
    own_seeds = seeds(seed, iterations + 1)
    zeros = tf.zeros([iterations], like.dtype)

    def body(i: tf.Tensor, q: tf.Tensor, basis: tf.Tensor, alpha: tf.Tensor, beta: tf.Tensor):
        here = tf.range(iterations) == i
        basis = tf.where(here[:, None], q, basis)
        w = H(q)
        size = norm(w)
        alpha = tf.where(here, tf.tensordot(q, w, 1), alpha)
        w = _orthogonal(w, basis)
        length = norm(w)
        spent = length <= 1e3 * _epsilon(like.dtype) * size  # nothing but rounding is left of w
        fresh = _orthogonal(normal(like, own_seeds[i + 1]), basis)
        beta = tf.where(here, tf.where(spent, tf.zeros_like(length), length), beta)
        w = tf.where(spent, fresh, w)
        return i + 1, tf.math.divide_no_nan(w, norm(w)), basis, alpha, beta

    q = normal(like, own_seeds[0])
    basis = tf.zeros([iterations, like.shape[0]], like.dtype)
    start = [0, q / norm(q), basis, zeros, zeros]
    return tf.while_loop(lambda i, *_: i < iterations, body, start)[2:]


def _orthogonal(w: tf.Tensor, basis: tf.Tensor) -> tf.Tensor:
    """w without its part in the space of the basis; twice, as rounding leaves some."""
    for _ in range(2):
        w = w - tf.linalg.matvec(basis, tf.linalg.matvec(basis, w), transpose_a=True)
    return w


def _epsilon(dtype: tf.DType) -> float:
    return 2.0**-52 if dtype == tf.float64 else 2.0**-23


def _flat(tensors: Sequence) -> tf.Tensor:
    """Tensors as one vector; float64 if one of them is."""
    dtype = tf.float64 if any(x.dtype == tf.float64 for x in tensors) else tf.float32
    return tf.concat([tf.cast(tf.reshape(x, [-1]), dtype) for x in tensors], 0)


def _parts(vector: tf.Tensor, variables: list) -> list[tf.Tensor]:
    """The vector as tensors of the variables' shapes."""
    parts = tf.split(vector, [v.shape.num_elements() for v in variables])
    return [tf.reshape(part, v.shape) for part, v in zip(parts, variables, strict=True)]
