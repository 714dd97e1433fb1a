"""Beside Keras: the same numbers where we promise them, and `decouple` for its own classes."""

import copy
import inspect
import os
import pathlib
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run, small_data, small_model, variables

import tf_decoupled as td
from tf_decoupled.engine import keras_hooks


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adamw_with_epsilon_hat_follows_keras_for_a_hundred_steps(amsgrad):
    grads = gradients(steps=100)
    shared = dict(weight_decay=0.05, epsilon=1e-7, amsgrad=amsgrad)
    ours, theirs = variables(), variables()
    run(td.AdamW(1e-3, epsilon_hat=True, **shared), ours, grads, graph=True)
    run(keras.optimizers.AdamW(1e-3, **shared), theirs, grads, graph=True)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgdw_follows_keras_sgd(nesterov):
    grads = gradients(steps=30)
    shared = dict(weight_decay=0.05, momentum=0.9, nesterov=nesterov)
    ours = run(td.SGDW(0.01, **shared), variables(), grads, graph=True)
    theirs = run(keras.optimizers.SGD(0.01, **shared), variables(), grads, graph=True)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}, {"jit_compile": True}], ids=str)
def test_fit_trains_the_same_eagerly_in_a_graph_and_under_xla(how):
    x, y = small_data()
    results = []
    for options in ({}, how):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        model = small_model()
        model.compile(td.AdamW(0.01, decay_mask=td.masks.matrices), "mse", **options)
        history = model.fit(x, y, epochs=3, batch_size=16, shuffle=False, verbose=0).history
        results.append(history["loss"])
    assert results[0][-1] < results[0][0]
    np.testing.assert_allclose(*results, rtol=1e-4)


