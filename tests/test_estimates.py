"""Estimates and losses: what a rule is told beside gradients."""

import numpy as np
import pytest
import tensorflow as tf
from cases import gradients, mirrored, small_data, small_model, variables
from probes import Watching

import tf_decoupled as td
from tf_decoupled.engine.state import Slot

SHAPES = [(3, 4), (3, 4), (5,)]


def told(optimizer, estimates, trainable=None, **function):
    """The slots c after each list of estimates."""
    trainable = trainable or variables(SHAPES)
    optimizer.build(trainable)
    step = tf.function(lambda es: optimizer.apply_estimates(es, trainable), **function)
    for es in estimates:
        step([None if e is None else tf.constant(e) for e in es])
    return [optimizer.get_state()[f"v{i}:c"] for i in range(len(trainable))]


@pytest.mark.xla
@pytest.mark.parametrize("jit_compile", [False, "auto"])
def test_estimates_reach_the_rule_stacked_and_alone_and_no_step_is_taken(jit_compile):
    optimizer, trainable = Watching(jit_compile=jit_compile), variables(SHAPES)
    before = [v.numpy() for v in trainable]
    first, second = gradients(SHAPES, 2)
    slots = told(optimizer, [first, second], trainable)
    for c, a, b in zip(slots, first, second, strict=True):
        np.testing.assert_allclose(c, a / 4 + b / 2, rtol=1e-6)
    for v, b in zip(trainable, before, strict=True):
        np.testing.assert_array_equal(v.numpy(), b)
    assert int(optimizer.iterations) == 0


def test_they_may_be_compiled_whole_with_the_step():
    slots = told(Watching(), gradients(SHAPES, 1), jit_compile=True)
    for c, e in zip(slots, gradients(SHAPES, 1)[0], strict=True):
        np.testing.assert_allclose(c, e / 2, rtol=1e-6)


def test_a_variable_without_an_estimate_keeps_its_slots():
    [es] = gradients(SHAPES, 1)
    with pytest.warns(UserWarning, match="v0"):
        slots = told(Watching(), [[None, *es[1:]]])
    np.testing.assert_array_equal(slots[0], 0 * es[0])
    np.testing.assert_allclose(slots[1], es[1] / 2, rtol=1e-6)


@pytest.mark.parametrize("place", [(1, 0, 0), (2, 0)], ids=["in a stack", "alone"])
def test_estimates_with_a_nan_change_nothing(place):
    [es] = gradients(SHAPES, 1)
    es[place[0]][place[1:]] = np.nan
    for c in told(Watching(), [es]):
        np.testing.assert_array_equal(c, 0 * c)


def test_replicas_add_theirs_up():
    strategy, [es] = mirrored(), gradients(SHAPES, 1)
    with strategy.scope():
        trainable, optimizer = variables(SHAPES), Watching()
        optimizer.build(trainable)
    halves = lambda es: optimizer.apply_estimates([e / 2 for e in es], trainable)  # noqa: E731
    tf.function(lambda es: strategy.run(halves, (es,)))([tf.constant(e) for e in es])
    for i, e in enumerate(es):
        np.testing.assert_allclose(optimizer.get_state()[f"v{i}:c"], e / 2, rtol=1e-6)


def test_a_wrapper_and_a_partition_hand_them_on():
    [es] = gradients(SHAPES, 1)
    wrapped = td.Lookahead(Watching())
    told_inside = variables(SHAPES)
    wrapped.build(told_inside)
    wrapped.apply_estimates(es, told_inside)
    np.testing.assert_allclose(wrapped.get_state()["v0:inner/c"], es[0] / 2, rtol=1e-6)
    parted = td.Partition([(td.masks.matrices, Watching()), (None, td.SGDW(0.1))])
    trainable = variables(SHAPES)
    parted.build(trainable)
    parted.apply_estimates(es, trainable)
    np.testing.assert_allclose(parted.get_state()["v1:c"], es[1] / 2, rtol=1e-6)


def test_a_rule_without_a_use_for_them_refuses_them_in_words():
    with pytest.raises(ValueError, match=r"No rule .* uses estimates.*AdamW"):
        td.AdamW().apply_estimates(gradients(SHAPES, 1)[0], variables(SHAPES))


class Polyak(td.Optimizer):
    """θ ← θ − L / ‖g‖² g, the step of Polyak for losses whose least value is 0."""

    def shared(self):
        return dict(loss=Slot((), 1.0))

    def step(self, p, g, s, h):
        return p - h.loss * tf.math.divide_no_nan(g, tf.reduce_sum(g * g)), {}


def test_a_rule_sees_the_loss_that_was_told_last():
    x = variables([(1,)])[0]
    x.assign([3.0])
    optimizer = Polyak()

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(x * x)
        optimizer.observe_loss(loss)
        optimizer.apply(tape.gradient(loss, [x]), [x])

    for expected in (1.5, 0.75, 0.375):  # x - x² / (2 x)
        step()
        np.testing.assert_allclose(x.numpy(), [expected], rtol=1e-6)


def test_fit_tells_the_loss():
    x, y = small_data()
    model = small_model()
    model.compile(Polyak(), "mse")
    history = model.fit(x, y, epochs=4, batch_size=64, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(model.optimizer.loss.numpy(), history[-1], rtol=1e-6)


def test_the_losses_of_replicas_are_added_up():
    strategy = mirrored()
    with strategy.scope():
        [v] = variables([(2,)])
        optimizer = Polyak()
        optimizer.build([v])
    losses = [3.0, 4.0]
    per_replica = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(losses[context.replica_id_in_sync_group])
    )
    tf.function(lambda: strategy.run(optimizer.observe_loss, (per_replica,)))()
    assert optimizer.loss.numpy() == 7.0


def test_each_member_of_a_partition_hears_the_loss():
    optimizer = td.Partition([(td.masks.only("v0"), Polyak()), (None, Polyak())])
    optimizer.build(variables(SHAPES))
    optimizer.observe_loss(3.0)
    heard = [v for name, v in optimizer.get_state().items() if name.endswith("loss")]
    assert heard == [3.0, 3.0]


def test_without_a_loss_the_step_says_what_is_missing():
    with pytest.raises(ValueError, match=r"observe_loss\(loss\).*Polyak"):
        Polyak().apply([tf.ones([2])], variables([(2,)]))


def test_a_loss_of_each_example_is_refused():
    optimizer = Polyak()
    with pytest.raises(ValueError, match=r"must be a scalar.*\(3,\)"):
        optimizer.observe_loss(tf.ones([3]))
