"""Rules as pure functions: what the engine does around one, on tensors alone; nothing is compiled.

    for now in steps(rule, starts, grads):
        now.values, now.slots, now.shared, now.h

The only file of the tests that knows how the engine calls a rule.
"""

from types import SimpleNamespace

import numpy as np
import tensorflow as tf

from tf_decoupled.engine.hyperparameters import corrected, namespace
from tf_decoupled.engine.state import Slot


def started(slots, value, dtype):
    """Slots at their start; those that copy the variable hold its value."""
    if isinstance(slots, Slot):
        if slots.initial != slots.initial:
            return value
        return tf.fill(slots.shape, tf.constant(slots.initial, slots.dtype or dtype))
    return {name: started(slot, value, dtype) for name, slot in slots.items()}


def hyperparameters(rule, step=0, dtype="float32"):
    """Those of one step, in the precision of the variables; counters stay integers."""

    def cast(tree):
        if isinstance(tree, dict):
            return {name: cast(leaf) for name, leaf in tree.items()}
        return tf.cast(tree, dtype) if tf.is_tensor(tree) and tree.dtype.is_floating else tree

    return cast(rule.hyperparameters_at(step))


def masked(rule, h, keep):
    """`h` for one variable: keep is 1 where it decays, and 0 where the mask leaves it out."""
    inner = dict(inner=masked(rule.inner, h["inner"], keep)) if "inner" in h else {}
    return h | inner | {name: keep * h[name] for name in rule.masked}


def seen(h):
    """`h` as a rule sees it: read with dots, and with its bias corrections."""
    return namespace(corrected(h))


def shared_of(rule, dtype):
    """The scalars of the rule, and of those inside of it."""
    own = started(rule.shared(), None, dtype)
    inner = getattr(rule, "inner", None)
    return own if inner is None else own | dict(inner=shared_of(inner, dtype))


def joined(h, shared):
    """`h` with the shared scalars of the rule and of those inside of it."""
    inside = lambda name, x: joined(h[name], x) if isinstance(x, dict) else x  # noqa: E731
    return h | {name: inside(name, x) for name, x in shared.items()}


def combined(rule, h, shared, variables):
    """`h` with the results of `combine`, the inner rule's last; and the new shared scalars."""
    h = joined(h, shared)
    now = seen(h)
    parts = [rule.reduce(p, g, s, now) for p, g, s in variables]
    sums = {name: tf.add_n([part[name] for part in parts]) for name in parts[0]}
    results = rule.combine(namespace(sums), now)
    after = {name: results.get(name, shared[name]) for name in rule.shared()}
    h = h | results
    if "inner" in shared:
        inside = [(p, g, s.inner) for p, g, s in variables]
        inner, after["inner"] = combined(rule.inner, h["inner"], shared["inner"], inside)
        h = h | dict(inner=inner)
    return h, after


def step(rule, p, g, slots, h):
    """One variable's step: the value after it, and the new slots."""
    return rule.step(p, g, namespace(slots), h)


def step_all(rule, values, grads, slots, shared, at, keep=1.0):
    """One step of all variables after `at` others: values, slots, shared scalars, and `h`."""
    nests = [namespace(s) for s in slots]
    variables = list(zip(values, grads, nests, strict=True))
    h = hyperparameters(rule, at, values[0].dtype)
    h, shared = combined(rule, h, shared, variables)
    h = seen(masked(rule, h, keep))
    values, slots = zip(*(rule.step(p, g, s, h) for p, g, s in variables), strict=True)
    for (p, _, _), after in zip(variables, values, strict=True):
        assert after.dtype == p.dtype and after.shape == p.shape
    return list(values), list(slots), shared, h


def steps(rule, starts, grads, dtype=tf.float64, keep=1.0, first=0):
    """Yields values, slots, shared scalars and hyperparameters after each list of gradients."""
    values = [tf.constant(start, dtype) for start in starts]
    slots = [started(rule.init(p), p, dtype) for p in values]
    shared = shared_of(rule, dtype)
    for at, gs in enumerate(grads, first):
        gs = [tf.constant(g, dtype) for g in gs]
        values, slots, shared, h = step_all(rule, values, gs, slots, shared, at, keep)
        yield SimpleNamespace(values=values, slots=slots, shared=shared, h=h)


