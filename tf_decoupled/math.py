"""Formulas that two or more optimizers share, named as in the literature: tensors to tensors."""

import math
from collections.abc import Sequence

import tensorflow as tf


def ema(average: tf.Tensor, x: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """Exponential moving average: β a + (1 − β) x."""
    return beta * average + (1 - beta) * x


def one_minus_power(beta: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    """1 − βᵗ, as −expm1(t log1p(β − 1)): float32 loses four digits of 1 − 0.999 otherwise."""
    return -tf.math.expm1(t * tf.math.log1p(beta - 1))


def debiased_momentum(beta: tf.Tensor, correction: tf.Tensor) -> tf.Tensor:
    """The β_t with which a ← β_t a + (1 − β_t) x is the bias-corrected average: 0 at t = 1.

    β_t = β (1 − βᵗ⁻¹) / (1 − βᵗ) = 1 − (1 − β) / (1 − βᵗ);  correction: 1 − βᵗ.
    """
    return 1 - (1 - beta) / correction


def rms(x: tf.Tensor) -> tf.Tensor:
    """Root mean square of all entries."""
    return tf.sqrt(tf.reduce_mean(x * x))


def norm(x: tf.Tensor) -> tf.Tensor:
    """Euclidean norm of all entries, by the largest: squares of 1e30 don't overflow float32."""
    largest = tf.reduce_max(tf.abs(x))
    unit = tf.where(largest > 0, largest, 1.0)
    return unit * tf.sqrt(tf.reduce_sum(tf.square(x / unit)))


def trust_ratio(p: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """‖p‖ / ‖u‖, and 1 where either is 0 (LAMB, LARS)."""
    p_norm, u_norm = norm(p), norm(u)
    ratio = tf.minimum(p_norm / tf.maximum(u_norm, 1e-38), p.dtype.max)
    return tf.where((p_norm > 0) & (u_norm > 0), ratio, 1.0)


def shrunk(p: tf.Tensor, κ: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """(1 − κ)ᵏ p: what k decays leave of p."""
    return tf.exp(tf.math.multiply_no_nan(tf.math.log1p(-κ), k)) * p


def shrunk_series(β: tf.Tensor, κ: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Σⱼ (1 − κ)ᵏ⁻ʲ βʲ, j = 1 … k: what k decays leave of k terms that shrink by β."""
    keep, log_β = tf.math.log1p(-κ), tf.math.log(β)
    larger = tf.maximum(keep, log_β)
    gap = tf.minimum(keep, log_β) - larger
    terms = tf.math.expm1(tf.math.multiply_no_nan(gap, k)) / tf.math.expm1(gap)
    return tf.exp((k - 1) * larger + log_β) * tf.where(gap == 0, k, terms)


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


def random_bits(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Random uint32, the same on every device; seed: two integers.

    TensorFlow's newer operations can't be mapped over a stack, and depend on the device.
    """
    bits = tf.raw_ops.StatelessRandomUniformFullInt(shape=shape, seed=seed, dtype=tf.int32)
    return tf.cast(bits, tf.uint32)


def normal(like: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """N(0, 1), shaped as `like`, by Box and Muller's formula; seed: two integers."""
    bits = tf.bitwise.right_shift(random_bits([2, *like.shape], seed), tf.constant(8, tf.uint32))
    u, v = tf.unstack((tf.cast(bits, like.dtype) + 0.5) * 2.0**-24)
    return tf.sqrt(-2.0 * tf.math.log(u)) * tf.cos(2.0 * math.pi * v)


def noise(like: tf.Tensor, seed: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """N(0, 1), shaped as `like`: other numbers for each seed and step, two integers."""
    return normal(like, tf.stack([seed, tf.cast(step, seed.dtype)]))
