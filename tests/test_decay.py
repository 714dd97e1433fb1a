"""Masks, their report, the bases that couplings divide by, and normalized decay."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from cases import gradients, run, small_data, small_model, variables

import tf_decoupled as td

PATHS = ("encoder/dense/kernel", "encoder/dense/bias", "head/kernel", "head/bias")


class Named:
    """What a mask may ask of a variable."""

    def __init__(self, path):
        self.path, self.shape = path, (2, 2) if path.endswith("kernel") else (2,)


def decays(mask):
    return [mask(Named(path)) for path in PATHS]


MASKS = {
    "matrices": (td.masks.matrices, [True, False, True, False]),
    "exclude": (td.masks.exclude("bias", "head"), [True, False, False, False]),
    "only": (td.masks.only("^head/"), [False, False, True, True]),
    "and": (td.masks.matrices & td.masks.only("head"), [False, False, True, False]),
    "or": (td.masks.matrices | td.masks.only("head"), [True, False, True, True]),
    "not": (~td.masks.matrices, [False, True, False, True]),
    "callable and": (
        (lambda v: "encoder" in v.path) & td.masks.matrices,
        [True, False, False, False],
    ),
    "nested": (~(td.masks.matrices & ~td.masks.only("head")), [False, True, True, True]),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_choose_by_rank_and_path_and_combine(name):
    mask, expected = MASKS[name]
    assert decays(mask) == expected


@pytest.mark.parametrize("name", [name for name in MASKS if "callable" not in name])
def test_masks_survive_saving(name):
    mask, expected = MASKS[name]
    config = td.AdamW(decay_mask=mask).get_config()
    again = td.AdamW.from_config(config).decay_mask
    assert again == mask and decays(again) == expected


@keras.saving.register_keras_serializable("tests")
def decays_if_named_kernel(variable):
    return variable.name == "kernel"


@pytest.mark.parametrize(
    "mask",
    [decays_if_named_kernel, ["bias", "norm"], td.masks.matrices, None],
    ids=["callable", "patterns", "mask", "None"],
)
def test_every_kind_of_mask_survives_a_keras_file(mask, tmp_path):
    model = small_model()
    model.compile(td.AdamW(0.1, weight_decay=0.5, decay_mask=mask), "mse")
    model.fit(*small_data(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    rows = [(row.shape, row.decays, row.reason) for row in model.optimizer.decay_report().rows]
    assert rows == [(r.shape, r.decays, r.reason) for r in loaded.optimizer.decay_report().rows]
    assert any(row[1] for row in rows) and (mask is None) == all(row[1] for row in rows)


def test_the_mask_is_asked_once_per_variable_at_build():
    asked = []
    mask = lambda v: asked.append(v.name) or True  # noqa: E731
    run(td.SGDW(decay_mask=mask), variables(), gradients(steps=3))
    assert asked == ["v0", "v1", "v2", "v3"]


def test_a_pattern_that_matches_nothing_raises_and_names_itself():
    for mask in (["bias", "LayerNom"], td.masks.matrices & ~td.masks.only("LayerNom")):
        optimizer = td.AdamW(decay_mask=mask)
        with pytest.raises(ValueError, match=r"match no variable: \['LayerNom'\]"):
            optimizer.build(small_model().trainable_variables[:2])


def test_the_report_lists_every_variable_with_its_decay_and_why():
    optimizer = td.AdamW(weight_decay=0.02, decay_mask=td.masks.matrices & td.masks.exclude("head"))
    model = small_model()
    with pytest.raises(ValueError, match="Build the optimizer first"):
        optimizer.decay_report()
    optimizer.build(model.trainable_variables)
    report = optimizer.decay_report()
    assert [row.path for row in report.rows] == [v.path for v in model.trainable_variables]
    assert [row.decays for row in report.rows] == [True, False, False, False, False, False]
    text = str(report)
    assert "rank 2 & matches 'head'" in text and "1 variable, 32 parameters decay" in text
    assert "5 variables, 33 parameters don't" in text and "weight_decay 0.02" in text


def test_exclude_from_weight_decay_works_is_saved_and_raises_after_build(tmp_path):
    model = small_model()
    optimizer = td.AdamW(weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[0].kernel])
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma"])
    model.compile(optimizer, "mse")
    model.fit(*small_data(), verbose=0)
    decaying = [row.decays for row in optimizer.decay_report().rows]
    assert decaying == [False, False, False, True, True, False]
    with pytest.raises(ValueError, match="must come before the optimizer is built"):
        optimizer.exclude_from_weight_decay(var_names=["kernel"])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert [row.decays for row in loaded.decay_report().rows] == decaying


def test_excluding_one_variable_spares_its_namesakes():
    a, b = (keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2)]) for _ in range(2))
    optimizer = td.SGDW()
    optimizer.exclude_from_weight_decay(var_list=[a.trainable_variables[0]])
    optimizer.build([*a.trainable_variables, *b.trainable_variables])
    assert [row.decays for row in optimizer.decay_report().rows] == [False, True, True, True]


def test_excluding_one_variable_spares_those_of_the_same_name_in_other_layers():
    trainable = []
    for path in ("encoder/words", "decoder/words", "words", "encoder"):
        with contextlib.ExitStack() as scopes:
            for scope in path.split("/"):
                scopes.enter_context(keras.name_scope(scope))
            trainable.append(keras.Variable(np.ones((2, 2), "float32"), name="table"))
    for variable in trainable:
        optimizer = td.SGDW()
        optimizer.exclude_from_weight_decay(var_list=[variable])
        optimizer.build(trainable)
        left_out = [row.path for row in optimizer.decay_report().rows if not row.decays]
        assert left_out == [variable.path]


@pytest.mark.parametrize("argument, value", [("var_names", "bias"), ("var_list", variables()[0])])
def test_one_thing_to_exclude_that_stands_in_no_list_raises(argument, value):
    with pytest.raises(TypeError, match=f"`{argument}` must be a list. Received: {argument}="):
        td.AdamW().exclude_from_weight_decay(**{argument: value})


def test_a_mask_that_returns_no_bool_raises():
    with pytest.raises(TypeError, match=r"must return True or False.*Received: 'yes'"):
        td.AdamW(decay_mask=lambda v: "yes").build(variables())
    with pytest.raises(TypeError, match="`decay_mask` must be None, a callable"):
        td.AdamW(decay_mask=3)
    with pytest.raises(TypeError, match="each a string"):
        td.masks.only(3)
    with pytest.raises(ValueError, match="Not a regular expression: '\\('"):
        td.AdamW(decay_mask=["("])


KERAS_SCHEDULES = keras.optimizers.schedules
BASES = [
    (0.25, 0.25),
    (td.schedules.Cosine(0.0, 10, warmup_target=0.5, warmup_steps=3), 0.5),
    (KERAS_SCHEDULES.CosineDecay(0.0, 10, warmup_target=0.5, warmup_steps=3), 0.5),
    (KERAS_SCHEDULES.CosineDecay(0.4, 10), 0.4),
    (KERAS_SCHEDULES.ExponentialDecay(0.3, 10, 0.5), 0.3),
    (KERAS_SCHEDULES.PiecewiseConstantDecay([5, 9], [0.1, 0.7, 0.2]), 0.7),
    (KERAS_SCHEDULES.PolynomialDecay(0.3, 10), 0.3),
    (KERAS_SCHEDULES.InverseTimeDecay(0.3, 10, 0.5), 0.3),
    (KERAS_SCHEDULES.CosineDecayRestarts(0.3, 10), 0.3),
]


@pytest.mark.parametrize("rate,base", BASES, ids=lambda x: type(x).__name__)
def test_the_paper_s_decay_is_scaled_by_the_rate_over_the_schedule_s_peak(rate, base):
    optimizer = td.SGDW(rate, weight_decay=0.2, decay_coupling="schedule")
    for step in (0, 1, 4, 8):
        h = optimizer.hyperparameters_at(step)
        np.testing.assert_allclose(h["decay"], h["learning_rate"] / base * 0.2, rtol=1e-6)


def test_where_the_base_is_unknown_or_zero_the_coupling_asks_for_it():
    @keras.saving.register_keras_serializable("tests")
    class Unknown(KERAS_SCHEDULES.LearningRateSchedule):
        def __call__(self, step):
            return 0.1

    for rate in (Unknown(), lambda: tf.constant(0.1), tf.Variable(0.1), 0.0):
        for coupling in ("schedule", "corrected"):
            with pytest.raises(ValueError, match="Pass `base_learning_rate=`"):
                td.AdamW(rate, decay_coupling=coupling)
        td.AdamW(rate, decay_coupling="independent")
    optimizer = td.AdamW(
        Unknown(), weight_decay=0.4, decay_coupling="schedule", base_learning_rate=0.2
    )
    np.testing.assert_allclose(optimizer.hyperparameters_at(0)["decay"], 0.2)


def test_the_base_outlives_a_changed_rate_and_a_round_trip():
    optimizer = td.AdamW(0.1, weight_decay=0.4, decay_coupling="schedule")
    optimizer.learning_rate = 0.05
    again = td.AdamW.from_config(optimizer.get_config())
    for each in (optimizer, again):
        np.testing.assert_allclose(each.hyperparameters_at(0)["decay"], 0.2, rtol=1e-6)


def test_an_unknown_coupling_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'learning_rate', 'schedule'.*Received.*'paper'"):
        td.AdamW(decay_coupling="paper")


def test_normalized_decay_is_the_paper_s_and_couples_to_the_schedule():
    decay = td.NormalizedDecay(0.05, batch_size=128, train_size=50_000, epochs=100)
    expected = references.normalized_decay(0.05, 128, 50_000, 100)
    np.testing.assert_allclose(decay(0), expected, rtol=1e-6)
    optimizer = td.AdamW(td.schedules.Cosine(1e-2, 100), weight_decay=decay)
    assert optimizer.decay_coupling == "schedule"
    np.testing.assert_allclose(optimizer.hyperparameters_at(50)["decay"], expected / 2, rtol=1e-5)
    again = td.AdamW.from_config(optimizer.get_config())
    np.testing.assert_allclose(again.weight_decay, expected, rtol=1e-6)


def test_normalized_decay_follows_the_length_of_the_current_restart():
    restarts = td.schedules.CosineRestarts(0.1, first_decay_steps=100, t_mul=2.0)
    decay = td.NormalizedDecay(0.05, batch_size=10, train_size=200, restarts=restarts)
    for step, length in ((0, 100), (99, 100), (100, 200), (299, 200), (300, 400)):
        expected = references.normalized_decay(0.05, 10, 200, epochs=length * 10 / 200)
        np.testing.assert_allclose(decay(tf.constant(step, tf.int64)), expected, rtol=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(decay))
    np.testing.assert_allclose(again(300), decay(300), rtol=0)


def test_normalized_decay_trains_with_restarts_as_the_reference_does():
    restarts = td.schedules.CosineRestarts(0.1, first_decay_steps=4, t_mul=1.5)
    decay = td.NormalizedDecay(0.3, batch_size=1, train_size=4, restarts=restarts)
    (start,), grads = variables([(3, 4)]), gradients([(3, 4)], steps=12)
    before = start.numpy()
    (after,) = run(td.AdamW(restarts, weight_decay=decay), [start], grads, graph=True)
    lengths = [4] * 4 + [6] * 6 + [9] * 2
    expected = references.adamw(
        before,
        [g for (g,) in grads],
        learning_rate=[float(restarts(n)) for n in range(12)],
        weight_decay=[0.3 / np.sqrt(length) for length in lengths],
        coupling="schedule",
        base=0.1,
    )
    np.testing.assert_allclose(after, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    "arguments,words",
    [
        (dict(), "either `epochs=`, or `restarts=`"),
        (dict(epochs=1, restarts=td.schedules.CosineRestarts(0.1, 5)), "either `epochs=`"),
        (dict(epochs=0), "`epochs` must be a positive number"),
        (dict(epochs=3, rate=-1.0), "`rate` must be"),
        (dict(epochs=3, batch_size=0), "`batch_size` must be a positive number"),
    ],
)
def test_normalized_decay_says_what_it_needs(arguments, words):
    with pytest.raises(ValueError, match=words):
        td.NormalizedDecay(**{"rate": 0.1, "batch_size": 8, "train_size": 64, **arguments})
    with pytest.raises(TypeError, match="must be a td"):
        td.NormalizedDecay(0.1, 8, 64, restarts=td.schedules.Cosine(0.1, 5))


def test_a_decay_schedule_acts_step_by_step():
    schedule = td.schedules.PiecewiseConstant([1], [0.5, 0.0])
    (v,), zero = variables([(2,)]), [[np.zeros(2, "float32")]] * 4
    start = v.numpy()
    run(td.SGDW(0.1, weight_decay=schedule), [v], zero, graph=True)
    np.testing.assert_allclose(v, start * 0.95**2, rtol=1e-6)


def test_a_wrapper_s_own_decay_is_masked_like_the_wrapped_one_s():
    class Shrinking(td.Wrapper):
        """Decays on its own, after the step of the inner optimizer."""

        def init(self, p):
            return dict(inner=self.inner.init(p))

        def step(self, p, g, s, h):
            p, inner = self.inner.step(p, g, s.inner, h.inner)
            return p - h.decay * p - h.l2 * p, dict(inner=inner)

    inner = td.SGD(1.0, weight_decay=0.5, l2=0.25, decay_mask=["v0"], jit_compile=False)
    optimizer, trainable = Shrinking(td.Lookahead(inner)), variables([(2,), (2,)])
    spared, decayed = [v.numpy() for v in trainable]
    after = run(optimizer, trainable, [[np.zeros(2, "float32")] * 2])
    np.testing.assert_array_equal(after[0], spared)
    np.testing.assert_allclose(after[1], decayed * 0.25 * 0.25, rtol=1e-6)


NORMALIZED = td.NormalizedDecay(0.5, batch_size=1, train_size=4, epochs=1)  # 0.25


@pytest.mark.parametrize("wrap", [lambda inner: inner, td.Lookahead], ids=["plain", "wrapped"])
def test_the_default_coupling_follows_a_decay_that_is_assigned(wrap):
    optimizer = wrap(td.AdamW(0.1))
    assert optimizer.decay_coupling == "learning_rate"
    optimizer.weight_decay = NORMALIZED
    again = type(optimizer).from_config(optimizer.get_config())
    for each in (optimizer, again):
        assert each.decay_coupling == "schedule"
        np.testing.assert_allclose(each.hyperparameters_at(0)["decay"], 0.25, rtol=1e-6)
    told = wrap(td.AdamW(0.1, decay_coupling="learning_rate"))
    told.weight_decay = NORMALIZED
    assert told.decay_coupling == "learning_rate"


def test_the_base_of_an_assigned_decay_is_that_of_the_rate_it_comes_with():
    optimizer = td.AdamW()
    optimizer.learning_rate = td.schedules.Cosine(0.5, 100)
    optimizer.weight_decay = NORMALIZED
    np.testing.assert_allclose(optimizer.hyperparameters_at(0)["decay"], 0.25, rtol=1e-6)
    told = td.AdamW(base_learning_rate=0.25)
    told.learning_rate, told.weight_decay = td.schedules.Cosine(0.5, 100), NORMALIZED
    np.testing.assert_allclose(told.hyperparameters_at(0)["decay"], 0.5, rtol=1e-6)
    unknown = td.AdamW(lambda: tf.constant(0.1))
    with pytest.raises(ValueError, match="Pass `base_learning_rate=`"):
        unknown.weight_decay = NORMALIZED


def test_the_default_coupling_of_a_decoupled_class_follows_its_decay(tmp_path):
    model = small_model()
    model.compile(td.decouple(keras.optimizers.SGD)(0.1), "mse", jit_compile=False)
    model.optimizer.weight_decay = NORMALIZED
    np.testing.assert_allclose(model.optimizer.decay_at(0.1), 0.25, rtol=1e-6)
    model.fit(*small_data(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer
    np.testing.assert_allclose(loaded.decay_at(0.1), 0.25, rtol=1e-6)
    assert len(loaded.variables) == len(model.optimizer.variables)
    with pytest.raises(ValueError, match="Pass `base_learning_rate=`"):
        td.decouple(keras.optimizers.SGD)(lambda: 0.1).weight_decay = NORMALIZED


@pytest.mark.parametrize("make", [td.AdamW, td.decouple(keras.optimizers.SGD)])
def test_of_the_usual_names_to_exclude_a_model_may_lack_some(make):
    optimizer = make(weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["LayerNorm", "layer_norm", "bias"])
    optimizer.build(small_model().trainable_variables)
    mask = type(optimizer).from_config(optimizer.get_config()).given.decay_mask
    assert decays(mask) == [True, False, True, False]
    assert repr(mask) == "(exclude('LayerNorm', 'layer_norm', 'bias') & everything)"


def test_names_to_exclude_of_which_a_model_has_none_warn():
    optimizer = td.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["LayerNorm", "layer_norm"])
    with pytest.warns(UserWarning, match=r"none of \['LayerNorm', 'layer_norm'\].*head/kernel"):
        optimizer.build(small_model().trainable_variables)


def decays_if_kernel(variable):
    return variable.name == "kernel"


class DecaysIfKernel:
    def __call__(self, variable):
        return variable.name == "kernel"

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    "mask,words",
    [
        (decays_if_kernel, "`decays_if_kernel`.*custom_objects.*register_keras_serializable"),
        (td.masks.matrices & decays_if_kernel, "`decays_if_kernel`.*register_keras_serializable"),
        (DecaysIfKernel(), "`DecaysIfKernel`.*register_keras_serializable"),
        (lambda variable: True, "lambda.*safe_mode=False.*register_keras_serializable"),
    ],
    ids=["function", "combined", "object", "lambda"],
)
def test_a_mask_that_keras_does_not_find_again_warns_once_when_it_is_saved(mask, words, recwarn):
    warnings.simplefilter("always")  # by default a line says the same only once
    optimizers = [td.AdamW(decay_mask=mask), td.decouple(keras.optimizers.SGD)(decay_mask=mask)]
    for optimizer in optimizers:
        model = small_model()
        model.compile(optimizer, "mse")
        optimizer.build(model.trainable_variables)
        assert not recwarn
        optimizer.get_config()
        assert len(recwarn) == 1
        with pytest.raises(UserWarning, match=words):
            raise recwarn.pop().message


def test_masks_that_keras_finds_again_save_without_a_warning():
    for mask in (decays_if_named_kernel, td.masks.matrices & decays_if_named_kernel, ["bias"]):
        td.AdamW(decay_mask=mask).get_config()


@pytest.mark.parametrize(
    "name,value,error",
    [
        ("rate", "0.1", TypeError),
        ("rate", None, TypeError),
        ("rate", True, TypeError),
        ("rate", float("nan"), ValueError),
        ("rate", 1e39, ValueError),
        ("batch_size", 10**400, ValueError),
        ("train_size", np.array([1, 2]), TypeError),
        ("epochs", "3", TypeError),
        ("epochs", 1e-50, ValueError),
    ],
    ids=str,
)
def test_normalized_decay_takes_numbers_that_float32_holds(name, value, error):
    arguments = {"rate": 0.1, "batch_size": 8, "train_size": 64, "epochs": 2, name: value}
    with pytest.raises(error, match=f"`{name}` must be a .*number.*Received: {name}="):
        td.NormalizedDecay(**arguments)
