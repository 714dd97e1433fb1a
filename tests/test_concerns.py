"""Concerns: each is known to its own file and to the order, and one can come from outside."""

import ast
import inspect
import pathlib
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run_mirrored, variables

import tf_decoupled as td
from tf_decoupled.engine.concern import Concern, Counter, public
from tf_decoupled.engine.order import ORDER
from tf_decoupled.engine.state import Slot

ENGINE = pathlib.Path(inspect.getfile(Concern)).parent


def words(path):
    """Names, attributes and strings of a file, but for its docstrings."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {
        id(n.body[0].value)
        for n in ast.walk(tree)
        if isinstance(n, documented) and n.body and isinstance(n.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
        ):
            yield node.value


def known_by(concern):
    """What nobody else may speak of: its class, its arguments, its counters, its slots."""
    source = inspect.getsource(inspect.getmodule(concern))
    constants = [n for n in ast.parse(source).body if isinstance(n, ast.Assign)]
    slots = {
        node.value
        for assign in constants
        for node in ast.walk(assign.value)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and any(
            getattr(t, "id", t).__class__ is str and t.id.isupper()
            for t in assign.targets
            if isinstance(t, ast.Name)
        )
        and node.value.isidentifier()
    }
    return {concern.__name__, *concern.declared, *concern.counters, *slots}


@pytest.mark.parametrize("concern", ORDER, ids=lambda concern: concern.__name__)
def test_a_concern_is_known_to_its_own_file_and_the_order_only(concern):
    own = pathlib.Path(inspect.getfile(concern))
    secrets = known_by(concern)
    # Keras's words for these are refused there, with ours.
    exempt = (own, ENGINE / "order.py", ENGINE / "keras_hooks.py")
    for path in ENGINE.glob("*.py"):
        if path not in exempt:
            assert not secrets & set(words(path)), f"{path.name} knows {concern.__name__}"


class Halving(Concern):
    """Halves gradients above a limit, and remembers the largest entry of each variable's."""

    largest_entry: td.Positive = None

    counters: ClassVar = {"halvings": Counter(0, "int64", 0)}

    @classmethod
    def interpret(cls, given, optimizer):
        if given["largest_entry"] == 13:
            raise ValueError("`largest_entry` brings bad luck. Received: 13")
        return given

    @classmethod
    def asked(cls, given):
        return given["largest_entry"] is not None

    def slots(self, cell):
        return {"largest": Slot(())}

    def before(self, step):
        halvings = tf.constant(0, tf.int64)
        for part in step.parts:
            largest = part.block.map(lambda g: tf.reduce_max(tf.abs(g)), part.g)
            part.new["largest"] = largest
            halve = largest > step.h["largest_entry"]
            part.g = part.g * part.block.broadcast(tf.where(halve, 0.5, 1.0), part.g)
            halvings += tf.reduce_sum(tf.cast(halve, tf.int64))
        step.results["halvings"] = halvings

    def after(self, taken, results):
        self.optimizer.halvings.assign(self.optimizer.halvings + results["halvings"])

    @public
    def forget_halvings(self):
        """Counts anew."""
        self.optimizer.halvings.assign(0)


@keras.saving.register_keras_serializable("test_concerns")
class HalvingSGD(td.SGDW):
    """SGDW with a concern of one's own."""

    concerns = (*td.Optimizer.concerns, Halving)


def stepped(optimizer, grads, trainable=None):
    trainable = trainable or variables([(2, 3), (2, 3), (4,)])
    step = tf.function(lambda gs: optimizer.apply(gs, trainable))
    for gs in grads:
        step([tf.constant(g) for g in gs])
    return trainable


GRADIENTS = gradients([(2, 3), (2, 3), (4,)], 4)


def test_a_concern_from_outside_brings_an_argument_a_slot_a_counter_a_clip_and_a_method():
    optimizer = HalvingSGD(0.1, largest_entry=1.0, weight_decay=0.0, momentum=0.0)
    trainable = stepped(optimizer, GRADIENTS)
    expected = [v.numpy().astype("float64") for v in variables([(2, 3), (2, 3), (4,)])]
    halvings = 0
    for gs in GRADIENTS:
        for p, g in zip(expected, gs, strict=True):
            large = np.abs(g).max() > 1
            p -= 0.1 * (g / 2 if large else g)
            halvings += large
    for v, p in zip(trainable, expected, strict=True):
        np.testing.assert_allclose(v, p, rtol=1e-5, atol=1e-6)
    assert optimizer.halvings.numpy() == halvings > 0
    largest = optimizer.get_state()["v1:largest"]
    np.testing.assert_allclose(largest, np.abs(GRADIENTS[-1][1]).max(), rtol=1e-6)
    optimizer.forget_halvings()
    assert optimizer.halvings.numpy() == 0
    assert (
        "largest_entry=1.0" in repr(optimizer) and td.SGDW().halvings == 0
        if hasattr(td.SGDW(), "halvings")
        else True
    )
    with pytest.raises(ValueError, match="brings bad luck"):
        HalvingSGD(largest_entry=13)
    with pytest.raises(TypeError, match="unexpected keyword argument 'largest_entry'"):
        td.SGDW(largest_entry=1.0)


def test_a_concern_from_outside_is_saved_accumulated_and_replicated():
    whole = HalvingSGD(0.1, largest_entry=1.0)
    expected = stepped(whole, GRADIENTS)

    begun = HalvingSGD(0.1, largest_entry=1.0)
    trainable = stepped(begun, GRADIENTS[:2])
    again = HalvingSGD.from_config(begun.get_config())
    again.build(trainable)
    again.set_state(begun.get_state())
    stepped(again, GRADIENTS[2:], trainable)
    assert all(np.array_equal(a, b) for a, b in zip(trainable, expected, strict=True))
    assert again.halvings.numpy() == whole.halvings.numpy()

    accumulating = HalvingSGD(0.1, largest_entry=1.0, gradient_accumulation_steps=2)
    twice = [gs for gs in GRADIENTS for _ in range(2)]
    for a, b in zip(stepped(accumulating, twice), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)

    make = lambda: HalvingSGD(0.1, largest_entry=1.0)  # noqa: E731
    trainable, replicated = run_mirrored(make, GRADIENTS, [(2, 3), (2, 3), (4,)])
    for a, b in zip(trainable, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)
    assert replicated.halvings.numpy() == whole.halvings.numpy()
