"""Writes torch.zip: states of PyTorch's optimizers, as `torch.save` writes them.

pip install torch numpy; python tests/data/make_torch.py
"""

import io

import numpy as np
import steps
import torch
from torch import optim

RULES = {
    "Adam": lambda params: optim.Adam(params, 0.01, amsgrad=True, eps=1e-3),
    "AdamW": lambda params: optim.AdamW(params, 0.01, weight_decay=0.1),
    "SGD": lambda params: optim.SGD(params, 0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    "RMSprop": lambda params: optim.RMSprop(params, 0.01, momentum=0.8, eps=1e-10),
    "RMSprop-centered": lambda params: optim.RMSprop(params, 0.01, centered=True, eps=1e-10),
    "Adagrad": lambda params: optim.Adagrad(params, 0.1, lr_decay=0.1, eps=1e-2),
    "Adadelta": lambda params: optim.Adadelta(params, 1.0, eps=1e-4),
    "Adamax": lambda params: optim.Adamax(params, 0.01),
    "NAdam": lambda params: optim.NAdam(
        params, 0.01, eps=1e-3, weight_decay=0.1, decoupled_weight_decay=True
    ),
    "RAdam": lambda params: optim.RAdam(
        params, 0.01, betas=(0.9, 0.99), weight_decay=0.1, decoupled_weight_decay=True
    ),
    "Adafactor": lambda params: optim.Adafactor(params, 0.3, weight_decay=0.01),
}


def parameters():
    """PyTorch's kernels are [out, in]."""
    return [
        torch.nn.Parameter(torch.from_numpy(np.ascontiguousarray(value.T)))
        for value in steps.start().values()
    ]


def train(optimizer, params, gradients):
    for step in gradients:
        for p, g in zip(params, step.values(), strict=True):
            p.grad = torch.from_numpy(np.ascontiguousarray(g.T))
        optimizer.step()
    values = [p.detach().numpy().T for p in params]
    return steps.flat(dict(zip(steps.SHAPES, values, strict=True)))


def kinds():
    """A tensor of each type, with strides, and a part of another's storage."""
    names = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8"]
    names += ["uint8", "bool"]
    tensor = torch.arange(6).reshape(2, 3).T
    state = {name: tensor.to(getattr(torch, name)) for name in names}
    state["slice"] = tensor[1:, 1]
    state["parameter"] = torch.nn.Parameter(tensor.to(torch.float32))
    return {"state": state, "param_groups": []}


def main():
    files, begin, end = {}, {}, {}
    for name, make in RULES.items():
        params = parameters()
        optimizer = make(params)
        begin[name] = train(optimizer, params, steps.gradients(steps.BEFORE, 1))
        file = io.BytesIO()
        torch.save({"optimizer": optimizer.state_dict(), "epoch": 3}, file)
        files[f"{name}.pt"] = file.getvalue()
        end[name] = train(optimizer, params, steps.gradients(steps.AFTER, 2))
    file = io.BytesIO()
    torch.save(kinds(), file)
    files["kinds.pt"] = file.getvalue()
    steps.write("torch.zip", files, begin, end)


if __name__ == "__main__":
    main()
