"""What a file does that doesn't fit entirely: what fits is loaded, and the rest is told."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run, state_of

import tf_decoupled as td

pytestmark = pytest.mark.usefixtures("untraced")
SHAPES = [(3, 4), (4,), (4, 2), (2,)]


def named(*names, shapes=None, seed=0):
    """Variables of random values; a name is a path, "dense/kernel"."""
    rng, made = np.random.default_rng(seed), []
    for name, shape in zip(names, shapes or [(3, 3)] * len(names), strict=True):
        *scopes, last = name.split("/")
        with keras.name_scope("/".join(scopes)) if scopes else warnings.catch_warnings():
            made.append(keras.Variable(rng.normal(size=shape).astype("float32"), name=last))
    return made


def trained(optimizer, variables, steps=2):
    run(optimizer, variables, gradients([tuple(v.shape) for v in variables], steps))
    return optimizer


def file_of(optimizer):
    """As Keras's files hold it: names in the order of the alphabet, no more."""
    store = {}
    optimizer.save_own_variables(store)
    return dict(sorted(store.items()))


def moments(optimizer):
    return {
        name: float(v.ravel()[0]) for name, v in state_of(optimizer).items() if name[-2:] == ":m"
    }


def weights_into(variables, others):
    for variable, other in zip(variables, others, strict=True):
        variable.assign(other)


# Finding variables: by value, by position, by name.


def test_a_slot_follows_the_variable_that_holds_the_saved_value():
    body, head = named("dense/kernel", "dense_1/kernel")
    saved = trained(td.AdamW(), [body, head])
    made_first, made_second = named("dense/kernel", "dense_1/kernel", seed=5)
    weights_into([made_second, made_first], [body, head])
    optimizer = td.AdamW()
    optimizer.build([made_second, made_first])
    optimizer.load_own_variables(file_of(saved))
    found, expected = moments(optimizer), moments(saved)
    assert found["dense_1/kernel:m"] == expected["dense/kernel:m"]
    assert found["dense/kernel:m"] == expected["dense_1/kernel:m"]


def test_what_stands_beside_a_variable_that_was_found_follows_it():
    """Biases of zeros prove nothing by themselves."""
    names = ("dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias")
    shapes = [(3, 3), (3,), (3, 3), (3,)]
    first = named(*names, shapes=shapes)
    saved = trained(td.SGDW(1e-3, weight_decay=0.0), first)
    again = named(*names, shapes=shapes, seed=5)
    weights_into(again[2:] + again[:2], first)
    for bias in (first[1], first[3], again[1], again[3]):
        bias.assign(np.zeros(3))
    state = saved.get_state()
    optimizer = td.SGDW(1e-3, weight_decay=0.0)
    optimizer.build(again)
    optimizer.set_state(state)
    found, expected = moments(optimizer), moments(saved)
    assert found["dense_1/bias:m"] == expected["dense/bias:m"]
    assert found["dense/bias:m"] == expected["dense_1/bias:m"]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_zeros_and_ones_prove_nothing(value):
    """With them many variables begin: another one may hold them before the weights come."""
    (a, b), (again_a, again_b) = named("a", "b"), named("a", "b", seed=5)
    for v in (a, again_b):
        v.assign(np.full((3, 3), value))
    saved, optimizer = trained(td.AdamW(0.0), [a, b]), td.AdamW(0.0)
    optimizer.build([again_a, again_b])
    optimizer.load_own_variables(file_of(saved))
    assert moments(optimizer) == moments(saved)


def test_without_values_position_decides_where_names_are_other_ones():
    saved = trained(td.AdamW(), named("dense/kernel", "dense_1/kernel"))
    optimizer = td.AdamW()
    optimizer.build(named("dense_2/kernel", "dense_3/kernel", seed=5))
    optimizer.load_own_variables(file_of(saved))
    assert list(moments(optimizer).values()) == list(moments(saved).values())


def test_without_values_names_decide_where_the_structure_is_another_one():
    first = named("a", "b", shapes=[(3, 3), (3, 3)])
    saved = trained(td.AdamW(), first)
    optimizer = td.AdamW()
    optimizer.build(named("new", "b", "a", seed=5))
    with pytest.warns(UserWarning, match=r"start anew.*\['new:m', 'new:v'\]"):
        optimizer.load_own_variables(file_of(saved))
    expected = moments(saved)
    assert moments(optimizer) == {"new:m": 0.0, "b:m": expected["b:m"], "a:m": expected["a:m"]}


