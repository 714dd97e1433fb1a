"""Situations × formats: training goes on bit for bit from a file, wherever Keras's AdamW does.

Each situation builds a model, trains it, saves it in each format, builds a model again as users do,
loads, and trains both on. What doesn't fit is told: see the second half.
"""

import contextlib
import copy
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import mirrored

import tf_decoupled as td

# Keras 3.10 wraps the only input of a model that it has loaded in a list, and then warns about it.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:(?s).*structure of `inputs` doesn't match"),
    pytest.mark.usefixtures("untraced"),
]

L = keras.layers
X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y = X @ np.ones((4, 4), "float32")


def compiled(model, optimizer):
    model.compile(optimizer, keras.losses.MeanSquaredError(), run_eagerly=True, jit_compile=False)
    return model


def train(model, steps=2):
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(X, training=True) - Y) ** 2)
        variables = model.trainable_variables
        grads = tape.gradient(loss, [v.value for v in variables])
        model.optimizer.apply(grads, variables)
    return model


# Models. Where nothing else is at stake their layers have equal shapes: what is swapped fits.


def functional(*layers):
    inputs = keras.Input((4,))
    outputs = inputs
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def body_then_head():
    body, head = L.Dense(4), L.Dense(4)
    return functional(body, head)


def head_made_first():
    head, body = L.Dense(4), L.Dense(4)
    return functional(body, head)


def in_a_scope_left_open():
    """As a `fit` that failed leaves it."""
    with keras.name_scope("sequential"):
        return sequential()


def after_an_unrelated_layer():
    L.Dense(7)
    return body_then_head()


def sequential():
    return keras.Sequential([keras.Input((4,)), L.Dense(4), L.BatchNormalization(), L.Dense(4)])


def with_explicit_names():
    return functional(L.Dense(4, name="body"), L.Dense(4, name="head"))


def with_explicit_names_made_in_another_order():
    head, body = L.Dense(4, name="head"), L.Dense(4, name="body")
    return functional(body, head)


def model_inside_a_model():
    return keras.Sequential([keras.Input((4,)), body_then_head(), L.Dense(4)])


def two_branches():
    inputs = keras.Input((4,))
    return keras.Model(inputs, L.Add()([L.Dense(4)(inputs), L.Dense(4)(inputs)]))


def two_branches_made_in_another_order():
    right, left = L.Dense(4), L.Dense(4)
    inputs = keras.Input((4,))
    return keras.Model(inputs, L.Add()([left(inputs), right(inputs)]))


@keras.saving.register_keras_serializable("tests")
class Block(L.Layer):
    """A custom layer that makes its sublayers at once, as the TransformerBlock of the examples."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.Sequential([L.Dense(4, activation="relu"), L.Dense(4)])
        self.shared = L.Dense(4)

    def build(self, shape):
        self.inner.build(shape)
        self.shared.build(shape)
        super().build(shape)

    def call(self, x):
        return self.shared(self.inner(self.shared(x)))


def nested_custom_layers():
    block, other = Block(), Block()
    return functional(block, L.Dense(4), other)


def nested_custom_layers_made_in_another_order():
    dense, other, block = L.Dense(4), Block(), Block()
    return functional(block, dense, other)


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, order=("body", "head"), more=(), **kwargs):
        super().__init__(**kwargs)
        self.order, self.more = order, more
        for name in (*order, *more):
            setattr(self, name, L.Dense(4))
        self.build((None, 4))

    def build(self, shape):
        for name in ("body", "head", *self.more):
            getattr(self, name).build(shape)
        self.built = True

    def call(self, x):
        x = self.head(self.body(x))
        for name in self.more:
            x = getattr(self, name)(x)
        return x

    def get_config(self):
        return {"order": self.order, "more": self.more}


def subclassed_in_another_order():
    return Subclassed(order=("head", "body"))


class Situation(NamedTuple):
    """How a model is built at first and again; whether Keras's counters start anew in between."""

    first: Callable[[], keras.Model]
    again: Callable[[], keras.Model] | None = None
    clear: bool = False


