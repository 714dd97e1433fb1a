# %% [markdown]
# # Training on a TPU
#
# `TPUStrategy` with `fit`, several steps per call, bfloat16, checkpoints and resuming. Choose a
# runtime with a TPU first. Without one, the notebook says so and runs on what there is.
#
# **What has been verified.** The tests have the update step of every optimizer traced by
# TensorFlow's own `TPUStrategy`, run on emulated cores, and compiled by the TPU compiler, libtpu
# (`tf_decoupled.testing.tpu`). They run this notebook, too, on two emulated cores. We have not
# executed any of it on a TPU: its speed, the numbers of the chip, and whether Colab's image of
# today agrees with the versions below, are unknown to us.

# %% [markdown]
# ## Installation
#
# * TPUs need the wheel `tensorflow-tpu`, and 2.20.0 is its newest version. With plain `tensorflow`
#   the connection fails: "No OpKernel was registered to support Op 'ConfigureDistributedTPU'".
# * By default pip takes the newest libtpu with it, and `import tensorflow` then aborts:
#   "ConfigureDistributedTpuOp_DoWork not available in this library". 0.0.18 and 0.0.24 can be
#   imported.
# * Both wheels contain the same package, `tensorflow`, and one overwrites the other. Hence
#   `--no-deps` for this library: it would bring plain `tensorflow` back.
# * Outside of Google's cloud, set TPU_SKIP_MDS_QUERY=1: the import asks a server there about the
#   machine, and waits minutes for an answer.

# %%
import keras
import numpy as np
import tensorflow as tf

import tf_decoupled as td
from tf_decoupled.experiments import data

# %% [markdown]
# ## Strategy
#
# "local" is a TPU on the machine itself, as on Colab. `connect` finds it, connects to it and
# initializes it; do this before TensorFlow makes its first tensor.


# %%
def find_strategy():
    """All cores of this machine's TPU; TensorFlow's default strategy where there is none."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect("local")
    except (ValueError, tf.errors.OpError) as error:
        print(f"No TPU was found: {type(error).__name__}. Running on the default strategy.")
        return tf.distribute.get_strategy()
    strategy = tf.distribute.TPUStrategy(resolver)
    print(f"Running on {strategy.num_replicas_in_sync} TPU cores.")
    return strategy


strategy = find_strategy()

# %% [markdown]
# ## Data
#
# A TPU step is compiled for one shape, so the last, smaller batch is dropped. The batch size is
# that of all cores together. The order of an epoch depends on its number alone, so that a resumed
# training sees what the interrupted one would have seen.

# %%
BATCH_SIZE = 64 * strategy.num_replicas_in_sync
EPOCHS = 2

dataset = data.standardise(data.load("fashion_mnist_small"))
steps = len(dataset.train.labels) // BATCH_SIZE


def batches(split, epoch=None):
    rows = tf.data.Dataset.from_tensor_slices(tuple(split))
    if epoch is not None:
        rows = rows.shuffle(len(split.labels), seed=epoch)
    return rows.batch(BATCH_SIZE, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


# %% [markdown]
# ## Model and optimizer
#
# Both are made in the strategy's scope; elsewhere their variables would be on the host, and that
# raises.
#
# * `mixed_bfloat16`: float32 weights, bfloat16 products. bfloat16 has the range of float32, so no
#   loss is scaled.
# * `steps_per_execution` runs so many steps per call from Python, whose time a fast step would wait
#   for otherwise.
# * `jit_compile=False`: the strategy compiles the whole step anyway. XLA for the host isn't in the
#   TPU wheel ("could not find registered transfer manager for platform Host"), and Keras would ask
#   for it here if the TPU wheel has found no TPU.

# %%
keras.config.set_dtype_policy("mixed_bfloat16")


def build_model(**options):
    """The same weights at each call, under the same names, by which a checkpoint finds them."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.layers.Input((28, 28, 1)),
                keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="conv_1"),
                keras.layers.Conv2D(32, 3, strides=2, activation="relu", name="conv_2"),
                keras.layers.Flatten(name="features"),
                keras.layers.Dense(10, name="dense"),
                keras.layers.Activation("linear", dtype="float32", name="logits"),
            ],
            name="classifier",
        )
        optimizer = td.AdamW(
            td.schedules.Cosine(0.002, EPOCHS * steps),
            weight_decay=0.05,
            decay_mask=td.masks.matrices,
            global_clipnorm=1.0,
            **options,
        )
        optimizer.build(model.trainable_variables)
        model.compile(
            optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            steps_per_execution=steps // 3,
            jit_compile=False,
        )
    return model


# %% [markdown]
# ## Train, interrupt, resume
#
# A checkpoint after each epoch; `train` starts from the newest one in its folder. It is the same
# call the first time and after every interruption. A checkpoint that doesn't fit the optimizer
# raises.


# %%
def train(model, folder, epochs):
    """Trains on, until so many epochs are done, by this model or by an earlier one."""
    done = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer, epochs=done)
    manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=2)
    if manager.restore_or_initialize():
        print(f"Restored update {model.optimizer.iterations.numpy()}")
    while done < epochs:
        model.fit(batches(dataset.train, epoch=int(done)), shuffle=False, verbose=2)
        done.assign_add(1)
        manager.save()


model = build_model()
train(model, "checkpoints", epochs=1)

resumed = build_model()
train(resumed, "checkpoints", epochs=EPOCHS)

# %% [markdown]
# The model that was not interrupted, to compare with:

# %%
for epoch in range(1, EPOCHS):
    model.fit(batches(dataset.train, epoch), shuffle=False, verbose=2)
pairs = zip(resumed.get_weights(), model.get_weights(), strict=True)
difference = max(np.abs(a - b).max() for a, b in pairs)
print(f"Largest difference of a weight between resumed and uninterrupted: {difference}")

# %%
loss, accuracy = resumed.evaluate(batches(dataset.test), verbose=0)
print(f"Test accuracy: {100 * accuracy:.1f} %")

# %% [markdown]
# ## bfloat16 weights
#
# With the policy "bfloat16" the weights themselves have 8 significant bits, and a step smaller than
# 1/256 of a weight would be lost. `low_precision="master"`, the default, keeps a float32 copy of
# each weight; "stochastic" rounds up or down at random, right on average, and needs no memory.

# %%
keras.config.set_dtype_policy("bfloat16")
low = build_model(low_precision="stochastic")
low.fit(batches(dataset.train, epoch=0), shuffle=False, verbose=2)
for policy, each in (("mixed_bfloat16", resumed), ("bfloat16", low)):
    layer = each.get_layer("dense")
    print(f"{policy}: weights {layer.variable_dtype}, products {layer.compute_dtype}")

# %% [markdown]
# ## What else fails, and why
#
# * A model or an optimizer made outside of `strategy.scope()`: its variables are not on the TPU.
# * A batch of another shape: it needs another program. `drop_remainder=True` avoids it.
# * `tf.print`, `tf.py_function` and summaries inside the step: a TPU has no strings and no Python.
#   Use a callback, which runs between two calls.
# * `jit_compile=True` around the step: see above.
# * `tf.linalg.lu`, `tf.linalg.logm` and complex128 inside the step: they have no TPU kernel.