def test_where_name_and_position_differ_and_no_value_tells_it_raises_until_told():
    saved = trained(td.AdamW(), named("a", "b"))
    variables, state = named("b", "a", seed=5), file_of(saved)
    optimizer = td.AdamW()
    optimizer.build(variables)
    with pytest.raises(ValueError, match=r"in two ways.*'a' is 'a', by position it is 'b'"):
        optimizer.load_own_variables(state)
    assert int(optimizer.iterations) == 0
    expected = moments(saved)
    for how, kernel in (("name", "a:m"), ("position", "b:m")):
        optimizer.restore_by = how
        optimizer.load_own_variables(state)
        assert moments(optimizer)[kernel] == expected["a:m"]
    with pytest.raises(ValueError, match=r"`restore_by` must be .*Received: 'names'"):
        optimizer.restore_by = "names"


def test_bare_variables_of_one_name_are_told_apart_by_their_values():
    first = [tf.Variable([1.0, 2.0]), tf.Variable([3.0, 4.0])]
    saved = trained(td.AdamW(), first)
    second = [tf.Variable(v) for v in reversed(first)]
    optimizer = td.AdamW()
    optimizer.build(second)
    optimizer.set_state(saved.get_state())
    assert list(moments(optimizer).values()) == list(reversed(moments(saved).values()))


def test_two_thousand_variables_are_matched_in_no_time():
    from tf_decoupled.engine.persistence.naming import Known, match

    saved = [Known(f"net/block_{i}/dense/kernel", (4, 4)) for i in range(2000)]
    for own in ("block_{}/dense/kernel", "net_1/block_{}/dense/kernel"):
        here = [Known(own.format(i), (4, 4)) for i in range(2000)]
        assert match(saved, here) == {i: i for i in range(2000)}


def test_what_was_built_later_has_no_position():
    a, b = named("a", "b")
    saved = td.AdamW()
    saved.build([b])
    trained(saved, [a, b])
    optimizer = td.AdamW()
    optimizer.build(named("x", "y", seed=5))
    with pytest.warns(UserWarning, match="no variable of the file is among those"):
        optimizer.load_own_variables(file_of(saved))


def test_what_is_kept_has_no_position():
    a, b = named("a", "b")
    saved = trained(td.AdamW(), [a, b])
    partly, renamed = td.AdamW(), td.AdamW()
    partly.load_own_variables(file_of(saved))
    partly.build([b])
    renamed.build(named("c", seed=5))
    renamed.load_own_variables(file_of(partly))
    assert moments(renamed)["c:m"] == moments(saved)["b:m"]


def test_what_is_kept_gets_another_name_where_its_own_is_taken():
    a, b = named("dense/kernel", "dense_1/kernel")
    saved = trained(td.AdamW(), [a, b])
    (renumbered,) = named("dense/kernel", seed=5)  # holds the second, and the first is frozen
    renumbered.assign(b)
    optimizer = td.AdamW()
    optimizer.build([renumbered])
    for state in (saved.get_state(), file_of(saved)):
        if isinstance(state, dict) and "about" in state:
            optimizer.load_own_variables(state)
        else:
            report = optimizer.set_state(state, strict=False)
            assert report.unexpected == ["dense/kernel~1:m", "dense/kernel~1:v"]
        assert moments(optimizer)["dense/kernel:m"] == moments(saved)["dense_1/kernel:m"]
    assert moments(optimizer)["dense/kernel~1:m"] == moments(saved)["dense/kernel:m"]


def test_a_norm_that_is_not_finite_is_restored():
    optimizer = td.AdamW(track_gradient_norm=True, skip_nonfinite=True)
    (a,) = named("a")
    optimizer.apply([np.full((3, 3), np.nan, "float32")], [a])
    optimizer.set_state(optimizer.get_state())
    assert np.isnan(optimizer.gradient_norm.numpy())


# What doesn't fit.


@pytest.mark.parametrize("build_first", [True, False])
def test_the_state_of_another_kind_starts_anew_and_says_so(build_first):
    saved, optimizer = trained(td.AdamW(), named("a", "b")), td.SGDW()
    if build_first:
        trained(optimizer, named("a", "b"))
    with pytest.warns(UserWarning, match=r"starts anew: .*that of AdamW, and this is SGDW"):
        optimizer.load_own_variables(file_of(saved))
    assert int(optimizer.iterations) == 0
    optimizer.build(named("a", "b"))
    assert set(moments(optimizer).values()) == {0.0}


