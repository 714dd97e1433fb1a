"""Training runs: exact resumption, the exported SavedModel, the logs."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

import tf_decoupled as td
from tf_decoupled.experiments import data, export, optimizers, train
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.train import Run, Training

RUN = Run(epochs=3, batch_size=16, examples=48, seed=5, arguments=("weight_decay=0.1",))


@pytest.fixture(scope="module")
def dataset():
    return data.load("fashion_mnist_small")


def interrupted(epoch):
    if epoch.number == 1:
        raise KeyboardInterrupt


def state(folder):
    """Every number in the last checkpoint of a run."""
    reader = tf.train.load_checkpoint(str(folder / "checkpoints"))
    names = [n for n in reader.get_variable_to_shape_map() if ".ATTRIBUTES/VARIABLE_VALUE" in n]
    return {n: reader.get_tensor(n) for n in names if "save_counter" not in n}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    epochs = []
    train.train(RUN, out, report=epochs.append)
    return out, epochs


def test_an_interrupted_run_ends_exactly_as_an_uninterrupted_one(uninterrupted, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        train.train(RUN, tmp_path, report=interrupted)
    epochs = []
    train.train(RUN, tmp_path, report=epochs.append)
    assert "Continued from" in capsys.readouterr().out
    assert epochs == uninterrupted[1][1:]
    expected, found = state(uninterrupted[0]), state(tmp_path)
    assert expected.keys() == found.keys()
    assert len(expected) > 30
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_the_random_states_of_a_model_are_resumed(dataset, tmp_path):
    runs = [Training(replace(RUN, model="shake_shake_8_2x2d"), dataset) for _ in range(2)]
    first, second = (train.random_states(run.model) for run in runs)
    assert len(first) == 3
    runs[0].resume(tmp_path)
    for number, state in enumerate(first):
        state.assign([7, number])
    runs[0].save()
    runs[1].resume(tmp_path)
    assert [list(state.numpy()) for state in second] == [[7, 0], [7, 1], [7, 2]]


def test_a_finished_run_trains_no_further(uninterrupted, capsys):
    out, _ = uninterrupted
    before = state(out)
    train.train(RUN, out, report=interrupted)
    for name, value in state(out).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_run_lowers_the_loss_and_its_rate_follows_the_schedule(uninterrupted):
    _, epochs = uninterrupted
    assert epochs[-1].train_loss < epochs[0].train_loss
    rates = [0.001 * (1 + np.cos(np.pi * e / 3)) / 2 for e in range(3)]
    assert [e.learning_rate for e in epochs] == pytest.approx(rates, rel=1e-5)


def test_a_number_as_loss_scale_changes_nothing_about_a_run(dataset):
    plain, scaled = ("jit_compile=False",), ("jit_compile=False", "loss_scale_factor=1024.0")
    runs = [Training(replace(RUN, model="mlp", arguments=a), dataset).loop for a in (plain, scaled)]
    images, labels = (part[:8] for part in dataset.train)
    for loop in runs:
        loop.step(tf.cast(images, tf.float32) / 255, labels)
    for a, b in zip(*(loop.model.weights for loop in runs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_logs_hold_the_curves_of_every_epoch(uninterrupted):
    out, epochs = uninterrupted
    found = {}
    for record in tf.data.TFRecordDataset([str(path) for path in (out / "tensorboard").iterdir()]):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    expected = {(t, e.number): getattr(e, t) for e in epochs for t in e._fields if t != "number"}
    assert found == pytest.approx(expected, rel=1e-6)
    assert len(found) == 5 * 3


def test_another_run_in_the_same_folder_is_refused(uninterrupted):
    out, _ = uninterrupted
    before = state(out)
    with pytest.raises(InputError, match=r"holds another run \(epochs: 3, not 4\)"):
        train.train(replace(RUN, epochs=4), out)
    assert state(out).keys() == before.keys()


LOADED = """
import sys, numpy as np, tensorflow as tf
exported = tf.saved_model.load(sys.argv[1])
inputs = np.load(sys.argv[2])
train, serve = exported.signatures["train"], exported.signatures["serve"]
images, labels = tf.constant(inputs["images"]), tf.constant(inputs["labels"])
losses = [train(images=images, labels=labels)["loss"].numpy() for _ in range(3)]
np.savez(sys.argv[3], losses=losses, **{k: v.numpy() for k, v in serve(images=images).items()})
"""


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["AdamW"])
def test_an_exported_run_trains_on_in_another_process_bit_for_bit(dataset, tmp_path, optimizer):
    training = Training(replace(RUN, optimizer=optimizer), dataset)
    training.resume(tmp_path / "run")
    next(training.remaining())
    original = export.Exported(training.loop, dataset)
    original.save(tmp_path / "exported")
    inputs = {"images": dataset.train.images[:16], "labels": dataset.train.labels[:16]}
    np.savez(tmp_path / "inputs.npz", **inputs)
    names = ("exported", "inputs.npz", "outputs.npz")
    command = [sys.executable, "-c", LOADED, *(str(tmp_path / name) for name in names)]
    subprocess.run(command, check=True, capture_output=True)
    outputs = np.load(tmp_path / "outputs.npz")
    losses = [original.train(**inputs)["loss"].numpy() for _ in range(3)]
    np.testing.assert_array_equal(outputs["losses"], losses)
    served = original.serve(inputs["images"])
    np.testing.assert_array_equal(outputs["logits"], served["logits"])
    np.testing.assert_array_equal(outputs["probabilities"], served["probabilities"])
    assert losses[2] < losses[0]


def test_the_exported_standardisation_is_the_trainings(dataset):
    scale, shift = export.scaling(dataset)
    images = dataset.test.images[:8]
    standardised = data.standardise(dataset).test.images[:8]
    np.testing.assert_allclose(images * scale + shift, standardised, atol=1e-6)


def test_an_export_that_cannot_be_written_is_an_input_error(uninterrupted, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        train.train(RUN, uninterrupted[0], tmp_path / "file" / "exported")


def test_arguments_are_python_literals():
    run = replace(
        RUN,
        arguments=("learning_rate=2e-3", "weight_decay=0.5", "beta_1=0.8", "decay_mask=['bias']"),
        schedule="fixed",
    )
    made = train.optimizer(run, 10)
    assert isinstance(made, td.AdamW)
    found = made.learning_rate, made.weight_decay, made.beta_1
    assert [float(value) for value in found] == pytest.approx([2e-3, 0.5, 0.8])
    assert made.get_config()["decay_mask"] is not None


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_can_be_trained_with(name):
    made = train.optimizer(Run(optimizer=name, arguments=("learning_rate=0.01",), warmup=1.0), 10)
    assert type(made).__name__ == name
    rates = made.get_config()["learning_rate"]
    assert rates["class_name"] == "Warmup"


def test_the_warm_up_rises_to_the_rate_and_the_schedule_ends_with_the_run():
    run = replace(RUN, epochs=10, warmup=2.0, arguments=("learning_rate=0.4",))
    rate = train.schedule(run, 0.4, 10)
    found = [float(rate(step)) for step in (0, 10, 20, 60, 100)]
    assert found == pytest.approx([0, 0.2, 0.4, 0.2, 0], abs=1e-6)
