"""What is asked of a model whatever library made it."""

import keras
import numpy as np


def same_weights(*models):
    """Whether models have the same weights, bit for bit."""
    weights = [model.get_weights() for model in models]
    return all(
        np.array_equal(a, b) for each in weights for a, b in zip(weights[0], each, strict=True)
    )


def goes_on(model, file, x, y, **how):
    """Whether a model and the one loaded from its file train on alike, bit for bit."""
    model.save(file)
    loaded = keras.models.load_model(file)
    assert type(loaded.optimizer) is type(model.optimizer) and same_weights(model, loaded)
    for each in (model, loaded):
        each.fit(x, y, verbose=0, shuffle=False, **how)
    return same_weights(model, loaded)
