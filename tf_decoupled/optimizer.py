"""The engine: declares, builds and orders one step. The only file that subclasses Keras.

One step, in order: pair gradients with variables → accumulate → all-reduce → [ unscale → finite
check → clip → rule and decay, both of θ before the step → constraint → averages ] →
iterations + 1. What stands in brackets is one function, compiled by XLA.
"""

import warnings
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import keras
import tensorflow as tf

from tf_decoupled import (
    accumulation,
    arguments,
    decay,
    guards,
    masks,
    precision,
    replicas,
    rows,
    transforms,
)
from tf_decoupled.accumulation import Accumulating
from tf_decoupled.averages import Averaged
from tf_decoupled.checkpoints import Checkpointed, Layout
from tf_decoupled.guards import Guarded
from tf_decoupled.hyperparameters import (
    Beta,
    Declared,
    Positive,
    Scalar,
    Steps,
    corrected,
    is_variable,
    namespace,
    resolve,
    written,
)
from tf_decoupled.keras_hooks import Refusing
from tf_decoupled.math import global_norm
from tf_decoupled.restoring import Restored
from tf_decoupled.rows import RowWise
from tf_decoupled.saving import Saved
from tf_decoupled.state import (
    Cell,
    Cells,
    Slot,
    Slots,
    copy,
    rounding_seed,
    tf_variable,
)

# Arguments whose concern is not built yet: anything but the default raises, nothing is ignored.
PLANNED = ("gradient_transforms", "state_dtype")


