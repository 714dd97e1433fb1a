"""Depths: which layer a variable belongs to, by the paths of real models."""

import keras
import numpy as np
import pytest

from tf_decoupled.layers import depths

ENCODER = [
    "self_attention_layer/query/kernel",
    "self_attention_layer/attention_output/bias",
    "self_attention_layer_norm/gamma",
    "feedforward_intermediate_dense/kernel",
    "feedforward_output_dense/bias",
    "feedforward_layer_norm/beta",
]
BERT = [  # keras_hub's BertTextClassifier, some variables of each layer
    "token_embedding/embeddings",
    "position_embedding/embeddings",
    "segment_embedding/embeddings",
    "embeddings_layer_norm/gamma",
    *(f"transformer_layer_{i}/{rest}" for i in range(12) for rest in ENCODER),
    "pooled_dense/kernel",
    "logits/kernel",
    "logits/bias",
]
BLOCK = ["ln_1/gamma", "mha/query/kernel", "ln_2/beta", "mlp/dense_1/kernel", "mlp/dense_2/bias"]
VIT = [  # keras_hub's ViTImageClassifier
    "vi_t_backbone/vi_t_patching_and_embedding/token_layer/cls_token",
    "vi_t_backbone/vi_t_patching_and_embedding/patch_embedding/kernel",
    "vi_t_backbone/vi_t_patching_and_embedding/position_embedding/embeddings",
    *(
        f"vi_t_backbone/vi_t_encoder/encoder_layers/tranformer_block_{i + 1}/{rest}"
        for i in range(12)
        for rest in BLOCK
    ),
    "vi_t_backbone/vi_t_encoder/ln/gamma",
    "predictions/kernel",
    "predictions/bias",
]


def layers(paths, **options):
    """The depths as a list of layers, each the list of its paths."""
    found = depths(paths, **options)
    assert list(found) == list(dict.fromkeys(paths))
    assert set(found.values()) == set(range(max(found.values()) + 1)), "no gaps"
    return [[p for p in found if found[p] == d] for d in range(max(found.values()) + 1)]


def paths_of(model):
    return [v.path for v in model.trainable_variables]


def application(name):
    make = getattr(keras.applications, name)
    return paths_of(make(weights=None, input_shape=(64, 64, 3), classes=3))


def test_berts_embeddings_are_one_layer_and_each_encoder_is_one():
    found = layers(BERT)
    assert found[0] == BERT[:4]
    for i in range(12):
        assert found[i + 1] == [p for p in BERT if p.startswith(f"transformer_layer_{i}/")]
    assert found[13:] == [["pooled_dense/kernel"], ["logits/kernel", "logits/bias"]]


def test_a_vits_last_normalization_goes_with_its_head():
    found = layers(VIT)
    assert len(found) == 14 and found[0] == VIT[:3]
    assert found[1:13] == [VIT[3 + 5 * i : 8 + 5 * i] for i in range(12)]
    assert found[13] == VIT[-3:]


def test_efficientnets_blocks_are_the_layers():
    paths = application("EfficientNetB0")
    found = layers(paths)
    counts = dict(zip("1234567", (1, 2, 2, 3, 3, 4, 1), strict=True))
    blocks = [stage + letter for stage, count in counts.items() for letter in "abcd"[:count]]
    assert len(found) == len(blocks) + 3
    assert found[0] == ["stem_conv/kernel", "stem_bn/gamma", "stem_bn/beta"]
    for block, layer in zip(blocks, found[1:], strict=False):
        assert layer == [p for p in paths if p.startswith(f"block{block}_")]
    assert found[-2] == ["top_conv/kernel", "top_bn/gamma", "top_bn/beta"]
    assert found[-1] == ["predictions/kernel", "predictions/bias"]


def test_resnets_blocks_are_the_layers():
    paths = application("ResNet50")
    found = layers(paths)
    blocks = [(2, 3), (3, 4), (4, 6), (5, 3)]
    names = [f"conv{stage}_block{i + 1}_" for stage, count in blocks for i in range(count)]
    assert len(found) == 18
    assert {p.split("/")[0] for p in found[0]} == {"conv1_conv", "conv1_bn"}
    for name, layer in zip(names, found[1:], strict=False):
        assert layer == [p for p in paths if p.startswith(name)]


def test_mobilenets_first_normalization_goes_with_the_convolution_before_it():
    found = layers(application("MobileNetV2"))
    assert len(found) == 21
    assert found[0] == ["Conv1/kernel", "bn_Conv1/gamma", "bn_Conv1/beta"]
    assert found[-2] == ["Conv_1/kernel", "Conv_1_bn/gamma", "Conv_1_bn/beta"]