@pytest.mark.parametrize("build_first", [True, False])
def test_where_no_variable_fits_all_starts_anew_and_says_so(build_first):
    saved, optimizer = trained(td.AdamW(), named("a", "b")), td.AdamW()
    others = named("x", "y", "z", seed=5)
    with pytest.warns(UserWarning, match="no variable of the file is among those"):
        if build_first:
            trained(optimizer, others)
        optimizer.load_own_variables(file_of(saved))
        optimizer.build(others)
    assert int(optimizer.iterations) == 0
    assert set(moments(optimizer).values()) == {0.0}


@pytest.mark.parametrize("build_first", [True, False])
def test_a_file_of_keras_optimizer_starts_anew_and_names_the_importer(build_first):
    (a,) = named("a")
    theirs, store = keras.optimizers.AdamW(), {}
    theirs.apply([tf.ones((3, 3))], [a])
    theirs.save_own_variables(store)
    optimizer = td.AdamW()
    if build_first:
        trained(optimizer, [a])
    with pytest.warns(UserWarning, match="td.importers.keras_state"):
        optimizer.load_own_variables(store)
    assert int(optimizer.iterations) == 0


def test_a_file_without_an_optimizer_warns_only_where_something_is_lost():
    optimizer = td.AdamW()
    optimizer.load_own_variables({})
    trained(optimizer, named("a"))
    with pytest.warns(UserWarning, match="starts anew"):
        optimizer.load_own_variables({})
    assert moments(optimizer) == {"a:m": 0.0} and int(optimizer.iterations) == 0


def test_what_is_no_state_is_refused_in_words():
    optimizer = trained(td.AdamW(), named("a"))
    with pytest.raises(TypeError, match=r"mapping of names to arrays. Received: 'abc'"):
        optimizer.set_state("abc")
    with pytest.raises(ValueError, match="damaged: 'about' holds no JSON"):
        optimizer.load_own_variables({**file_of(optimizer), "about": np.uint8([1, 2])})


def test_an_adam_goes_on_from_an_adamw_whose_slots_are_the_same():
    saved, optimizer = trained(td.AdamW(1e-3, weight_decay=0.0), named("a")), td.Adam(1e-3)
    optimizer.build(named("a"))
    optimizer.load_own_variables(file_of(saved))
    assert moments(optimizer) == moments(saved) and int(optimizer.iterations) == 2


def test_frozen_variables_keep_their_slots_until_they_come_and_are_saved_again():
    a, b = named("a", "b")
    saved = trained(td.AdamW(), [a, b])
    partly = td.AdamW()
    partly.load_own_variables(file_of(saved))
    partly.build([b])
    once_more = td.AdamW()
    once_more.load_own_variables(file_of(partly))
    once_more.build([b])
    assert state_of(once_more).keys() == state_of(saved).keys()
    once_more.build([b, a])
    assert moments(once_more) == {n: moments(saved)[n] for n in ("b:m", "a:m")}
    assert not once_more.restoring.pending.variables


def test_slots_and_counters_that_the_file_lacks_start_anew_and_are_listed():
    saved = trained(td.AdamW(), named("a"))
    optimizer = td.AdamW(amsgrad=True, skip_nonfinite=True)
    optimizer.build(named("a"))
    with pytest.warns(UserWarning, match=r"start anew.*\['skipped_steps', 'a:v_max'\]"):
        optimizer.load_own_variables(file_of(saved))
    assert moments(optimizer) == moments(saved)


def test_slots_that_have_no_place_are_listed():
    saved = trained(td.AdamW(use_ema=True), named("a"))
    optimizer = td.AdamW()
    optimizer.build(named("a"))
    with pytest.warns(UserWarning, match=r"have no place here: \['a:average'\]"):
        optimizer.load_own_variables(file_of(saved))


