"""Training begun elsewhere goes on here: state and hyperparameters of other libraries.

    from              the optimizer    its state alone    files
    Keras 3           `from_keras`     `keras_state`      .keras, .weights.h5, checkpoints
    Keras 2, Addons   `from_keras2`    `keras2_state`     .h5, checkpoints
    PyTorch           `from_torch`     `torch_state`      of torch.save
    optax             by hand          `optax_state`      pickles, flax's .msgpack

Names differ, and conventions: what is converted, for example:

    Keras, PyTorch, optax             here         because
    Adam's momentum, exp_avg, mu      m            all are averages of g
    Keras's SGD: momentum             −m           θ ← θ + momentum there, θ ← θ − m here
    PyTorch's momentum_buffer b       η b          θ ← θ − η b there; the rate is inside m here
    optax's trace, before the rate    η trace      the same
    a centered RMSprop's mean of g²   v − a²       the square of the mean is taken off there
    Keras's Nadam: one product        product      each variable has one here
    iteration, step, count            iterations   over k where gradients accumulate

What can't be converted exactly is refused, in words that say what to pass. `from_...` make the
optimizer, with hyperparameters and state. `..._state` return the state alone, for `opt.set_state`
of an optimizer made by hand, which lists what is missing, unexpected or misshapen.
"""

from tf_decoupled.importers.keras import from_keras, keras_state
from tf_decoupled.importers.keras2 import from_keras2, keras2_state
from tf_decoupled.importers.layouts import torch_layout
from tf_decoupled.importers.optax import optax_state
from tf_decoupled.importers.torch import from_torch, torch_state

__all__ = [
    "from_keras",
    "from_keras2",
    "from_torch",
    "keras2_state",
    "keras_state",
    "optax_state",
    "torch_layout",
    "torch_state",
]