def test_a_chain_of_dense_layers_is_in_the_order_of_the_model():
    dense = keras.layers.Dense
    chain = [keras.layers.Input((4,)), dense(3), dense(3), keras.layers.BatchNormalization()]
    model = keras.Sequential([*chain, dense(3), dense(2, name="head")], name="net")
    names = [sorted({path.split("/")[1] for path in layer}) for layer in layers(paths_of(model))]
    assert names == [["dense"], ["batch_normalization", "dense_1"], ["dense_2"], ["head"]]


class Block(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.dense, self.norm = keras.layers.Dense(3), keras.layers.LayerNormalization()

    def call(self, x):
        return self.norm(self.dense(x))


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = keras.layers.Embedding(5, 3), keras.layers.Dense(2)
        self.blocks = [Block() for _ in range(12)]

    def call(self, x):
        x = self.embedding(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_layers_of_layers_are_layers_and_the_order_is_that_of_the_variables():
    model = Net()
    model(np.zeros([2, 3], "int32"))
    names = ["embedding", "dense", "block", *(f"block_{i}" for i in range(1, 12))]
    found = layers(paths_of(model))
    outer = [sorted({p.split("/")[1] for p in layer}) for layer in found]
    assert outer[0] == ["embedding"] and outer[1][0].startswith("dense")  # the head came second
    assert outer[2:] == [[name] for name in names[2:]]
    turned = layers(paths_of(model), layers=["embed", *[f"/{n}/" for n in names[2:]], "net/dense"])
    assert turned == [found[0], *found[2:], found[1]]


@pytest.mark.parametrize(
    "form", ["layers/{}/mlp/kernel", "enc/layer_._{}/w", "stage2_block{}_conv/kernel"]
)
def test_numbered_blocks_stand_in_the_order_of_their_numbers(form):
    shuffled = [form.format(i) for i in (10, 2, 1, 9, 0)]
    wanted = [form.format(i) for i in (0, 1, 2, 9, 10)]
    found = layers(["stem/kernel", *shuffled, "head/kernel"])
    assert found == [["stem/kernel"], *[[path] for path in wanted], ["head/kernel"]]


def test_two_towers_dont_mix():
    towers = [f"{side}/layer_{i}/w" for side in ("encoder", "decoder") for i in range(3)]
    assert layers(towers) == [[path] for path in towers]


def test_blocks_of_stages_are_layers():
    paths = [f"swin/layers_{i}/blocks_{j}/mlp/w" for i in range(2) for j in range(2)]
    paths.insert(2, "swin/layers_0/downsample/w")
    assert layers(paths) == [[path] for path in paths]


def test_layers_inside_a_block_are_not_layers():
    paths = [f"block_{i}/{rest}/kernel" for i in range(2) for rest in ("layer_1", "layer_2")]
    assert layers(paths) == [paths[:2], paths[2:]]


def test_what_has_no_number_and_no_layer_stands_alone():
    assert layers(["a", "b"]) == [["a"], ["b"]]
    assert layers(["dense/kernel", "dense/bias"]) == [["dense/kernel", "dense/bias"]]
    assert depths([]) == {}
    norms_only = ["norm/gamma", "dense/kernel", "norm_1/gamma"]
    assert layers(norms_only) == [norms_only]


def test_patterns_say_the_layers_from_the_bottom_to_the_top_and_the_first_counts():
    halves = ["embed", r"layer_[0-5]/", "layer_", "pooled|logits"]
    found = depths(BERT, layers=halves)
    assert found["embeddings_layer_norm/gamma"] == 0 and found["logits/bias"] == 3
    assert {found[p] for p in BERT if p.startswith("transformer_layer_5/")} == {1}
    assert {found[p] for p in BERT if p.startswith("transformer_layer_11/")} == {2}


@pytest.mark.parametrize(
    "patterns, error, words",
    [
        (["embed", "layer_"], ValueError, r"cover every variable.*'pooled_dense/kernel', 'logits"),
        (["embed", "", "logits"], ValueError, r"a layer of no variable: \['logits'\]"),
        (["embed", "("], ValueError, r"Not a regular expression: '\('"),
        ("embed", TypeError, "must be a list of regular expressions.*layers='embed'"),
        (["embed", 3], TypeError, "must be a list of regular expressions"),
    ],
)
def test_wrong_patterns_are_told(patterns, error, words):
    with pytest.raises(error, match=words):
        depths(BERT, layers=patterns)
