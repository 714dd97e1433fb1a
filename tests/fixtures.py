"""Training begun in other libraries, from tests/data, and the model that goes on."""

import functools
import pathlib
import sys
import tempfile

import keras
import numpy as np
from cases import run
from keras import layers

sys.path.insert(1, str(pathlib.Path(__file__).parent / "data"))

import steps

PLAIN = dict(jit_compile=False)


@functools.cache
def unpacked(name):
    """The folder of a zip's files, and rule to (values at import, values after)."""
    folder = pathlib.Path(tempfile.mkdtemp())
    return folder, steps.read(name, folder)


def source(archive, name, ending):
    """The file of a rule, variables where it stands, and their values 20 steps later."""
    folder, rules = unpacked(archive)
    begin, end = rules[name]
    return folder / f"{name}{ending}", variables(begin), end


def variables(values=None):
    """Those of a model of two layers, with these values."""
    model = keras.Sequential(
        [layers.Input((3,)), layers.Dense(4, name="hidden"), layers.Dense(2, name="head")]
    )
    model.set_weights(list((values or steps.start()).values()))
    return model.trainable_variables


def built(optimizer, trainable):
    optimizer.build(trainable)
    return optimizer


def assert_goes_on(optimizer, trainable, end):
    """The optimizer takes the steps that the other library took."""
    assert int(optimizer.iterations) == steps.BEFORE
    grads = [list(each.values()) for each in steps.gradients(steps.AFTER, 2)]
    begun = [v.numpy() for v in trainable]
    found = run(optimizer, trainable, grads)
    for a, b, c in zip(found, end.values(), begun, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
        assert np.abs(b - c).max() > 1e-3
