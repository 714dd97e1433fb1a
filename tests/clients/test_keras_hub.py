"""keras-hub: transformers from its backbones, tiny and with random weights."""

import keras
import numpy as np
import pytest
from client import goes_on, same_weights

import tf_decoupled as td

CLIENT = "keras_hub"
pytestmark = [
    pytest.mark.slow,
    # Its tasks don't tell Keras how they were compiled, and are loaded with an Adam of their own.
    pytest.mark.filterwarnings("ignore:.compile... was not called as part of model loading"),
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer 'adam_?[0-9]*'"),
]

SIZE = dict(vocabulary_size=16, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16)
SIZE |= dict(max_sequence_length=8, dropout=0.0)
TOKENS = np.random.default_rng(0).integers(16, size=(16, 6))
HOW = dict(batch_size=8, shuffle=False, verbose=0)


def bert(client, dtype=None):
    """A classifier of Keras's own kind around a backbone, with what it is trained on."""
    keras.utils.set_random_seed(0)
    backbone = client.models.BertBackbone(dtype=dtype, name="backbone", **SIZE)
    logits = keras.layers.Dense(2, name="logits", dtype="float32")
    model = keras.Model(backbone.input, logits(backbone(backbone.input)["pooled_output"]))
    ones, zeros = np.ones_like(TOKENS), np.zeros_like(TOKENS)
    x = dict(token_ids=TOKENS, padding_mask=ones, segment_ids=zeros)
    return model, x, TOKENS[:, 0] % 2


def gpt(client, dtype=None):
    """A task of keras-hub's, with what it is trained on: the next token."""
    keras.utils.set_random_seed(0)
    task = client.models.GPT2CausalLM(client.models.GPT2Backbone(dtype=dtype, **SIZE))
    x = dict(token_ids=TOKENS, padding_mask=np.ones_like(TOKENS))
    return task, x, np.roll(TOKENS, -1, axis=1)


def masked(library):
    """AdamW; ours decays kernels only, Keras's all: it forgets in a file what it excludes."""
    mask = dict(decay_mask=td.masks.only("kernel$")) if library is td else {}
    return library.AdamW(0.01, weight_decay=0.1, **mask)


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_float16"])
def test_a_bert_goes_on_from_a_keras_file(client, library, dtype, tmp_path):
    model, x, y = bert(client, keras.DTypePolicy(dtype))
    before = model.get_weights()
    model.compile(masked(library), loss(), jit_compile=False)
    model.fit(x, y, **HOW)
    moved = [not np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True)]
    assert all(moved) or library is keras.optimizers  # which loses small steps of bfloat16
    assert goes_on(model, tmp_path / "model.keras", x, y, batch_size=8)


def test_the_mask_of_a_bert_is_in_its_file(client, tmp_path):
    model, _, _ = bert(client)
    model.compile(masked(td), loss())
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.models.load_model(tmp_path / "model.keras")):
        rows = each.optimizer.decay_report().rows
        assert len(rows) == len(model.trainable_variables)
        assert all(row.decays == row.path.endswith("kernel") for row in rows)


def test_a_gpt_2_goes_on_from_its_weights_when_it_is_compiled_again(client, library, tmp_path):
    task, x, y = gpt(client, keras.DTypePolicy("mixed_bfloat16"))
    task.compile(masked(library))
    task.fit(x, y, **HOW)
    task.save(tmp_path / "task.keras")
    task.save_weights(tmp_path / "task.weights.h5")
    loaded = keras.models.load_model(tmp_path / "task.keras")
    assert same_weights(task, loaded)
    loaded.compile(masked(library))
    loaded.optimizer.build(loaded.trainable_variables)
    loaded.load_weights(tmp_path / "task.weights.h5")
    for each in (task, loaded):
        each.fit(x, y, **HOW)
    assert same_weights(task, loaded)


def test_lora_trains_its_own_weights_and_goes_on_from_them(client, library, tmp_path):
    def with_lora():
        task, x, y = gpt(client, keras.DTypePolicy("bfloat16"))
        task.backbone.enable_lora(2)
        task.compile(library.AdamW(0.01, weight_decay=0.1), jit_compile=False)
        return task, x, y

    task, x, y = with_lora()
    frozen = [v.numpy() for v in task.non_trainable_variables]
    task.fit(x, y, **HOW)
    assert "lora_kernel_a" in {v.name for v in task.trainable_variables} and frozen
    for before, variable in zip(frozen, task.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(before, variable)
    task.backbone.save_lora_weights(tmp_path / "task.lora.h5")
    again, _, _ = with_lora()
    again.backbone.load_lora_weights(tmp_path / "task.lora.h5")
    biases = lambda task: [v for v in task.trainable_variables if v.name == "bias"]  # noqa: E731
    again.optimizer.build(again.trainable_variables)
    pairs = [*zip(task.optimizer.variables, again.optimizer.variables, strict=True)]
    for trained, fresh in [*zip(biases(task), biases(again), strict=True), *pairs]:
        fresh.assign(trained)  # keras-hub's file has the kernels only
    for each in (task, again):
        each.fit(x, y, **HOW)
    assert same_weights(task, again)


def test_a_bert_with_lora_comes_back_without_it_and_trains_anew(client, library, tmp_path):
    model, x, y = bert(client)
    model.get_layer("backbone").enable_lora(2)
    model.compile(library.AdamW(0.01, weight_decay=0.1), loss(), jit_compile=False)
    model.fit(x, y, **HOW)
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="Skipping variable loading|These start anew"):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.trainable_variables) > len(model.trainable_variables)
    np.testing.assert_allclose(model.predict(x, verbose=0), loaded.predict(x, verbose=0), rtol=1e-5)
    loaded.fit(x, y, **HOW)
