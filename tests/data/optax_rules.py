"""optax's optimizers as the fixtures and tests run them; jax and optax are imported when called."""

import steps


def _optax():
    import optax

    return optax


def _labels(params):
    return {layer: {name: name for name in entries} for layer, entries in params.items()}


def _partition():
    optax = _optax()
    both = {"kernel": optax.adamw(0.01, weight_decay=0.1), "bias": optax.adam(0.01)}
    return optax.multi_transform(both, _labels)


RULES = {
    "AdamW": lambda: _optax().chain(
        _optax().clip_by_global_norm(1.0), _optax().adamw(0.01, weight_decay=0.1)
    ),
    "SGD": lambda: _optax().sgd(0.01, momentum=0.9, nesterov=True),
    "RMSprop": lambda: _optax().rmsprop(0.01, eps=1e-6, momentum=0.8, centered=True),
    "Adagrad": lambda: _optax().adagrad(0.1),
    "Adadelta": lambda: _optax().adadelta(1.0, rho=0.95, eps=1e-4),
    "Adamax": lambda: _optax().adamax(0.01),
    "NAdamW": lambda: _optax().nadamw(0.01, weight_decay=0.1),
    "LAMB": lambda: _optax().lamb(0.01, weight_decay=0.1),
    "Lion": lambda: _optax().lion(_optax().linear_schedule(0.01, 0.001, 40), weight_decay=0.1),
    "injected": lambda: _optax().inject_hyperparams(_optax().adam)(learning_rate=0.02),
    "multi": _partition,
}


def train(optimizer, gradients, state=None, values=None):
    """The state and values after the steps, from fresh ones or from those given."""
    import jax

    params = _tree(steps.start() if values is None else values)
    state = optimizer.init(params) if state is None else state
    for step in gradients:
        updates, state = jax.jit(optimizer.update)(_tree(step), state, params)
        params = _optax().apply_updates(params, updates)
    layers = jax.device_get(params)
    return state, {path: layers[path.split("/")[0]][path.split("/")[1]] for path in steps.SHAPES}


def _tree(values):
    """As flax nests them."""
    tree = {}
    for path, value in values.items():
        layer, name = path.split("/")
        tree.setdefault(layer, {})[name] = value
    return tree