def last(*args, **kwargs):
    """What `steps` yields at the end."""
    *_, now = steps(*args, **kwargs)
    return now


def train(rule, starts, grads, dtype=tf.float32, **options):
    """The values at the end, as arrays, and the slots."""
    now = last(rule, starts, grads, dtype, **options)
    return [p.numpy() for p in now.values], now.slots


def ended(rule, starts, grads, dtype=tf.float32):
    """As `last`, from one graph with a loop: quick for many steps."""
    columns = [tf.stack([tf.cast(g, dtype) for g in column]) for column in zip(*grads, strict=True)]

    def body(at, values, slots, shared):
        gs = [tf.gather(column, at) for column in columns]
        return [at + 1, *step_all(rule, values, gs, slots, shared, at)[:3]]

    @tf.function(autograph=False)
    def loop(values):
        slots = [started(rule.init(p), p, dtype) for p in values]
        begin = [0, values, slots, shared_of(rule, dtype)]
        return tf.while_loop(lambda at, *_: at < len(grads), body, begin)[1:]

    values, slots, shared = loop([tf.constant(p, dtype) for p in starts])
    h = seen(joined(hyperparameters(rule, len(grads) - 1, dtype), shared))
    return SimpleNamespace(values=values, slots=slots, shared=shared, h=h)


def train_long(rule, starts, grads, dtype=tf.float32):
    """The values after many steps, as arrays."""
    return [p.numpy() for p in ended(rule, starts, grads, dtype).values]


def flat(slots, prefix=""):
    """{"inner/m": array} of nested slots."""
    names = {}
    for name, value in slots.items():
        inside = isinstance(value, dict)
        names |= flat(value, f"{prefix}{name}/") if inside else {prefix + name: value}
    return names


def as_float32(number):
    """The number as an optimizer stores it, for references in float64."""
    return float(tf.constant(number, tf.float32))


def assert_vectorizes(rule, p, g, compiled=False):
    """A second step of a stack [n, ...] at once is that of its variables one by one."""
    firsts = [last(rule, [p[i]], [[g[i]]], p.dtype) for i in range(len(p))]
    h = firsts[0].h

    def one(arguments):
        p, g, s = arguments
        return rule.step(p, g, namespace(s), h)

    stack = tf.nest.map_structure(lambda *x: tf.stack(x), *[now.slots[0] for now in firsts])
    together = tf.function(
        lambda *arguments: tf.vectorized_map(one, arguments, fallback_to_while_loop=False),
        jit_compile=compiled,
        autograph=False,
    )(p, g, stack)
    for i, now in enumerate(firsts):
        alone = one((p[i], g[i], now.slots[0]))
        mine = tf.nest.map_structure(lambda x, i=i: x[i], together)
        tf.nest.map_structure(lambda a, b: close(a, b, 1e-5), mine, alone)


def close(a, b, tolerance):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def onward(rule, now, values, grads, first, dtype=tf.float64):
    """The values after further steps from where `steps` was, but from these values."""
    slots, shared = now.slots, now.shared
    for at, gs in enumerate(grads, first):
        gs = [tf.constant(g, dtype) for g in gs]
        values, slots, shared, _ = step_all(rule, values, gs, slots, shared, at)
    return values


def descend(rule, starts, gradient, count, dtype=tf.float64):
    """What is evaluated after steps along a function's gradient, from one graph with a loop."""
    starts = [tf.constant(start, dtype) for start in starts]

    def body(at, values, slots, shared):
        grads = [gradient(p) for p in values]
        return [at + 1, *step_all(rule, values, grads, slots, shared, at)[:3]]

    @tf.function(autograph=False)
    def loop(values):
        slots = [started(rule.init(p), p, dtype) for p in values]
        begin = [0, values, slots, shared_of(rule, dtype)]
        _, values, slots, _ = tf.while_loop(lambda at, *_: at < count, body, begin)
        if not rule.evaluates():
            return values
        return [rule.evaluation(p, namespace(s), None) for p, s in zip(values, slots, strict=True)]

    return [p.numpy() for p in loop(starts)]
