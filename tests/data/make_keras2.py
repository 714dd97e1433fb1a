"""Writes keras2.zip: states of Keras 2's OptimizerV2 and of TensorFlow Addons'.

pip install tensorflow tf_keras typeguard==2.13.3; pip install --no-deps tensorflow_addons
TF_USE_LEGACY_KERAS=1 python tests/data/make_keras2.py
"""

import pathlib
import sys
import tempfile

import numpy as np
import steps
import tensorflow as tf
import tf_keras
from tf_keras.optimizers import legacy

sys.modules.setdefault("keras", tf_keras)  # which Addons imports under its old name

from tensorflow_addons.optimizers import LAMB, SGDW, AdamW  # noqa: E402

schedule = tf_keras.optimizers.schedules.PolynomialDecay(0.05, 40, 0.01)
RULES = {
    "Adam": lambda: legacy.Adam(0.01, amsgrad=True, epsilon=1e-3, clipnorm=1.0, decay=0.1),
    "SGD": lambda: legacy.SGD(0.01, momentum=0.9, nesterov=True, global_clipnorm=1.5),
    "SGD-scheduled": lambda: legacy.SGD(schedule, momentum=0.9),
    "RMSprop": lambda: legacy.RMSprop(0.01, momentum=0.8, centered=True, epsilon=1e-3),
    "RMSprop-plain": lambda: legacy.RMSprop(0.01),
    "Adagrad": lambda: legacy.Adagrad(0.1, epsilon=1e-2),
    "Adadelta": lambda: legacy.Adadelta(1.0, epsilon=1e-4),
    "Adamax": lambda: legacy.Adamax(0.01, epsilon=1e-3),
    "Nadam": lambda: legacy.Nadam(0.01, epsilon=1e-3),
    "Ftrl": lambda: legacy.Ftrl(
        0.1,
        l1_regularization_strength=0.01,
        l2_regularization_strength=0.02,
        l2_shrinkage_regularization_strength=0.03,
        beta=0.1,
    ),
    "AdamW": lambda: AdamW(0.01, 0.05, exclude_from_weight_decay=["bias"]),
    "SGDW": lambda: SGDW(0.01, 0.05, momentum=0.9),
    "LAMB": lambda: LAMB(0.05, weight_decay_rate=0.1),
}
CHECKPOINTS = ("Nadam", "Adam")  # which are written as checkpoints, too


def model():
    tf_keras.backend.clear_session()
    layers = [tf_keras.layers.Dense(4, name="hidden"), tf_keras.layers.Dense(2, name="head")]
    made = tf_keras.Sequential([tf_keras.layers.Input((3,)), *layers])
    made.set_weights(list(steps.start().values()))
    return made


def train(made, gradients):
    for step in gradients:
        pairs = zip(map(tf.constant, step.values()), made.trainable_variables, strict=True)
        made.optimizer.apply_gradients(pairs)
    return steps.flat(dict(zip(steps.SHAPES, map(np.asarray, made.get_weights()), strict=True)))


def main():
    files, begin, end = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, make in RULES.items():
            made = model()
            made.compile(make(), "mse")
            begin[name] = train(made, steps.gradients(steps.BEFORE, 1))
            made.save(folder / f"{name}.h5", save_format="h5")
            if name in CHECKPOINTS:
                parts = dict(model=made, optimizer=made.optimizer)
                tf.train.Checkpoint(**parts).write(str(folder / f"{name}-checkpoint"))
            end[name] = train(made, steps.gradients(steps.AFTER, 2))
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    steps.write("keras2.zip", files, begin, end)


if __name__ == "__main__":
    main()
