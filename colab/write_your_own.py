# %% [markdown]
# # Write your own optimizer
#
# An optimizer here is two pure functions on one array: `init` declares what is remembered of a
# variable, `update` turns a gradient into a direction. The rest is written once, around the rule:
# decay, masks, schedules, clipping, accumulation, replicas, XLA, saving. It takes about half a
# minute on two CPU cores.

# %%
import keras
import numpy as np
import tensorflow as tf

import tf_decoupled as td
from tf_decoupled.engine.state import zeros
from tf_decoupled.math import ema

keras.utils.set_random_seed(0)

# %% [markdown]
# ## AdaBelief in 15 lines
#
# Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients",
# 2020, algorithm 2, [arXiv:2010.07468](https://arxiv.org/abs/2010.07468). It is Adam with the
# variance of the gradient around its average in the place of the mean square.
#
# * The annotated attributes are the hyperparameters: arguments of the constructor, live, saved.
#   `td.Scalar` is a finite number ≥ 0, `td.Beta` one in [0, 1).
# * `p` is the value, `g` the gradient, `s` the slots, `h` the hyperparameters at this step, with
#   schedules resolved; `h.t` counts updates from 1, and `h.correction.beta_1` is 1 − β₁ᵗ.
# * `update` returns a direction. The engine subtracts lr_t times it, and the decay.


# %%
class AdaBelief(td.Optimizer):
    """m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) (g − m)² + ε,  u = m̂ / (√v̂ + ε)."""

    learning_rate: td.Scalar = 1e-3
    beta_1: td.Beta = 0.9
    beta_2: td.Beta = 0.999
    epsilon: td.Scalar = 1e-8

    def init(self, p):
        return dict(m=zeros(p), v=zeros(p))

    def update(self, p, g, s, h):
        m = ema(s.m, g, h.beta_1)
        v = ema(s.v, (g - m) ** 2, h.beta_2) + h.epsilon
        m_hat, v_hat = m / h.correction.beta_1, v / h.correction.beta_2
        return m_hat / (tf.sqrt(v_hat) + h.epsilon), dict(m=m, v=v)


print(AdaBelief.__signature__)

# %% [markdown]
# ## Is it right?
#
# Compare it with the algorithm written down a second time, from the paper and not from the class,
# in NumPy and float64. The decay is lr · λ · θ, of θ before the step.