@pytest.mark.parametrize("build_first", [True, False])
def test_shapes_that_contradict_raise_and_nothing_is_loaded(build_first):
    saved, optimizer = trained(td.AdamW(), named("a", "b")), td.AdamW()
    others = named("a", "b", "c", shapes=[(2, 2), (3, 3), (3, 3)], seed=5)
    if build_first:
        optimizer.build(others)
    with pytest.raises(
        ValueError, match=r"nothing was loaded.*'a': 'saved \(3, 3\), here \(2, 2\)"
    ):
        optimizer.load_own_variables(file_of(saved))
        optimizer.build(others)
    assert {moments(optimizer)[name] for name in ("a:m", "b:m", "c:m")} == {0.0}
    if not build_first:
        with pytest.raises(ValueError, match="nothing was loaded"):
            optimizer.apply([np.ones(v.shape, "float32") for v in others], others)
        optimizer.reset_state()
    optimizer.apply([np.ones(v.shape, "float32") for v in others], others)
    assert int(optimizer.iterations) == 1


@pytest.mark.parametrize("build_first", [True, False])
def test_strict_restore_raises_where_it_would_warn(build_first):
    a, b = named("a", "b")
    saved, optimizer = trained(td.AdamW(), [a]), td.AdamW()
    optimizer.strict_restore = True
    with pytest.raises(ValueError, match=r"(?s)doesn't fit as it was saved.*start anew.*'b:m'"):
        if build_first:
            optimizer.build([a, b])
        optimizer.load_own_variables(file_of(saved))
        optimizer.build([a, b])
    with pytest.raises(ValueError, match="that of AdamW, and this is Lion"):
        optimizer = td.Lion()
        optimizer.strict_restore = True
        optimizer.load_own_variables(file_of(saved))
    with pytest.raises(TypeError, match=r"`strict_restore` must be True or False.*'yes'"):
        optimizer.strict_restore = "yes"


# Numbers.


def test_a_number_assigned_while_training_is_restored():
    saved = trained(td.AdamW(1e-2), named("a"))
    saved.learning_rate = 1e-4
    optimizer = td.AdamW(1e-2)
    optimizer.load_own_variables(file_of(saved))
    assert float(optimizer.learning_rate) == np.float32(1e-4)


@pytest.mark.parametrize(
    "given,words",
    [
        (dict(weight_decay=0.3), r"weight_decay=0.3 counts.*0.01 was given"),
        (dict(clipnorm=2.0), r"clipnorm=2.0 counts.*None was given"),
        (
            dict(learning_rate=td.schedules.Cosine(1e-2, 10)),
            r"learning_rate=Cosine counts.*0.001 was given",
        ),
    ],
)
def test_a_number_given_otherwise_at_construction_counts_as_given(given, words):
    saved = trained(td.AdamW(), named("a"))
    optimizer = td.AdamW(**given)
    before = optimizer.get_config()[next(iter(given))]
    with pytest.warns(UserWarning, match=words) as found:
        optimizer.load_own_variables(file_of(saved))
    assert len(found) == 1 and str(found[0].message).count(" counts") == 1
    assert optimizer.get_config()[next(iter(given))] == before


def test_so_does_a_clip_that_is_given_no_more():
    saved, optimizer = trained(td.Lookahead(td.AdamW(clipnorm=1.0)), named("a")), None
    optimizer = td.Lookahead(td.AdamW())
    with pytest.warns(UserWarning, match=r"clipnorm=None counts.*1.0 was given"):
        optimizer.load_own_variables(file_of(saved))


def test_a_config_of_now_and_a_state_of_now_agree_whatever_was_given_once():
    saved = trained(td.AdamW(1e-2), named("a"))
    saved.learning_rate = 1e-4
    again = td.AdamW.from_config(saved.get_config())
    again.load_own_variables(file_of(saved))
    assert float(again.learning_rate) == np.float32(1e-4)


@pytest.mark.parametrize(
    "name,value,words",
    [
        ("learning_rate", np.float32(-1), "`learning_rate` must be a finite number >= 0"),
        ("beta_1", np.float32(1.5), r"`beta_1` must be a number in \[0, 1\)"),
        ("iterations", np.int64(-5), "`iterations` counts, and can't be negative"),
        ("epsilon", np.float32("nan"), "`epsilon` must be"),
    ],
)
def test_numbers_out_of_range_are_refused_and_nothing_is_loaded(name, value, words):
    saved, optimizer = trained(td.AdamW(), named("a")), td.AdamW()
    optimizer.build(named("a"))
    state = saved.get_state() | {name: value}
    for load in (optimizer.set_state, optimizer.load_own_variables):
        with pytest.raises(ValueError, match=words):
            load(state)
        assert moments(optimizer) == {"a:m": 0.0} and int(optimizer.iterations) == 0
    optimizer.set_state(saved.get_state() | {"learning_rate": 0.5})
    assert float(optimizer.learning_rate) == 0.5


