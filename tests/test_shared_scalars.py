"""Rules that sum over all variables, and their scalars of the whole optimizer; and who refuses."""

import keras
import numpy as np
import pure
import pytest
import tensorflow as tf
from cases import gradients, mirrored, run, run_mirrored, state_of, variables
from probes import PROBES, Pooled, crossed, leading, pooled

import tf_decoupled as td
from tf_decoupled.engine.state import Slot

WITHOUT_NOISE = [case for case in PROBES if not case.random]  # whose numbers hang on the path
every = pytest.mark.parametrize("case", WITHOUT_NOISE, ids=lambda case: case.name)
sums = pytest.mark.parametrize("case", [pooled, leading], ids=lambda case: case.name)
SHAPES = [(2, 3), (4,), (2, 3), (2, 3)]  # three of one shape: a stack


def scalars(optimizer):
    """The shared scalars by name."""
    return {name: np.asarray(getattr(optimizer, name)) for name, _ in optimizer.shared_names()}


def assert_same(ours, theirs, tolerance=0.0):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(
            ours[name], value, rtol=tolerance, atol=tolerance, equal_nan=True, err_msg=name
        )


def close(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@every
@pytest.mark.parametrize("stacked", [True, False])
def test_the_engine_steps_as_the_pure_functions_do(case, stacked):
    shapes = case.takes(SHAPES) if stacked else case.shapes
    grads, optimizer = gradients(shapes, steps=4, trend=1.0), case.make(weight_decay=0.3)
    ours = run(optimizer, variables(shapes), grads)
    assert any(block.stacked for block in optimizer.blocks) == stacked
    start = [v.numpy() for v in variables(shapes)]
    now = pure.last(case.make(weight_decay=0.3), start, grads, tf.float32)
    close(ours, now.values, 1e-6)
    assert_same(scalars(optimizer), pure.flat(now.shared), 1e-6)


class Looking(td.Wrapper):
    """Keeps the norm of the rule inside as its own `combine` sees it."""

    def init(self, p):
        return dict(inner=self.inner.init(p))

    def shared(self):
        return dict(noted=Slot((), 0.0))

    def combine(self, sums, h):
        return dict(noted=h.inner.norm)

    def step(self, p, g, s, h):
        p, inner = self.inner.step(p, g, s.inner, h.inner)
        return p, dict(inner=inner)


def test_a_wrapper_combines_before_the_rule_inside_of_it():
    grads, optimizer = gradients(SHAPES, steps=3), Looking(pooled.make())
    run(optimizer, variables(SHAPES), grads)
    start, rule = [v.numpy() for v in variables(SHAPES)], Looking(pooled.make())
    *_, before, now = (x.shared for x in pure.steps(rule, start, grads, tf.float32))
    assert_same(scalars(optimizer), pure.flat(now), 1e-6)
    np.testing.assert_allclose(optimizer.noted, before["inner"]["norm"], rtol=1e-6)


@sums
def test_a_step_that_is_skipped_leaves_the_shared_scalars_as_they_are(case):
    optimizer, trainable = case.make(skip_nonfinite=True), variables(SHAPES)
    good, bad, more = gradients(SHAPES, steps=3)
    bad[1][0] = np.nan
    run(optimizer, trainable, [good])
    before, state, values = scalars(optimizer), state_of(optimizer), [v.numpy() for v in trainable]
    run(optimizer, trainable, [bad], graph=True)
    assert_same(scalars(optimizer), before)
    assert_same(state_of(optimizer), state)
    close([v.numpy() for v in trainable], values, 0)
    run(optimizer, trainable, [more])
    assert int(optimizer.skipped_steps) == 1
    assert all(np.isfinite(x) for x in scalars(optimizer).values())
    assert any(np.any(scalars(optimizer)[name] != x) for name, x in before.items())


@sums
def test_micro_steps_leave_them_alone_and_a_full_group_sums_the_mean(case):
    optimizer, trainable = case.make(gradient_accumulation_steps=2), variables(SHAPES)
    (first, second), start = gradients(SHAPES, steps=2), scalars(optimizer)
    run(optimizer, trainable, [first], graph=True)
    assert_same(scalars(optimizer), start)
    run(optimizer, trainable, [second], graph=True)
    alone, mean = case.make(), [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    close([v.numpy() for v in trainable], run(alone, variables(SHAPES), [mean]), 1e-6)
    assert_same(scalars(optimizer), scalars(alone), 1e-6)


@sums
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("absent", [{0}, {1}, {0, 2}, {0, 2, 3}], ids=str)
def test_a_variable_without_a_gradient_is_not_summed(case, absent):
    optimizer, trainable, (begun, gs) = case.make(), variables(SHAPES), gradients(SHAPES, steps=2)
    run(optimizer, trainable, [begun])
    before = [v.numpy() for v in trainable]
    optimizer.apply([None if i in absent else g for i, g in enumerate(gs)], trainable)
    there = [i for i in range(len(SHAPES)) if i not in absent]
    for i in absent:
        np.testing.assert_array_equal(trainable[i], before[i])
    # As the pure functions have it, where the others alone take the second step.
    start = [v.numpy() for v in variables(SHAPES)]
    now = pure.last(rule := case.make(), start, [begun], tf.float32)
    values, _, shared, _ = pure.step_all(
        rule,
        [now.values[i] for i in there],
        [tf.constant(gs[i]) for i in there],
        [now.slots[i] for i in there],
        now.shared,
        1,
    )
    close([trainable[i] for i in there], values, 1e-6)
    assert_same(scalars(optimizer), pure.flat(shared), 1e-6)


@sums
def test_they_are_saved_with_the_state_and_training_resumes_bit_for_bit(case):
    grads, whole = gradients(SHAPES, steps=6), case.make()
    expected = run(whole, variables(SHAPES), grads)
    first, second, trainable, resumed = (case.make(), case.make(), *map(variables, [SHAPES] * 2))
    run(first, trainable, grads[:3])
    assert scalars(first).keys() <= first.get_state().keys()
    second.build(resumed)
    second.set_state(first.get_state())
    assert_same(scalars(second), scalars(first))
    for v, w in zip(resumed, trainable, strict=True):
        v.assign(w)
    close(run(second, resumed, grads[3:]), expected, 0)
    assert_same(second.get_state(), whole.get_state())


@sums
def test_replicas_sum_what_one_device_sums(case):
    grads, one = gradients(SHAPES, steps=3), case.make(clipnorm=0.5)
    trainable, optimizer = run_mirrored(lambda: case.make(clipnorm=0.5), grads, SHAPES)
    expected = run(one, variables(SHAPES), grads)
    local = mirrored().experimental_local_results
    for v, e in zip(trainable, expected, strict=True):
        close(local(v.value), [e, e], 1e-6)
    for name, value in scalars(one).items():
        close(local(getattr(optimizer, name).value), [value] * 2, 1e-6)


def test_in_a_partition_a_member_sums_over_its_own_variables():
    own = [i for i, shape in enumerate(SHAPES) if len(shape) >= 2]
    member, trainable, grads = Pooled(0.1), variables(SHAPES), gradients(SHAPES, steps=3)
    both = td.Partition([(td.masks.matrices, member), (None, td.SGDW(0.1))], jit_compile=False)
    run(both, trainable, grads)
    alone, shapes = pooled.make(), [SHAPES[i] for i in own]
    begun = [keras.Variable(variables(SHAPES)[i], name=f"v{i}") for i in own]
    run(alone, begun, [[gs[i] for i in own] for gs in grads])
    close([trainable[i] for i in own], begun, 1e-6)
    assert len(shapes) == 3
    (norm,) = scalars(both).values()
    np.testing.assert_allclose(norm, alone.norm, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_variables_of_any_precision_are_summed_together(dtype):
    (gs,), trainable = gradients(SHAPES, steps=1), variables(SHAPES)
    trainable[0] = keras.Variable(trainable[0].numpy(), dtype=dtype, name="v0")
    optimizer = pooled.make()
    run(optimizer, trainable, [gs])
    norm = 0.75 + 0.25 * np.sqrt(sum(np.sum(np.float64(g) ** 2) for g in gs))
    np.testing.assert_allclose(optimizer.norm, norm, rtol=1e-6)


def test_averages_and_evaluation_weights_go_together_with_them():
    optimizer, trainable = leading.make(), variables(SHAPES)
    run(optimizer, trainable, gradients(SHAPES, steps=3))
    before, state = [v.numpy() for v in trainable], state_of(optimizer)
    with optimizer.evaluation_weights():
        for i, v in enumerate(trainable):
            expected = (before[i] + state[f"v{i}:mean"]) / 2
            np.testing.assert_allclose(v, expected, rtol=1e-6)
            assert np.any(v.numpy() != before[i])
    close(trainable, before, 0)


def test_a_shared_scalar_of_a_rule_inside_may_have_a_short_name():
    optimizer = td.Lookahead(td.Prodigy(d0=0.01, jit_compile=False))
    run(optimizer, variables(SHAPES), gradients(SHAPES, steps=2))
    assert set(scalars(optimizer)) == {"inner/d", "inner/d_max", "inner/q"}


def test_a_rule_that_refuses_a_variable_names_it_and_where_it_may_go():
    optimizer, trainable = crossed.make(), variables([(2, 3), (4,), ()])
    with pytest.raises(ValueError, match=r"matrices\. Received: v1 \(4,\), v2 \(\)\.") as error:
        optimizer.build(trainable)
    assert "td.Partition" in str(error.value) and "v0" not in str(error.value)
    assert len(optimizer.cells) == len(optimizer.blocks) == 0
    optimizer.build(trainable[:1])


def test_a_rule_without_slots_keeps_nothing_beside_a_variable():
    optimizer = crossed.make()
    trainable, grads = variables([(2, 3), (2, 3)]), gradients([(2, 3), (2, 3)], steps=2)
    run(optimizer, trainable, grads)
    assert state_of(optimizer) == {} and int(optimizer.iterations) == 2