# %%
def adabelief(theta, grads, lr, lam, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    theta, m, s = theta.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(grads, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        s = beta_2 * s + (1 - beta_2) * (g - m) ** 2 + epsilon
        m_hat, s_hat = m / (1 - beta_1**t), s / (1 - beta_2**t)
        theta = theta - lr * m_hat / (np.sqrt(s_hat) + epsilon) - lr * lam * theta
    return theta


def run(optimizer, theta, grads, **function):
    """θ after one traced step per gradient."""
    variable = keras.Variable(theta, name="theta")
    optimizer.build([variable])

    @tf.function(**function)
    def step(g):
        optimizer.apply([g], [variable])

    for g in grads:
        step(tf.constant(g))
    return variable.numpy()


rng = np.random.default_rng(0)
theta = rng.normal(size=(4, 3)).astype("float32")
grads = rng.normal(size=(20, 4, 3)).astype("float32")

ours = run(AdaBelief(0.01, weight_decay=0.1), theta, grads)
error = np.abs(ours - adabelief(theta, grads.astype("float64"), lr=0.01, lam=0.1)).max()
print(f"Largest difference from float64 after {len(grads)} steps: {error:.1e}")

# %% [markdown]
# ## What comes with it
#
# **XLA and accumulation.** A step compiled with all around it gives the same numbers, up to
# rounding. So does an accumulation over two micro-batches whose mean gradients are those above.

# %%
compiled = run(AdaBelief(0.01, weight_decay=0.1), theta, grads, jit_compile=True)
halves = [part for g in grads for part in (1.5 * g, 0.5 * g)]
accumulated = run(AdaBelief(0.01, weight_decay=0.1, gradient_accumulation_steps=2), theta, halves)
xla_error, accumulation_error = (np.abs(a - ours).max() for a in (compiled, accumulated))
print(f"XLA: {xla_error:.1e}, accumulation: {accumulation_error:.1e}")

# %% [markdown]
# **Schedules, masks and live hyperparameters.**

# %%
x = rng.normal(size=(512, 8)).astype("float32")
y = np.sin(x.sum(1, keepdims=True))

model = keras.Sequential(
    [keras.layers.Input((8,)), keras.layers.Dense(32, activation="tanh"), keras.layers.Dense(1)]
)
optimizer = AdaBelief(
    td.schedules.Cosine(0.01, 200),
    weight_decay=0.01,
    decay_mask=td.masks.matrices,
    global_clipnorm=1.0,
)
model.compile(optimizer, loss="mse")
losses = model.fit(x, y, batch_size=64, epochs=10, verbose=0).history["loss"]
optimizer.beta_1 = 0.8
losses += model.fit(x, y, batch_size=64, epochs=10, verbose=0).history["loss"]
print(optimizer.decay_report())
print(f"Loss: {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last")

# %% [markdown]
# **Saving.** The class is registered with Keras when it is defined; a program that loads the model
# must define or import it first.

# %%
model.save("own.keras")
loaded = keras.models.load_model("own.keras")
pairs = zip(optimizer.get_state().values(), loaded.optimizer.get_state().values(), strict=True)
equal = [np.array_equal(a, b) for a, b in pairs]
print(f"{type(loaded.optimizer).__name__}, β₁ = {float(loaded.optimizer.beta_1):.1f}:", end=" ")
print(f"{sum(equal)} of {len(equal)} arrays of its state are equal, bit for bit")

# %% [markdown]
# ## A wrapper in 10 lines
#
# A wrapper overrides `step` and calls the `step` of the optimizer inside it, whose slots are among
# its own (`s.inner`) and whose hyperparameters are `h.inner`. Grokfast, in its form with an
# average, adds the slow part of the gradient to it: Lee et al., "Grokfast: Accelerated Grokking by
# Amplifying Slow Gradients", 2024, [arXiv:2405.20233](https://arxiv.org/abs/2405.20233). μ starts
# at 0 here.


# %%
class Grokfast(td.Wrapper):
    """μ ← α μ + (1 − α) g;  the inner optimizer steps with g + λ μ."""

    momentum: td.Beta = 0.98
    amplification: td.Scalar = 2.0

    def init(self, p):
        return dict(slow=zeros(p), inner=self.inner.init(p))

    def step(self, p, g, s, h):
        slow = ema(s.slow, g, h.momentum)
        p, inner = self.inner.step(p, g + h.amplification * slow, s.inner, h.inner)
        return p, dict(slow=slow, inner=inner)


# %% [markdown]
# A wrapper has a case in which it must change nothing: here, amplification 0. And with SGD inside,
# the numbers are easy to write down.

# %%
plain = run(AdaBelief(0.01, weight_decay=0.1), theta, grads)
wrapped = run(Grokfast(AdaBelief(0.01, weight_decay=0.1), amplification=0.0), theta, grads)
print(f"Equal to the optimizer inside, bit for bit: {np.array_equal(plain, wrapped)}")

expected, slow = theta.astype("float64"), 0.0
for g in grads:
    slow = 0.98 * slow + 0.02 * g
    expected = expected - 0.01 * (g + 2.0 * slow)
wrapper_error = np.abs(run(Grokfast(td.SGD(0.01)), theta, grads) - expected).max()
print(f"Around SGD, largest difference from float64: {wrapper_error:.1e}")

# %% [markdown]
# ## To add it to the library
#
# Four files: the rule, its reference in NumPy, one row in the table of the tests, one exported
# name. Every property that the tests state then runs on it. CONTRIBUTING.md has the steps.
