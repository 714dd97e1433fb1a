"""The table: one row per optimizer and wrapper. Every property runs on every row."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import references
import tensorflow as tf

import tf_decoupled as td

SHAPES = [(3, 4), (5,), (), (2, 3, 2)]
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A row: the optimizer, its paper in float64, and all that tests ask of this row alone.

    `name`, `optimizer`, `options` and `inner`, the row of the wrapped rule, say how it is made.
    `reference` is its function in `references`, and `letters` what arguments are called there; None
    for one that the paper hasn't.
    `slots` gives the names and shapes of the slots of a variable.
    `ranges` are the least and the largest value of each argument that may be any; of booleans both,
    of words all.
    """

    name: str
    optimizer: type[td.Optimizer]
    reference: Callable[..., np.ndarray] | None = None
    slots: Callable[[Shape], dict[str, Shape]]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    inner: "Case | None" = None
    letters: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, tuple] = dataclasses.field(default_factory=dict)
    learning_rate: float = 0.01

    # Variables of fewer axes are refused.
    least_rank: int = 0

    # It sums over all variables, and so does its reference: they are one to it.
    together: bool = False
    # Where gradients are zero, θ ← (1 − κ) θ: no ratio, estimate or slow weights around the decay.
    decays_apart: bool = True
    # An entry of which each gradient was zero doesn't move, whatever its neighbours' are.
    entries_apart: bool = True
    # Slots that are values of the variable, and so decay with it.
    values: tuple[str, ...] = ()
    # The largest gradient with which it follows its paper in float32: squares up to 3e38.
    largest_gradient: float = 1e17
    # A step is as long as its gradient, and what float32 drops of it is a share of that.
    proportional: bool = False
    # A step is as long whatever the gradient is, also where float32 can hardly hold that.
    rescales: bool = False
    # The direction jumps where float32 can't tell a sum from zero.
    jumps: bool = False
    # With these options the size of all gradients is of no consequence; None: it always counts.
    scale_free: Mapping[str, Any] | None = None
    # With these options `sparse="lazy"` is exact; None: it is refused.
    lazy: Mapping[str, Any] | None = None

    def make(self, **arguments: Any) -> td.Optimizer:
        """The optimizer; a wrapper's shared arguments go to the rule that it wraps."""
        if self.inner is None:
            rate = dict(learning_rate=self.learning_rate)
            return self.optimizer(**{**rate, **self.options, **arguments})
        own = {n: arguments.pop(n) for n in list(arguments) if n in self.own_arguments()}
        return self.optimizer(self.inner.make(**arguments), **{**self.options, **own})

    def takes(self, shapes) -> list[Shape]:
        """Those of the shapes that it can step."""
        return [shape for shape in shapes if len(shape) >= self.least_rank]

    @property
    def shapes(self) -> list[Shape]:
        return self.takes(SHAPES)

    def own_arguments(self) -> list[str]:
        """What the class declares beside the arguments that all optimizers share."""
        return [n for n in self.optimizer.declared if n not in (*td.Optimizer.declared, "inner")]

    def all_options(self) -> dict[str, Any]:
        """The options of the row and of those that it wraps."""
        return {**(self.inner.all_options() if self.inner else {}), **self.options}

    def paper(self, optimizer: td.Optimizer, h: SimpleNamespace | None = None) -> dict[str, Any]:
        """The reference's options: the numbers in `h`, as float32 holds them, or as declared."""
        options = {}
        for name in self.own_arguments():
            live = optimizer.declared[name].live
            value = getattr(h, name) if live and h else getattr(optimizer, name)
            letter = self.letters.get(name, name)
            options |= {letter: np.asarray(value).item() if live else value} if letter else {}
        if self.inner is not None:
            inner = self.inner.paper(optimizer.inner, h and h.inner)
            options["inner"] = SimpleNamespace(
                rule=functools.partial(self.inner.reference.rule, **inner)
            )
        return options

    def expected(self, optimizer, start, grads, h=None, **options) -> list[np.ndarray]:
        """Where the paper leads the variables: `start` and each step's `grads` are lists."""
        options = {"learning_rate": self.learning_rate, **self.paper(optimizer, h), **options}
        if self.together:
            sizes = np.cumsum([np.size(p) for p in start])[:-1]
            one = lambda arrays: np.concatenate([np.ravel(x) for x in arrays])  # noqa: E731
            after = np.split(self.reference(one(start), list(map(one, grads)), **options), sizes)
            return [np.reshape(x, np.shape(p)) for x, p in zip(after, start, strict=True)]
        columns = zip(*grads, strict=True)
        return [
            self.reference(p, list(column), **options)
            for p, column in zip(start, columns, strict=True)
        ]


def like(*names):
    """Slots of the variable's shape."""
    return lambda shape: dict.fromkeys(names, shape)


