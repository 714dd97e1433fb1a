"""Partition: each variable to the first member whose mask says yes; and rates that differ."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, mirrored, small_data, small_model

import tf_decoupled as td

SHAPES = [(4, 3), (3,), (4, 3), (3, 3)]
NAMES = ["block/kernel", "block/bias", "other/kernel", "head/kernel"]


class Named(keras.Variable):
    """A variable with a path."""


def variables(seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for path, shape in zip(NAMES, SHAPES, strict=True):
        scope, name = path.split("/")
        with keras.name_scope(scope):
            value = rng.normal(size=shape).astype("float32")
            made.append(keras.Variable(value, name=name))
    return made


def stepped(optimizer, trainable=None, steps=3, seed=1):
    trainable = variables() if trainable is None else trainable
    step = tf.function(lambda gs: optimizer.apply(gs, trainable))
    for gs in gradients([tuple(v.shape) for v in trainable], steps, seed):
        step([tf.constant(g) for g in gs])
    return trainable


def muon_and_adamw(**shared):
    hidden = td.masks.matrices & ~td.masks.only("head")
    members = [(hidden, td.Muon(0.02)), (None, td.AdamW(0.01, 0.1, decay_mask=["bias"]))]
    return td.Partition(members, jit_compile=False, **shared)


def assert_equal(these, those):
    for a, b in zip(these, those, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_each_member_steps_its_variables_as_it_would_alone():
    ours = stepped(muon_and_adamw())
    alone = variables()
    hidden, rest = [alone[0], alone[2]], [alone[1], alone[3]]
    muon = td.Muon(0.02, jit_compile=False)
    adamw = td.AdamW(0.01, 0.1, decay_mask=["bias"], jit_compile=False)
    for gs in gradients(SHAPES, 3):
        muon.apply([tf.constant(gs[0]), tf.constant(gs[2])], hidden)
        adamw.apply([tf.constant(gs[1]), tf.constant(gs[3])], rest)
    for a, b in zip(ours, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_members_alike_step_variables_alike_each_at_its_own_rate():
    values = [keras.Variable(np.ones((2, 3), "float32"), name=f"v{i}") for i in range(4)]
    slow, fast = (td.SGDW(rate, momentum=0.0, weight_decay=0.0) for rate in (0.1, 0.5))
    ours = td.Partition([(td.masks.only("v0|v2"), slow), (None, fast)], jit_compile=False)
    ours.apply([tf.ones((2, 3))] * 4, values)
    np.testing.assert_allclose([v.numpy()[0, 0] for v in values], [0.9, 0.5, 0.9, 0.5])


@pytest.mark.parametrize(
    "make",
    [lambda **k: td.AdamW(0.1, 0.1, **k), lambda **k: td.Prodigy(d0=0.01, **k)],
    ids=["AdamW", "Prodigy"],
)
def test_a_partition_of_one_member_is_that_member_bit_for_bit(make):
    engine = dict(clipnorm=0.5, use_ema=True, skip_nonfinite=True, jit_compile=False)
    whole = td.Partition([(None, make())], **engine)
    alone = make(**engine)
    assert_equal(stepped(whole), stepped(alone))
    ours, theirs = whole.get_state(), alone.get_state()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours.get(name, ours.get(f"members/0/{name}")), value)


def test_it_is_saved_and_loaded(tmp_path):
    optimizer = muon_and_adamw(clipnorm=1.0)
    model = small_model()
    model.compile(optimizer, "mse")
    x, y = small_data()
    model.fit(x, y, epochs=1, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert repr(again.optimizer) == repr(optimizer)
    for each in (model, again):
        each.optimizer.optimizers[1].learning_rate = 0.03
        each.fit(x, y, epochs=1, verbose=0, shuffle=False)
    assert_equal(model.weights, again.weights)
    assert again.optimizer.get_state()["members/1/learning_rate"] == np.float32(0.03)


def test_it_is_replicated():
    expected = stepped(muon_and_adamw())
    with mirrored().scope():
        trainable, optimizer = variables(), muon_and_adamw()
        optimizer.build(trainable)

    @tf.function
    def step(gs):
        mirrored().run(lambda gs: optimizer.apply([g / 2 for g in gs], trainable), (gs,))

    for gs in gradients(SHAPES, 3):
        step([tf.constant(g) for g in gs])
    for a, b in zip(trainable, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


def test_it_shows_who_steps_what():
    optimizer = muon_and_adamw()
    assert "Muon" in str(optimizer) and "block/kernel" not in str(optimizer)
    optimizer.build(variables())
    shown = str(optimizer)
    muon, adamw = shown.split("AdamW(")
    assert "2 variables, 24 parameters" in muon and "block/kernel (4, 3)" in muon
    assert "2 variables, 12 parameters" in adamw and "head/kernel (3, 3)" in adamw
    report = optimizer.decay_report()
    assert {row.path: row.decays for row in report.rows}["block/bias"] is False
    assert "weight_decay 0.1" in str(report)


def test_its_rate_is_the_first_members_and_scales_all():
    optimizer = muon_and_adamw()
    assert float(optimizer.learning_rate) == np.float32(0.02)
    optimizer.learning_rate = 0.01
    first, second = optimizer.optimizers
    np.testing.assert_allclose([first.learning_rate, second.learning_rate], [0.01, 0.005])
    falling = td.Partition([(None, td.AdamW(td.schedules.Linear(0.1, 10)))])
    with pytest.raises(TypeError, match="scales the rates of all members, which must be numbers"):
        falling.learning_rate = 0.1
    for name in ("weight_decay", "decay_mask"):
        with pytest.raises(AttributeError, match=rf"opt.optimizers\[0\].{name}"):
            getattr(optimizer, name)


def built(optimizer):
    optimizer.build(variables())


@pytest.mark.parametrize(
    "call,error,words",
    [
        (lambda: td.Partition(), TypeError, "needs pairs of a mask and an optimizer"),
        (lambda: td.Partition([]), TypeError, "needs pairs"),
        (lambda: td.Partition([td.AdamW()]), TypeError, "needs pairs"),
        (lambda: td.Partition([(None, "adam")]), TypeError, "is an optimizer of this library"),
        (lambda: td.Partition([(3, td.AdamW())]), TypeError, "must be None, a callable"),
        (
            lambda: td.Partition([(None, td.AdamW(clipnorm=1.0, use_ema=True))]),
            ValueError,
            "give them to the Partition. Received: .*clipnorm.*use_ema",
        ),
        (
            lambda: td.Partition([(td.masks.matrices, o := td.AdamW()), (None, o)]),
            ValueError,
            "Received one optimizer twice",
        ),
        (
            lambda: td.Partition([(None, td.Partition([(None, td.AdamW())]))]),
            TypeError,
            "no Partition itself",
        ),
        (
            lambda: td.Lookahead(td.Partition([(None, td.AdamW())])),
            TypeError,
            "goes around one rule",
        ),
        (
            lambda: built(td.Partition([(td.masks.matrices, td.AdamW())])),
            ValueError,
            r"No member .* takes these variables.*\['block/bias'\]",
        ),
        (
            lambda: built(td.Partition([(td.masks.only("tail"), td.SGD()), (None, td.AdamW())])),
            ValueError,
            r"A member's mask patterns that match no variable: \['tail'\]",
        ),
        (
            lambda: built(td.Muon()),
            ValueError,
            r"Muon steps matrices.*block/bias \(3,\).*td.Partition",
        ),
        (
            lambda: td.Partition([(None, td.AdamW())]).exclude_from_weight_decay(var_names=["a"]),
            TypeError,
            "give `decay_mask` to its members",
        ),
    ],
)
def test_what_cannot_be_says_so(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_build_that_fails_can_be_done_again_with_other_variables():
    optimizer = td.Muon(jit_compile=False)
    with pytest.raises(ValueError, match="block/bias"):
        optimizer.build(variables())
    matrices = [v for v in variables() if len(v.shape) == 2]
    expected = [v for v in variables() if len(v.shape) == 2]
    assert_equal(stepped(optimizer, matrices), stepped(td.Muon(jit_compile=False), expected))


def rates_seen(optimizer):
    """What SGD's step of a gradient of ones says of each variable's rate."""
    trainable = variables()
    before = [v.numpy() for v in trainable]
    optimizer.apply([tf.ones(v.shape) for v in trainable], trainable)
    return [float(np.mean(b - v.numpy())) for b, v in zip(before, trainable, strict=True)]


def test_rates_fall_from_layer_to_layer():
    layers = ["block", "other", "head"]
    make = lambda **k: td.LayerwiseDecay(  # noqa: E731
        td.SGDW(0.5, 0.0, momentum=0.0, jit_compile=False), rate=0.5, layers=layers, **k
    )
    np.testing.assert_allclose(rates_seen(make()), [0.125, 0.125, 0.25, 0.5], rtol=1e-5)
    optimizer = make()
    optimizer.build(variables())
    optimizer.rate = 0.1
    again = type(optimizer).from_config(optimizer.get_config())
    np.testing.assert_allclose(rates_seen(again), [0.005, 0.005, 0.05, 0.5], rtol=1e-4)
    with pytest.raises(ValueError, match="must cover every variable"):
        built(td.LayerwiseDecay(td.SGDW(), layers=["block"]))


def test_a_rate_of_layers_of_one_changes_nothing():
    plain = stepped(td.AdamW(0.1, 0.1, jit_compile=False))
    wrapped = td.LayerwiseDecay(td.AdamW(0.1, 0.1, jit_compile=False), rate=1.0)
    assert_equal(stepped(wrapped), plain)


@pytest.mark.parametrize(
    "coupling,expected",
    [("learning_rate", 0.05), ("corrected", 0.05), ("schedule", 0.1), ("independent", 0.1)],
)
def test_multiplied_rates_decay_as_such_rates_do(coupling, expected):
    inner = td.SGDW(1.0, 0.1, momentum=0.0, decay_coupling=coupling, jit_compile=False)
    optimizer = td.RateMultipliers(inner, [(td.masks.only("block"), 0.5)])
    trainable = variables()
    before = [v.numpy() for v in trainable]
    optimizer.apply([tf.zeros(v.shape) for v in trainable], trainable)
    lost = [(1 - np.asarray(v) / b).mean() for v, b in zip(trainable, before, strict=True)]
    np.testing.assert_allclose(lost, [expected, expected, 0.1, 0.1], rtol=1e-4)


def test_multipliers_by_mask_are_checked_saved_and_wrap_wrappers():
    optimizer = td.RateMultipliers(
        td.Lookahead(td.SGDW(0.5, 0.0, momentum=0.0, jit_compile=False)),
        [(td.masks.only("head"), 0.0), (td.masks.matrices, 2)],
    )
    again = type(optimizer).from_config(optimizer.get_config())
    assert repr(again) == repr(optimizer)
    np.testing.assert_allclose(rates_seen(again), [1.0, 0.5, 1.0, 0.0], rtol=1e-5, atol=1e-7)
    for wrong in ([], [(None, -1.0)], [0.5], [(None, "half")]):
        with pytest.raises(TypeError, match="needs pairs of a mask and a number >= 0"):
            td.RateMultipliers(td.SGDW(), wrong)
    with pytest.raises(ValueError, match=r"multiplier's mask patterns.*\['tail'\]"):
        built(td.RateMultipliers(td.SGDW(), [(td.masks.only("tail"), 0.5)]))


def test_a_wrapper_takes_over_what_its_inner_was_given_for_the_engine():
    optimizer = td.Lookahead(td.AdamW(0.1, clipnorm=0.5, use_ema=True, ema_momentum=0.9))
    assert optimizer.use_ema and float(optimizer.clipnorm) == 0.5
    assert optimizer.inner.clipnorm is None and not optimizer.inner.use_ema
    assert float(optimizer.ema_momentum) == np.float32(0.9)
    optimizer.clipnorm = 2.0
    again = type(optimizer).from_config(optimizer.get_config())
    assert float(again.clipnorm) == 2.0
    same = td.Lookahead(td.AdamW(0.1), clipnorm=0.5, use_ema=True, ema_momentum=0.9)
    first = td.Lookahead(td.AdamW(0.1, clipnorm=0.5, use_ema=True, ema_momentum=0.9))
    assert repr(same) == repr(first)
    td.Lookahead(td.AdamW(clipnorm=1.0), clipnorm=1.0)
    with pytest.raises(ValueError, match="`clipnorm` was given to Lookahead and to the AdamW"):
        td.Lookahead(td.AdamW(clipnorm=1.0), clipnorm=2.0)


def test_the_logger_writes_each_members_numbers(tmp_path):
    model, (x, y) = small_model(), small_data()
    model.compile(muon_and_adamw(), "mse")
    logger = td.callbacks.HyperparameterLogger(tmp_path)
    model.fit(x, y, callbacks=[logger], verbose=0)
    names = {name for name, _ in logger._scalars()}
    assert {"members/0/learning_rate", "members/1/decay", "members/1/beta_1"} <= names


def test_multipliers_around_multipliers_multiply():
    values = [keras.Variable(np.ones((2, 3), "float32"), name=f"v{i}") for i in range(3)]
    inner = td.SGDW(0.1, momentum=0.0, weight_decay=0.0, jit_compile=False)
    inner = td.RateMultipliers(inner, [(td.masks.only("v0|v1"), 0.5)])
    both = td.RateMultipliers(inner, [(td.masks.only("v1|v2"), 4.0)])
    both.apply([tf.ones((2, 3))] * 3, values)
    moved = [1.0 - v.numpy()[0, 0] for v in values]
    np.testing.assert_allclose(moved, [0.05, 0.2, 0.4], rtol=1e-5)
