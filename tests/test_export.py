"""An exported model serves and trains on, in TensorFlow alone, just as the one it was made of."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import mirrored, small_data, small_model
from keras import layers
from tensorflow.core.protobuf import saved_model_pb2

import tf_decoupled as td
from tf_decoupled.export import TrainableModel

ANY = None  # a batch of any size

LOADED = """
import sys
sys.modules["keras"] = sys.modules["tf_decoupled"] = None  # import raises
import numpy as np, tensorflow as tf
for folder in sys.argv[1:]:
    loaded, inputs = tf.saved_model.load(folder), np.load(folder + "/inputs.npz")
    inputs = {name: tf.constant(value) for name, value in inputs.items()}
    train, serve = loaded.signatures["train_step"], loaded.signatures["serving_default"]
    losses = [float(train(**inputs)["loss"]) for _ in range(3)]
    served = serve(**{name: inputs[name] for name in serve.structured_input_signature[1]})
    told = {**loaded.get_state(), **{"served " + name: value for name, value in served.items()}}
    values = [tf.cast(v, tf.float32) if v.dtype.is_floating else v for v in told.values()]
    np.savez(folder + "/told.npz", losses=losses, names=list(told), *values)
"""


def random_model(dtype="float32"):
    """All that has a state of its own: a normalization, and dropout."""
    model = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(8, activation="relu", name="hidden", dtype=dtype),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(1, name="head"),
        ]
    )
    return model


def accumulating():
    """In the middle of an accumulation, with averages, a guard and a loss scale."""
    model, (x, y) = random_model(), small_data(48)
    optimizer = td.LAMB(
        td.schedules.Cosine(0.01, 50),
        gradient_accumulation_steps=2,
        use_ema=True,
        skip_nonfinite=True,
        loss_scale_factor=64.0,
    )
    model.compile(optimizer, "mse")
    model.fit(x, y, batch_size=16, verbose=0)
    assert int(optimizer.iterations) == 1
    exported = TrainableModel(model, sample_weight=tf.TensorSpec([ANY]))
    return exported, {"x": x, "y": y, "sample_weight": np.linspace(0, 1, 48, dtype="float32")}


def fitted(optimizer, dtype="float32"):
    model, (x, y) = random_model(dtype), small_data()
    model.compile(optimizer, "mse")
    model.fit(x, y, verbose=0)
    return TrainableModel(model), {"x": x, "y": y}


def with_keras_optimizer():
    """Several inputs and outputs, strings and a table, and Keras's own optimizer."""
    left, words = keras.Input((3,), name="left"), keras.Input((), dtype="string", name="words")
    embedded = layers.Embedding(5, 2)(layers.StringLookup(vocabulary=["a", "b"])(words))
    both = layers.Concatenate()([left, embedded])
    outputs = {"sum": layers.Dense(1, name="sum")(both), "two": layers.Dense(2, name="two")(both)}
    model = keras.Model({"left": left, "words": words}, outputs)
    optimizer = td.decouple(keras.optimizers.RMSprop)(0.01, weight_decay=0.1)
    model.compile(optimizer, {"sum": "mse", "two": "mae"})
    inputs = {
        "x_left": np.ones((4, 3), "float32"),
        "x_words": np.array(["a", "b", "c", "a"]),
        "y_sum": np.ones((4, 1), "float32"),
        "y_two": np.ones((4, 2), "float32"),
    }
    return TrainableModel(model), inputs


class Subclassed(keras.Model):
    """A model that doesn't tell its inputs, with two variables of one path."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1, kernel_regularizer="l2")
        self.shifts = [self.add_weight(shape=(), name="shift", trainable=i == 0) for i in range(2)]

    def call(self, x):
        return self.dense(x) + self.shifts[0]


def never_compiled():
    """A loss of one's own, and a rate in a variable that neither model nor optimizer holds."""
    model, (x, y), rate = Subclassed(), small_data(), tf.Variable(0.01, name="rate")
    model(x)
    model.shifts[1].assign(3.0)
    specs = dict(x=tf.TensorSpec([ANY, 4]), y=tf.TensorSpec([ANY, 1]))
    loss = lambda y, y_pred: tf.abs(y - y_pred)  # noqa: E731
    exported = TrainableModel(model, td.SGDW(lambda: 2.0 * rate), loss, **specs)
    assert {"rate", "subclassed/shift", "subclassed/shift~1"} <= exported.state.keys()
    return exported, {"x": x, "y": y}


