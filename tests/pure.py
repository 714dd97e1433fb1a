"""A rule's pure functions on tensors: no variables, no build, and nothing is compiled.

The only file of the tests that knows how the engine calls a rule.
"""

from types import SimpleNamespace

import tensorflow as tf

from tf_decoupled.hyperparameters import corrected, namespace


def hyperparameters(optimizer, step=0, keep=1.0, dtype="float32"):
    """What the rule sees at the update after `step` others: `h`, in `dtype`.

    keep: 1 where the mask lets a variable decay, 0 where it leaves it out.
    """
    h = _masked(optimizer, optimizer.hyperparameters_at(step), keep)
    return namespace(corrected(_cast(h, dtype)))


def _masked(optimizer, h, keep):
    inner = dict(inner=_masked(optimizer.inner, h["inner"], keep)) if "inner" in h else {}
    return h | inner | {name: keep * h[name] for name in optimizer.masked}


def _cast(h, dtype):
    """Floating point numbers in `dtype`; integers, as the count of steps, stay integers."""
    if isinstance(h, dict):
        return {name: _cast(value, dtype) for name, value in h.items()}
    return tf.cast(h, dtype) if tf.is_tensor(h) and h.dtype.is_floating else h


def begin(optimizer, p):
    """The slots that `init` declares for a value: nested, as arrays, copies of it filled in."""

    def array(slot):
        number = tf.fill(slot.shape, tf.cast(slot.initial, p.dtype))
        return p if slot.initial != slot.initial else number

    return tf.nest.map_structure(array, _nested(optimizer.init(p)))


def _nested(slots):
    """Slots as leaves: a `Slot` is a tuple, into which TensorFlow would look."""
    return {n: _nested(s) if isinstance(s, dict) else _Leaf(s) for n, s in slots.items()}


class _Leaf(SimpleNamespace):
    def __init__(self, slot):
        super().__init__(shape=slot.shape, initial=slot.initial)


def step(optimizer, p, g, slots, h):
    """One variable's step: the value after it, and the new slots."""
    return optimizer.step(p, g, namespace(slots), h)


def flat(slots, prefix=""):
    """{"inner/m": array} of nested slots."""
    names = {}
    for name, value in slots.items():
        inside = isinstance(value, dict)
        names |= flat(value, f"{prefix}{name}/") if inside else {prefix + name: value}
    return names


def train(optimizer, start, grads, dtype="float32", keep=1.0, begin_at=0):
    """Steps each variable with each step's gradients; returns the values and their slots."""
    values = [tf.constant(p, dtype) for p in start]
    slots = [begin(optimizer, p) for p in values]
    for t, gs in enumerate(grads, begin_at):
        h = hyperparameters(optimizer, t, keep, dtype)
        for i, g in enumerate(gs):
            values[i], slots[i] = step(optimizer, values[i], tf.constant(g, dtype), slots[i], h)
    return [p.numpy() for p in values], slots


def train_long(optimizer, start, grads):
    """As `train`, in one graph with a loop: quick for many steps."""
    columns = [tf.stack(column) for column in zip(*grads, strict=True)]

    def body(t, values, slots):
        h = hyperparameters(optimizer, t)
        gs = [tf.gather(column, t) for column in columns]
        each = [step(optimizer, *one, h) for one in zip(values, gs, slots, strict=True)]
        return [t + 1, [p for p, _ in each], [s for _, s in each]]

    @tf.function(autograph=False)
    def loop(values):
        first = [0, values, [begin(optimizer, p) for p in values]]
        return tf.while_loop(lambda t, *_: t < len(grads), body, first)[1]

    return [p.numpy() for p in loop([tf.constant(p) for p in start])]