class Optimizer(
    Checkpointed,
    Restored,
    Refusing,
    Saved,
    Guarded,
    Accumulating,
    Averaged,
    RowWise,
    Declared,
    keras.optimizers.LossScaleOptimizer,  # scales losses itself, so `compile` must not wrap it
):
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
        loss_scale: `scale_loss` multiplies the loss by it, the step divides gradients by it. A
            number (`loss_scale_factor`, Keras's word, is the same; 1 turns it off), "dynamic" or
            a `td.DynamicLossScale`. None is "dynamic" if at the first step Keras's global policy
            is "mixed_float16", or the loss is traced in a graph that computes in float16.
        use_ema: keep a bias-corrected moving average of each variable, updated once per update
            with `ema_momentum`; it overwrites the variable every `ema_overwrite_frequency` updates
            (None: never) and at the end of `fit`. `averaged()` swaps it in for a while.
        ema_warmup: the momentum is min(ema_momentum, (1 + t) / (10 + t)) instead of corrected.
        gradient_accumulation_steps: k; gradients are averaged over k calls of `apply`, then there
            is one update. `flush_accumulated` updates with a group that isn't full.
        skip_nonfinite: a step with a NaN or inf in any gradient, on any replica, changes nothing
            and is counted in `skipped_steps`.
        max_consecutive_skips: after so many in a row, the step raises; see `check_skips`.
        track_gradient_norm: keep the norm of all gradients of the last step, unscaled and not yet
            clipped, in `gradient_norm`.
        low_precision: for bfloat16 and float16 variables, "master" (a float32 copy each, 4 bytes
            per parameter) or "stochastic" (unbiased random rounding, no memory).
        sparse: "exact" (a sparse gradient acts as the dense one) or "lazy" (a step costs by the
            rows in its gradient; see `catch_up` of the class for what absent rows miss, and
            `catch_up_rows`, which brings all of them up to date). A slice of a row that the
            variable hasn't is an error; in a step that XLA compiles as a whole, and on TPUs,
            which have no errors, it is dropped.
        jit_compile: XLA for the update step itself: "auto" (where the host can), True, False.
            On a TPU the strategy compiles the whole step, and this is without effect.

    Numbers are live: assigning `opt.weight_decay = 0.02` acts at the next step without a new
    trace, and they are saved with the state. State is keyed by variable path.
    """

    learning_rate: Scalar = 1e-3
    weight_decay: Scalar = 0.0
    decay_coupling: str | None = decay.Coupling("decay_coupling", str | None, None)
    decay_mask: Any = None
    base_learning_rate: Scalar = None
    clipnorm: Positive = None
    clipvalue: Positive = None
    global_clipnorm: Positive = None
    use_ema: bool = False
    ema_momentum: Beta = 0.99
    ema_warmup: bool = False
    ema_overwrite_frequency: Steps = None
    gradient_accumulation_steps: Steps = None
    loss_scale_factor: Positive = None
    loss_scale: Any = None
    gradient_transforms: tuple = ()
    skip_nonfinite: bool = False
    max_consecutive_skips: Steps = None
    track_gradient_norm: bool = False
    state_dtype: str = "float32"
    low_precision: str = "master"
    sparse: str = "exact"
    jit_compile: bool | str = "auto"

    gradient_norm = None  # a counter, with `track_gradient_norm`

    masked = ("decay",)  # the hyperparameters that are zero where the mask leaves a variable out

    def __init__(self, *args: Any, **kwargs: Any):
        given = arguments.bind(type(self), args, kwargs, self.names())
        # Keras makes no variable of its own for a callable rate; ours is made like all the others.
        rate, name = lambda: self.learning_rate, given.pop("name")
        keras.optimizers.Optimizer.__init__(self, learning_rate=rate, name=name)
        self.names_of_keras = frozenset(vars(self))
        for argument, value in given.items():
            if value is not None or not self.declared[argument].live:  # None may mean a default
                given[argument] = self.declared[argument].check(value, self)
        self.base_is_told = given.get("base_learning_rate") is not None
        given = self.interpret(given)
        self.constructed_with = MappingProxyType({n: _word_for(v) for n, v in given.items()})
        self.given, self.added = tf.Module(name="given"), tf.Module(name="added")
        for name, value in given.items():
            setattr(self.given, name, self.declared[name].bind(value, self))
        self.slots = tf.Module(name="slots")
        self.cells = Cells()
        self.starts: dict[str, float] = {}
        self.add_counter("updates")
        self.add_guards()
        if self.track_gradient_norm:
            self.add_counter("gradient_norm", 0, "float32")
        if self.gradient_accumulation_steps is not None:
            self.add_counter("micro_steps")
        self.accumulate_cells = replicas.compiled(self._accumulate_cells, self.jit_compile)
        self.layout = Layout(self)
        self.begin_restoring()
        self.update_cells = replicas.compiled(self._update_cells, self.jit_compile)

    def __repr__(self) -> str:
        if "given" not in vars(self):
            return object.__repr__(self)
        base = vars(self.given).get("learning_rate")
        return written(self, dict(decay_mask=masks.everything, base_learning_rate=base))

    @property
    def iterations(self) -> keras.Variable:
        """The updates done: neither micro-steps of an accumulation nor skipped steps count."""
        return self.updates

    # The rule: what a subclass writes.

    def init(self, p: tf.Variable) -> Slots:
        """Declares the slots of a variable: `dict(m=zeros(p))`. Only `p.shape` may be asked."""
        return {}

    def update(self, p, g, s, h) -> tuple[tf.Tensor, Slots]:
        """The paper: value, gradient, slots and hyperparameters to direction u and new slots.

        `h.t` counts updates from 1; `h.correction.beta_1` is 1 − β₁ᵗ, once for all variables.
        """
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
        self.check_scaled()
        if not indexes:
            return
        if self.gradient_accumulation_steps is None:
            grads = replicas.all_reduce(grads)
            replicas.once(lambda grads: self._update(indexes, grads), grads)
        else:
            grads = replicas.shares(grads)
            replicas.once(lambda grads: self.accumulate(indexes, grads), grads)

    def _update(self, indexes: tuple[int, ...], grads: list) -> None:
        self.update_with(indexes, grads)
        self.raise_inside()

    def update_with(self, indexes: tuple[int, ...], grads: list) -> None:
        """One update, with gradients that are the same on all replicas: each device does it."""
        h = self.hyperparameters_at(self.iterations) | self.scales()
        for replica in replicas.parts(self.anchor):
            local = [rows.summed(replicas.component(g, replica)) for g in grads]
            (accept, norm), later = self.update_cells(indexes, replica, local, h)
            for i, g, values in zip(indexes, local, later, strict=True):
                self.cells[i].on(replicas.on(replica), rows.indices(g)).assign(values)
        self.count(accept)
        if self.track_gradient_norm:
            self.gradient_norm.assign(norm)

    def _update_cells(
        self, indexes: tuple[int, ...], replica: int | None, grads: list, h: dict
    ) -> tuple[tuple[tf.Tensor, tf.Tensor], list[dict[str, tf.Tensor]]]:
        """Unscales and clips the gradients, and steps each variable: one XLA computation.

        Returns whether the step was taken: always, unless `skip_nonfinite` found a reason not to;
        the gradients' norm, if it is wanted; and what is still to be assigned to rows, which XLA
        would copy the whole variable for.
        """
        shared, here, h = namespace(h), replicas.on(replica), corrected(h)
        cells = [
            self.cells[i].on(here, rows.indices(g)) for i, g in zip(indexes, grads, strict=True)
        ]
        sums, present = [rows.total(g) for g in grads], [None] * len(cells)
        if self.gradient_accumulation_steps is not None:
            present = [cell.end_group() for cell in cells]
        if shared.divisor is not None:
            sums = [total / shared.divisor for total in sums]
        accept = self.inspect(cells, sums) if self.skip_nonfinite else None
        norm = global_norm(sums) if self.track_gradient_norm else tf.constant(0.0)
        later = []
        for cell, g, total, had in zip(
            cells, grads, transforms.clip(sums, shared), present, strict=True
        ):
            values = self._step_cell(cell, rows.spread(total, g), h, _both(accept, had))
            later.append({} if cell.rows is None else values)
            cell.assign(values if cell.rows is None else {})
        return (tf.constant(True) if accept is None else accept, norm), later

    def _step_cell(
        self, cell: Cell, g: tf.Tensor, h: dict, accept: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        """One variable, or rows of it: what to assign to it and to what stands beside it."""
        own = namespace(self.hyperparameters_of(cell, h))
        p, s = cell.read()
        kept = {}
        if "row_step" in cell.kept:
            p, slots = self.caught_up(cell, p, s, own)
            s = namespace(slots)
            kept = rows.touched(cell, 1)
        p, slots = self.step(p, g, s, own)
        p = p if cell.constraint is None else cell.constraint(p)
        p, average = self.average(cell, p, own)
        return cell.results(p, slots, kept | average, own.step, accept)

    def scales(self) -> dict[str, tf.Tensor | None]:
        """What the sums of gradients are to be divided by."""
        scale = self.loss_scale_factor if self.dynamic_scale is None else self.dynamic_scale
        scales = [] if scale is None else [tf.cast(scale, tf.float32)]
        if self.gradient_accumulation_steps is not None:
            # 0 only where workers of parameter servers end a group at the same time.
            scales.append(tf.maximum(tf.cast(tf_variable(self.micro_steps), tf.float32), 1.0))
        return {"divisor": tf.reduce_prod(scales) if scales else None}

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
        """Indexes of the variables that have a gradient, and these gradients in float32."""
        variables = self._variables_for(grads, variables)
        missing = [masks.path_of(v) for g, v in zip(grads, variables, strict=True) if g is None]
        pairs = [(g, v) for g, v in zip(grads, variables, strict=True) if g is not None]
        if grads and not pairs:
            raise ValueError(f"No gradients provided for any variable. Variables: {missing}")
        if missing:
            warnings.warn(f"Gradients do not exist for variables {missing}.", stacklevel=3)
        # Empty variables stay as they are. A step of nothing else steps one, and is so counted.
        pairs = [(g, v) for g, v in pairs if v.shape.num_elements()] or pairs[:1]
        indexes = tuple(self.cells.index(v) for _, v in pairs)
        grads = [_checked(g, self.cells[i]) for i, (g, _) in zip(indexes, pairs, strict=True)]
        return indexes, grads

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
            replicas.outside(lambda: self.build(variables))
        return variables

    # Building.

    @classmethod
    def interpret(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments once checked, with defaults that depend on other arguments filled in."""
        for name in PLANNED:
            default = Optimizer.declared[name].default
            if given[name] != default:
                raise NotImplementedError(
                    f"`{name}` is not implemented yet; leave it at {default!r}. "
                    f"Received: {name}={given[name]!r}"
                )
        jit = given["jit_compile"]
        if not (isinstance(jit, bool) or (isinstance(jit, str) and jit == "auto")):
            raise ValueError(
                f'`jit_compile` must be "auto", True or False. Received: jit_compile={jit!r}'
            )
        transforms.check_clip(given)
        precision.check_mode(given["low_precision"])
        cls.check_lazy(given)
        given = guards.interpret(given) | {"decay_mask": masks.as_mask(given["decay_mask"])}
        return decay.interpret(given)

    @property
    def anchor(self) -> tf.Variable:
        """A variable whose devices are those of the whole step."""
        return tf_variable(self.cells[0].variable)

    def apply_gradients(self, grads_and_vars: Any) -> keras.Variable:
        """`apply` of pairs, as Keras has it; returns `iterations`."""
        pairs = list(grads_and_vars)
        if not pairs:
            raise ValueError(
                "`apply_gradients` needs at least one (gradient, variable) pair. Received: none"
            )
        super().apply_gradients(pairs)
        return self.iterations

    def check_assigned(self, name: str, value: Any, replaced: bool = False) -> None:
        """Raises where an argument can't become this, or be replaced by something of this kind."""
        if name == "l2":
            self.check_lazy(vars(self.given) | {name: value})
        if not replaced:
            return
        transforms.check_clip(vars(self.given) | {name: value})
        decay.check_replaced(vars(self.given), name, value)
        if name == "loss_scale_factor":  # Keras's LossScaleOptimizer around this one takes it away
            self.scale_is_open = False
        counted = ("gradient_accumulation_steps", "max_consecutive_skips")
        based = name == "learning_rate" and self.decay_coupling in decay.NEED_BASE
        if name in counted or based:
            raise TypeError(
                f"`{name}` shapes the optimizer and can only get another number. Make another "
                f"{type(self).__name__}. Received: {name}={value!r}"
            )
        if name == "learning_rate" and not self.base_is_told:
            self.given.base_learning_rate = None  # it was the number that goes

    def innermost(self) -> "Optimizer":
        """The optimizer whose rate, decay, mask and clips count: itself, unless it wraps one."""
        return self

    def build(self, variables: Sequence) -> None:
        """Makes the slots of each variable that has none yet, and asks the decay mask about it."""
        variables, mask = list(variables), self.decay_mask
        if not variables:
            return  # Keras asks for this while it loads a whole-model `.h5` file
        for variable in variables:
            _check(variable)
        if not self.built:
            masks.settle(mask, variables)
        self.settle_scale()
        with tf.init_scope():  # once, not at every step of a function that is being traced
            before = len(self.cells)
            for variable in variables:
                if variable not in self.cells:
                    replicas.check_same(tf_variable(self.updates), tf_variable(variable))
                    self._add_cell(variable, masks.decide(mask, variable))
            fresh = list(self.cells)[before if self.built else 0 :]
            self.restore_waiting(fresh, first=not self.built)
            self.built = True

    def add_variables(self, variables: Sequence) -> None:
        """Adds variables to those that are optimized; the state of all others stays as it is.

        `apply` does the same when it meets a variable for the first time. Bias corrections count
        from the optimizer's first update, whenever a variable came.
        """
        self.build(variables)

    def _add_cell(self, variable: Any, decision: masks.Decision) -> None:
        cell = Cell(variable, masks.path_of(variable), *decision)
        cell.position = None if self.built else len(self.cells)
        self.cells.add(cell)
        prefix = cell.path.replace("/", "_").replace("~", "_")  # as scope names may be

        def make(name: str, slot: Slot) -> keras.Variable:
            return keras.Variable(
                keras.initializers.Constant(slot.initial),
                shape=slot.shape,
                dtype=slot.dtype,
                trainable=False,
                **(dict(synchronization="on_read", aggregation="sum") if slot.summed else {}),
                name=f"{prefix}_{name.replace('/', '_')}",
            )

        with replicas.beside(tf_variable(variable)):
            cell.add_slots(self.init(tf_variable(variable)), self._kept(cell), make)
        setattr(self.slots, cell.path, cell.stored)

    def finalize_variable_values(self, var_list: Sequence) -> None:
        """Keras's hook at the end of `fit`: rows catch up, and averages replace variables."""
        self.catch_up_rows(var_list)
        self.overwrite_with_averages(var_list)

    def _kept(self, cell: Cell) -> Slots:
        """What the engine keeps beside the rule's slots."""
        kept, variable = {}, cell.variable
        if variable.dtype in precision.LOW:
            name, slot = "master", copy(variable)
            if self.low_precision == "stochastic":
                name, slot = "rounding_seed", rounding_seed(cell.path)
            kept[name] = slot
        if self.use_ema:
            kept["average"] = copy(variable)
        if self.gradient_accumulation_steps is not None:
            kept |= accumulation.slots(variable)
        if self.max_consecutive_skips is not None:
            kept["nonfinite_steps"] = Slot((), 0, "int32")
        if self.sparse == "lazy":
            kept |= rows.kept(variable)
        return kept

    def exclude_from_weight_decay(
        self, var_list: Sequence | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Leaves variables, and paths in which one of the patterns is found, out of the decay.

        As in Keras, before the first step; calls add up, and are saved with the mask. Patterns
        that are found in no path are as good as absent; where all of them are, a warning says so.
        """
        masks.exclude_more(self, self.innermost().given, var_list, var_names)

    def decay_report(self) -> masks.DecayReport:
        """Each variable with its shape, whether it decays, and why. Print it."""
        if not self.built:
            raise ValueError("Build the optimizer first: `opt.build(model.trainable_variables)`.")
        rows = [masks.Row(c.path, tuple(c.variable.shape), c.decays, c.reason) for c in self.cells]
        return masks.DecayReport(
            rows, float(tf.convert_to_tensor(self.weight_decay)), self.decay_coupling
        )


def _word_for(value: Any) -> Any:
    """What is saved of a hyperparameter as it was given: the number, or a word for what it is."""
    if value is None or isinstance(value, (int, float)):
        return value
    return "a variable" if is_variable(value) else type(value).__name__


def _both(left: tf.Tensor | None, right: tf.Tensor | None) -> tf.Tensor | None:
    """left and right; None stands for true."""
    return right if left is None else (left if right is None else left & right)


def _checked(g: Any, cell: Cell) -> Any:
    """The gradient in float32 and of the variable's shape; dense, unless its rows are wanted."""
    shape = cell.variable.shape
    if isinstance(g, tf.IndexedSlices):
        g = rows.inside(rows.float32(g, shape), shape[0], cell.path)
        if "row_step" in cell.kept:
            return g
        g = rows.dense(g, shape[0])
    g = tf.cast(g, tf.float32)
    if not g.shape.is_compatible_with(shape):
        raise ValueError(
            f"The gradient of {cell.path!r} must have the variable's shape {tuple(shape)}. "
            f"Received: {tuple(g.shape)}"
        )
    return g if g.shape.is_fully_defined() else tf.ensure_shape(g, shape)


def _check(variable: Any) -> None:
    """Raises for variables that the engine can't update rightly."""
    if not hasattr(variable, "dtype") or not hasattr(variable, "assign"):
        raise TypeError(
            "An optimizer is built on variables, as `opt.build(model.trainable_variables)`. "
            f"Received: {variable!r} among them"
        )
    dtype, path = tf.as_dtype(variable.dtype), masks.path_of(variable)
    if not isinstance(tf_variable(variable), tf.Variable):
        raise NotImplementedError(
            "Variables in pieces are not supported: make the strategy without "
            f"`variable_partitioner`. Received: {path!r}, a {type(tf_variable(variable)).__name__}"
        )
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
