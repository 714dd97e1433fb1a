"""use_ema: a bias-corrected moving average of the variables, one step per update."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, run, run_mirrored, small_data, small_model, variables
from probes import l2, leading, trailing

import tf_decoupled as td


def average_of(history, momentum):
    """Σ βᵗ⁻ⁱ θᵢ / Σ βᵗ⁻ⁱ."""
    weights = momentum ** np.arange(len(history))[::-1]
    return np.tensordot(weights, np.asarray(history, np.float64), 1) / weights.sum()


def averages(optimizer):
    return [v for name, v in optimizer.get_state().items() if name.endswith(":average")]


@pytest.mark.parametrize("case", [l2, trailing, leading], ids=lambda case: case.name)
def test_the_average_is_the_bias_corrected_one_and_leaves_training_alone(case):
    grads, plain, history = gradients(steps=6), (case.make(), variables()), []
    for gs in grads:
        history.append(run(*plain, [gs]))
    optimizer, trainable = case.make(use_ema=True, ema_momentum=0.8), variables()
    ours = run(optimizer, trainable, grads, graph=True)
    for i, (a, e) in enumerate(zip(ours, history[-1], strict=True)):
        np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-7)
        expected = average_of([h[i] for h in history], 0.8)
        np.testing.assert_allclose(averages(optimizer)[i], expected, rtol=1e-5, atol=1e-6)


def test_warming_up_the_momentum_starts_with_short_averages():
    grads, plain, expected = gradients(steps=6), (td.AdamW(0.1), variables()), None
    for t, gs in enumerate(grads, start=1):
        values, β = run(*plain, [gs]), min(0.4, (1 + t) / (10 + t))
        if expected is None:
            expected = values
        expected = [β * e + (1 - β) * v for e, v in zip(expected, values, strict=True)]
    optimizer = td.AdamW(0.1, use_ema=True, ema_momentum=0.4, ema_warmup=True)
    run(optimizer, variables(), grads, graph=True)
    for a, e in zip(averages(optimizer), expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6)


def test_it_overwrites_the_variables_as_often_as_told():
    (v,), ones = variables([(2,)]), [[np.ones(2, "float32")]] * 4
    start = v.numpy().astype(np.float64)
    make = functools.partial(td.SGD, 1.0, use_ema=True, ema_momentum=0.5)
    run(make(ema_overwrite_frequency=2), [v], ones, graph=True)
    θ, history = start, []
    for t in range(1, 5):
        θ = θ - 1
        history.append(θ)
        θ = average_of(history, 0.5) if t % 2 == 0 else θ
    np.testing.assert_allclose(v, θ, rtol=1e-5)


def test_accumulation_and_skipped_steps_do_not_average_twice():
    grads = gradients(steps=4)
    bad = [np.full_like(g, np.nan) for g in grads[0]]
    shared = dict(use_ema=True, ema_momentum=0.8)
    plain, trainable = td.SGDW(0.1, **shared), variables()
    means = [[(a + b) / 2 for a, b in zip(*grads[i : i + 2], strict=True)] for i in (0, 2)]
    run(plain, trainable, means)
    both = td.SGDW(0.1, gradient_accumulation_steps=2, skip_nonfinite=True, **shared)
    run(both, variables(), [*grads[:2], bad, bad, *grads[2:]], graph=True)
    for a, b in zip(averages(both), averages(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_what_had_no_gradient_yet_is_its_own_average():
    a, b = variables([(2,), (3,)])
    optimizer, start = td.SGD(0.1, use_ema=True), b.numpy()
    optimizer.build([a, b])
    optimizer.apply([tf.ones(2)], [a])
    with optimizer.averaged():
        np.testing.assert_array_equal(b, start)


def test_averaged_swaps_the_averages_in_and_out():
    optimizer, trainable = td.AdamW(0.1, use_ema=True), variables()
    after = run(optimizer, trainable, gradients(steps=3))
    with pytest.raises(RuntimeError, match="inside"), optimizer.averaged():
        for v, average in zip(trainable, averages(optimizer), strict=True):
            np.testing.assert_array_equal(v, average)
        raise RuntimeError("inside")
    for v, value in zip(trainable, after, strict=True):
        np.testing.assert_array_equal(v, value)
    with pytest.raises(ValueError, match="has no evaluation weights"), td.AdamW().averaged():
        pass


def test_fit_ends_with_the_averages(tmp_path):
    model = small_model()
    model.compile(td.AdamW(0.01, use_ema=True, ema_momentum=0.5), "mse")
    model.fit(*small_data(), batch_size=16, verbose=0)
    for v, average in zip(model.trainable_variables, averages(model.optimizer), strict=True):
        np.testing.assert_array_equal(v, average)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer
    for a, b in zip(averages(loaded), averages(model.optimizer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_averages_of_low_precision_variables_are_float32():
    v = keras.Variable(np.ones(4, "float32"), dtype="bfloat16", name="v")
    optimizer = td.SGD(1e-4, use_ema=True, ema_momentum=0.5)
    run(optimizer, [v], [[np.ones(4, "float32")]] * 3, graph=True)
    expected = average_of([1 - 1e-4 * t for t in (1, 2, 3)], 0.5)
    np.testing.assert_allclose(averages(optimizer)[0], np.full(4, expected), rtol=1e-7)


def test_replicas_average_and_overwrite_in_a_graph():
    grads = gradients(steps=4)
    make = functools.partial(td.AdamW, 0.1, use_ema=True, ema_overwrite_frequency=2)
    trainable, optimizer = run_mirrored(make, grads)
    for v, e in zip(trainable, run(make(), variables(), grads, graph=True), strict=True):
        np.testing.assert_allclose(v.numpy(), e, rtol=1e-5, atol=1e-6)
    with optimizer.averaged():
        np.testing.assert_allclose(trainable[0].numpy(), averages(optimizer)[0], rtol=1e-6)
