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


def rectification(
    beta_2: tf.Tensor, correction: tf.Tensor, t: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """ρ, on how many gradients v rests, at least 4, and RAdam's r, 0 at ρ = 4.

    ρ∞ = 2 / (1 − β₂) − 1,  ρ = ρ∞ − 2 t β₂ᵗ / (1 − β₂ᵗ)
    r = √((ρ − 4) (ρ − 2) ρ∞ / ((ρ∞ − 4) (ρ∞ − 2) ρ));  correction: 1 − β₂ᵗ.
    """
    longest = 2 / (1 - beta_2) - 1
    ρ = longest - 2 * t * (1 - correction) / correction
    ρ = tf.where(t > 4, tf.maximum(ρ, 4.0), 4.0)  # ρ < t, which float32 may not see
    r = tf.math.divide_no_nan((ρ - 4) * (ρ - 2) * longest, (longest - 4) * (longest - 2) * ρ)
    return ρ, tf.sqrt(r)


def rms(x: tf.Tensor) -> tf.Tensor:
    """Root mean square of all entries."""
    return tf.sqrt(tf.reduce_mean(x * x))


def norm(x: tf.Tensor, axes: Sequence[int] | None = None) -> tf.Tensor:
    """Euclidean norm, by the largest entry: squares of 1e30 don't overflow float32.

    Of all entries, a scalar; or along some axes, which stay, with length 1.
    """
    keepdims = axes is not None
    largest = tf.reduce_max(tf.abs(x), axes, keepdims)
    unit = tf.where(largest > 0, largest, 1.0)
    return unit * tf.sqrt(tf.reduce_sum(tf.square(x / unit), axes, keepdims))


def norms(x: tf.Tensor, stacked: bool) -> tf.Tensor:
    """The norm of each array of a stack [n, ...]: [n]; or that of one array alone: [1]."""
    x = x if stacked else tf.expand_dims(x, 0)
    return tf.reshape(norm(x, list(range(1, x.shape.rank))), [-1])


def clip_factor(length: tf.Tensor, limit: tf.Tensor | float) -> tf.Tensor:
    """min(1, limit / length), and NaN where the length isn't finite."""
    return tf.where(length > limit, limit / length, 1.0) + 0 * length


def trust_ratio(p: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """‖p‖ / ‖u‖, and 1 where either is 0 (LAMB, LARS)."""
    p_norm, u_norm = norm(p), norm(u)
    ratio = tf.minimum(p_norm / tf.maximum(u_norm, 1e-38), p.dtype.max)
    return tf.where((p_norm > 0) & (u_norm > 0), ratio, 1.0)


def rescaled(u: tf.Tensor, length: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """wanted · u / length, and u itself where either is 0; no ratio that could overflow."""
    known = (length > 0) & (wanted > 0)
    return tf.where(known, wanted * (u / tf.where(known, length, 1.0)), u)


def soft_threshold(x: tf.Tensor, by: tf.Tensor) -> tf.Tensor:
    """x, nearer to 0 by so much, or 0: the minimum over y of ½ (y − x)² + by |y|."""
    return tf.sign(x) * tf.maximum(tf.abs(x) - by, 0.0)


def shrunk(p: tf.Tensor, κ: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """(1 − κ)ᵏ p: what k decays leave of p."""
    return tf.exp(tf.math.multiply_no_nan(tf.math.log1p(-κ), k)) * p


def shrunk_series(β: tf.Tensor | float, κ: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Σⱼ (1 − κ)ᵏ⁻ʲ βʲ, j = 1 … k: what k decays leave of k terms that shrink by β."""
    keep, log_β = tf.math.log1p(-κ), tf.math.log(tf.convert_to_tensor(β, κ.dtype))
    larger = tf.maximum(keep, log_β)
    gap = tf.minimum(keep, log_β) - larger
    terms = tf.math.expm1(tf.math.multiply_no_nan(gap, k)) / tf.math.expm1(gap)
    return tf.exp((k - 1) * larger + log_β) * tf.where(gap == 0, k, terms)


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


def normal_of(like: tf.Tensor, seed: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """N(0, 1), shaped as `like`: the numbers of this step, of the variable with this seed."""
    return normal(like, tf.stack([seed, tf.cast(step, seed.dtype)]))