def test_a_functional_model_with_steps_per_execution_trains():
    x, y = small_data()
    model = small_model()
    model.compile(td.Lookahead(td.LAMB(0.02)), "mse", steps_per_execution=2)
    losses = model.fit(x, y, epochs=5, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < losses[0] and int(model.optimizer.iterations) == 20


CLASSES = [
    keras.optimizers.Adadelta,
    keras.optimizers.Adafactor,
    keras.optimizers.Adagrad,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.Adamax,
    keras.optimizers.Ftrl,
    keras.optimizers.Lamb,
    keras.optimizers.Lion,
    keras.optimizers.Nadam,
    keras.optimizers.RMSprop,
    keras.optimizers.SGD,
]
every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


@every_class
def test_decouple_subtracts_the_decay_from_keras_own_step(cls):
    grads, start = gradients(steps=1), [v.numpy() for v in variables()]
    no_decay = {"weight_decay": 0.0} if cls is keras.optimizers.AdamW else {}
    plain = run(cls(0.1, **no_decay), variables(), grads, graph=True)
    optimizer = td.decouple(cls)(0.1, weight_decay=0.2, decay_mask=td.masks.matrices)
    decayed = run(optimizer, variables(), grads, graph=True)
    for p, a, b in zip(start, plain, decayed, strict=True):
        np.testing.assert_allclose(b, a - (0.02 * p if p.ndim >= 2 else 0), rtol=1e-6, atol=1e-7)


@every_class
def test_a_decoupled_class_survives_a_keras_file(cls, tmp_path):
    x, y = small_data()
    model = small_model()
    options = dict(weight_decay=0.2, decay_coupling="schedule", decay_mask=["bias"])
    optimizer = td.decouple(cls)(td.schedules.Cosine(0.01, 50), **options)
    model.compile(optimizer, "mse", run_eagerly=True)
    model.fit(x, y, verbose=0, shuffle=False)
    model.optimizer.weight_decay = 0.125
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
    assert float(loaded.optimizer.weight_decay) == 0.125
    for each in (model, loaded):
        each.fit(x, y, verbose=0, shuffle=False)
    for a, b in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("coupling", ["learning_rate", "schedule", "independent", "corrected"])
def test_a_decoupled_class_couples_as_ours_do(coupling):
    grads, schedule = gradients(steps=5), td.schedules.Linear(0.1, 10)
    shared = dict(weight_decay=0.02, decay_coupling=coupling)
    ours = run(td.SGD(schedule, **shared), variables(), grads, graph=True)
    theirs = td.decouple(keras.optimizers.SGD)(schedule, **shared)
    for a, b in zip(ours, run(theirs, variables(), grads, graph=True), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_decay_of_a_decoupled_class_is_live_without_a_new_trace():
    optimizer, (v,) = td.decouple(keras.optimizers.SGD)(0.1, weight_decay=0.5), variables([(3,)])
    optimizer.build([v])
    step, start = tf.function(lambda g: optimizer.apply([g], [v])), v.numpy()
    step(tf.zeros(3))
    optimizer.weight_decay = 0.25
    step(tf.zeros(3))
    np.testing.assert_allclose(v, start * 0.95 * 0.975, rtol=1e-6)
    assert step.experimental_get_tracing_count() == 1


def test_a_decoupled_class_accumulates_with_keras_and_decays_once_per_update():
    optimizer = td.decouple(keras.optimizers.SGD)(
        0.1, weight_decay=0.5, gradient_accumulation_steps=2
    )
    (v,) = variables([(3,)])
    start = v.numpy()
    run(optimizer, [v], [[np.zeros(3, "float32")]] * 4)
    np.testing.assert_allclose(v, start * 0.95**2, rtol=1e-6)


def test_exclude_from_weight_decay_of_a_decoupled_class_raises_once_built():
    optimizer = td.decouple(keras.optimizers.RMSprop)(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["v1"])
    optimizer.build(variables())
    with pytest.raises(ValueError, match="must come before the optimizer is built"):
        optimizer.exclude_from_weight_decay(var_names=["v2"])
    assert "v1" in str(optimizer.get_config()["decay_mask"])


@pytest.mark.parametrize(
    "cls,words",
    [
        (keras.optimizers.SGD(), "the class, not an instance"),
        (int, "needs a Keras optimizer class"),
        (td.AdamW, "AdamW has decoupled weight decay already"),
        (keras.optimizers.LossScaleOptimizer, "no rate and decay of its own"),
    ],
    ids=["instance", "int", "AdamW", "LossScaleOptimizer"],
)
def test_decouple_refuses_what_it_can_not_decouple(cls, words):
    with pytest.raises(TypeError, match=words):
        td.decouple(cls)


def test_decouple_makes_one_class_per_class():
    cls = td.decouple(keras.optimizers.RMSprop)
    assert cls is td.decouple(keras.optimizers.RMSprop) and cls.__name__ == "DecoupledRMSprop"
    assert issubclass(cls, keras.optimizers.RMSprop)
    with pytest.raises(ValueError, match="`weight_decay` must be a finite number >= 0"):
        cls(weight_decay=-1.0)


class Mine(keras.optimizers.SGD):
    """Somebody's own Keras optimizer."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: td.decouple(keras.optimizers.RMSprop)(0.5, weight_decay=0.25, decay_mask=["v0"]),
        lambda: td.decouple(Mine)(0.5, weight_decay=0.25, decay_mask=["v0"]),
    ],
    ids=["Keras's", "one's own"],
)
def test_a_decoupled_optimizer_can_be_copied_and_pickled(make):
    original = make()
    original.weight_decay = 0.125
    copies = [copy.copy(original), copy.deepcopy(original), pickle.loads(pickle.dumps(original))]
    for each in copies:
        assert type(each) is type(original) and each is not original
        assert each.get_config() == original.get_config() and float(each.weight_decay) == 0.125


def test_a_decoupled_class_of_keras_can_be_pickled():
    cls = td.decouple(keras.optimizers.RMSprop)
    assert pickle.loads(pickle.dumps(cls)) is cls


@pytest.mark.slow
def test_what_a_decoupled_class_saved_is_known_to_a_new_process(tmp_path):
    cls = td.decouple(keras.optimizers.RMSprop)
    model = small_model()
    model.compile(cls(0.5, weight_decay=0.25), "mse")
    model.save(tmp_path / "model.keras")
    (tmp_path / "optimizer.pickle").write_bytes(pickle.dumps(cls(0.5, weight_decay=0.25)))
    (tmp_path / "mine.py").write_text("import keras\nclass Mine(keras.optimizers.SGD): pass\n")
    program = f"""
import os, pickle, sys
import copy
import os
import pathlib
import pickle
import subprocess
import sys

import keras
import {{imported}}
sys.path.insert(0, {str(tmp_path)!r})
os.chdir({str(tmp_path)!r})
"""
    first = (
        program.format(imported="tf_decoupled as td")
        + """
import mine
print(type(keras.models.load_model("model.keras").optimizer).__name__)
open("mine.pickle", "wb").write(pickle.dumps(td.decouple(mine.Mine)(0.5)))
"""
    )
    second = (
        program.format(imported="keras")
        + """
for name in ("optimizer", "mine"):
    print(type(pickle.load(open(name + ".pickle", "rb"))).__name__)
"""
    )
    assert output(first) == ["DecoupledRMSprop"]
    assert output(second) == ["DecoupledRMSprop", "DecoupledMine"]


def output(program):
    """The lines that a new process prints."""
    paths = [str(pathlib.Path(td.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert not process.returncode, process.stderr
    return process.stdout.split()


def defined(module, base=td.SGD, name="Mine"):
    """A class as if it was defined in that module."""
    return type(name, (base,), {"__module__": module})


def loaded(saved):
    return type(keras.saving.deserialize_keras_object(saved))


def test_two_optimizers_of_one_name_in_a_package_do_not_replace_each_other():
    first, second = defined("package.a"), defined("package.b")
    saved = [keras.saving.serialize_keras_object(cls()) for cls in (first, second)]
    assert [loaded(each) for each in saved] == [first, second]
    again = defined("package.a")
    assert [loaded(each) for each in saved] == [again, second]


def test_what_was_saved_under_the_package_s_name_still_loads():
    cls = defined("old_package.a")
    saved = keras.saving.serialize_keras_object(cls())
    assert saved["registered_name"] == "old_package.a>Mine"
    assert loaded(saved | {"registered_name": "old_package>Mine"}) is cls
    cls = defined("old_package.a")
    assert loaded(saved | {"registered_name": "old_package>Mine"}) is cls


@pytest.mark.parametrize(
    "base,own",
    [
        (td.schedules.Schedule, td.schedules.InverseSquareRoot()),
        (td.masks.Mask, td.masks.matrices),
        (td.SGD, td.AdamW()),
    ],
    ids=["schedule", "mask", "optimizer"],
)
def test_a_namesake_of_a_class_of_this_library_does_not_replace_it(base, own):
    saved = keras.saving.serialize_keras_object(own)
    namesake = defined("package.c", base, type(own).__name__)
    assert saved["registered_name"].startswith("tf_decoupled")
    assert loaded(saved) is type(own) is not namesake


def test_decoupled_namesakes_do_not_replace_each_other():
    classes = [defined(f"package.{name}", keras.optimizers.SGD, "RMSprop") for name in "ab"]
    classes = [td.decouple(cls) for cls in (keras.optimizers.RMSprop, *classes)]
    saved = [keras.saving.serialize_keras_object(cls()) for cls in classes]
    assert [loaded(each) for each in saved] == classes


def overriding(name, base=td.AdamW):
    return type("Mine", (base,), {name: lambda self, *args, **kwargs: None})


@pytest.mark.parametrize(
    "name,instead",
    [
        ("update_step", "override `update` or `step`"),
        ("_apply_weight_decay", "`decay_mask` and `decay_coupling`"),
        ("_clip_gradients", "`clipnorm`, `clipvalue` or `global_clipnorm`"),
        ("_get_current_learning_rate", "a schedule as `learning_rate`"),
    ],
)
def test_overriding_what_this_engine_never_calls_raises_and_says_what_to_do(name, instead):
    words = rf"never calls `{name}`.*{instead}.*Received: Mine\.{name}"
    with pytest.raises(TypeError, match=words):
        overriding(name)
    with pytest.raises(TypeError, match=words):  # by way of a mixin
        type("Mine", (type("Mixin", (), {name: print}), td.Lookahead), {})
    assert keras.saving.get_registered_object(f"{__name__}>Mine") is None


def test_each_method_of_kerass_optimizer_is_ours_or_refused_or_serves_its_caller():
    theirs = keras.optimizers.LossScaleOptimizer
    bases = [cls for cls in theirs.__mro__ if cls.__name__.endswith("Optimizer")]
    methods = {name for cls in bases for name, m in vars(cls).items() if inspect.isfunction(m)}
    ours = {n for n in methods if getattr(td.Optimizer, n) is not getattr(theirs, n)}
    called = {"apply_gradients", "__setattr__"}
    for_callers = {
        *("add_variable", "add_variable_from_reference", "add_optimizer_variables"),
        *("_track_variable", "_untrack_variable", "_var_key", "_get_variable_index"),
        *("_check_variables_are_known", "_check_super_called", "_obj_type"),
        *("_overwrite_variable_with_gradient",),
        *("_stateless_handle_finite_grads", "_stateless_handle_non_finite_grads"),
    }
    refused = {name for names in keras_hooks.INSTEAD.values() for name in names}
    assert methods - ours - called - for_callers - refused == set()


def test_what_is_stateless_says_that_it_cannot_be_and_what_can():
    (v,) = variables([(2,)])
    optimizer = td.SGD(1.0)
    optimizer.build([v])
    with pytest.raises(ValueError, match=r"TensorFlow backend.*`apply`.*`get_state`"):
        optimizer.stateless_apply(optimizer.variables, [tf.ones(2)], [v.value])


@pytest.mark.parametrize("use_ema", [True, False])
@pytest.mark.parametrize("on_epoch", [True, False])
def test_kerass_callback_for_averages_names_ours(use_ema, on_epoch):
    x, y = small_data()
    model = small_model()
    model.compile(td.SGD(0.1, use_ema=use_ema, jit_compile=False), "mse", run_eagerly=True)
    callback = keras.callbacks.SwapEMAWeights(swap_on_epoch=on_epoch)
    with pytest.raises(ValueError, match=r"td\.callbacks\.SwapAveraged\(\)"):
        model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[callback])
    assert copy.deepcopy(model.optimizer).use_ema is use_ema


def test_a_decoupled_class_refuses_what_it_would_lose_or_ignore():
    plateau = td.schedules.Plateau(0.1)
    for rate in (plateau, td.schedules.Warmup(plateau, warmup_steps=2)):
        with pytest.raises(TypeError, match=r"saves nothing that a schedule remembers.*Received: "):
            td.decouple(keras.optimizers.SGD)(rate)
    if "adam_weight_decay" not in inspect.signature(keras.optimizers.Muon).parameters:
        return  # an older Keras
    muon = td.decouple(keras.optimizers.Muon)
    muon(0.1, weight_decay=0.1)
    with pytest.raises(TypeError, match=r"one decay for all.*Received: adam_weight_decay=0\.5"):
        muon(0.1, weight_decay=0.1, adam_weight_decay=0.5)
