"""State is keyed by variable path, loads strictly unless told otherwise, and is never skipped."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run, small_data, small_model, state_of, variables

import tf_decoupled as td
from tf_decoupled.engine.state import Cell, Cells


def trained(model=None, optimizer=None):
    model = model or small_model()
    model.compile(optimizer or td.AdamW(0.01), "mse")
    model.fit(*small_data(), verbose=0, shuffle=False)
    return model


def assert_same_state(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_state_survives_another_order_of_variables():
    grads, first, second = gradients(steps=2), td.AdamW(), td.AdamW()
    run(first, variables(), grads)
    second.build(variables()[::-1])
    second.set_state(first.get_state())
    assert_same_state(
        dict(sorted(first.get_state().items())), dict(sorted(second.get_state().items()))
    )


def test_a_layer_frozen_and_unfrozen_keeps_its_state_and_its_neighbours():
    x, y = small_data()
    model = trained()
    optimizer = model.optimizer
    head = {n: v for n, v in state_of(optimizer).items() if "head" in n}
    model.get_layer("head").trainable = False
    model.compile(optimizer, "mse")
    model.fit(x, y, verbose=0)
    assert_same_state(head, {n: v for n, v in state_of(optimizer).items() if "head" in n})
    model.get_layer("head").trainable = True
    model.compile(optimizer, "mse")
    model.fit(x, y, verbose=0)
    assert int(optimizer.iterations) == 6


def test_a_variable_that_comes_later_gets_slots_and_the_others_keep_theirs():
    optimizer, (a, b, *_) = td.AdamW(), variables()
    (grads,) = gradients(steps=1)
    optimizer.apply(grads[:1], [a])
    before = state_of(optimizer)
    optimizer.add_variables([b])
    optimizer.apply([grads[1]], [b])
    after = state_of(optimizer)
    assert list(after) == ["v0:m", "v0:v", "v1:m", "v1:v"]
    assert_same_state(before, {n: after[n] for n in before})


def test_what_does_not_fit_raises_lists_everything_and_loads_nothing():
    optimizer = td.AdamW()
    optimizer.build(variables())
    before, state = optimizer.get_state(), optimizer.get_state()
    state["v0:m"] = np.ones((7, 7), "float32")
    state["v1:m"] = np.ones(5, "float32")
    state["stranger:m"] = np.ones(3, "float32")
    del state["v2:v"]
    with pytest.raises(ValueError, match="nothing was loaded") as error:
        optimizer.set_state(state)
    for words in (
        "missing: ['v2:v']",
        "unexpected: ['stranger:m']",
        "'v0:m': 'saved (7, 7), here (3, 4)'",
    ):
        assert words in str(error.value)
    assert_same_state(before, optimizer.get_state())
    report = optimizer.set_state(state, strict=False)
    assert report.missing == ["v2:v"] and report.unexpected == ["stranger:m"]
    assert list(report.misshapen) == ["v0:m"]
    np.testing.assert_array_equal(optimizer.get_state()["v1:m"], np.ones(5))
    with pytest.raises(ValueError, match="Build the optimizer first"):
        td.AdamW().set_state(state)


def test_a_model_built_twice_in_one_process_finds_its_state_again(tmp_path):
    def unnamed():
        return keras.Sequential(
            [
                keras.layers.Input((4,)),
                keras.layers.Dense(4),
                keras.layers.Dense(4),
                keras.layers.Dense(1),
            ]
        )

    model = trained(unnamed())
    model.save_weights(tmp_path / "model.weights.h5")
    again = unnamed()
    assert again.layers[0].name != model.layers[0].name
    again.compile(td.AdamW(0.01), "mse")
    again.load_weights(tmp_path / "model.weights.h5")  # before its optimizer is built
    for each in (model, again):
        each.fit(*small_data(), verbose=0, shuffle=False)
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_layer_is_no_renumbered_one():
    def of(*blocks):
        optimizer, made = td.AdamW(), []
        for block in blocks:
            with keras.name_scope(block):
                made.append(keras.Variable(np.ones(2, "float32"), name="kernel"))
        optimizer.build(made)
        return optimizer

    state = of("block_1", "block_2").get_state()
    with pytest.raises(ValueError, match=r"missing.*block_3/kernel.*\n.*block_1/kernel"):
        of("block_2", "block_3").set_state(dict(state))
    with pytest.raises(ValueError, match=r"in two ways.*'block_2/kernel'"):
        of("block_2", "block_3").set_state(state)
    assert not of("block_3", "block_4").set_state(state)


def test_numbers_assigned_after_loading_and_before_the_build_stay(tmp_path):
    x, y = small_data()
    model = small_model()
    model.compile(td.AdamW(0.1), "mse")
    model.fit(x, y, batch_size=32, verbose=0, shuffle=False)
    model.save_weights(tmp_path / "w.weights.h5")
    again = small_model()
    again.compile(td.AdamW(0.1), "mse")
    again.load_weights(tmp_path / "w.weights.h5")
    assert int(again.optimizer.iterations) == 2
    again.optimizer.learning_rate = 1e-4
    again.save_weights(tmp_path / "unbuilt.weights.h5")
    again.fit(x, y, batch_size=32, verbose=0, shuffle=False)
    assert float(again.optimizer.learning_rate) == np.float32(1e-4)
    third = small_model()
    third.compile(td.AdamW(0.1), "mse")
    third.load_weights(tmp_path / "unbuilt.weights.h5")
    third.fit(x, y, batch_size=32, verbose=0, shuffle=False)
    assert int(third.optimizer.iterations) == 4
    for a, b in zip(again.optimizer.variables, third.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_an_optimizer_saved_copied_or_pickled_before_its_first_step_starts_from_there(tmp_path):
    x, y = small_data()
    model = small_model()
    model.compile(td.Lookahead(td.AdamW(0.01)), "mse")
    model.optimizer.learning_rate = 0.125
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    copies = [copy.deepcopy(model.optimizer), pickle.loads(pickle.dumps(model.optimizer))]
    for optimizer in (loaded.optimizer, *copies):
        assert float(optimizer.learning_rate) == 0.125
    for optimizer in copies:
        run(optimizer, variables(), gradients(steps=1))
    for each in (model, loaded):
        each.fit(x, y, verbose=0, shuffle=False)
    for a, b in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def kernels(variable):
    """A mask, unknown to Keras."""
    return "kernel" in variable.path


def warm():
    """A rate, unknown to Keras."""
    return tf.constant(0.25)


@pytest.mark.parametrize(
    "make",
    [
        lambda: td.AdamW(warm, decay_mask=kernels),
        lambda: td.Lookahead(td.AdamW(decay_mask=td.masks.matrices & kernels)),
        lambda: td.decouple(keras.optimizers.RMSprop)(weight_decay=0.5, decay_mask=kernels),
    ],
    ids=["rate and mask", "in a mask in a wrapper", "decoupled"],
)
def test_an_optimizer_is_copied_and_pickled_with_functions_that_keras_does_not_know(make):
    original = make()
    for again in (copy.deepcopy, copy.copy, lambda one: pickle.loads(pickle.dumps(one))):
        one = again(again(original))
        assert type(one) is type(original) and one is not original
        with pytest.warns(UserWarning, match="is not registered with Keras"):
            assert one.get_config() == original.get_config()


def test_an_optimizer_with_a_lambda_is_copied_without_a_warning():
    copied = copy.deepcopy(td.AdamW(0.5, decay_mask=lambda variable: variable.path == "v0"))
    copied.build(variables())
    assert [row.decays for row in copied.decay_report().rows] == [True, False, False, False]


def test_an_optimizer_is_pickled_with_a_registered_function_that_pickle_does_not_find():
    @keras.saving.register_keras_serializable("here")
    def chosen(variable):
        return "kernel" in variable.path

    optimizer = td.AdamW(decay_mask=chosen)
    assert pickle.loads(pickle.dumps(optimizer)).get_config() == optimizer.get_config()


def test_an_optimizer_with_two_functions_of_one_name_is_not_copied():
    def kernels():
        return tf.constant(0.25)

    optimizer = td.AdamW(kernels, decay_mask=globals()["kernels"])
    with pytest.raises(ValueError, match="Two that are called `kernels`"):
        copy.deepcopy(optimizer)


@pytest.mark.parametrize("build_first", [True, False])
def test_a_train_checkpoint_resumes_bit_for_bit(build_first, tmp_path):
    make = lambda: td.Lookahead(td.AdamW(td.schedules.Cosine(0.01, 50)), sync_period=2)  # noqa: E731
    model = trained(optimizer=make())
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(tmp_path / "checkpoint")
    keras.utils.clear_session(free_memory=False)
    again = small_model()
    again.compile(make(), "mse")
    if build_first:
        again.optimizer.build(again.trainable_variables)
    status = tf.train.Checkpoint(model=again, optimizer=again.optimizer).restore(path)
    for each in (model, again):
        each.fit(*small_data(), verbose=0, shuffle=False)
    status.assert_consumed()
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_saved_model_carries_the_state_and_trains_on(tmp_path):
    x, y = small_data()
    model = trained()
    optimizer = model.optimizer

    class Exported(tf.Module):
        def __init__(self):
            self.model, self.state = model, optimizer.variables

        @tf.function(input_signature=[tf.TensorSpec([None, 4]), tf.TensorSpec([None, 1])])
        def train(self, x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
            optimizer.apply(tape.gradient(loss, model.trainable_variables))
            return loss

    exported = Exported()
    tf.saved_model.save(exported, tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    for _ in range(3):
        assert float(exported.train(x, y)) == float(loaded.train(x, y))


def test_building_inside_the_first_traced_step_works():
    optimizer, trainable = td.Lookahead(td.AdamW(0.1), sync_period=2), variables()

    @tf.function
    def step(grads):
        optimizer.apply(grads, trainable)

    grads = gradients(steps=3)
    for gs in grads:
        step([tf.constant(g) for g in gs])
    expected = run(td.Lookahead(td.AdamW(0.1), sync_period=2), variables(), grads, graph=True)
    for a, b in zip(trainable, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_plain_tensorflow_variables_are_told_apart_by_a_number():
    trainable = [tf.Variable([1.0]), tf.Variable([2.0]), tf.Variable([3.0], name="own")]
    optimizer = td.SGDW(0.1, weight_decay=0.0)
    optimizer.apply_gradients(zip([[1.0], [1.0], [1.0]], trainable, strict=True))
    assert list(state_of(optimizer)) == ["Variable:m", "Variable~1:m", "own:m"]
    np.testing.assert_allclose([v.numpy()[0] for v in trainable], [0.9, 1.9, 2.9], rtol=1e-6)


def test_set_weights_takes_what_variables_gave():
    first, second = td.AdamW(), td.AdamW()
    run(first, variables(), gradients(steps=2))
    second.build(variables())
    second.set_weights([v.numpy() for v in first.variables])
    assert_same_state(first.get_state(), second.get_state())
    with pytest.raises(ValueError, match=r"needs \d+ arrays"):
        second.set_weights([1.0])


def test_constraints_act_after_the_step():
    v = keras.Variable(np.ones((2, 2), "float32"), name="v")
    v.constraint = keras.constraints.NonNeg()
    td.SGDW(10.0).apply([np.ones((2, 2), "float32")], [v])
    np.testing.assert_array_equal(v, np.zeros((2, 2)))


@pytest.mark.parametrize(
    "grads,words",
    [
        ([None, None], r"No gradients provided for any variable.*'v0', 'v1'"),
        ([np.ones((3, 4), "float32")], "1 gradients for 2 variables"),
        (
            [np.ones((4, 3), "float32"), None],
            r"gradient of 'v0' must have .* \(3, 4\). Received: \(4, 3\)",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_gradients_that_do_not_fit_raise(grads, words):
    optimizer, trainable = td.AdamW(), variables()[:2]
    with pytest.raises(ValueError, match=words):
        optimizer.apply(grads, trainable)
    with pytest.raises(ValueError, match="The first `apply` needs the variables"):
        td.AdamW().apply(grads)
    td.AdamW().apply([], [])


def test_the_time_to_add_a_cell_does_not_grow_with_their_number():
    reads = 0

    class Counted(Cell):
        def __getattribute__(self, name):
            nonlocal reads
            reads += name == "path"
            return super().__getattribute__(name)

    cells = Cells()
    for _ in range(300):
        cells.add(Counted(tf.Variable(0.0), "Variable"))
    assert reads < 10 * len(cells)
    expected = ["Variable", *(f"Variable~{n}" for n in range(1, 300))]
    assert [c.path for c in cells] == expected


def test_a_number_for_a_taken_path_is_not_one_that_is_taken_itself():
    cells = Cells()
    for path in ("a~1", "a", "a", "a"):
        cells.add(Cell(tf.Variable(0.0), path))
    assert [c.path for c in cells] == ["a~1", "a", "a~2", "a~3"]