# A subclass's own variables.


class WithMore(td.SGD):
    def build(self, variables):
        fresh = not self.built
        super().build(variables)
        if fresh:
            self.more = [self.add_variable_from_reference(v, "more") for v in variables]


@pytest.mark.parametrize("build_first", [True, False])
def test_variables_that_a_subclass_adds_are_saved_and_restored(build_first, tmp_path):
    (a,) = named("a")
    saved = WithMore(0.1)
    saved.build([a])
    saved.more[0].assign(tf.ones((3, 3)))
    assert any(v is saved.more[0] for v in saved.variables)
    path = tf.train.Checkpoint(a=a, optimizer=saved).save(tmp_path / "checkpoint")
    for load in (
        lambda optimizer: optimizer.load_own_variables(file_of(saved)),
        lambda optimizer: tf.train.Checkpoint(a=a, optimizer=optimizer).restore(path),
    ):
        optimizer = WithMore(0.1)
        if build_first:
            optimizer.build([a])
        load(optimizer)
        optimizer.build([a])
        np.testing.assert_array_equal(optimizer.more[0], np.ones((3, 3)))


# Checkpoints.


def test_a_checkpoint_without_the_variables_has_their_slots_by_name(tmp_path):
    saved = trained(td.AdamW(), named("a", "b"))
    path = tf.train.Checkpoint(optimizer=saved).save(tmp_path / "checkpoint")
    for build_first in (True, False):
        optimizer = td.AdamW()
        others = named("a", "b", seed=5)
        if build_first:
            optimizer.build(others)
        tf.train.Checkpoint(optimizer=optimizer).restore(path).assert_consumed()
        optimizer.build(others)
        assert moments(optimizer) == moments(saved) and int(optimizer.iterations) == 2


@pytest.mark.parametrize("build_first", [True, False])
def test_a_checkpoint_with_the_variables_restored_without_them_says_so(build_first, tmp_path):
    a, b = named("a", "b")
    saved, optimizer = trained(td.AdamW(), [a, b]), td.AdamW()
    path = tf.train.Checkpoint(variables=[a, b], optimizer=saved).save(tmp_path / "checkpoint")
    with pytest.warns(UserWarning, match="give the model to the checkpoint, too"):
        if build_first:
            optimizer.build([a, b])
        tf.train.Checkpoint(optimizer=optimizer).restore(path).expect_partial()
        optimizer.build([a, b])
    assert int(optimizer.iterations) == 0


@pytest.mark.parametrize("build_first", [True, False])
def test_a_checkpoint_of_another_kind_starts_anew_and_says_so(build_first, tmp_path):
    a, b = named("a", "b")
    saved, optimizer = trained(td.AdamW(), [a, b]), td.SGDW()
    path = tf.train.Checkpoint(variables=[a, b], optimizer=saved).save(tmp_path / "checkpoint")
    if build_first:
        trained(optimizer, [a, b])
    with pytest.warns(UserWarning, match="that of AdamW, and this is SGDW"):
        tf.train.Checkpoint(variables=[a, b], optimizer=optimizer).restore(path).expect_partial()
    optimizer.build([a, b])
    assert set(moments(optimizer).values()) == {0.0} and int(optimizer.iterations) == 0


@pytest.mark.parametrize("build_first", [True, False])
def test_a_checkpoint_with_fewer_variables_and_slots_starts_those_anew(build_first, tmp_path):
    a, b = named("a", "b")
    saved = trained(td.AdamW(), [a])
    path = tf.train.Checkpoint(a=a, b=b, optimizer=saved).save(tmp_path / "checkpoint")
    optimizer = td.AdamW(use_ema=True)
    with pytest.warns(UserWarning, match=r"start anew.*'a:average'.*'b:average', 'b:m', 'b:v'"):
        if build_first:
            trained(optimizer, [a, b])
        tf.train.Checkpoint(a=a, b=b, optimizer=optimizer).restore(path).expect_partial()
        optimizer.build([a, b])
    assert moments(optimizer) == {"a:m": moments(saved)["a:m"], "b:m": 0.0}
    assert np.isnan(state_of(optimizer)["b:average"]).all()


