"""IterateAverage: the mean of what training passes through, beside training itself."""

import numpy as np
import pytest
import references
import tensorflow as tf
from cases import gradients, small_data, small_model, variables
from pure import ended, hyperparameters, last, namespace, seen, steps

import tf_decoupled as td
from tf_decoupled.wrappers.iterate_average import IterateAverage

SHAPES = [(3, 4), (5,), ()]
INNER = {"SWA": lambda: td.SGD(0.25), "Gadam": lambda: td.AdamW(0.25, 0.125)}
OPTIONS = [
    dict(),
    dict(start_averaging=5, average_period=4),
    dict(start_averaging=12),
    dict(window=1),
    dict(window=3),
    dict(window=4, start_averaging=3, average_period=2),
    dict(window=100),
]


def starts(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in SHAPES]


def grads(seed=1, count=20):
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=shape) for shape in SHAPES] for _ in range(count)]


def evaluated(rule, now):
    slots = map(namespace, now.slots)
    return [rule.evaluation(p, s, now.h) for p, s in zip(now.values, slots, strict=True)]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_is_evaluated_is_the_mean_of_the_inner_rule_s_values(inner, options):
    rule, path = IterateAverage(INNER[inner](), **options), steps(INNER[inner](), starts(), grads())
    taken, (start, period) = (
        [],
        (options.get("start_averaging", 1), options.get("average_period", 1)),
    )
    for t, (now, plain) in enumerate(zip(steps(rule, starts(), grads()), path, strict=True), 1):
        if t >= start and (t - start) % period == 0:
            taken.append(plain.values)
        window = taken[-options.get("window", 0) :]
        for i, x in enumerate(evaluated(rule, now)):
            np.testing.assert_array_equal(now.values[i], plain.values[i])
            wanted = np.mean([values[i] for values in window], 0) if taken else plain.values[i]
            np.testing.assert_allclose(x, wanted, rtol=1e-12, atol=1e-14)


def test_it_is_the_paper_s_algorithm():
    rule, means = IterateAverage(td.SGD(0.25), start_averaging=4, average_period=4), []
    now = ended(rule, starts(), grads(), tf.float64)
    column = [gs[0] for gs in grads()]
    options = dict(inner=references.sgd, start_averaging=4, average_period=4, means=means)
    references.iterate_average(starts()[0], column, learning_rate=0.25, **options)
    np.testing.assert_allclose(evaluated(rule, now)[0], means[-1], rtol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_training_weights_come_back_from_evaluation_bit_for_bit(options):
    rule = IterateAverage(td.SGD(0.25), **options)
    for now in steps(rule, starts(), grads(), tf.float32):
        for p, s, x in zip(now.values, now.slots, evaluated(rule, now), strict=True):
            np.testing.assert_array_equal(rule.training(x, namespace(s), now.h), p)


def test_a_window_keeps_as_many_values_as_it_has_and_counts_no_further():
    rule = IterateAverage(td.SGD(0.25), window=3)
    for now in steps(rule, starts(), grads()):
        for shape, s in zip(SHAPES, now.slots, strict=True):
            assert s["latest"].shape == (3, *shape) and float(s["count"]) < 6


def test_the_mean_of_a_value_that_stays_is_that_value():
    now = last(rule := IterateAverage(td.SGD(0.0)), starts(), grads(), tf.float32)
    for x, start in zip(evaluated(rule, now), starts(), strict=True):
        np.testing.assert_array_equal(x, start.astype("float32"))


def test_the_period_is_live_and_what_was_taken_stays():
    rule = IterateAverage(td.SGD(0.25))
    h = seen(hyperparameters(rule, 6, tf.float64))
    assert int(h.average_period) == 1
    rule.average_period = 7
    p, s = (
        tf.zeros(2, tf.float64),
        dict(mean=tf.ones(2, tf.float64), count=tf.constant(3.0, "double")),
    )
    s |= dict(trained=p, inner=dict(m=p))
    for at, due in ((6, False), (7, True)):
        h = seen(hyperparameters(rule, at, tf.float64))
        _, after = rule.step(p, p, namespace(s), h)
        assert float(after["count"]) == 3 + due
        np.testing.assert_allclose(after["mean"], 0.75 if due else 1.0)


@pytest.mark.parametrize("window", [None, 2])
def test_an_optimizer_puts_the_means_in_and_trains_on_where_it_was(window):
    def begun():
        optimizer = IterateAverage(td.AdamW(0.05), window=window, jit_compile=False)
        trainable = variables(SHAPES * 2)  # of each shape two: they are stacked
        for gs in gradients(SHAPES * 2, steps=4):
            optimizer.apply([tf.constant(g) for g in gs], trainable)
        return optimizer, trainable

    (one, first), (two, second) = begun(), begun()
    values = [v.numpy() for v in first]
    with one.evaluation_weights():
        assert any(np.any(v.numpy() != p) for v, p in zip(first, values, strict=True))
    two.finalize_variable_values(second)  # as at the end of `fit`
    assert any(np.any(v.numpy() != p) for v, p in zip(second, values, strict=True))
    for optimizer, trainable in ((one, first), (two, second)):
        for gs in gradients(SHAPES * 2, steps=2, seed=5):
            optimizer.apply([tf.constant(g) for g in gs], trainable)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_fit_ends_with_the_means():
    model = small_model()
    model.compile(IterateAverage(td.SGD(0.05), window=3, jit_compile=False), "mse")
    x, y = small_data()
    model.fit(x, y, batch_size=16, epochs=1, verbose=0, shuffle=False)
    state = model.optimizer.get_state()
    v = model.trainable_variables[0]
    latest = next(x for name, x in state.items() if name == f"{v.path}:latest")
    np.testing.assert_allclose(v.numpy(), latest.mean(0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(window=0), r"`window` must be an integer >= 1.*Received: IterateAverage\(window=0\)"),
        (dict(window=True), "`window` must be an integer >= 1"),
        (dict(window=2.0), "`window` must be an integer >= 1"),
        (dict(start_averaging=0), "`start_averaging` must be an integer >= 1"),
        (dict(average_period=0.5), "`average_period` must be an integer >= 1"),
    ],
)
def test_wrong_arguments_are_told(options, words):
    with pytest.raises(ValueError, match=words):
        IterateAverage(td.SGD(0.1), **options)