EXPORTS = {
    "accumulating": accumulating,
    "Lookahead of bfloat16": lambda: fitted(td.Lookahead(td.AdamW(0.01)), "bfloat16"),
    "rounded at random": lambda: fitted(td.Lion(low_precision="stochastic"), "bfloat16"),
    "an optimizer of Keras": with_keras_optimizer,
    "never compiled": never_compiled,
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Each export, its inputs, and what its SavedModel told in another process."""
    made = {}
    for name, make in EXPORTS.items():
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        exported, inputs = make()
        folder = tmp_path_factory.mktemp("exported")
        exported.save(folder)
        np.savez(folder / "inputs.npz", **inputs)
        made[name] = (exported, inputs, folder)
    command = [sys.executable, "-c", LOADED, *(str(folder) for *_, folder in made.values())]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return {name: (*rest, np.load(folder / "told.npz")) for name, (*rest, folder) in made.items()}


def structured(inputs, name):
    """x from {"x": ...}, and {"left": ..., "words": ...} from {"x_left": ..., "x_words": ...}."""
    parts = {k.removeprefix(f"{name}_"): v for k, v in inputs.items() if k.startswith(f"{name}_")}
    return inputs.get(name, parts)


@pytest.mark.slow
@pytest.mark.xla
@pytest.mark.parametrize("name", EXPORTS)
def test_loaded_in_tensorflow_alone_it_goes_on_bit_for_bit(exports, name):
    exported, inputs, told = exports[name]
    names = ["x", "y", *(["sample_weight"] if "sample_weight" in inputs else [])]
    arguments = [structured(inputs, name) for name in names]
    losses = [float(exported.train_step(*arguments)["loss"]) for _ in range(3)]
    assert list(told["losses"]) == losses
    assert len(set(losses)) > 1
    served = exported.serve(arguments[0])
    served = served if isinstance(served, dict) else {"output_0": served}
    expected = exported.get_state() | {f"served {name}": v for name, v in served.items()}
    assert sorted(told["names"]) == sorted(expected)
    for i, name in enumerate(told["names"]):
        value = expected[name].numpy()
        found = told[f"arr_{i}"].astype(value.dtype)
        np.testing.assert_array_equal(found, value, err_msg=name)


@pytest.fixture
def compiled():
    model = small_model()
    model.compile(td.AdamW(0.01), "mse")
    return model


def reloaded(exported, folder, **how):
    exported.save(folder, **how)
    return tf.saved_model.load(folder)


def test_it_goes_on_as_the_model_does_in_keras(tmp_path):
    model, (x, y) = random_model(), small_data()
    model.compile(td.SGDW(0.01, loss_scale_factor=64.0), "mse")
    model.fit(x, y, verbose=0)
    loaded = reloaded(TrainableModel(model), tmp_path)
    for _ in range(3):
        model.reset_metrics()  # older versions of Keras return the mean since the last reset
        assert float(loaded.train_step(x, y)["loss"]) == model.train_on_batch(x, y)
    for v in model.variables:
        np.testing.assert_array_equal(loaded.state[v.path], v, err_msg=v.path)
    for name, value in model.optimizer.get_state().items():
        np.testing.assert_array_equal(loaded.state[name].read_value(), value, err_msg=name)


def test_the_state_goes_out_and_in_by_name(compiled, tmp_path):
    x, y = small_data()
    exported = TrainableModel(compiled)
    paths = [v.path for v in compiled.variables]
    assert list(exported.state) == [*paths, *compiled.optimizer.get_state()]
    loaded = reloaded(exported, tmp_path)
    before = loaded.get_state()
    losses = [float(loaded.train_step(x, y)["loss"]) for _ in range(3)]
    loaded.set_state(before)
    assert [float(loaded.train_step(x, y)["loss"]) for _ in range(3)] == losses
    loaded.set_state({**before, "learning_rate": 0.0, "weight_decay": 0.0})
    loaded.train_step(x, y)
    for v in compiled.trainable_variables:
        np.testing.assert_array_equal(loaded.state[v.path], before[v.path])
    loaded.state["learning_rate"].assign(0.5)
    loaded.train_step(x, y)
    assert np.any(loaded.state["sequential/head/kernel"] != before["sequential/head/kernel"])


def test_signatures_call_the_state_by_legal_names(compiled, tmp_path):
    x, y = small_data()
    exported = TrainableModel(compiled)
    assert exported.keys["sequential/hidden/kernel:m"] == "sequential_hidden_kernel_m"
    signatures = reloaded(exported, tmp_path).signatures
    before = signatures["get_state"]()
    assert sorted(before) == sorted(exported.keys.values())
    first = signatures["train_step"](x=x, y=y)["loss"]
    signatures["set_state"](**before)
    assert float(signatures["train_step"](x=x, y=y)["loss"]) == float(first)


def test_names_that_differ_only_in_what_is_not_legal_are_told_apart(tmp_path):
    names = ("a", "A", "a_", "1-a.b")
    model = keras.Sequential([layers.Input((4,)), *(layers.Dense(1, name=name) for name in names)])
    model.compile(td.SGDW(0.01), "mse")
    exported = TrainableModel(model)
    for i, variable in enumerate(exported.state.values()):
        variable.assign(tf.fill(variable.shape, tf.cast(i, variable.dtype)))
    loaded = reloaded(exported, tmp_path)
    by_key = loaded.signatures["get_state"]()
    assert len(by_key) == len(exported.state)
    for name, key in exported.keys.items():
        np.testing.assert_array_equal(by_key[key], exported.state[name].read_value())
    loaded.signatures["set_state"](**{key: value + 1 for key, value in by_key.items()})
    for name, variable in exported.state.items():
        np.testing.assert_array_equal(loaded.state[name].read_value(), variable.read_value() + 1)


def compiled_functions(folder):
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    nodes = [*functions, *(node for function in functions for node in function.node_def)]
    return sum(node.attr["_XlaMustCompile"].b for node in nodes)


@pytest.mark.xla
def test_for_hosts_without_xla_nothing_is_left_to_compile(compiled, tmp_path):
    x, y = small_data()
    exported = TrainableModel(compiled)
    loaded = reloaded(exported, tmp_path, jit_compile=False)
    assert compiled_functions(tmp_path) == 0
    for _ in range(3):
        expected = exported.train_step(x, y)["loss"]
        np.testing.assert_allclose(loaded.train_step(x, y)["loss"], expected, rtol=1e-5)
    exported.save(tmp_path)
    assert compiled_functions(tmp_path) > 0


def test_labels_may_be_integers_and_batches_of_any_size(tmp_path):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3)])
    model.compile(td.AdamW(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    loaded = reloaded(TrainableModel(model, y=tf.TensorSpec([ANY], tf.int64)), tmp_path)
    for rows in (1, 5):
        x, y = np.ones((rows, 4), "float32"), np.zeros(rows, "int64")
        np.testing.assert_allclose(loaded.train_step(x, y)["loss"], model.evaluate(x, y, verbose=0))
        model.set_weights([loaded.state[v.path] for v in model.variables])


def test_a_loss_is_weighted_and_joined_by_the_losses_of_the_model():
    model, (x, y) = Subclassed(), small_data()
    model(x)
    specs = dict(x=tf.TensorSpec([ANY, 4]), y=tf.TensorSpec([ANY, 1]))
    weighted = TrainableModel(
        model,
        td.SGDW(0.0),
        keras.losses.MeanSquaredError(),
        sample_weight=tf.TensorSpec([ANY]),
        **specs,
    )
    squares = np.mean((model(x) - y) ** 2)
    l2 = 0.01 * np.sum(model.dense.kernel.numpy() ** 2)
    for weight in (0.0, 2.0):
        loss = weighted.train_step(x, y, np.full(len(x), weight, "float32"))["loss"]
        np.testing.assert_allclose(loss, weight * squares + l2, rtol=1e-5)


def test_saving_and_loading_have_nothing_to_complain_of(compiled, tmp_path, caplog):
    logger = tf.get_logger()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level("WARNING", logger.name):
            reloaded(TrainableModel(compiled), tmp_path)
    finally:
        logger.removeHandler(caplog.handler)
    # TensorFlow's own wrapper of every signature, which its AutoGraph can't read on Python 3.13
    of_tensorflow = "AutoGraph could not transform <function canonicalize_signatures."
    assert [m for m in caplog.messages if not m.startswith(of_tensorflow)] == []


@pytest.mark.parametrize(
    "make,words",
    [
        (lambda: TrainableModel(keras.Sequential([layers.Dense(1)])), "no variables yet"),
        (lambda: TrainableModel(small_model()), "compile the model with both, or pass both"),
        (lambda: TrainableModel(small_model(), td.AdamW()), "loss=None, and a model that is not"),
        (lambda: built(Subclassed()), r"doesn't tell its inputs. Give `x`.*Received: a Subclassed"),
        (
            lambda: TrainableModel(sparse(small_model())),
            r"can't be traced with these specs.*y=tf.TensorSpec\(\[None\], tf.int64\)",
        ),
    ],
    ids=["not built", "not compiled", "no loss", "no inputs", "labels"],
)
def test_what_cannot_be_exported_says_why(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def built(model):
    model(tf.zeros([1, 4]))
    model.compile(td.AdamW(), "mse")
    return TrainableModel(model)


def sparse(model):
    model.add(layers.Dense(3))
    model.compile(td.AdamW(), "sparse_categorical_crossentropy")
    return model


def test_a_model_with_replicas_is_saved_and_loaded_before():
    with mirrored().scope():
        model = small_model()
        model.compile(td.AdamW(), "mse")
    with pytest.raises(ValueError, match=r"load it outside of the strategy.*2 replicas of \['seq"):
        TrainableModel(model)
