"""Tiny rules that together have every trait of a rule: what tests of the engine run over.

A row of the table is a paper, which `test_rules` checks; what the engine does around a rule depends
on its traits only. `test_probes` asserts that no row has a trait that no probe has.
"""

import tensorflow as tf
from cases import Case, around, like

import tf_decoupled as td
from tf_decoupled.engine.state import Slot, copy, own_seed, zeros
from tf_decoupled.math import normal


class Scaled(td.Optimizer):
    """v ← β v + (1 − β) (g + l2 θ)²,  u = (g + l2 θ) / (√(v / (1 − βᵗ)) + 1).

    A slot of the variable's shape, a bias correction, L2 that the mask takes away, and rows that
    catch up.
    """

    beta: td.Beta = 0.75
    l2: td.Scalar = 0.0

    masked = ("decay", "l2")

    def init(self, p):
        return dict(v=zeros(p))

    def update(self, p, g, s, h):
        g = g + h.l2 * p
        v = h.beta * s.v + (1 - h.beta) * g * g
        return g / (tf.sqrt(v / h.correction.beta) + 1.0), dict(v=v)

    def catch_up(self, p, s, h, k):
        return tf.exp(k * tf.math.log1p(-h.decay)) * p, dict(v=h.beta**k * s.v)


class Factored(td.Optimizer):
    """θ ← θ − η g / (1 + rᵢ + cⱼ + n) − δ,  r, c: sums of |g| over columns and rows, n: steps.

    Slots of other shapes than the variable's, also a scalar; a step of its own; a rate that is
    scheduled by default.
    """

    learning_rate: td.Scalar = td.schedules.InverseSquareRoot(0.1)

    def init(self, p):
        n = Slot((), 1.0)
        if len(p.shape) < 2:
            return dict(n=n)
        return dict(r=zeros(p, p.shape[:-1]), c=zeros(p, p.shape[-1:]), n=n)

    def step(self, p, g, s, h):
        slots, size = dict(n=s.n + 1.0), 1.0 + s.n
        if len(p.shape) >= 2:
            slots["r"] = s.r + tf.reduce_sum(tf.abs(g), -1)
            slots["c"] = s.c + tf.reduce_sum(tf.abs(g), tuple(range(len(p.shape) - 1)))
            size += slots["r"][..., None] + slots["c"]
        return p - h.learning_rate * g / size - h.decay * p, slots


class Trailing(td.Wrapper):
    """A rule whose value is drawn back to where it came from: φ ← φ + pull (θ′ − φ).

    A copy of the variable, around the slots of another rule.
    """

    pull: td.Scalar = 0.25
    every: td.Steps = 2

    def init(self, p):
        return dict(trail=copy(p), inner=self.inner.init(p))

    def step(self, p, g, s, h):
        p, inner = self.inner.step(p, g, s.inner, h.inner)
        trail = s.trail + h.pull * (p - s.trail)
        back = h.step % h.every == 0
        return tf.where(back, trail, p), dict(trail=tf.where(back, trail, s.trail), inner=inner)


class Pooled(td.Optimizer):
    """N ← ¾ N + ¼ √Σ ‖g + m‖²  over all variables, before any moves; m ← ½ (m + g),
    u = m / (N + N before).

    Sums over all variables, of their slots, too; a scalar of the whole optimizer.
    """

    def init(self, p):
        return dict(m=zeros(p))

    def shared(self):
        return dict(norm=Slot((), 1.0))

    def reduce(self, p, g, s, h):
        return dict(squares=tf.reduce_sum(tf.square(g + s.m)))

    def combine(self, sums, h):
        return dict(norm=0.75 * h.norm + 0.25 * tf.sqrt(sums.squares), norm_before=h.norm)

    def update(self, p, g, s, h):
        m = 0.5 * (s.m + g)
        return m / (h.norm + h.norm_before), dict(m=m)


class Leading(td.Wrapper):
    """The variable runs ahead of a mean, a ← a + η / (2 η_max) (φ − a); ½ (φ + a) is evaluated.

    Evaluation weights and the way back; a shared scalar without sums, beside those of the rule
    inside.
    """

    def init(self, p):
        return dict(mean=copy(p), inner=self.inner.init(p))

    def shared(self):
        return dict(largest=Slot((), 0.0))

    def combine(self, sums, h):
        largest = tf.maximum(h.largest, h.inner.learning_rate)
        return dict(largest=largest, share=0.5 * h.inner.learning_rate / largest)

    def step(self, p, g, s, h):
        p, inner = self.inner.step(p, g, s.inner, h.inner)
        return p, dict(mean=s.mean + h.share * (p - s.mean), inner=inner)

    def evaluation(self, p, s, h):
        return 0.5 * (p + s.mean)

    def training(self, x, s, h):
        return 2.0 * x - s.mean


