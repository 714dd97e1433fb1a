"""skip_nonfinite: a step with a NaN or inf anywhere changes nothing, and is counted."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import CASES, SHAPES, gradients, mirrored, run, small_data, small_model, variables

import tf_decoupled as td

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def poisoned(value, which=1):
    (grads,) = gradients(steps=1)
    grads[which].flat[0] = value
    return grads


@every
def test_a_step_with_a_nan_changes_nothing_and_is_counted(case):
    make = functools.partial(case.make, weight_decay=0.1)
    grads = gradients(steps=4)
    with_bad = [*grads[:2], poisoned(np.nan), poisoned(np.inf, 0), *grads[2:]]
    optimizer, trainable = make(skip_nonfinite=True), variables()
    ours = run(optimizer, trainable, with_bad, graph=True)
    expected = run(make(skip_nonfinite=True), variables(), grads, graph=True)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (int(optimizer.skipped_steps), int(optimizer.iterations)) == (2, 4)
    assert optimizer.get_state()["skipped_steps"] == 2


def test_without_the_guard_a_nan_goes_through():
    assert np.isnan(run(td.AdamW(), variables(), [poisoned(np.nan)])[1].flat[0])
    assert td.AdamW().skipped_steps == 0


def test_a_wrapper_and_low_precision_skip_too():
    low = [keras.Variable(np.ones(s, "float32"), dtype="bfloat16", name="v") for s in SHAPES]
    inner = td.AdamW(0.1, skip_nonfinite=True)
    optimizer = td.Lookahead(inner, sync_period=1)
    run(optimizer, low, [poisoned(np.inf)])
    assert int(optimizer.skipped_steps) == 1 and int(optimizer.iterations) == 0
    for v in low:
        np.testing.assert_array_equal(tf.cast(v.value, tf.float32), np.ones(v.shape))


def test_the_counter_is_saved(tmp_path):
    x, y = small_data()
    model = small_model()
    model.compile(td.AdamW(skip_nonfinite=True), "mse")
    y[:32] = np.nan
    model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    assert int(model.optimizer.skipped_steps) == 1
    model.save(tmp_path / "model.keras")
    assert int(keras.models.load_model(tmp_path / "model.keras").optimizer.skipped_steps) == 1


def test_one_inf_on_one_replica_skips_the_step_on_all():
    strategy = mirrored()
    with strategy.scope():
        v, optimizer = keras.Variable([1.0, 2.0, 3.0]), td.AdamW(0.1, skip_nonfinite=True)
        optimizer.build([v])

    def step():
        r = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([tf.where(tf.equal(r, 1), [np.inf, 1.0, 1.0], [1.0, 1.0, 1.0])], [v])

    tf.function(lambda: strategy.run(step))()
    for component in strategy.experimental_local_results(v.value):
        np.testing.assert_array_equal(component, [1.0, 2.0, 3.0])
    assert int(optimizer.skipped_steps.numpy()) == 1 and int(optimizer.iterations.numpy()) == 0