def around(case, *names):
    """Slots of the variable's shape, around those of another row."""
    inner = lambda shape: {f"inner/{name}": each for name, each in case.slots(shape).items()}  # noqa: E731
    return lambda shape: like(*names)(shape) | inner(shape)


def factored(shape):
    """One row and one column per matrix; vectors and scalars whole."""
    if len(shape) < 2:
        return dict(v=shape)
    return dict(r=shape[:-1], c=(*shape[:-2], shape[-1]))


def lookahead(name, inner, **options):
    return Case(
        name=name,
        optimizer=td.Lookahead,
        reference=references.lookahead,
        slots=around(inner, "slow"),
        options=options,
        inner=inner,
        letters=dict(sync_period="k", slow_step_size="alpha"),
        ranges=dict(sync_period=(1, 4), slow_step_size=(0.0, 1.0)),
        decays_apart=False,
        entries_apart=inner.entries_apart,
        largest_gradient=inner.largest_gradient,
        proportional=inner.proportional,
        rescales=inner.rescales,
        jumps=inner.jumps,
        scale_free=inner.scale_free,
    )


def schedule_free(name, inner, **options):
    return Case(
        name=name,
        optimizer=td.ScheduleFree,
        reference=references.schedule_free,
        slots=around(inner, "z"),
        options=options,
        inner=inner,
        ranges=dict(beta=(0.1, 0.98), weight_power=(0.0, 2.0), r=(0.0, 2.0)),
        decays_apart=False,
        values=("z",),
        entries_apart=inner.entries_apart,
        largest_gradient=inner.largest_gradient,
        scale_free=inner.scale_free,
    )


BETA, EPSILON, SWITCH = (0.0, 0.999), (1e-7, 1.0), (False, True)
LARGEST = float(np.finfo("float32").max)
ADAM = dict(
    slots=like("m", "v"),
    ranges=dict(beta_1=BETA, beta_2=BETA, epsilon=EPSILON),
    scale_free=dict(epsilon=0.0),
)
ADAMW = dict(
    optimizer=td.AdamW,
    reference=references.adamw,
    lazy=dict(beta_1=0.0),
    **ADAM | dict(ranges=ADAM["ranges"] | dict(amsgrad=SWITCH, epsilon_hat=SWITCH)),
)
SGD = dict(
    slots=like("m"),
    ranges=dict(momentum=BETA, nesterov=SWITCH),
    largest_gradient=LARGEST,
    proportional=True,
    lazy={},
)
SGDW = dict(optimizer=td.SGDW, reference=references.sgdw, **SGD)
MUON = dict(
    optimizer=td.Muon,
    reference=references.muon,
    slots=like("m"),
    letters=dict(steps="rounds", precise=None),
    ranges=dict(
        momentum=BETA,
        nesterov=SWITCH,
        steps=(1, 5),
        coefficients=("original", "quintic", "polar_express"),
        scale=("original", "match_rms_adamw", "rms_to_rms"),
    ),
    least_rank=2,
    entries_apart=False,
)
PRODIGY = dict(
    optimizer=td.Prodigy,
    reference=references.prodigy,
    slots=like("m", "v", "s", "start"),
    options=dict(d0=0.01),  # float32 holds what steps of 1e-6 move to few digits only
    ranges=dict(
        beta_1=BETA,
        beta_2=BETA,
        epsilon=EPSILON,
        d0=(1e-3, 0.1),
        d_coef=(0.5, 2.0),
        growth_rate=(1.01, 2.0),
        use_bias_correction=SWITCH,
        safeguard_warmup=SWITCH,
    ),
    learning_rate=1.0,
    together=True,
    decays_apart=False,
    scale_free=dict(epsilon=0.0),
)

