"""Rules as pure functions: what the engine does around one, on tensors alone.

for now in steps(rule, starts, grads):
    now.values, now.slots, now.shared, now.h
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
        return tf.fill(slots.shape, tf.constant(slots.initial, dtype))
    return {name: started(slot, value, dtype) for name, slot in slots.items()}


def hyperparameters(rule, step, dtype):
    """Those of one step, in the precision of the variables; counters stay integers."""

    def cast(tree):
        if isinstance(tree, dict):
            return {name: cast(leaf) for name, leaf in tree.items()}
        return tf.cast(tree, dtype) if tf.is_tensor(tree) and tree.dtype.is_floating else tree

    return cast(rule.hyperparameters_at(step))


def shared_of(rule, dtype):
    """The scalars of the rule, and of those inside of it."""
    own = started(rule.shared(), None, dtype)
    inner = getattr(rule, "inner", None)
    return own if inner is None else own | dict(inner=shared_of(inner, dtype))


def combined(rule, h, shared, variables):
    """`h` with the results of `combine`, the inner rule's first; and the new shared scalars."""
    after = {}
    if "inner" in shared:
        inside = [(p, g, s.inner) for p, g, s in variables]
        h["inner"], after["inner"] = combined(rule.inner, h["inner"], shared["inner"], inside)
    h = h | {name: value for name, value in shared.items() if name != "inner"}
    now = namespace(corrected(h))
    parts = [rule.reduce(p, g, s, now) for p, g, s in variables]
    sums = {name: tf.add_n([part[name] for part in parts]) for name in parts[0]}
    results = rule.combine(namespace(sums), now)
    after |= {name: results.get(name, shared[name]) for name in rule.shared()}
    return h | results, after


def steps(rule, starts, grads, dtype=tf.float64):
    """Yields values, slots, shared scalars and hyperparameters after each list of gradients."""
    values = [tf.constant(start, dtype) for start in starts]
    slots = [started(rule.init(p), p, dtype) for p in values]
    shared = shared_of(rule, dtype)
    for step, gs in enumerate(grads):
        variables = [
            (p, tf.constant(g, dtype), namespace(s))
            for p, g, s in zip(values, gs, slots, strict=True)
        ]
        h = hyperparameters(rule, step, dtype)
        h, shared = combined(rule, h, shared, variables)
        h = namespace(corrected(h))
        values, slots = zip(*(rule.step(p, g, s, h) for p, g, s in variables), strict=True)
        for (p, _, _), after in zip(variables, values, strict=True):
            assert after.dtype == p.dtype and after.shape == p.shape
        yield SimpleNamespace(values=list(values), slots=list(slots), shared=shared, h=h)


def last(*args, **kwargs):
    """What `steps` yields at the end."""
    *_, now = steps(*args, **kwargs)
    return now


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


def as_float32(number):
    """The number as an optimizer stores it, for references in float64."""
    return float(tf.constant(number, tf.float32))
