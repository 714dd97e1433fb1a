"""What every test stands on: quiet logs, two logical CPUs, fixed seeds, XLA where it is told."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

from tf_decoupled.engine import replicas

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()],
)

gc.freeze()  # what was imported stays: each collection of garbage would look through all of it


@pytest.fixture(autouse=True)
def seeds_and_names(request):
    """Every test starts from the same seeds and from Keras's first automatic names."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    for each in vars(request.module).values():
        if isinstance(each, np.random.Generator):  # whatever tests have drawn from it before
            each.bit_generator.state = np.random.default_rng(0).bit_generator.state
    disable_op_determinism()  # which the command line enables for its process


@pytest.fixture
def untraced():
    """Nothing is traced, which took most of the time: for what doesn't depend on it."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


HOST_COMPILES = replicas.host_compiles


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """`jit_compile="auto"` compiles under the mark `xla` only: that took most of the time.

    Each row is compiled in test_whole.py. No fixture, so that it holds for those of modules, too.
    """
    told = item.get_closest_marker("xla") is not None
    replicas.host_compiles = HOST_COMPILES if told else lambda: False
