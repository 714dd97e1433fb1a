"""create: an optimizer by its name is the one that its class makes; and what `print` shows."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import mirrored, small_data, small_model

import tf_decoupled as td
from tf_decoupled import by_name

AMBIGUOUS = {"LAMB", "Lamb"}
NAMES = [e.name for e in td.list_optimizers() if not e.wraps and e.name != "Partition"]
layers = keras.layers


def language_model():
    """Embedding, attention, a recurrent layer, a normalization and a head."""
    tokens = layers.Input((6,), name="tokens")
    x = layers.Embedding(11, 8, name="embed")(tokens)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LayerNormalization(axis=(1, 2), name="norm")(x)
    x = layers.GRU(5, name="gru")(x)
    return keras.Model(tokens, layers.Dense(3, name="head")(x))


def rows(optimizer):
    return {row.path: row for row in optimizer.decay_report().rows}


def paths_of(partition):
    """The paths that each member steps."""
    return [{c.path for c in partition.cells_of(member)} for member in partition.optimizers]


# Names.


@pytest.mark.parametrize("name", NAMES)
def test_a_name_makes_what_its_class_makes_however_it_is_written(name):
    cls, outer = by_name.method(name)
    assert cls is getattr(td, name) and not outer
    if name not in AMBIGUOUS:
        assert by_name.method(name.lower())[0] is by_name.method(name.upper())[0] is cls
        assert by_name.method("_".join(name))[0] is by_name.method("-".join(name))[0] is cls


def test_what_is_given_reaches_the_class():
    made = td.create("AdamW", learning_rate=0.1, beta_1=0.8, clipnorm=1.0, name="mine")
    assert repr(made) == repr(td.AdamW(0.1, beta_1=0.8, clipnorm=1.0)) and made.name == "mine"
    assert repr(td.create("lion")) == repr(td.Lion())


def test_two_names_that_differ_in_capitals_only_must_be_told_apart():
    assert type(td.create("LAMB")) is td.LAMB and type(td.create("Lamb")) is td.Lamb
    with pytest.raises(ValueError, match="'lamb' may be LAMB or Lamb: write the one"):
        td.create("lamb")


@pytest.mark.parametrize(
    "name,words",
    [
        ("adamv", "No optimizer is called 'adamv'. Did you mean .*Adam"),
        ("muom", "Did you mean Muon"),
        ("lookahead_adamv", "No optimizer is called 'adamv'"),
        ("%", r"called '%'. `td.list_optimizers\(\)` lists all"),
        ("", "No optimizer is called ''"),
        ("lookahead", "Lookahead goes around an optimizer: name that as well, 'lookahead_adamw'"),
        ("partition", "makes a Partition where there is a fallback"),
    ],
)
def test_a_name_that_is_none_raises_and_names_what_is_similar(name, words):
    with pytest.raises(ValueError, match=words):
        td.create(name)


@pytest.mark.parametrize(
    "given,words",
    [
        (dict(learning_rat=0.1), "AdamW got an .* 'learning_rat'. Did you mean `learning_rate`"),
        (dict(lr=0.1), "The rate is called `learning_rate`"),
        (dict(layer_decai=0.7), "Did you mean `layer_decay`"),
        (dict(fallback_rate=1.0, fallback="lion"), "unexpected .* 'fallback_rate'"),
        (dict(wrappers="lookahead"), "`wrappers` must be a list of names"),
        (dict(wrappers=["lookahead(sync_perod=5)"]), "Lookahead got .* Did you mean `sync_period"),
        (dict(wrappers=["lookahead(inner=1)"]), "Lookahead got .* 'inner'"),
        (dict(fallback_patterns="head"), "`fallback_patterns` must be a list"),
        (dict(model=1e-3), "`model` must be a keras.Model. Received: model=0.001"),
        (dict(fallback=3, fallback_patterns=["head"]), "`fallback` must be a name"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_arguments_that_are_none_are_named(given, words):
    with pytest.raises(TypeError, match=words):
        td.create("adamw", **given)


@pytest.mark.parametrize("optimizer", [None, 1, td.AdamW, {"learning_rate": 1.0}, {1: 2}, []])
def test_what_is_no_name_raises(optimizer):
    with pytest.raises(TypeError, match=r"optimizer.* (must be a name|is told by its name)"):
        td.create(optimizer)


# Wrappers.


def test_wrappers_stand_before_the_name_the_outermost_first():
    made = td.create("lookahead_schedule-free_sgdw", learning_rate=0.5, clipnorm=1.0, name="all")
    expected = td.Lookahead(td.ScheduleFree(td.SGDW(0.5)), clipnorm=1.0)
    assert repr(made) == repr(expected) and made.name == "all"
    assert repr(td.create("LookAhead_AdamW")) == repr(td.Lookahead(td.AdamW()))


def test_wrappers_are_given_with_arguments_of_their_own():
    made = td.create(
        "mechanic_adamw",
        wrappers=["lookahead(sync_period=3)", {"name": "ScheduleFree", "beta": 0.5}],
        layer_decay=0.75,
    )
    inner = td.LayerwiseDecay(td.AdamW(), rate=0.75)
    inner = td.Lookahead(td.ScheduleFree(inner, beta=0.5), sync_period=3)
    assert repr(made) == repr(td.Mechanic(inner))


# Configurations.


def test_a_configuration_is_a_call_a_mapping_or_a_name():
    expected = td.Muon(0.02, 0.1, nesterov=False, clipnorm=1.0)
    text = "muon(learning_rate=0.02, weight_decay=0.1, nesterov=False, clipnorm=1.0)"
    mapping = dict(name="Muon", learning_rate=0.02, weight_decay=0.1, nesterov=False, clipnorm=1.0)
    for config in (text, mapping, json.loads(json.dumps(mapping))):
        made = td.create(config)
        assert made.clipnorm == 1.0
        assert repr(made.optimizers[0]) == repr(td.Muon(0.02, 0.1, nesterov=False))
    assert expected.learning_rate == made.optimizers[0].learning_rate
    assert mapping["name"] == "Muon"  # it is left as it was


def test_of_two_answers_that_by_keyword_counts():
    made = td.create("adamw(learning_rate=0.1, beta_1=0.5)", learning_rate=0.2, layer_decay=None)
    assert repr(made) == repr(td.AdamW(0.2, beta_1=0.5))


@pytest.mark.parametrize(
    "text",
    [
        *("adamw(0.1)", "adamw(**{})", "adamw(learning_rate=x)", "adamw(learning_rate=0.1"),
        *("adamw(learning_rate=0.1)(1)", "adamw(learning_rate=0.1).x", "adamw(name='lion')"),
        *("adamw(learning_rate=__import__('os').getpid())", "adamw(beta_1=[x for x in (1,)])"),
        *("adamw(learning_rate=0.1, learning_rate=0.2)", "adamw(learning_rate=2 ** 3)", "adamw(;)"),
        "adamw(learning_rate=" + 5000 * "(" + ")",
    ],
    ids=lambda text: text[:40],
)
def test_a_string_is_read_and_never_executed(text):
    with pytest.raises(ValueError, match="A string is a name, or a call whose arguments are"):
        td.create(text)


def test_schedules_go_by_their_names_also_inside_of_others():
    text = (
        "adamw(learning_rate=warmup(learning_rate=cosine(initial_learning_rate=0.1, "
        "decay_steps=10), warmup_steps=5), weight_decay=normalized_decay(rate=0.1, batch_size=8, "
        "train_size=64, epochs=2))"
    )
    rate = td.schedules.Warmup(td.schedules.Cosine(0.1, 10), warmup_steps=5)
    expected = td.AdamW(rate, td.NormalizedDecay(0.1, 8, 64, 2))
    assert repr(td.create(text)) == repr(expected)
    mapping = {"name": "Cosine", "initial_learning_rate": 0.1, "decay_steps": 10}
    assert repr(td.create("sgd", learning_rate=mapping)) == repr(
        td.SGD(td.schedules.Cosine(0.1, 10))
    )
    joined = (
        "join(schedules=[linear(initial_learning_rate=1.0, decay_steps=2), 0.1], boundaries=[2])"
    )
    assert float(td.create("sgd", learning_rate=joined).learning_rate) == 1.0


@pytest.mark.parametrize(
    "rate,words",
    [
        ("cosin(decay_steps=1)", "No schedule is called 'cosin'. Did you mean .*Cosine"),
        ("1e-3", "a number stands without quotes, in YAML as 1.0e-3"),
        ("linear(initial_learning_rate=1, decay_step=1)", "Linear got .* Did you mean `decay_st"),
    ],
)
def test_a_schedule_that_is_none_raises(rate, words):
    with pytest.raises((ValueError, TypeError), match=words):
        td.create("adamw", learning_rate=rate)


# Decay masks.


def test_kernels_leaves_out_biases_and_normalizations_of_any_rank():
    made = td.create("adamw", language_model(), weight_decay=0.05, decay_mask="kernels")
    for path, row in rows(made).items():
        named = path.rpartition("/")[2]
        assert row.decays is (named not in ("bias", "beta", "gamma")), path
    ranks = {path: len(row.shape) for path, row in rows(made).items()}
    assert sum(rank > 1 and not rows(made)[path].decays for path, rank in ranks.items()) == 6
    with pytest.raises(ValueError, match="one of everything, matrices, kernels, or a list"):
        td.create("adamw", decay_mask="kernel")
    assert repr(td.create("adamw", decay_mask=["bias"])) == repr(td.AdamW(decay_mask=["bias"]))


# Fallbacks.


def test_muon_steps_hidden_kernels_and_adamw_the_rest_with_the_same_decay():
    made = td.create(
        "muon", language_model(), weight_decay=0.1, decay_mask="kernels", clipnorm=1.0, name="mine"
    )
    muon, rest = paths_of(made)
    assert all("kernel" in path for path in muon) and any("attention" in p for p in muon)
    assert any("embed" in path for path in rest) and any("head/kernel" in path for path in rest)
    first, second = made.optimizers
    assert (type(first), type(second)) == (td.Muon, td.AdamW)
    assert first.weight_decay == second.weight_decay == np.float32(0.1)
    assert (made.clipnorm, made.name) == (1.0, "mine")
    assert float(second.learning_rate) == np.float32(1e-3)
    assert float(td.create("muon").optimizers[1].weight_decay) == 0.0  # Muon's own default


def test_patterns_of_the_common_mask_are_found_anywhere():
    made = td.create("muon", small_model(), weight_decay=0.1, decay_mask=["bias", "norm"])
    decaying = {path.split("/")[-2] for path, row in rows(made).items() if row.decays}
    assert decaying == {"hidden", "head"}
    with pytest.raises(ValueError, match=r"match no variable: \['nrom'\]"):
        td.create("muon", small_model(), decay_mask=["bias", "nrom"])


def test_without_a_model_the_first_step_decides_the_same():
    model, given = language_model(), dict(learning_rate=0.01, layer_decay=0.5)
    now, later = td.create("muon", model, **given), td.create("muon", **given)
    assert now.built and not later.built
    later.build(model.trainable_variables)
    assert paths_of(now) == paths_of(later)
    assert [c.numbers.values() for c in now.cells] and str(now) == str(later)


def test_a_fallback_has_a_rate_arguments_and_patterns_of_its_own():
    made = td.create(
        "muon",
        fallback="lion(beta_1=0.8)",
        fallback_learning_rate="linear(initial_learning_rate=0.1, decay_steps=10)",
        fallback_patterns=["gru", "head"],
        wrappers=["lookahead"],
    )
    rate = td.schedules.Linear(0.1, 10)
    second = td.Lookahead(td.Lion(rate, weight_decay=0.0, beta_1=0.8))
    assert repr(made.optimizers[1]) == repr(second)
    made.build(language_model().trainable_variables)
    muon, _ = paths_of(made)
    assert any("embed" in path for path in muon) and not any("gru" in path for path in muon)


def test_any_method_gets_a_fallback_that_is_told_where():
    model = small_model()
    made = td.create("sgdw", model, fallback_patterns=["head"], fallback="adamw")
    assert [{p.split("/")[-2] for p in paths} for paths in paths_of(made)] == [
        {"hidden", "norm"},
        {"head"},
    ]
    assert type(td.create("sgdw", fallback_patterns=[])) is td.SGDW
    assert type(td.create("mars")) is td.MARS  # that form refuses nothing
    assert type(td.create("mars", form="shampoo").optimizers[0]) is td.MARS


@pytest.mark.parametrize(
    "call,words",
    [
        (dict(optimizer="lion", fallback="adamw"), "Lion steps every variable and needs no fall"),
        (dict(optimizer="lion", fallback_learning_rate=0.1), "needs no fallback"),
        (
            dict(optimizer="muon", learning_rate=td.schedules.Linear(0.1, 10)),
            "Muon follows a schedule, and its fallback AdamW would stay .*fallback_learning_rate`",
        ),
        (dict(optimizer="muon", fallback="lookahead_lion"), "goes around its fallback, too"),
        (dict(optimizer="muon", fallback="adamv"), "No optimizer is called 'adamv'"),
    ],
)
def test_a_fallback_that_is_not_asked_for_or_would_surprise_raises(call, words):
    with pytest.raises(ValueError, match=words):
        td.create(**call)


def test_a_model_must_be_built():
    with pytest.raises(ValueError, match=r"Build the model first, .* or leave `model` out"):
        td.create("adamw", keras.Sequential([layers.Dense(1)]))


def test_layers_are_those_of_the_whole_model_where_members_share_it():
    model = keras.Sequential(
        [layers.Input((4,)), *(layers.Dense(4, name=f"layer_{i}") for i in range(3))]
    )
    made = td.create("muon", model, layer_decay=0.5)
    above = {c.path.split("/")[-2]: next(iter(c.numbers.values())) for c in made.cells}
    assert above == {"layer_0": 2.0, "layer_1": 1.0, "layer_2": 0.0}
    kernels = {c.path: next(iter(c.numbers.values())) for c in made.cells if "kernel" in c.path}
    assert sorted(kernels.values()) == [0.0, 1.0, 2.0]


def test_what_is_created_trains_is_saved_and_goes_on_bit_for_bit(tmp_path):
    model, (x, y) = small_model(), small_data()
    text = "lookahead_muon(learning_rate=0.02, layer_decay=0.7, jit_compile=False)"
    model.compile(td.create(text, model), "mse")
    model.fit(x, y, epochs=1, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert repr(again.optimizer) == repr(model.optimizer)
    for each in (model, again):
        each.fit(x, y, epochs=1, verbose=0, shuffle=False)
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_is_created_in_the_scope_of_a_strategy():
    with mirrored().scope():
        model = small_model()
        made = td.create("adamw", model)
    assert len(made.cells) == len(model.trainable_variables)


# What `print` shows.


def test_before_the_build_it_shows_what_is_known():
    shown = str(td.AdamW(td.schedules.Linear(0.1, 10), 0.05, decay_coupling="schedule"))
    assert shown.splitlines()[0].startswith("AdamW(learning_rate=Linear(")
    assert "0.1 now, of Linear(initial_learning_rate=0.1" in shown
    assert "'schedule': δ(θ) = (lr / base) λ θ, base = 0.1" in shown
    assert "not built" in shown and "bytes" not in shown and shown.endswith("iterations     0")


def test_it_shows_rate_decay_groups_state_and_iterations():
    model, (x, y) = small_model(), small_data(32)
    rate = td.schedules.Linear(0.1, 10)
    optimizer = td.AdamW(rate, 0.05, decay_mask=td.masks.kernels, jit_compile=False)
    model.compile(optimizer, "mse")
    model.fit(x, y, batch_size=16, epochs=1, verbose=0)
    shown = str(optimizer)
    assert "0.08 now, of Linear" in shown and "weight_decay   0.05\n" in shown
    assert "'learning_rate': δ(θ) = lr λ θ" in shown
    assert "2 variables, 40 parameters decay" in shown
    assert "4 variables, 25 parameters don't" in shown
    assert shown.endswith("iterations     2")
    size = int(shown.split("bytes")[0].split()[-1].replace(",", ""))
    numbers = sum(v.numpy().nbytes for v in optimizer.named_numbers().values())
    assert size == 2 * 4 * 65 + numbers


def test_wrappers_show_the_rate_that_counts_and_replicas_the_same_text():
    with mirrored().scope():
        optimizer, model = td.Lookahead(td.SGDW(0.5), clipnorm=1.0), small_model()
    optimizer.build(model.trainable_variables)
    alone = td.Lookahead(td.SGDW(0.5), clipnorm=1.0)
    alone.build(small_model().trainable_variables)
    assert str(optimizer) == str(alone)
    assert "Lookahead(SGDW(learning_rate=0.5), clipnorm=1.0)" in str(alone)


def test_it_is_printed_in_a_trace_too():
    optimizer, seen = td.AdamW(0.1), []
    tf.function(lambda: seen.append(str(optimizer)))()
    assert seen == [str(optimizer)]


def test_a_partition_writes_itself_without_the_names_of_tensorflow():
    optimizer = td.Partition([(td.masks.matrices, td.Muon(0.02)), (None, td.AdamW())])
    assert repr(optimizer) == (
        "Partition([(matrices, Muon(learning_rate=0.02)), "
        "(everything, AdamW(learning_rate=0.001))])"
    )


# Keras's own strings.


@pytest.mark.parametrize("name", ["AdamW", "Lion", "Muon", "SGD"])
def test_keras_finds_optimizers_by_their_registered_name(name):
    made = keras.optimizers.get(f"tf_decoupled>{name}")
    assert type(made) is getattr(td, name) and repr(made) == repr(getattr(td, name)())
    config = {"class_name": f"tf_decoupled>{name}", "config": {"learning_rate": 0.25}}
    assert keras.optimizers.get(config).learning_rate == 0.25
    model = small_model()
    model.compile(f"tf_decoupled>{name}", "mse")
    assert type(model.optimizer) is getattr(td, name)