SITUATIONS = {
    "built again": Situation(body_then_head),
    "built again after clear_session": Situation(body_then_head, clear=True),
    "layers made in another order": Situation(body_then_head, head_made_first, clear=True),
    "and not cleared": Situation(body_then_head, head_made_first),
    "an unrelated layer before": Situation(body_then_head, after_an_unrelated_layer, clear=True),
    "sequential": Situation(sequential),
    "in a name scope left open": Situation(in_a_scope_left_open, sequential),
    "explicit names": Situation(with_explicit_names),
    "explicit names in another order": Situation(
        with_explicit_names, with_explicit_names_made_in_another_order
    ),
    "a model inside a model": Situation(model_inside_a_model),
    "two branches": Situation(two_branches, two_branches_made_in_another_order, clear=True),
    "nested and shared custom layers": Situation(nested_custom_layers),
    "custom layers in another order": Situation(
        nested_custom_layers, nested_custom_layers_made_in_another_order, clear=True
    ),
    "subclassed": Situation(Subclassed),
    "subclassed in another order": Situation(Subclassed, subclassed_in_another_order, clear=True),
}


# Formats: each saves a model, and loads into what `again` builds, or builds the model itself.


def whole_file(suffix):
    def save_and_load(model, again, folder):
        model.save(folder / f"model{suffix}")
        again()  # the notebook has built its model again; the file builds its own
        return keras.models.load_model(folder / f"model{suffix}")

    return save_and_load


def weights_file(model, again, folder):
    model.save_weights(folder / "model.weights.h5")
    loaded = again()
    loaded.load_weights(folder / "model.weights.h5")
    return loaded


def weights_file_before_the_build(model, again, folder):
    model.save_weights(folder / "model.weights.h5")
    loaded = again(build=False)
    loaded.load_weights(folder / "model.weights.h5")
    return loaded


def checkpoint(of, build=True, manager=False):
    def save_and_load(model, again, folder):
        if manager:
            path = tf.train.CheckpointManager(of(model), folder, max_to_keep=1).save()
        else:
            path = of(model).save(folder / "checkpoint")
        loaded = again(build=build)
        of(loaded).restore(path)
        return loaded

    return save_and_load


def arrays(model, again, folder):
    loaded, optimizer = again(), model.optimizer
    loaded.set_weights(model.get_weights())
    if isinstance(optimizer, td.Optimizer):
        loaded.optimizer.set_state(optimizer.get_state())
    else:
        for theirs, mine in zip(loaded.optimizer.variables, optimizer.variables, strict=True):
            theirs.assign(mine)
    return loaded


both = lambda m: tf.train.Checkpoint(model=m, optimizer=m.optimizer)  # noqa: E731
FORMATS = {
    ".keras": whole_file(".keras"),
    "whole .h5": whole_file(".h5"),
    ".weights.h5": weights_file,
    ".weights.h5 before the build": weights_file_before_the_build,
    "checkpoint": checkpoint(both),
    "checkpoint before the build": checkpoint(both, build=False),
    "checkpoint of the model": checkpoint(lambda m: tf.train.Checkpoint(model=m)),
    "checkpoint of weights and optimizer": checkpoint(
        lambda m: tf.train.Checkpoint(weights=[v.value for v in m.weights], optimizer=m.optimizer)
    ),
    "checkpoint manager": checkpoint(both, manager=True),
    "arrays": arrays,
    "pickle": lambda model, again, folder: (again(), pickle.loads(pickle.dumps(model)))[1],
    "deep copy": lambda model, again, folder: (again(), copy.deepcopy(model))[1],
}


def weights_of(model):
    """In the order in which the data flow."""
    if isinstance(model, Subclassed):
        return [w for name in ("body", "head") for w in getattr(model, name).get_weights()]
    return model.get_weights()


