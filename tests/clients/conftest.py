"""Clients: libraries of others that train with any optimizer of Keras's kind.

Every test runs with Keras's AdamW, too: where that passes, ours has to.
"""

import keras
import pytest

import tf_decoupled as td


@pytest.fixture(scope="module")
def client(request):
    """The module that the tests of a file are about, imported when the first of them runs."""
    needed = "needs the extra `clients`: pip install -e '.[clients]'"
    return pytest.importorskip(request.module.CLIENT, reason=needed)


@pytest.fixture(params=[keras.optimizers, td], ids=["Keras", "ours"])
def library(request):
    """Where AdamW comes from."""
    return request.param