class Crossed(td.Optimizer):
    """u: each entry of g less the mean of its column. It refuses vectors, and has no slots."""

    def refuses(self, p):
        return "Crossed steps matrices" if len(p.shape) < 2 else None

    def update(self, p, g, s, h):
        return g - tf.reduce_mean(g, -2, keepdims=True), {}


class Watching(td.Optimizer):
    """u = (g + n / 8) / (1 + c),  c ← ½ (c + e) by an estimate e,  n: normal noise.

    Random numbers of its own, and estimates from outside.
    """

    def init(self, p):
        return dict(c=zeros(p), seed=own_seed())

    def update(self, p, g, s, h):
        noise = normal(g, tf.stack([s.seed, tf.cast(h.step, s.seed.dtype)]))
        return (g + 0.125 * noise) / (1.0 + s.c), dict(c=s.c, seed=s.seed)

    def observe(self, p, e, s, h):
        return dict(c=0.5 * (s.c + e), seed=s.seed)


class Probe(Case):
    """A row without a paper, that XLA compiles only where a test says so."""

    def make(self, **arguments):
        return super().make(**{"jit_compile": False, **arguments})


def sums(shape):
    return dict(n=()) if len(shape) < 2 else dict(n=(), r=shape[:-1], c=shape[-1:])


scaled = Probe(name="Scaled", optimizer=Scaled, slots=like("v"), learning_rate=0.1, lazy={})
l2 = Probe(name="Scaled-l2", optimizer=Scaled, slots=like("v"), options=dict(l2=0.05))
factors = Probe(name="Factored", optimizer=Factored, slots=sums, learning_rate=0.1)
trailing = Probe(
    name="Trailing-Scaled", optimizer=Trailing, slots=around(scaled, "trail"), inner=scaled
)
over = Probe(
    name="Trailing-Factored", optimizer=Trailing, slots=around(factors, "trail"), inner=factors
)
nested = Probe(
    name="Trailing-Trailing-Factored", optimizer=Trailing, slots=around(over, "trail"), inner=over
)
pooled = Probe(name="Pooled", optimizer=Pooled, slots=like("m"), learning_rate=0.1, together=True)
leading = Probe(
    name="Leading-Pooled",
    optimizer=Leading,
    slots=around(pooled, "mean"),
    inner=pooled,
    together=True,
)
crossed = Probe(name="Crossed", optimizer=Crossed, slots=like(), learning_rate=0.1, least_rank=2)
watching = Probe(
    name="Watching",
    optimizer=Watching,
    slots=lambda shape: dict(c=shape, seed=()),
    learning_rate=0.1,
    random=True,
)
# Variables of any shape.
TAKING_ALL = [scaled, l2, factors, trailing, nested, pooled, leading, watching]
PROBES = [*TAKING_ALL, crossed]

HOOKS = ("update", "step", "catch_up", "reduce", "combine", "shared", "refuses")
HOOKS += ("evaluation", "training", "observe")


def traits(case):
    """What the engine can tell of a rule: its hooks, and where its slots lie."""
    optimizer, base = case.make(), td.Optimizer
    found = {name for name in HOOKS if hook(case.optimizer, name) != hook(base, name)}
    found |= {f"{name} is masked" for name in optimizer.masked}
    if callable(case.optimizer.learning_rate):
        found.add("a rate that is scheduled by default")
    for shape in case.takes([(3, 4), (5,)]):
        found |= {lies(slot, shape) for slot in slots_of(optimizer.init(tf.zeros(shape)))}
    if case.inner is not None:
        found |= {"a wrapper"} | traits(case.inner)
    if case.inner is not None and case.inner.inner is not None:
        found.add("a wrapper of a wrapper")
    return found


def hook(cls, name):
    return getattr(cls, name, None)


def slots_of(tree):
    """The leaves of nested slots."""
    for slot in tree.values():
        yield from slots_of(slot) if isinstance(slot, dict) else [slot]


def lies(slot, shape):
    """What a slot is to its variable."""
    if slot.by_path:
        return "a number of the variable's path"
    if slot.initial != slot.initial:
        return "a copy of the variable"
    if slot.shape == shape:
        return "a slot of the variable's shape"
    return f"a slot of {'other axes' if slot.shape else 'no axes'} than the variable's"
