"""td.huggingface.create_optimizer: the schedule, steps and exclusions of transformers'."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_decoupled as td

create = td.huggingface.create_optimizer


def rate(n, init_lr, train, warmup, ratio=0.0, power=1.0):
    """The rate after n updates, in float64."""
    if n < warmup:
        return init_lr * n / warmup
    left = 1 - min(n - warmup, train - warmup) / (train - warmup)
    return init_lr * ratio + (init_lr - init_lr * ratio) * left**power


@pytest.mark.parametrize(
    "arguments", [(0.1, 20, 0), (0.1, 20, 5), (0.1, 20, 5, 0.1), (0.1, 20, 19, 0.5)]
)
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_rate_warms_up_and_falls_as_a_power(arguments, power):
    _, schedule = create(*arguments, power=power)
    right = [rate(n, *arguments, power=power) for n in range(25)]
    np.testing.assert_allclose(schedule(np.arange(25)), right, rtol=1e-6, atol=1e-8)


def variables():
    paths = ("dense/kernel", "dense/bias", "LayerNorm/gamma", "layer_norm/gamma")
    return [keras.Variable(tf.ones((2,)) * 2, name=p.replace("/", "_")) for p in paths]


def test_the_steps_are_adams_with_decay_times_the_rate_but_for_norms_and_biases():
    given = dict(adam_beta1=0.8, adam_beta2=0.99, adam_epsilon=1e-3, weight_decay_rate=0.1)
    optimizer, schedule = create(0.1, 10, 2, 0.1, **given)
    trained = variables()
    p, m, v = np.full(4, 2.0), 0.0, 0.0
    decays = np.array([0.1, 0.0, 0.0, 0.0])
    for t, g in enumerate([0.3, -0.1, 0.4, 0.2], 1):
        optimizer.apply([tf.constant([g, g])] * 4, trained)
        η = rate(t - 1, 0.1, 10, 2, 0.1)
        m, v = 0.8 * m + 0.2 * g, 0.99 * v + 0.01 * g * g
        step = η * np.sqrt(1 - 0.99**t) / (1 - 0.8**t) * m / (np.sqrt(v) + 1e-3)
        p = p - η * decays * p - step
    np.testing.assert_allclose([v.numpy()[0] for v in trained], p, rtol=1e-6)
    np.testing.assert_allclose(optimizer.learning_rate, schedule(4), rtol=1e-7)


def test_without_a_decay_nothing_decays():
    optimizer, _ = create(0.1, 10, 0)
    optimizer.build(trained := variables())
    optimizer.apply([tf.zeros(2)] * 4, trained)
    np.testing.assert_array_equal([v.numpy() for v in trained], 2.0)


def test_what_is_included_decays_whatever_else_its_name_says():
    optimizer, _ = create(0.1, 10, 0, weight_decay_rate=0.1, include_in_weight_decay=["dense_bias"])
    optimizer = type(optimizer).from_config(optimizer.get_config())
    optimizer.build(variables())
    assert [row.decays for row in optimizer.decay_report().rows] == [True, True, False, False]


def test_clips_are_passed_on_and_a_warm_up_without_steps_after_it_is_refused():
    assert create(0.1, 10, 0, adam_clipnorm=2.0)[0].clipnorm == 2.0
    assert create(0.1, 10, 0, adam_global_clipnorm=2.0)[0].global_clipnorm == 2.0
    with pytest.raises(ValueError, match="Only one of"):
        create(0.1, 10, 0, adam_clipnorm=1.0, adam_global_clipnorm=1.0)
    with pytest.raises(ValueError, match="counts the warm-up, too"):
        create(0.1, 10, 10)