def goes_on(library, situation, form, folder):
    """Whether training goes on bit for bit from what was saved."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    model = train(compiled(situation.first(), library.AdamW(0.01)))

    def again(build=True):
        if situation.clear:
            keras.utils.clear_session(free_memory=False)
        loaded = compiled((situation.again or situation.first)(), library.AdamW(0.01))
        if build:
            loaded.optimizer.build(loaded.trainable_variables)
        return loaded

    loaded = FORMATS[form](model, again, folder)
    for each in (model, loaded):
        train(each)
    pairs = zip(weights_of(model), weights_of(loaded), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


# A list of weights, in the order of a model's attributes, makes another model of this one. Keras's
# whole `.h5` files hold no subclassed models.
BY_ORDER = ("checkpoint of weights and optimizer", "arrays")
TABLE = [
    (name, form)
    for name in SITUATIONS
    for form in FORMATS
    if not (name == "subclassed in another order" and form in BY_ORDER)
    and not (name.startswith("subclassed") and form == "whole .h5")
]


@pytest.mark.parametrize("name,form", TABLE)
def test_training_goes_on_bit_for_bit_from_every_format(name, form, tmp_path):
    assert goes_on(td, SITUATIONS[name], form, tmp_path)


# Where that of Keras does not: it restores by position, and nothing before the build.
NOT_IN_KERAS = {".weights.h5 before the build", "whole .h5"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", [form for form in FORMATS if form not in NOT_IN_KERAS])
def test_as_a_control_that_of_keras_does_unless_attributes_change_places(form, tmp_path):
    names = [name for name, each in TABLE if each == form and name != "subclassed in another order"]
    names = names[list(FORMATS).index(form) % 4 :: 4]  # each format, and each situation
    results = {n: goes_on(keras.optimizers, SITUATIONS[n], form, tmp_path) for n in names}
    assert all(results.values()), results


# Formats and situations of their own.


def test_backup_and_restore_goes_on_bit_for_bit(tmp_path):
    tf.config.run_functions_eagerly(False)  # as `fit` makes a tf.data pipeline

    def fit(epochs, **options):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        model = compiled(body_then_head(), td.AdamW(0.01))
        callbacks = [keras.callbacks.BackupAndRestore(tmp_path / "backup", **options)]
        model.fit(X, Y, 4, epochs, verbose=0, shuffle=False, callbacks=callbacks)
        return model.get_weights()

    whole = fit(3)
    fit(2, delete_checkpoint=False)
    for a, b in zip(whole, fit(3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_whole_h5_file_can_be_saved_in_another_format_at_once(tmp_path):
    """Its optimizer is not built yet, and has the slots without names."""
    model = train(compiled(sequential(), td.AdamW(0.01)))
    model.save(tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5")
    loaded.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    by_state = compiled(sequential(), td.AdamW(0.01))
    by_state.set_weights(model.get_weights())
    by_state.optimizer.build(by_state.trainable_variables)
    by_state.optimizer.set_state(loaded.optimizer.get_state())
    path = both(loaded).save(tmp_path / "checkpoint")
    by_checkpoint = [compiled(sequential(), td.AdamW(0.01)) for _ in range(2)]
    by_checkpoint[0].optimizer.build(by_checkpoint[0].trainable_variables)
    for each in by_checkpoint:
        both(each).restore(path)
    expected = train(model).get_weights()
    for each in (again, by_state, *by_checkpoint):
        for a, b in zip(expected, train(each).get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_saved_model_goes_on_bit_for_bit(tmp_path):
    tf.config.run_functions_eagerly(False)
    model = train(compiled(body_then_head(), td.AdamW(0.01)))

    class Exported(tf.Module):
        def __init__(self):
            self.model, self.optimizer = model, model.optimizer

        @tf.function(input_signature=[tf.TensorSpec([None, 4]), tf.TensorSpec([None, 4])])
        def step(self, x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
            variables = [v.value for v in model.trainable_variables]
            model.optimizer.apply(tape.gradient(loss, variables), model.trainable_variables)
            return loss

    tf.saved_model.save(Exported(), tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    for _ in range(3):
        loss = float(tf.reduce_mean((model(X, training=True) - Y) ** 2))
        assert float(loaded.step(X, Y)) == pytest.approx(loss, abs=1e-6)
        train(model, steps=1)


def test_a_clone_takes_the_state_of_its_original():
    model = train(compiled(sequential(), td.AdamW(0.01)))
    clone = compiled(keras.models.clone_model(model), td.AdamW(0.01))
    clone.set_weights(model.get_weights())
    clone.optimizer.build(clone.trainable_variables)
    clone.optimizer.set_state(model.optimizer.get_state())
    for a, b in zip(train(model).get_weights(), train(clone).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_models_with_equal_layers_keep_their_states_apart(tmp_path):
    models = [train(compiled(body_then_head(), td.AdamW(0.01)), steps=n) for n in (1, 3)]
    for n, model in enumerate(models):
        model.save_weights(tmp_path / f"{n}.weights.h5")
    for n, model in reversed(list(enumerate(models))):
        again = compiled(body_then_head(), td.AdamW(0.01))
        again.load_weights(tmp_path / f"{n}.weights.h5")
        for a, b in zip(train(model).get_weights(), train(again).get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def frozen_after_training():
    model = train(compiled(body_then_head(), td.AdamW(0.01)))
    model.layers[1].trainable = False
    return train(compiled(model, model.optimizer))


@pytest.mark.xla
@pytest.mark.parametrize("form", [f for f in FORMATS if f not in ("arrays", "whole .h5")])
def test_a_layer_frozen_saved_loaded_and_unfrozen_goes_on_bit_for_bit(form, tmp_path):
    # The place in a stack is another afterwards: XLA doesn't round by it, eager TensorFlow does.
    tf.config.run_functions_eagerly(False)
    model = frozen_after_training()

    def again(build=True):
        loaded = body_then_head()
        loaded.layers[1].trainable = False
        compiled(loaded, td.AdamW(0.01))
        if build:
            loaded.optimizer.build(loaded.trainable_variables)
        return loaded

    loaded = FORMATS[form](model, again, tmp_path)
    for each in (model, loaded):
        train(each)
        each.layers[1].trainable = True
        train(compiled(each, each.optimizer))
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("build", [True, False])
def test_a_layer_added_starts_anew_and_the_others_go_on(build, tmp_path):
    """As `tf.train.Checkpoint` restores it: by attribute."""
    model = train(compiled(Subclassed(), td.AdamW(0.01)))
    path = both(model).save(tmp_path / "checkpoint")
    larger = compiled(Subclassed(more=("tail",)), td.AdamW(0.01))
    with pytest.warns(UserWarning, match=r"(?s)start anew.*kernel:m") as found:
        if build:
            larger.optimizer.build(larger.trainable_variables)
        both(larger).restore(path).expect_partial()
        larger.optimizer.build(larger.trainable_variables)
    assert len(found) == 1
    saved, state = model.optimizer.get_state(), larger.optimizer.get_state()
    for name in ("body", "head"):
        theirs, ours = (getattr(m, name).kernel.path for m in (model, larger))
        np.testing.assert_array_equal(state[f"{ours}:m"], saved[f"{theirs}:m"])
    assert not state[f"{larger.tail.kernel.path}:m"].any()


def test_variables_built_in_another_order_keep_their_slots():
    model = train(compiled(body_then_head(), td.AdamW(0.01)))
    optimizer = td.AdamW(0.01)
    optimizer.build(model.trainable_variables[::-1])
    optimizer.set_state(model.optimizer.get_state())
    expected = model.optimizer.get_state()
    for name, value in optimizer.get_state().items():
        if ":" in name:
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize("form", [".weights.h5", "checkpoint", "arrays"])
def test_replicas_to_one_device_and_back(form, tmp_path):
    def made(scope):
        def make(build=True):
            with scope():
                model = compiled(body_then_head(), td.AdamW(0.01))
                model.optimizer.build(model.trainable_variables)
            return model

        return make

    one, two = made(contextlib.nullcontext), made(mirrored().scope)
    original = train(one())
    there = FORMATS[form](original, two, tmp_path)
    back = FORMATS[form](there, one, tmp_path)
    for a, b in zip(train(original).get_weights(), train(back).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


ANOTHER_PROCESS = """
    import keras, numpy as np, sys, tensorflow as tf, tf_decoupled as td
    sys.path.insert(0, {tests!r})
    import test_saved_state as t
    tf.config.run_functions_eagerly(True)
    weights = []
    for form in ("weights", "checkpoint", "keras"):
        if form == "keras":
            model = keras.models.load_model("model.keras")
        else:
            model = t.compiled(t.head_made_first(), td.AdamW(0.01))
            if form == "weights":
                model.load_weights("model.weights.h5")
            else:
                t.both(model).restore(tf.train.latest_checkpoint("."))
        weights.append(t.train(model).get_weights())
    np.savez("weights.npz", *[w for each in weights for w in each])
"""


@pytest.mark.slow
def test_another_process_that_makes_layers_in_another_order_goes_on_bit_for_bit(tmp_path):
    keras.utils.clear_session(free_memory=False)
    model = train(compiled(body_then_head(), td.AdamW(0.01)))
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    both(model).save(tmp_path / "checkpoint")
    script = textwrap.dedent(ANOTHER_PROCESS.format(tests=os.path.dirname(__file__)))
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    expected = train(model).get_weights() * 3
    with np.load(tmp_path / "weights.npz") as found:
        for a, b in zip(expected, found.values(), strict=True):
            np.testing.assert_array_equal(a, b)
