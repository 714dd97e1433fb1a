"""Training begun elsewhere goes on here: state and hyperparameters from Keras and PyTorch.

    Keras                             here         because
    Adam's momentum, velocity         m, v         both are averages of g and g²
    Adam's velocity_hat               v_max
    SGD's momentum                    −m           θ ← θ + momentum there, θ ← θ − m here
    iteration                         iterations   over k where gradients accumulate

    PyTorch                           here
    Adam's exp_avg, exp_avg_sq        m, v
    Adam's max_exp_avg_sq             v_max
    SGD's momentum_buffer b           η b          θ ← θ − η b there; the rate is inside m here
    step                              iterations

`from_keras` and `from_torch` make the optimizer, with hyperparameters and state. `keras_state`
and `torch_state` return the state alone, for `opt.set_state` of an optimizer made by hand, which
lists what is missing, unexpected or misshapen.
"""

from tf_decoupled.importers.keras import from_keras, keras_state
from tf_decoupled.importers.layouts import torch_layout
from tf_decoupled.importers.torch import from_torch, torch_state

__all__ = ["from_keras", "from_torch", "keras_state", "torch_layout", "torch_state"]
