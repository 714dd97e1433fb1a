"""MARS: the rules that it is, on gradients of norm 1 at most in which changes count more."""

import numpy as np
import pytest
import tensorflow as tf
from pure import assert_vectorizes, last

import tf_decoupled as td

FORMS = ["adamw", "lion", "shampoo"]
random = np.random.default_rng(0)
START, GRADS = random.normal(size=[4, 3]), random.normal(size=[6, 4, 3])
SHORT = 0.1 * GRADS / np.linalg.norm(GRADS, axis=(1, 2), keepdims=True)


def path(rule, grads, start=START):
    return last(rule, [start], [[g] for g in grads])


def test_without_gamma_short_gradients_are_steps_of_adamw():
    run = dict(learning_rate=0.1, weight_decay=0.5, beta_1=0.95, beta_2=0.99)
    ours, theirs = path(td.MARS(gamma=0.0, **run), SHORT), path(td.AdamW(**run), SHORT)
    np.testing.assert_array_equal(ours.values[0], theirs.values[0])


@pytest.mark.parametrize("form", FORMS)
def test_gradients_that_are_longer_count_as_those_of_norm_one(form):
    rule, long = td.MARS(form=form, gamma=0.0), [np.full([4, 3], 9.0), np.full([4, 3], -2.0)]
    unit = [g / np.linalg.norm(g) for g in long]
    np.testing.assert_allclose(path(rule, long).values[0], path(rule, unit).values[0], atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_that_stay_the_same_are_taken_as_they_are_from_the_second_on(form):
    rule, g = td.MARS(form=form, gamma=0.25, beta_1=0.5), SHORT[0]
    m = 0.5 * 1.25 * g  # the change from 0
    for t in range(2, 5):
        m = 0.5 * m + 0.5 * g
        np.testing.assert_allclose(path(rule, [g] * t).slots[0]["m"], m, rtol=1e-12)


def test_a_change_of_the_gradient_counts_more_by_gamma():
    g, then = SHORT[:2]
    m = path(td.MARS(gamma=0.5, beta_1=0.5), [g, then]).slots[0]["m"]
    np.testing.assert_allclose(m, 0.25 * 1.5 * g + 0.5 * (then + 0.5 * (then - g)), rtol=1e-12)


def test_the_first_steps_are_signs_and_muons():
    g, start = SHORT[0], np.zeros([4, 3])
    for form in ("adamw", "lion"):
        first = path(td.MARS(0.25, form=form, epsilon=0.0), [g], start).values[0]
        np.testing.assert_allclose(first, -0.25 * np.sign(g), rtol=1e-12)
    first = path(td.MARS(0.25, form="shampoo"), [g], start).values[0]
    muon = path(td.Muon(0.25, nesterov=False), [g], start).values[0]
    np.testing.assert_allclose(first, muon, atol=1e-4)  # apart by 1e-7 beside the norm


@pytest.mark.parametrize("form", FORMS)
def test_a_vectorized_stack_is_its_variables_one_by_one(form):
    p, g = (tf.constant(random.normal(size=[3, 4, 6]), tf.float32) for _ in range(2))
    assert_vectorizes(td.MARS(form=form), p, g)


def test_only_shampoo_refuses_vectors():
    assert "matrices" in td.MARS(form="shampoo").refuses(tf.zeros([3]))
    assert td.MARS(form="shampoo").refuses(tf.zeros([3, 4])) is None
    assert td.MARS().refuses(tf.zeros([3])) is td.MARS(form="lion").refuses(tf.zeros([])) is None


def test_an_unknown_form_is_told():
    with pytest.raises(ValueError, match="`form` must be one of 'adamw', 'lion', 'shampoo'"):
        td.MARS(form="mars-adamw")
