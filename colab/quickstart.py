# %% [markdown]
# # Quickstart
#
# AdamW with a cosine schedule and a decay mask: train, see what decays, change a hyperparameter,
# save, and resume as if nothing had happened. The data are 5,000 images of Fashion-MNIST that come
# with the package. It takes about half a minute on two CPU cores.

# %%
import keras
import numpy as np
import tensorflow as tf

import tf_decoupled as td
from tf_decoupled.experiments import data

keras.utils.set_random_seed(0)
tf.config.experimental.enable_op_determinism()  # so that two runs can be compared bit by bit

# %% [markdown]
# ## Data and model
#
# `standardise` gives float32 images of mean 0 and variance 1; labels are 0 to 9.

# %%
dataset = data.standardise(data.load("fashion_mnist_small"))
x, y = dataset.train
print(f"{len(y)} training images of shape {x.shape[1:]}, {dataset.classes} classes")

model = keras.Sequential(
    [
        keras.layers.Input(x.shape[1:]),
        keras.layers.Conv2D(16, 3, strides=2, use_bias=False),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
        keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(dataset.classes),
    ]
)

# %% [markdown]
# ## Optimizer
#
# It is a Keras optimizer: `compile`, `fit` and callbacks work as always.
#
# * The learning rate falls from 0.003 to 0 along half a cosine. A schedule counts updates.
# * In a step, lr_t · λ · θ is taken off each weight that decays (`decay_coupling` offers the other
#   conventions, among them the paper's).
# * `td.masks.matrices` lets kernels decay, and leaves out biases and the scales of normalizations.

# %%
BATCH_SIZE, EPOCHS = 128, 4
steps = EPOCHS * -(-len(y) // BATCH_SIZE)

optimizer = td.AdamW(
    td.schedules.Cosine(0.003, steps),
    weight_decay=0.05,
    decay_mask=td.masks.matrices,
)
model.compile(
    optimizer,
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)

# %% [markdown]
# ## What decays, and why
#
# The mask is asked once per variable, when the optimizer is built: at the first step, or here.

# %%
optimizer.build(model.trainable_variables)
print(optimizer.decay_report())

# %% [markdown]
# ## Train

# %%
history = model.fit(
    x, y, BATCH_SIZE, epochs=2, validation_data=tuple(dataset.validation), verbose=2
)
print(f"Learning rate after {int(optimizer.iterations)} of {steps} updates:", end=" ")
print(f"{float(optimizer.learning_rate):.6f}")

# %% [markdown]
# ## Hyperparameters are live
#
# What was given as a number can be assigned, also between two calls of a step that is already
# traced; it acts at the next update and is saved with the state. What was given as a schedule
# follows its schedule.

# %%
optimizer.weight_decay = 0.1
print(f"{float(optimizer.weight_decay):.2f}")

# %% [markdown]
# ## Save and resume
#
# A `.keras` file holds the model, the optimizer's state, its schedule, its mask and its
# hyperparameters as they are now. The loaded model does in the next two epochs exactly what the
# original does.

# %%
model.save("quickstart.keras")
resumed = keras.models.load_model("quickstart.keras")
print(f"λ = {float(resumed.optimizer.weight_decay):.2f}", resumed.optimizer.decay_mask)


# %%
def finish(model):
    """The epochs that are left, in an order of images that the seed decides."""
    keras.utils.set_random_seed(1)
    model.fit(x, y, BATCH_SIZE, initial_epoch=2, epochs=EPOCHS, verbose=2)


finish(model)
finish(resumed)
pairs = zip(model.get_weights(), resumed.get_weights(), strict=True)
equal = all(np.array_equal(a, b) for a, b in pairs)
print(f"Every weight is equal, bit for bit: {equal}")

# %%
loss, accuracy = resumed.evaluate(*dataset.test, verbose=0)
print(f"Test accuracy: {100 * accuracy:.1f} %")
