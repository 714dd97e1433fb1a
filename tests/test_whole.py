"""Each row once through the whole: compiled, saved and resumed, on replicas with everything on."""

import keras
import numpy as np
import pytest
from cases import CASES, gradients, mirrored, run, run_mirrored, small_data, small_model, variables

import tf_decoupled as td

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
SHAPES = [(3, 4), (5,)]


def equal(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def close(left, right, tolerance):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.xla
@every
def test_the_compiled_step_ends_where_eager_code_and_the_paper_do(case):
    shapes, λ = case.takes(SHAPES), 0.1
    start, grads = [v.numpy() for v in variables(shapes)], gradients(shapes, steps=4)
    optimizer = case.make(weight_decay=λ)
    compiled = run(optimizer, variables(shapes), grads, graph=True)
    eager = case.make(weight_decay=λ, jit_compile=False)
    close(compiled, run(eager, variables(shapes), grads), 2e-6)
    if not case.random:
        close(compiled, case.expected(optimizer, start, grads, weight_decay=λ), 5e-6)
    found = {name: v.shape for name, v in optimizer.get_state().items() if ":" in name}
    held = {"held": ()} if optimizer.evaluates() else {}
    named = [(f"v{i}", case.slots(shape) | held) for i, shape in enumerate(shapes)]
    assert found == {f"{v}:{name}": shape for v, slots in named for name, shape in slots.items()}


@every
def test_training_is_saved_to_keras_and_resumes_bit_for_bit(case, untraced, tmp_path):
    x, y = small_data()
    model = small_model(matrices_only=case.least_rank > 1)
    rate = td.schedules.Cosine(case.learning_rate, 20, alpha=0.1)
    optimizer = case.make(learning_rate=rate, weight_decay=0.01, jit_compile=False)
    model.compile(optimizer, "mse", run_eagerly=True)
    losses = [model.train_on_batch(x, y) for _ in range(4)]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
    assert type(loaded.optimizer) is type(optimizer)
    for each in (model, loaded):
        each.train_on_batch(x, y)
    assert int(loaded.optimizer.iterations) == 5
    states = (each.optimizer.get_state().values() for each in (model, loaded))
    equal([v.numpy() for v in model.variables], [v.numpy() for v in loaded.variables])
    equal(*states)


EVERYTHING = dict(
    weight_decay=0.1,
    gradient_accumulation_steps=2,
    global_clipnorm=0.5,
    skip_nonfinite=True,
    use_ema=True,
    ema_momentum=0.9,
    ema_overwrite_frequency=2,
    jit_compile=False,
)


@every
def test_two_replicas_with_everything_on_end_where_one_device_does(case, untraced):
    shapes = case.takes(SHAPES)
    grads, make = gradients(shapes, steps=8), lambda: case.make(**EVERYTHING)
    grads[3][0].flat[0] = np.nan
    trainable, optimizer = run_mirrored(make, grads, shapes)
    one = make()
    expected = run(one, variables(shapes), grads)
    for v, e in zip(trainable, expected, strict=True):
        for component in mirrored().experimental_local_results(v.value):
            np.testing.assert_allclose(component, e, rtol=2e-6, atol=2e-6)
    state = optimizer.get_state()
    for name, value in one.get_state().items():
        np.testing.assert_allclose(state[name], value, rtol=2e-6, atol=2e-6, err_msg=name)
    assert (int(one.iterations), int(one.skipped_steps)) == (3, 1)
