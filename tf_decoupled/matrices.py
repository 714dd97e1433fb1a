"""Formulas of matrices that two or more optimizers share: [..., rows, columns] to tensors."""

import math
from collections.abc import Sequence

import tensorflow as tf

from tf_decoupled.math import norm

JORDAN = (3.4445, -4.7750, 2.0315)  # a, b, c of Muon's Newton–Schulz


def as_matrix(x: tf.Tensor) -> tf.Tensor:
    """A kernel of two or more axes as [all the others, out], a vector as one column."""
    rows, columns = matrix_shape(x)
    return tf.reshape(x, [rows, columns])


def matrix_shape(x: tf.Tensor) -> tuple[int, int]:
    """The rows and columns of `as_matrix`."""
    if len(x.shape) < 2:
        return math.prod(x.shape), 1
    return math.prod(x.shape[:-1]), x.shape[-1]


def newton_schulz(
    x: tf.Tensor,
    coefficients: Sequence[tuple[float, float, float]],
    margin: float = 0.0,
    precise: bool = False,
) -> tf.Tensor:
    """About U Vᵀ, where x = U Σ Vᵀ: every singular value is brought near to 1.

        X ← x / ((1 + margin) ‖x‖ + 1e-7)
        for a, b, c in coefficients:  S = X Xᵀ,  X ← a X + (b S + c S²) X

    x: [..., rows, columns], the leading axes a stack of matrices. The longer axis is summed over.
    """
    product = full_product if precise else tf.matmul
    tall = x.shape[-2] > x.shape[-1]
    x = tf.linalg.matrix_transpose(x) if tall else x
    length = tf.sqrt(tf.reduce_sum(x * x, [-2, -1], keepdims=True))
    x = x / ((1 + margin) * length + 1e-7)
    for a, b, c in coefficients:
        gram = product(x, x, transpose_b=True)
        x = a * x + product(b * gram + c * product(gram, gram), x)
    return tf.linalg.matrix_transpose(x) if tall else x


