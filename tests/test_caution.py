"""Caution: what disagrees is left out, and the rest is the rule itself."""

import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run, run_mirrored, small_data, small_model, variables
from probes import PROBES

import tf_decoupled as td
from tf_decoupled.engine.concerns.caution import agreeing

SHAPE = [(40, 5)]


def start():
    return variables(SHAPE)


def stepped(make, steps=1, **options):
    """Values before and after, of one variable, as arrays."""
    trainable = start()
    before = trainable[0].numpy()
    return before, run(make(**options), trainable, gradients(SHAPE, steps))[0]


def momentum(**options):
    return td.SGDW(0.1, momentum=0.9, **options)


def adamw(**options):
    return td.AdamW(0.1, beta_1=0.0, **options)


def lamb(**options):
    return td.LAMB(0.1, **options)


# Cautious updates.


def test_entries_that_disagree_stay_and_the_others_are_scaled_by_their_share():
    u = np.array([1.0, -2.0, 3.0, 4.0], "float32")
    g = np.array([1.0, 1.0, 1.0, -1.0], "float32")
    np.testing.assert_allclose(agreeing(tf.constant(u), tf.constant(g)), [2.0, 0, 6.0, 0])


def test_entries_without_a_gradient_do_not_count():
    u, g = tf.ones([5]), tf.constant([1.0, -1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(agreeing(u, g), [2.0, 0, 0, 0, 0])


def test_where_all_disagree_or_all_gradients_are_zero_nothing_moves():
    u = tf.constant([1.0, -1.0])
    np.testing.assert_array_equal(agreeing(u, -u), [0, 0])
    np.testing.assert_array_equal(agreeing(u, 0 * u), [0, 0])


@pytest.mark.parametrize("make", [momentum, adamw, lamb])
def test_a_cautious_step_never_increases_a_linear_loss(make):
    grads = gradients(SHAPE, 6)
    trainable, optimizer = start(), make(cautious=True, weight_decay=0.0)
    optimizer.build(trainable)
    for [g] in grads:
        before = trainable[0].numpy()
        optimizer.apply([tf.constant(g)], trainable)
        assert np.all((trainable[0].numpy() - before) * g <= 1e-6)


def test_where_direction_and_gradient_agree_it_is_the_rule_itself():
    before, cautious = stepped(adamw, cautious=True, weight_decay=0.1)
    _, plain = stepped(adamw, weight_decay=0.1)
    np.testing.assert_array_equal(cautious, plain)
    assert np.any(cautious != before)


def test_the_decay_is_neither_masked_nor_scaled():
    opposite = [[-g for g in gradients(SHAPE, 1)[0]]]
    trainable = start()
    optimizer = td.SGDW(0.1, momentum=0.99, weight_decay=0.5, cautious=True)
    run(optimizer, trainable, [[10 * g for g in gradients(SHAPE, 1)[0]]])
    before = trainable[0].numpy()
    run(optimizer, trainable, opposite)  # the momentum is ten times the gradient: all disagree
    np.testing.assert_allclose(trainable[0].numpy(), 0.95 * before, rtol=1e-5)


def test_the_paper_in_numpy():
    m = 0.0
    before, after = stepped(momentum, 5, cautious=True, weight_decay=0.2)
    theta = before.astype("float64")
    for [g] in gradients(SHAPE, 5):
        m = 0.9 * m + 0.1 * g.astype("float64")
        φ = m * g > 0
        theta = theta - m * φ / max(φ.mean(), 1e-3) - 0.1 * 0.2 * theta
    np.testing.assert_allclose(after, theta, rtol=2e-5, atol=1e-6)


# Cautious decay.


@pytest.mark.parametrize("make", [momentum, adamw])
def test_a_weight_decays_only_where_its_step_moves_it_towards_zero(make):
    before, bare = stepped(make, 1, weight_decay=0.0)
    _, decayed = stepped(make, 1, weight_decay=0.3)
    _, cautious = stepped(make, 1, weight_decay=0.3, cautious_decay=True)
    towards = (before - bare) * before >= 0
    assert 0.2 < towards.mean() < 0.8
    np.testing.assert_array_equal(cautious[towards], decayed[towards])
    np.testing.assert_array_equal(cautious[~towards], bare[~towards])


def test_without_a_gradient_everything_decays():
    trainable = start()
    before = trainable[0].numpy()
    optimizer = td.AdamW(0.1, weight_decay=0.5, cautious_decay=True)
    run(optimizer, trainable, [[np.zeros(SHAPE[0], "float32")]])
    np.testing.assert_allclose(trainable[0].numpy(), 0.95 * before, rtol=1e-5)


# Around everything.


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_every_kind_of_rule_can_be_cautious_on_one_device_and_on_two(probe):
    make = lambda: probe.make(weight_decay=0.1, cautious=True, cautious_decay=True)  # noqa: E731
    grads = gradients(probe.shapes, 4)
    alone = run(make(), variables(probe.shapes), grads)
    plain = run(probe.make(weight_decay=0.1), variables(probe.shapes), grads)
    on_two, _ = run_mirrored(make, grads, probe.shapes)
    for a, b in zip(alone, on_two, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-5, atol=1e-6)
    assert any(np.any(a != b) for a, b in zip(alone, plain, strict=True))


def test_inside_of_lookahead_the_inner_step_is_cautious_and_the_way_back_is_not():
    grads = gradients(SHAPE, 3)
    inner = run(momentum(cautious=True), start(), grads)[0]
    before = start()[0].numpy()
    wrapped = run(td.Lookahead(momentum(cautious=True), sync_period=3), start(), grads)[0]
    np.testing.assert_allclose(wrapped, before + 0.5 * (inner - before), rtol=1e-6, atol=1e-7)


def test_a_model_is_saved_with_it_and_goes_on(tmp_path):
    x, y = small_data()
    model = small_model()
    model.compile(td.AdamW(0.01, cautious=True, cautious_decay=True), "mse")
    model.fit(x, y, epochs=1, verbose=0)
    model.save(tmp_path / "m.keras")
    again = tf.keras.models.load_model(tmp_path / "m.keras")
    assert again.optimizer.cautious is True and again.optimizer.cautious_decay is True
    for each in (model, again):
        each.fit(x, y, epochs=1, shuffle=False, verbose=0)
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_single_rows_are_refused_in_words():
    with pytest.raises(ValueError, match=r"cautious.*True"):
        td.SGDW(0.1, momentum=0.0, sparse="lazy", cautious=True)


def test_another_value_than_a_boolean_is_refused():
    with pytest.raises(TypeError, match="`cautious` must be True or False"):
        td.AdamW(cautious="yes")
