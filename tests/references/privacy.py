"""Differential privacy."""

import numpy as np
import tensorflow as tf

from references.momentum import sgdw
from references.paper import reference


def noise(shape, seed, t):
    """N(0, I) by Box and Muller, from TensorFlow's bits of this seed, as 24 of each 32."""
    seeds = [seed * 0x9E3779B1 % 2**31, t]
    draw = tf.raw_ops.StatelessRandomUniformFullInt
    bits = draw(shape=[2, *shape], seed=seeds, dtype=tf.int32).numpy().view("uint32") >> 8
    u, v = (bits + 0.5) / 2**24
    return np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)


@reference
def dpsgd(steps, clip_norm=1.0, noise_multiplier=1.0, lot_size=1.0, seed=1, momentum=0.0):
    """Abadi et al. 2016, algorithm 1, from the clipped mean on; N(0, σ² C² I) / L is added."""
    deviation = noise_multiplier * clip_norm / lot_size
    noisy = (
        (theta, g + deviation * noise(np.shape(g), seed, t), lr, delta)
        for t, (theta, g, lr, delta) in enumerate(steps, 1)
    )
    return sgdw.rule(noisy, momentum)
