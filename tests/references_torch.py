"""Adam, AdamW and SGD as the documentation of PyTorch gives them, in NumPy."""

import numpy as np


def torch_adam(p, g, s, *, lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay):
    """torch.optim.Adam and AdamW: θ, and the entry of `state`, after one step."""
    λ, l2 = (weight_decay, 0.0) if decoupled_weight_decay else (0.0, weight_decay)
    p, g, t = p * (1 - lr * λ), g + l2 * p, s.get("step", 0) + 1
    m = betas[0] * s.get("exp_avg", 0.0) + (1 - betas[0]) * g
    v = betas[1] * s.get("exp_avg_sq", 0.0) + (1 - betas[1]) * g**2
    after = {"step": np.asarray(float(t)), "exp_avg": m, "exp_avg_sq": v}
    if amsgrad:
        v = after["max_exp_avg_sq"] = np.maximum(s.get("max_exp_avg_sq", 0.0), v)
    denominator = np.sqrt(v / (1 - betas[1] ** t)) + eps
    return p - lr / (1 - betas[0] ** t) * m / denominator, after


def torch_sgd(p, g, s, *, lr, momentum, nesterov, weight_decay):
    """torch.optim.SGD: θ, and the entry of `state`, after one step."""
    g = g + weight_decay * p
    if momentum == 0:
        return p - lr * g, {"momentum_buffer": None}
    buffer = momentum * s["momentum_buffer"] + g if s else g
    return p - lr * (g + momentum * buffer if nesterov else buffer), {"momentum_buffer": buffer}


ADAM = dict(lr=0.01, betas=(0.8, 0.99), eps=1e-8, weight_decay=0.3, amsgrad=False)
SGD = dict(lr=0.01, momentum=0.9, nesterov=False, weight_decay=0.3)
TORCH = {
    "AdamW": (torch_adam, ADAM | dict(decoupled_weight_decay=True, amsgrad=True)),
    "Adam": (torch_adam, ADAM | dict(decoupled_weight_decay=False)),
    "SGD": (torch_sgd, SGD | dict(nesterov=True)),
    "SGD-plain": (torch_sgd, SGD | dict(momentum=0.0)),
}