CASES = [
    Case(name="AdamW", **ADAMW),
    Case(
        name="AdamW-amsgrad",
        options=dict(amsgrad=True),
        **ADAMW | dict(slots=like("m", "v", "v_max")),
    ),
    Case(name="AdamW-epsilon_hat", options=dict(epsilon_hat=True, epsilon=1e-7), **ADAMW),
    Case(
        name="Adam-l2",
        optimizer=td.Adam,
        reference=references.adam,
        options=dict(l2=0.05),
        decays_apart=False,
        entries_apart=False,
        lazy=dict(l2=0.0, beta_1=0.0),
        **ADAM
        | dict(ranges=ADAM["ranges"] | dict(l2=(0.0, 1.0)), scale_free=dict(epsilon=0.0, l2=0.0)),
    ),
    Case(name="SGDW", **SGDW),
    Case(name="SGDW-nesterov", options=dict(nesterov=True, momentum=0.7), **SGDW),
    Case(
        name="SGD-l2",
        optimizer=td.SGD,
        reference=references.sgd,
        options=dict(l2=0.05, momentum=0.5),
        decays_apart=False,
        entries_apart=False,
        **SGD | dict(ranges=SGD["ranges"] | dict(l2=(0.0, 1.0)), lazy=dict(l2=0.0)),
    ),
    Case(
        name="Lion",
        optimizer=td.Lion,
        reference=references.lion,
        slots=like("m"),
        ranges=dict(beta_1=BETA, beta_2=BETA),
        largest_gradient=LARGEST,
        jumps=True,
        scale_free={},
        lazy={},
    ),
    Case(
        name="LAMB",
        optimizer=td.LAMB,
        reference=references.lamb,
        decays_apart=False,
        rescales=True,
        **ADAM,
    ),
    Case(
        name="Adafactor",
        optimizer=td.Adafactor,
        reference=references.adafactor,
        slots=factored,
        letters=dict(clip_threshold="threshold"),
        ranges=dict(
            epsilon_1=(1e-20, 1.0),
            epsilon_2=EPSILON,
            clip_threshold=(0.1, 4.0),
            decay_exponent=(0.1, 2.0),
        ),
        largest_gradient=1e3,  # it divides the rows' squares, plus 1e-30, by their mean
        scale_free=dict(epsilon_1=0.0),
    ),
    Case(name="Muon", **MUON),
    Case(
        name="Muon-match_rms_adamw",
        options=dict(scale="match_rms_adamw", coefficients="quintic", nesterov=False),
        **MUON,
    ),
    Case(name="Prodigy", **PRODIGY),
    Case(
        name="Prodigy-bias_correction",
        **PRODIGY | dict(options=dict(d0=0.01, use_bias_correction=True)),
    ),
]
ROW = {case.name: case for case in CASES}
CASES += [lookahead("Lookahead-AdamW", ROW["AdamW"], sync_period=3)]
twice = lookahead("Lookahead-SGDW", ROW["SGDW"], sync_period=2)
CASES += [lookahead("Lookahead-Lookahead-SGDW", twice, sync_period=3, slow_step_size=0.8)]
CASES += [schedule_free("ScheduleFree-AdamW", Case(name="", options=dict(beta_1=0.0), **ADAMW))]


def variables(shapes=SHAPES, seed=0):
    """Model variables with random values, named v0, v1, ..."""
    rng = np.random.default_rng(seed)
    return [
        keras.Variable(rng.normal(size=shape).astype("float32"), name=f"v{i}")
        for i, shape in enumerate(shapes)
    ]


def gradients(shapes=SHAPES, steps=10, seed=1, trend=0.0):
    """One list of float32 gradients per step; `trend`: the mean of all, in which they agree."""
    rng = np.random.default_rng(seed)
    draw = lambda shape: rng.normal(trend, size=shape).astype("float32")  # noqa: E731
    return [[draw(shape) for shape in shapes] for _ in range(steps)]


def run(optimizer, trainable, grads, graph=False, **function):
    """Applies each step's gradients, eagerly or in a traced step; returns the values at the end."""
    optimizer.build(trainable)

    def step(*gs):
        optimizer.apply([None if g is None else tf.convert_to_tensor(g) for g in gs], trainable)

    step = tf.function(step, **function) if graph else step
    for gs in grads:
        step(*(tf.constant(g) for g in gs))
    return [v.numpy() for v in trainable]


@functools.cache
def mirrored():
    """Two replicas on two logical CPUs; one strategy for all tests of a process.

    TensorFlow tells the collectives of two such strategies apart badly.
    """
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def run_mirrored(make, grads, shapes=SHAPES):
    """As `run` in a traced step on two replicas, each with half of every gradient.

    Returns the model variables and the optimizer.
    """
    strategy = mirrored()
    with strategy.scope():
        trainable, optimizer = variables(shapes), make()
        optimizer.build(trainable)

    @tf.function
    def step(gs):
        strategy.run(lambda gs: optimizer.apply([g / 2 for g in gs], trainable), (gs,))

    for gs in grads:
        step([tf.constant(g) for g in gs])
    return trainable, optimizer


def state_of(optimizer):
    """The slots, without hyperparameters."""
    return {name: v for name, v in optimizer.get_state().items() if ":" in name}


def small_model(inputs=4, matrices_only=False):
    """Two dense layers and a normalization, with fixed layer names; or matrices only."""
    first = keras.layers.Dense(8, "relu", use_bias=not matrices_only, name="hidden")
    norm = keras.layers.BatchNormalization(name="norm", center=False, scale=False)
    norm = norm if matrices_only else keras.layers.BatchNormalization(name="norm")
    head = keras.layers.Dense(1, use_bias=not matrices_only, name="head")
    return keras.Sequential([keras.layers.Input((inputs,)), first, norm, head])


def small_data(rows=64, inputs=4):
    x = np.random.default_rng(2).normal(size=(rows, inputs)).astype("float32")
    return x, x.sum(1, keepdims=True)
