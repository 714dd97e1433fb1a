"""The outermost eigenvalues of a Hessian, by Lanczos's method."""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import tensorflow as tf

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import checked
from tf_decoupled.gradients.curvature import product
from tf_decoupled.gradients.kinds import COUNT, Count, Loss, Seed, Variables
from tf_decoupled.gradients.random import seeds
from tf_decoupled.gradients.tape import epsilon, flat, own, parts
from tf_decoupled.math import norm, normal

HowMany = Annotated[int, kinds.whole("a whole number", -COUNT, below=COUNT)]
Which = Annotated[str, kinds.choice("magnitude", "largest", "smallest")]


class Eigenpairs(NamedTuple):
    """Eigenvalues, and how well they are known.

    values: [k]. residuals: [k], ‖H x − λ x‖ as Lanczos's method estimates it: so near is a true
    eigenvalue. vectors: one tensor per variable, [k, *shape]; together each has length 1.
    """

    values: tf.Tensor
    residuals: tf.Tensor
    vectors: list[tf.Tensor]


@checked
def hessian_eigenvalues(
    loss_fn: Loss,
    variables: Variables,
    k: HowMany = 1,
    *,
    iterations: Count = 30,
    seed: Seed = 0,
    which: Which = "magnitude",
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
        iterations: at least k; more is more exact. With as many as θ has numbers, all eigenvalues
            are exact, and more are not made.
        seed: an integer, or two, of the first direction.
        which: the largest by size, or by value, or the smallest by value. They come in that order.

    Lanczos, "An Iteration Method for the Solution of the Eigenvalue Problem", 1950.
    """
    variables = own(variables)
    n = sum(v.shape.num_elements() for v in variables)
    iterations = min(iterations, n)
    if not 1 <= k <= iterations:
        raise ValueError(
            "`k` must be at least 1, and at most `iterations` and the count of all numbers, "
            f"{n}. Received: k={k}, iterations={iterations}"
        )

    def times_hessian(q: tf.Tensor) -> tf.Tensor:
        return flat(product(loss_fn, variables, parts(q, variables))[1])

    q, alpha, beta = _lanczos(times_hessian, flat(variables), iterations, seeds(seed, iterations))
    beside = tf.linalg.diag(beta[:-1], k=1)
    values, s = tf.linalg.eigh(tf.linalg.diag(alpha) + beside + tf.transpose(beside))
    key = {"magnitude": tf.abs(values), "largest": values, "smallest": -values}[which]
    order = tf.argsort(key, direction="DESCENDING", stable=True)[:k]
    s = tf.gather(s, order, axis=1)
    vectors = parts(tf.matmul(s, q, transpose_a=True), variables)
    return Eigenpairs(tf.gather(values, order), tf.abs(beta[-1] * s[-1]), vectors)


def _lanczos(matrix: Callable, like: tf.Tensor, iterations: int, seeds: tf.Tensor) -> tuple:
    """The orthonormal q, [iterations, n], and α and β."""
    zeros = tf.zeros([iterations], like.dtype)

    def body(i: tf.Tensor, q: tf.Tensor, basis: tf.Tensor, alpha: tf.Tensor, beta: tf.Tensor):
        here = tf.range(iterations) == i
        basis = tf.where(here[:, None], q, basis)
        w = matrix(q)
        alpha = tf.where(here, tf.tensordot(q, w, 1), alpha)
        w = _orthogonal(w, basis)
        length = norm(w)
        size = tf.reduce_max(tf.abs(tf.concat([alpha, beta, length[None]], 0)))
        spent = length <= 100 * epsilon(like.dtype) * size  # nothing but rounding is left of w
        beta = tf.where(here, tf.where(spent, tf.zeros_like(length), length), beta)
        w = tf.where(spent, _orthogonal(normal(like, seeds[i]), basis), w)
        return i + 1, tf.math.divide_no_nan(w, norm(w)), basis, alpha, beta

    q = normal(like, seeds[0] + 1)
    basis = tf.zeros([iterations, like.shape[0]], like.dtype)
    start = [0, q / norm(q), basis, zeros, zeros]
    return tuple(tf.while_loop(lambda i, *_: i < iterations, body, start)[2:])


def _orthogonal(w: tf.Tensor, basis: tf.Tensor) -> tf.Tensor:
    """w without its part in the space of the basis; twice, as rounding leaves some."""
    for _ in range(2):
        w = w - tf.linalg.matvec(basis, tf.linalg.matvec(basis, w), transpose_a=True)
    return w
