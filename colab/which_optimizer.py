# %% [markdown]
# # Which optimizer?
#
# Ten optimizers of the catalogue on two problems: a valley in two dimensions, where one can watch
# them, and a small network on real images. It takes about a minute on two CPU cores, and decides
# nothing: `benchmarks/which_optimizer.py` tries all of them on seven problems, at many rates and
# from several seeds, and its results depend on the problem, too.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tf_decoupled as td
from tf_decoupled.experiments import data

keras.utils.set_random_seed(0)
print(td.list_optimizers("*adam*"))

# %% [markdown]
# ## Ten of them
#
# Each with a factor of its default rate that suits the valley, found by trying powers of 4, and
# the one for the network. Rates fall to 0 in a straight line; ScheduleFree averages in place of
# that, and keeps its own.

# %%
CHOSEN = {
    "SGDW": (td.SGDW, 1 / 16, 4),
    "AdamW": (td.AdamW, 64, 4),
    "NAdamW": (td.NAdamW, 64, 1),
    "AdEMAMix": (td.AdEMAMix, 16, 1),
    "ADOPT": (td.ADOPT, 64, 4),
    "Lion": (td.Lion, 256, 4),
    "LAMB": (td.LAMB, 64, 16),
    "RMSpropW": (td.RMSpropW, 16, 1),
    "Prodigy": (td.Prodigy, 1, 1),
    "ScheduleFree": (td.ScheduleFree, 64, 4),
}


def made(name, factor, steps):
    """The optimizer, without weight decay."""
    cls = CHOSEN[name][0]
    shared = dict(weight_decay=0.0, jit_compile=False)  # XLA would take longer than the training
    if cls is td.ScheduleFree:
        return cls(td.AdamW(1e-3 * factor, beta_1=0.0, **shared))
    rate = cls.declared["learning_rate"].default
    return cls(td.schedules.Linear(rate * factor, steps), **shared)


# %% [markdown]
# ## A valley
#
# Rosenbrock's function: it is easy to find the valley, and hard to walk along its bottom to the
# minimum at (1, 1).


# %%
def rosenbrock(p):
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def walk(name, steps=300):
    """Where the optimizer is after each step, and how low its evaluated value is in the end."""
    variable, optimizer = keras.Variable([-1.2, 1.0]), made(name, CHOSEN[name][1], steps)
    optimizer.build([variable])

    @tf.function
    def run():
        path = tf.TensorArray(tf.float32, steps)
        for i in tf.range(steps):
            path = path.write(i, variable.value)
            with tf.GradientTape() as tape:
                loss = rosenbrock(variable.value)
            optimizer.apply([tape.gradient(loss, variable.value)], [variable])
        return path.stack()

    path = run().numpy()
    if not optimizer.evaluates():
        return path, float(rosenbrock(variable.value))
    with optimizer.evaluation_weights():
        return path, float(rosenbrock(variable.value))


valley = {name: walk(name) for name in CHOSEN}

# %%
x, y = np.meshgrid(np.linspace(-1.8, 1.8, 150), np.linspace(-0.8, 2.2, 150))
figure, axes = plt.subplots(2, 5, figsize=(12, 5), layout="constrained")
for ax, (name, (path, loss)) in zip(axes.ravel(), valley.items(), strict=True):
    ax.contourf(x, y, np.log10(rosenbrock((x, y)) + 0.01), 12, cmap="Blues_r")
    ax.plot(*path.T, color="tab:red", linewidth=1)
    ax.plot(1, 1, "*", color="black")
    ax.set_title(f"{name}: {loss:.1e}", fontsize=9)
    ax.set(xlim=(-1.8, 1.8), ylim=(-0.8, 2.2))
    ax.set_axis_off()
plt.show()

# %% [markdown]
# ## Images
#
# A small network, 2,000 images of Fashion-MNIST, 3 epochs; all begin with the same weights and see
# the images in the same order. The test error is that of 10,000 others.

# %%
dataset = data.standardise(data.load("fashion_mnist_small"))
images, labels = (each[:2000] for each in dataset.train)
EPOCHS, BATCH_SIZE = 3, 50
steps = EPOCHS * len(labels) // BATCH_SIZE


def error(name):
    """Test error after training, in %."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input(images.shape[1:]),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    optimizer = made(name, CHOSEN[name][2], steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(images, labels, BATCH_SIZE, EPOCHS, verbose=0)  # ends with ScheduleFree's average
    return 100 * (1 - model.evaluate(*dataset.test, 500, verbose=0)[1])


errors = {name: error(name) for name in CHOSEN}
for name, each in sorted(errors.items(), key=lambda pair: pair[1]):
    print(f"{name:13} {each:.1f} %")

# %% [markdown]
# Differences of a percent or two mean nothing here: another seed has another order. Who is last
# may be so for its rate, which was found once, roughly, and for this network.
#
# ## All of them
#
#     python benchmarks/which_optimizer.py           # a quarter of an hour on two cores
#     python benchmarks/which_optimizer.py --quick   # to see that it runs
#     tf-decoupled optimizers                        # the catalogue
