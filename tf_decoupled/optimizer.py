"""The engine: declares, builds and orders one step. The only file that subclasses Keras.

One step, in order: pair gradients with variables → all-reduce → accumulate → [ unscale → finite
check → clip → rule and decay, both of θ before the step → constraint → averages ] →
iterations + 1. What stands in brackets is one function, compiled by XLA.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_decoupled import decay, masks, precision, replicas, transforms
from tf_decoupled.hyperparameters import (
    Beta,
    Declared,
    Positive,
    Scalar,
    Steps,
    is_variable,
    namespace,
    resolve,
)
from tf_decoupled.math import debiased_momentum
from tf_decoupled.saving import Saved
from tf_decoupled.state import (
    Cell,
    Cells,
    Layout,
    Slot,
    Slots,
    copy,
    tf_variable,
    zeros,
)

# Arguments whose concern is not built yet: anything but the default raises, nothing is ignored.
PLANNED = (
    "gradient_transforms",
    "state_dtype",
    "sparse",
)


class Optimizer(Saved, Declared, keras.optimizers.Optimizer):
    """What all optimizers share: θ ← θ − η u(g, s) − δ(θ).

    A rule is two pure functions on one float32 array: `init(p)` declares its slots, `update`
    turns a gradient into a direction u. Methods whose direction depends on the decay or the rate
    override `step` instead.

    Args:
        learning_rate: η. A number, a LearningRateSchedule of the updates done, a zero-argument
            callable that returns a tensor, or a scalar variable.
        weight_decay: λ; the same kinds, or `td.NormalizedDecay`.
        decay_coupling: δ in terms of lr_t and λ_t. "learning_rate": lr_t λ_t θ (Keras, PyTorch).
            "schedule": (lr_t / base) λ_t θ (the paper; default for `NormalizedDecay`).
            "independent": λ_t θ. "corrected": lr_t² / base · λ_t θ.
        base_learning_rate: `base`; by default the schedule's peak or the number given as rate.
        decay_mask: which variables decay: None (all), a callable `variable -> bool`, `td.masks`,
            or a list of regular expressions on `variable.path` to leave out.
        clipnorm, clipvalue, global_clipnorm: at most one; see `transforms.clip`.
        loss_scale_factor: `scale_loss` multiplies the loss by it, the step divides gradients.
        use_ema: keep a bias-corrected moving average of each variable, updated once per update
            with `ema_momentum`; it overwrites the variable every `ema_overwrite_frequency` updates
            (None: never) and at the end of `fit`. `averaged()` swaps it in for a while.
        gradient_accumulation_steps: k; gradients are averaged over k calls of `apply`, then there
            is one update. `flush_accumulated` updates with a group that isn't full.
        skip_nonfinite: a step with a NaN or inf in any gradient, on any replica, changes nothing
            and is counted in `skipped_steps`.
        low_precision: for bfloat16 and float16 variables, "master" (a float32 copy each, 4 bytes
            per parameter) or "stochastic" (unbiased random rounding, no memory).
        jit_compile: XLA for the update step itself: "auto" (where the host can), True, False.

    Numbers are live: assigning `opt.weight_decay = 0.02` acts at the next step without a new
    trace, and they are saved with the state. State is keyed by variable path.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    decay_coupling: str | None = None
    decay_mask: Any = None
    base_learning_rate: Scalar = None
    clipnorm: Positive = None
    clipvalue: Positive = None
    global_clipnorm: Positive = None
    use_ema: bool = False
    ema_momentum: Beta = 0.99
    ema_overwrite_frequency: Steps = None
    gradient_accumulation_steps: Steps = None
    loss_scale_factor: Positive = None
    gradient_transforms: tuple = ()
    skip_nonfinite: bool = False
    state_dtype: str = "float32"
    low_precision: str = "master"
    sparse: str = "exact"
    jit_compile: bool | str = "auto"

    masked = ("decay",)  # the hyperparameters that are zero where the mask leaves a variable out

    def __init__(self, *args: Any, **kwargs: Any):
        arguments = self.__signature__.bind(*args, **kwargs)
        arguments.apply_defaults()
        given = dict(arguments.arguments)
        # Keras makes no variable of its own for a callable rate; ours is made like all the others.
        super().__init__(learning_rate=lambda: self.learning_rate, name=given.pop("name"))
        self.updates = super().iterations  # Keras's own divides it when gradients accumulate
        given = self.interpret(given)
        self.given = tf.Module(name="given")
        for name, value in given.items():
            setattr(self.given, name, self.declared[name].bind(value, self))
        self.slots = tf.Module(name="slots")
        self.cells = Cells()
        self.skipped_steps = _counter("skipped_steps") if self.skip_nonfinite else 0
        accumulates = self.gradient_accumulation_steps is not None
        self.micro_steps = _counter("micro_steps") if accumulates else 0
        self.accumulate_cells = replicas.compiled(self._accumulate_cells, self.jit_compile)
        self.layout = Layout(lambda: self.named_variables() if self.built else ())
        self.pending: Mapping[str, np.ndarray] | None = None
        self.update_cells = replicas.compiled(self._update_cells, self.jit_compile)

    @property
    def iterations(self) -> keras.Variable:
        """The updates done: neither micro-steps of an accumulation nor skipped steps count."""
        return self.updates if "updates" in vars(self) else super().iterations

    # The rule: what a subclass writes.

    def init(self, p: tf.Variable) -> Slots:
        """Declares the slots of a variable: `dict(m=zeros(p))`. Only `p.shape` may be asked."""
        return {}

    def update(self, p, g, s, h) -> tuple[tf.Tensor, Slots]:
        """The paper: value, gradient, slots and hyperparameters to direction u and new slots."""
        raise NotImplementedError(f"{type(self).__name__} must define `update` or `step`.")

    def step(self, p, g, s, h) -> tuple[tf.Tensor, Slots]:
        """θ − η u − δ(θ), and the new slots."""
        u, slots = self.update(p, g, s, h)
        return p - h.learning_rate * u - h.decay * p, slots

    # One step.

    @tf.autograph.experimental.do_not_convert
    def apply(self, grads: Sequence, trainable_variables: Sequence | None = None) -> None:
        """Applies one gradient per variable; None gradients leave variable and slots untouched."""
        indexes, grads = self._pair(list(grads), trainable_variables)
        if not indexes:
            return
        follow = self._update if self.gradient_accumulation_steps is None else self._accumulate
        replicas.once(lambda grads: follow(indexes, grads), replicas.all_reduce(grads))

    def _accumulate(self, indexes: tuple[int, ...], grads: list[tf.Tensor]) -> None:
        """Adds up reduced gradients, and updates with their mean at the last micro-step."""
        for replica in self._devices():
            local = [replicas.component(g, replica) for g in grads]
            self.accumulate_cells(indexes, replica, local)
        self.micro_steps.assign_add(1)
        k = tf.cast(self.gradient_accumulation_steps, tf.int64)
        tf.cond(tf_variable(self.micro_steps) >= k, self._flush, lambda: tf.constant(0))

    def _accumulate_cells(self, indexes: tuple[int, ...], replica: int, grads: list) -> None:
        for i, g in zip(indexes, grads, strict=True):
            self.cells[i].on(replicas.on(replica)).accumulate(g)

    def flush_accumulated(self) -> None:
        """Updates with the mean of a group that isn't full, as at the end of the data."""
        if self.built and self.gradient_accumulation_steps is not None:
            begun = tf_variable(self.micro_steps) > 0
            replicas.once(lambda _: tf.cond(begun, self._flush, lambda: tf.constant(0)), [])

    def _flush(self) -> tf.Tensor:
        filled = [
            i for i, c in enumerate(self.cells) if tf_variable(c.variable).shape.num_elements()
        ]
        self._update(tuple(filled), None)
        self.micro_steps.assign(0)
        return tf.constant(0)

    def _devices(self) -> Iterator[int]:
        """The replicas of this process, each while its device is the current one."""
        for replica, variable in enumerate(
            replicas.components(tf_variable(self.cells[0].variable))
        ):
            with tf.device(variable.device):
                yield replica

    def _update(self, indexes: tuple[int, ...], grads: list[tf.Tensor] | None) -> None:
        """One update from reduced or from accumulated gradients: each device does the same."""
        h = self.hyperparameters_at(self.iterations)
        if grads is None:
            h["micro_steps"] = tf.cast(tf_variable(self.micro_steps), tf.float32)
        for replica in self._devices():
            local = None if grads is None else [replicas.component(g, replica) for g in grads]
            accept = self.update_cells(indexes, replica, local, h)
        self.iterations.assign_add(tf.cast(accept, tf.int64))
        if self.skip_nonfinite:
            self.skipped_steps.assign_add(tf.cast(~accept, tf.int64))

    def _update_cells(
        self, indexes: tuple[int, ...], replica: int, grads: list, h: dict
    ) -> tf.Tensor:
        """Unscales and clips the gradients, and steps each variable: one XLA computation.

        Returns whether the step was taken: always, unless `skip_nonfinite` found a reason not to.
        """
        shared, present = namespace(h), [True] * len(indexes)
        cells = [self.cells[i].on(replicas.on(replica)) for i in indexes]
        if grads is None:
            sums, present = zip(*(cell.accumulated() for cell in cells), strict=True)
            grads = [total / shared.micro_steps for total in sums]
        if shared.loss_scale_factor is not None:
            grads = [g / shared.loss_scale_factor for g in grads]
        accept = transforms.all_finite(grads) if self.skip_nonfinite else True
        grads = transforms.clip(grads, shared)
        for i, cell, g, here in zip(indexes, cells, grads, present, strict=True):
            p, s = cell.read()
            p, slots = self.step(p, g, s, namespace(self.hyperparameters_of(cell, h)))
            p = p if cell.constraint is None else cell.constraint(p)
            p, kept = self._averaged(cell, p, shared)
            cell.write(p, slots, kept, tf.stack([shared.step, i]), accept=_both(accept, here))
        return tf.constant(True) if accept is True else accept

    def _averaged(self, cell: Cell, p: tf.Tensor, h: SimpleNamespace) -> tuple[tf.Tensor, Slots]:
        """The value to go on with, and the moving average if there is to be one."""
        if not self.use_ema:
            return p, {}
        average = cell.average(p, debiased_momentum(h.ema_momentum, h.t))
        if h.ema_overwrite_frequency is not None:
            p = tf.where(h.step % h.ema_overwrite_frequency == 0, average, p)
        return p, {"average": average}

    def hyperparameters_at(self, step: Any) -> dict[str, Any]:
        """Every hyperparameter after `step` updates: schedules resolved, and t, step, decay."""
        h = self.live_hyperparameters_at(step)
        base = h["base_learning_rate"]
        if base is None:
            base = decay.base_rate(self.given.learning_rate)
        h["decay"] = decay.COUPLINGS[self.decay_coupling](
            h["learning_rate"], base, h["weight_decay"]
        )
        return h

    def live_hyperparameters_at(self, step: Any) -> dict[str, Any]:
        step = tf.cast(tf_variable(step) if is_variable(step) else step, tf.int64)
        h: dict[str, Any] = {"t": tf.cast(step + 1, tf.float32), "step": step + 1}
        for name, hyperparameter in self.declared.items():
            if hyperparameter.live:
                value = resolve(getattr(self.given, name), step)
                h[name] = None if value is None else tf.cast(value, hyperparameter.dtype)
        return h

    def hyperparameters_of(self, cell: Cell, h: dict[str, Any]) -> dict[str, Any]:
        """Those that one variable sees: no decay where the mask leaves it out."""
        return h if cell.decays else h | {name: 0.0 * h[name] for name in self.masked}

    def _pair(self, grads: list, variables: Sequence | None) -> tuple[tuple[int, ...], list]:
        """Indexes of the variables that have a gradient, and these gradients, dense, in float32."""
        variables = self._variables_for(grads, variables)
        missing = [masks.path_of(v) for g, v in zip(grads, variables, strict=True) if g is None]
        pairs = [(g, v) for g, v in zip(grads, variables, strict=True) if g is not None]
        if grads and not pairs:
            raise ValueError(f"No gradients provided for any variable. Variables: {missing}")
        if missing:
            warnings.warn(f"Gradients do not exist for variables {missing}.", stacklevel=3)
        pairs = [(g, v) for g, v in pairs if v.shape.num_elements()]
        indexes = tuple(self.cells.index(v) for _, v in pairs)
        return indexes, [_dense(g, self.cells[i]) for i, (g, _) in zip(indexes, pairs, strict=True)]

    def _variables_for(self, grads: list, variables: Sequence | None) -> list:
        if variables is None and not self.built:
            raise ValueError(
                "The first `apply` needs the variables: `opt.apply(grads, variables)`, or call "
                "`opt.build(variables)` before."
            )
        variables = [c.variable for c in self.cells] if variables is None else list(variables)
        if len(grads) != len(variables):
            raise ValueError(
                "`apply` needs one gradient per variable, None where there is none. Received: "
                f"{len(grads)} gradients for {len(variables)} variables"
            )
        if variables and not (self.built and all(v in self.cells for v in variables)):
            replicas.once(lambda _: self.build(variables), [])
        return variables

    # Building.

    @staticmethod
    def interpret(given: dict[str, Any]) -> dict[str, Any]:
        """The arguments once checked, with defaults that depend on other arguments filled in."""
        for name in PLANNED:
            default = Optimizer.declared[name].default
            if given[name] != default:
                raise NotImplementedError(
                    f"`{name}` is not implemented yet; leave it at {default!r}. "
                    f"Received: {name}={given[name]!r}"
                )
        if given["jit_compile"] not in ("auto", True, False):
            raise ValueError(
                '`jit_compile` must be "auto", True or False. '
                f"Received: jit_compile={given['jit_compile']!r}"
            )
        transforms.check_clip(given)
        precision.check_mode(given["low_precision"])
        return decay.interpret(given) | {"decay_mask": masks.as_mask(given["decay_mask"])}

    def innermost(self) -> "Optimizer":
        """The optimizer whose rate, decay, mask and clips count: itself, unless it wraps one."""
        return self

    def build(self, variables: Sequence) -> None:
        """Makes the slots of each variable that has none yet, and asks the decay mask about it."""
        variables, mask = list(variables), self.decay_mask
        if not self.built:
            masks.check_patterns(mask, variables)
        with tf.init_scope():  # once, not at every step of a function that is being traced
            for variable in variables:
                if variable not in self.cells:
                    self._add_cell(variable, masks.decide(mask, variable))
            self.built = True
            self.layout.check()
            state, self.pending = self.pending, None
            if state is not None:
                self.set_state(state)

    def _add_cell(self, variable: Any, decision: masks.Decision) -> None:
        _check(variable)
        cell = Cell(variable, masks.path_of(variable), *decision)
        self.cells.add(cell)
        prefix = cell.path.replace("/", "_")

        def make(name: str, slot: Slot) -> keras.Variable:
            return keras.Variable(
                keras.initializers.Constant(slot.initial),
                shape=slot.shape,
                dtype="float32",
                trainable=False,
                name=f"{prefix}_{name.replace('/', '_')}",
            )

        with replicas.beside(tf_variable(variable)):
            cell.add_slots(self.init(tf_variable(variable)), self._kept(variable), make)
        setattr(self.slots, cell.path, cell.stored)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside of this context the variables hold their averages; after it what they held."""
        if not self.use_ema:
            raise ValueError("There are averages with `use_ema=True` only.")
        before = [tf.identity(tf_variable(cell.variable)) for cell in self.cells]
        self.finalize_variable_values([cell.variable for cell in self.cells])
        try:
            yield
        finally:
            for cell, value in zip(self.cells, before, strict=True):
                cell.variable.assign(value)

    def finalize_variable_values(self, var_list: Sequence) -> None:
        """Keras's hook at the end of `fit`: variables become their averages, with `use_ema`."""
        for variable in var_list if self.use_ema and self.built else ():
            if variable in self.cells:
                average = self.cells[self.cells.index(variable)].stored["average"]
                started = tf.reduce_all(~tf.math.is_nan(average))
                variable.assign(tf.cast(tf.where(started, average, variable), variable.dtype))

    def _kept(self, variable: Any) -> Slots:
        """What the engine keeps beside the rule's slots."""
        kept = {}
        if self.low_precision == "master" and variable.dtype in precision.LOW:
            kept["master"] = copy(variable)
        if self.use_ema:
            kept["average"] = copy(variable)
        if self.gradient_accumulation_steps is not None:
            kept |= {"gradient_sum": zeros(variable), "gradient_count": zeros(variable, ())}
        return kept

    def exclude_from_weight_decay(
        self, var_list: Sequence | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Leaves variables, and paths in which one of the patterns is found, out of the decay.

        As in Keras, before the first step; calls add up, and are saved with the mask.
        """
        masks.exclude_more(self, self.innermost().given, var_list, var_names)

    def decay_report(self) -> masks.DecayReport:
        """Each variable with its shape, whether it decays, and why. Print it."""
        if not self.built:
            raise ValueError("Build the optimizer first: `opt.build(model.trainable_variables)`.")
        rows = [masks.Row(c.path, tuple(c.variable.shape), c.decays, c.reason) for c in self.cells]
        return masks.DecayReport(rows, float(self.weight_decay), self.decay_coupling)


def _both(left: Any, right: Any) -> Any:
    """left and right, None where both are True without asking."""
    if left is True or right is True:
        return None if left is right else (right if left is True else left)
    return left & right


def _counter(name: str) -> keras.Variable:
    return keras.Variable(
        0, dtype="int64", trainable=False, aggregation="only_first_replica", name=name
    )


def _dense(g: Any, cell: Cell) -> tf.Tensor:
    """The gradient as a float32 tensor of the variable's shape; repeated sparse rows are summed."""
    shape = cell.variable.shape
    if isinstance(g, tf.IndexedSlices):
        g = tf.math.unsorted_segment_sum(tf.cast(g.values, tf.float32), g.indices, shape[0])
    g = tf.cast(g, tf.float32)
    if not g.shape.is_compatible_with(shape):
        raise ValueError(
            f"The gradient of {cell.path!r} must have the variable's shape {tuple(shape)}. "
            f"Received: {tuple(g.shape)}"
        )
    return g if g.shape.is_fully_defined() else tf.ensure_shape(g, shape)


def _check(variable: Any) -> None:
    """Raises for variables that the engine can't update rightly."""
    dtype, path = tf.as_dtype(variable.dtype), masks.path_of(variable)
    if dtype != tf.float32 and dtype not in precision.LOW:
        raise TypeError(
            "Variables must be float32, in which all the mathematics is done, or bfloat16 or "
            f"float16. Received: {path!r} in {dtype.name}"
        )
    if getattr(variable, "overwrite_with_gradient", False):
        raise NotImplementedError(
            "Variables that are overwritten with their gradient (float8 quantization) are not "
            f"implemented yet. Received: {path!r}"
        )