def full_product(a: tf.Tensor, b: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
    """The product of matrices with all of float32's digits on every device.

    GPUs round the factors of `tf.matmul` to 11 significant bits (TF32), TPUs to 8 (bfloat16), and
    add the products in float32. Here each factor is a sum of three parts of 8 bits, which neither
    rounds; of their nine products the three that are below float32's last bit are left out.
    """
    if a.dtype != tf.float32:
        return tf.matmul(a, b, transpose_b=transpose_b)  # float64 is rounded nowhere
    b = b if transpose_b else tf.linalg.matrix_transpose(b)
    a_unit, b_unit = largest_of_rows(a), largest_of_rows(b)
    a, b = thirds(a / a_unit), thirds(b / b_unit)
    pairs = [(1, 1), (0, 2), (2, 0), (0, 1), (1, 0), (0, 0)]  # the smallest are added first
    total = tf.add_n([tf.matmul(a[i], b[j], transpose_b=True) for i, j in pairs])
    return a_unit * total * tf.linalg.matrix_transpose(b_unit)


def largest_of_rows(x: tf.Tensor) -> tf.Tensor:
    """The largest |entry| of each row, [..., rows, 1]; 1 for rows of zeros."""
    largest = tf.reduce_max(tf.abs(x), -1, keepdims=True)
    return tf.where(largest > 0, largest, 1.0)


def thirds(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Three arrays whose sum is x, for |x| ≤ 1: bfloat16 holds them, but for 2⁻²⁷ in the last.

    Rounded to multiples, because XLA may leave out a cast to bfloat16 and back, and may contract
    the sums that split a number otherwise.
    """
    first = tf.round(x * 2.0**8) * 2.0**-8
    second = tf.round((x - first) * 2.0**17) * 2.0**-17
    return first, second, x - first - second


def frobenius(x: tf.Tensor) -> tf.Tensor:
    """The norm of each matrix, [..., 1, 1]."""
    return norm(x, [-2, -1])


def spectral_norm(a: tf.Tensor) -> tf.Tensor:
    """A lower bound of the norm of a symmetric matrix [n, n], two rounds of power iteration.

    They begin at the longest row; the bound is exact for matrices of rank one.
    """
    unit = tf.maximum(tf.reduce_max(tf.abs(a)), 1e-30)
    a = a / unit
    longest = tf.argmax(tf.reduce_sum(a * a, -1))
    x = tf.linalg.matvec(a, tf.gather(a, longest))
    x = tf.math.divide_no_nan(x, tf.sqrt(tf.reduce_sum(x * x)))
    return unit * tf.sqrt(tf.reduce_sum(tf.square(tf.linalg.matvec(a, x))))


def identity(like: tf.Tensor) -> tf.Tensor:
    """I, of the rows and precision of square matrices [..., n, n]."""
    return tf.linalg.eye(like.shape[-1], dtype=like.dtype)


def started(q: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """q, or `start` while q is what a slot begins with: zero."""
    return tf.where(tf.reduce_any(q != 0), q, start)


@tf.function(autograph=False)  # as a graph also where a step is run eagerly: it is a long loop
def inverse_root(
    a: tf.Tensor, p: int, ridge: tf.Tensor, rounds: int, before: tf.Tensor
) -> tf.Tensor:
    """(A + ridge ‖A‖ I)^(−1/p) of symmetric A ≥ 0, [..., n, n]; p: a power of 2.

        M = z A,  H = z^(1/p) I,  z = (1 + p) / (2 ‖A‖)
        T = ((1 + p) I − M) / p,  M ← Tᵖ M,  H ← T H

    Coupled Newton, by products of matrices alone: M tends to I. A ridge of 1e-6 takes 20 rounds,
    and float32 then knows 3 digits of the root. Where A Hᵖ isn't I at last, to 0.1, it is `before`.
    """
    size, unit = frobenius(a), identity(a)
    size = tf.where(size > 0, size, 1.0)
    a = a / size + ridge * unit
    z = (1 + p) / (2 * frobenius(a))

    def one_round(i, both):
        t = ((1 + p) * unit - both[0]) / p
        return i + 1, full_product(tf.stack([power(t, p), t]), both)

    begin = tf.stack([z * a, tf.broadcast_to(z ** (1 / p) * unit, a.shape)])
    h = tf.while_loop(lambda i, _: i < rounds, one_round, [0, begin])[1][1]
    error = tf.reduce_max(tf.abs(full_product(a, power(h, p)) - unit), [-2, -1], keepdims=True)
    return tf.where(error < 0.1, h * size ** (-1 / p), before)


def power(x: tf.Tensor, p: int) -> tf.Tensor:
    """xᵖ of square matrices; p: a power of 2."""
    return x if p == 1 else power(full_product(x, x), p // 2)


@tf.function(autograph=False)
def orthogonal_factor(x: tf.Tensor) -> tf.Tensor:
    """Q of x = Q R, for a square x [n, n], by Householder's reflections.

    TensorFlow's own can't be mapped over a stack, and is faster where it needn't be. Here are sums
    of products in place of matrix products: GPUs and TPUs don't round their factors, so that Q is
    orthogonal to float32's last digits.
    """
    n = x.shape[-1]
    rows = tf.range(n)

    def reflect(j, r, q):
        v = tf.where(rows >= j, tf.gather(r, j, axis=1), 0.0)
        # Of a matrix without full rank rounding errors are left, whose squares float32 can't hold.
        v = tf.math.divide_no_nan(v, tf.reduce_max(tf.abs(v)))
        length = tf.sqrt(tf.reduce_sum(v * v))
        pivot = tf.gather(v, j)
        v = v + tf.where(rows == j, tf.where(pivot < 0, -length, length), 0.0)
        v = tf.math.divide_no_nan(v, tf.sqrt(tf.reduce_sum(v * v)))
        r = r - 2 * v[:, None] * tf.reduce_sum(v[:, None] * r, 0)
        q = q - 2 * tf.reduce_sum(q * v, 1, keepdims=True) * v
        return j + 1, r, q

    begin = [0, x, identity(x)]
    return tf.while_loop(lambda j, *_: j < n, reflect, begin)[2]


def top_singular_direction(x: tf.Tensor, rounds: int) -> tf.Tensor:
    """About u₁ v₁ᵀ of the largest singular value, by power iteration; 0 where x is 0.

        v ← Xᵀ X v / ‖Xᵀ X v‖ in each round,  then u = X v / ‖X v‖

    x: [rows, columns]. v starts as the cosines of 0, 1, 2, …, to which no gradient is at right
    angles by its pattern of zeros or signs.
    """
    unit = lambda x: tf.math.divide_no_nan(x, tf.sqrt(tf.reduce_sum(x * x)))  # noqa: E731
    x = tf.math.divide_no_nan(x, norm(x))
    u = tf.reduce_sum(x * [math.cos(j) for j in range(x.shape[-1])], -1, keepdims=True)
    for _ in range(rounds):
        v = unit(tf.matmul(x, u, transpose_a=True))
        u = tf.matmul(x, v)
    return unit(u) * tf.linalg.matrix_transpose(v)