def test_a_checkpoint_with_frozen_variables_keeps_their_slots_until_they_come(tmp_path):
    a, b = named("a", "b")
    saved = trained(td.AdamW(), [a, b])
    for _ in range(2):  # and again, from a checkpoint that has them waiting
        path = tf.train.Checkpoint(a=a, b=b, optimizer=saved).save(tmp_path / "checkpoint")
        expected, optimizer = moments(saved), td.AdamW()
        optimizer.build([b])
        tf.train.Checkpoint(a=a, b=b, optimizer=optimizer).restore(path)
        assert moments(optimizer) == expected if optimizer.restoring.pending.variables else False
        saved = optimizer
    optimizer.build([a, b])
    assert moments(optimizer) == {n: expected[n] for n in ("b:m", "a:m")}


@pytest.mark.parametrize("build_first", [True, False])
def test_a_checkpoint_brings_its_loss_scale(build_first, tmp_path):
    (a,) = named("a")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        saved = td.SGD(0.1)
        saved.build([a])
    finally:
        keras.config.set_dtype_policy("float32")
    saved.dynamic_scale.assign(64.0)
    path = tf.train.Checkpoint(a=a, optimizer=saved).save(tmp_path / "checkpoint")
    optimizer = td.SGD(0.1)
    if build_first:
        optimizer.build([a])
    tf.train.Checkpoint(a=a, optimizer=optimizer).restore(path)
    optimizer.build([a])
    assert float(optimizer.dynamic_scale) == 64.0


def test_a_variable_may_be_in_a_checkpoint_twice(tmp_path):
    (a,) = named("a")
    saved, optimizer = trained(td.AdamW(), [a]), td.AdamW()
    optimizer.build([a])
    content = dict(of_keras=a, of_tensorflow=a.value)
    path = tf.train.Checkpoint(**content, optimizer=saved).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(**content, optimizer=optimizer).restore(path).assert_consumed()
    assert moments(optimizer) == moments(saved)


def test_restoring_an_earlier_checkpoint_again_takes_everything_back(tmp_path):
    a, b = named("a", "b")
    optimizer = trained(td.AdamW(), [a, b])
    checkpoint = tf.train.Checkpoint(a=a, b=b, optimizer=optimizer)
    path, before = checkpoint.save(tmp_path / "checkpoint"), optimizer.get_state()
    optimizer.learning_rate = 0.5
    trained(optimizer, [a, b])
    checkpoint.restore(path).assert_consumed()
    after = optimizer.get_state()
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_variables_that_are_made_after_the_restore_get_their_slots(tmp_path):
    a, b = named("a", "b")
    saved = trained(td.AdamW(), [a, b])
    path = tf.train.Checkpoint(a=a, b=b, optimizer=saved).save(tmp_path / "checkpoint")
    later, optimizer = tf.train.Checkpoint(), td.AdamW()
    later.optimizer = optimizer
    status = later.restore(path)
    for name, variable in zip("ab", named("x", "y", seed=5), strict=True):
        setattr(later, name, variable)
    optimizer.build([later.a, later.b])
    status.assert_consumed()
    assert list(moments(optimizer).values()) == list(moments(saved).values())


def test_an_asynchronous_checkpoint_raises(tmp_path):
    checkpoint = tf.train.Checkpoint(optimizer=td.AdamW())
    with pytest.raises(ValueError, match="can't be saved asynchronously"):
        options = tf.train.CheckpointOptions(experimental_enable_async_checkpoint=True)
        checkpoint.save(tmp_path / "checkpoint", options=options)


def test_a_checkpoint_of_a_development_version_raises(tmp_path):
    optimizer = td.AdamW()
    with pytest.raises(ValueError, match="written by a development version"):
        optimizer.layout.deserialize(b'["iterations"]')


def test_tensorflow_still_looks_for_slots_by_the_names_that_we_use(tmp_path):
    """Fails loudly when TensorFlow's private hooks change: see `checkpoints`."""
    a = named("a")[0]
    saved = trained(td.AdamW(), [a])
    path = tf.train.Checkpoint(a=a, optimizer=saved).save(tmp_path / "checkpoint")
    keys = dict(tf.train.list_variables(path))
    slots = [key for key in keys if "OPTIMIZER_SLOT" in key]
    assert sorted(key.split("OPTIMIZER_SLOT/")[1] for key in slots) == [
        f"optimizer/layout/AdamW:{slot}/.ATTRIBUTES/VARIABLE_VALUE" for slot in ("m", "v")
    ]
