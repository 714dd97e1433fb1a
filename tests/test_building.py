"""What the build refuses, what it warns of, and what goes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_decoupled as td


def bias():
    return keras.Variable(np.ones(3), name="bias")


@pytest.mark.parametrize(
    "make",
    [
        lambda: td.Lookahead(td.Muon()),
        lambda: td.LayerwiseDecay(td.Muon()),
        lambda: td.Partition([(None, td.Lookahead(td.Muon()))]),
    ],
)
def test_what_a_rule_refuses_its_wrappers_refuse(make):
    with pytest.raises(ValueError, match=r"Received: bias \(3,\)"):
        make().build([keras.Variable(np.ones((2, 3)), name="kernel"), bias()])


def test_an_optimizer_that_is_inside_of_another_is_in_use():
    inner = td.AdamW(1e-3, clipnorm=1.0, use_ema=True)
    outer = td.Lookahead(inner)
    for again in (
        lambda: td.Lookahead(inner),
        lambda: td.Partition([(None, inner)]),
        lambda: inner.build([bias()]),
    ):
        with pytest.raises(ValueError, match=r"is inside of another.*fresh one.*Received: .*AdamW"):
            again()
    outer.build([bias()])
    assert float(outer.clipnorm) == 1.0 and outer.use_ema


def test_another_models_variables_are_warned_of_and_those_of_one_model_are_not():
    optimizer, old = td.SGDW(0.1, jit_compile=False), [bias(), bias()]
    optimizer.build([keras.Variable(1.0)])  # of a model that was never trained: no step is missed
    optimizer.build(old[:1])
    optimizer.apply([tf.ones(3)], old[:1])
    optimizer.apply([tf.ones(3)] * 2, old)  # one of them is known
    optimizer.add_variables([bias()])
    with pytest.warns(UserWarning, match=r"has made 2 updates, and knows none of these 1 variab"):
        optimizer.apply([tf.ones(3)], [bias()])


def test_each_variable_has_one_gradient():
    v = bias()
    with pytest.raises(ValueError, match=r"Give each variable once\. Received: 'bias' twice"):
        td.SGDW(0.1).apply_gradients([(tf.ones(3), v), (tf.zeros(3), v)])
    np.testing.assert_array_equal(v, np.ones(3))


@pytest.mark.parametrize("name", ["variables", "name", "submodules", "slots"])
def test_a_variable_may_be_called_as_anything_is(name):
    v, optimizer = tf.Variable([0.0], name=name), td.Lion(0.5, jit_compile=False)
    optimizer.apply([tf.ones(1)], [v])
    assert v.numpy() == -0.5 and f"{name}:m" in optimizer.get_state()
