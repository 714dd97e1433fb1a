"""Optimizer: Keras's face of a rule and of the concerns around it. `step` is one step."""

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tf_decoupled import masks
from tf_decoupled.engine import arguments, building, concern, decay, kinds, replicas, reports, step
from tf_decoupled.engine.blocks import Blocks
from tf_decoupled.engine.checking import Where
from tf_decoupled.engine.concern import Concern, Concerns
from tf_decoupled.engine.hyperparameters import Hyperparameter, is_variable, written
from tf_decoupled.engine.keras_hooks import Refusing
from tf_decoupled.engine.order import ORDER
from tf_decoupled.engine.persistence.checkpoints import Layout
from tf_decoupled.engine.persistence.restoring import Restoring
from tf_decoupled.engine.persistence.saving import Saved
from tf_decoupled.engine.rule import Rule
from tf_decoupled.engine.state import Cell, Cells, place_of, ref_of, tf_variable

OF_THE_STEP = ("state_dtype", "jit_compile")  # the arguments of no rule and no concern


class Optimizer(
    Refusing,
    Saved,
    Rule,
    keras.optimizers.LossScaleOptimizer,  # scales losses itself, so `compile` must not wrap it
):
    """What all optimizers share: θ ← θ − η u(g, s) − δ(θ).

    A rule is two pure functions on one array: `init(p)` declares its slots, `update` turns a
    gradient into a direction u. Methods whose direction depends on the decay or the rate override
    `step` instead. The array is float32, and float64 where the variable is.

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
        jit_compile: XLA for the update step itself: "auto" (where the host can, for up to 100
            blocks, and up to 1,000 of 2,048 numbers on average: more take minutes to compile),
            True, False. On a TPU the strategy compiles the whole step, and this is without effect.

    Numbers are live: assigning `opt.weight_decay = 0.02` acts at the next step without a new
    trace, and they are saved with the state. State is found again by the variables' values, their
    order and their paths.
    """

    state_dtype: str = "float32"
    jit_compile: bool | str = "auto"

    concerns: ClassVar[tuple[type[Concern], ...]] = ORDER
    engine_arguments: ClassVar[dict[str, Hyperparameter]] = {}

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "concerns" in vars(cls):
            cls.join(cls.concerns)

    @classmethod
    def join(cls, concerns: Sequence[type[Concern]]) -> None:
        """Gives the class the arguments, counters and methods of its concerns."""
        missing = [each for each in concerns if not each.declared.keys() <= cls.declared.keys()]
        own = {n: h for each in concerns for n, h in concern.join(cls, each).items()}
        cls.engine_arguments = cls.engine_arguments | own
        if missing or cls is Optimizer:
            cls.declare({name: h for name, h in own.items() if name not in cls.declared})

    @classmethod
    def own_arguments(cls) -> dict[str, Hyperparameter]:
        return {n: each for n, each in cls.declared.items() if n not in cls.engine_arguments}

    def __init__(self, *args: Any, **kwargs: Any):
        given = arguments.bind(type(self), args, kwargs, self.names())
        # Keras makes no variable of its own for a callable rate; ours is made like all the others.
        rate, name = lambda: self.learning_rate, kinds.name(Where("name"), given.pop("name"))
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
        self.cells, self.blocks = Cells(), Blocks()
        self.starts: dict[str, float] = {}
        self.add_counter("updates")
        self.order = Concerns(self.concerns, self)
        self.add_counters()
        self.layout = Layout(self)
        self.restoring = Restoring(self)
        compute = lambda *args: step.compute(self, *args)  # noqa: E731
        self.compiled_compute = replicas.compiled(compute, self.jit_compile, self.blocks.worth_it)

    def __repr__(self) -> str:
        if "given" not in vars(self):
            return object.__repr__(self)
        base = vars(self.given).get("learning_rate")
        return written(self, dict(decay_mask=masks.everything, base_learning_rate=base))

    def __str__(self) -> str:
        if "given" not in vars(self):
            return repr(self)
        return reports.printed(self, repr(self), [reports.Group(self, self.cells)])

    @property
    def iterations(self) -> keras.Variable:
        """The updates done: neither micro-steps of an accumulation nor skipped steps count."""
        return self.updates

    @tf.autograph.experimental.do_not_convert
    def apply(self, grads: Sequence, trainable_variables: Sequence | None = None) -> None:
        """Applies one gradient per variable; None gradients leave variable and slots untouched."""
        grads = list(grads)
        step.take(self, grads, self.variables_for(grads, trainable_variables))

    def apply_gradients(self, grads_and_vars: Any) -> keras.Variable:
        """`apply` of pairs, as Keras has it; returns `iterations`."""
        pairs = list(grads_and_vars)
        if not pairs:
            raise ValueError(
                "`apply_gradients` needs at least one (gradient, variable) pair. Received: none"
            )
        super().apply_gradients(pairs)
        return self.iterations

    def variables_for(self, grads: list, variables: Sequence | None) -> list:
        """The variables that these belong to, one each; those that are new are built."""
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

    def hyperparameters_at(self, step: Any) -> dict[str, Any]:
        """Every hyperparameter after `step` updates: schedules resolved, and t, step, decay."""
        step = tf.cast(tf_variable(step) if is_variable(step) else step, tf.int64)
        h = self.resolved(self.engine_arguments, step) | self.rule_at(step)
        for name, place in self.shared_names():
            own = h
            for part in place:
                own = own[part]
            own[name.rpartition("/")[2]] = tf.convert_to_tensor(tf_variable(getattr(self, name)))
        return h

    def shared_names(self) -> list[tuple[str, list[str]]]:
        """The scalars that rules share among all variables: name, and place among `h`."""
        return [
            ("/".join([*parts, name]), parts)
            for branch, member in self.branches()
            for place, rule in member.tree()
            for parts in [[each for each in (branch, *place.split("/")) if each]]
            for name in rule.shared()
        ]

    def add_counters(self) -> None:
        """Makes the counters that rules and concerns ask for, each once."""
        for place, rule in self.rules():
            for name, slot in rule.shared().items():
                self.add_counter(place_of(place, name), slot.initial, slot.dtype or "float32")
        for each in self.order.all:
            for name, counter in each.wanted().items():
                self.add_counter(name, counter.start, counter.dtype)

    def count(self, taken: tf.Tensor, results: dict[str, tf.Tensor]) -> None:
        """Counts an update, and keeps the scalars that its rules share."""
        # TensorFlow's `assign_add`: Keras's reads and assigns, between which another worker may.
        tf_variable(self.iterations).assign_add(tf.cast(taken, tf.int64))
        for name, _ in self.shared_names():
            if name in results:
                tf_variable(getattr(self, name)).assign(results[name])

    @classmethod
    def interpret(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments once checked, with defaults that depend on other arguments filled in."""
        if not isinstance(given["state_dtype"], str) or given["state_dtype"] != "float32":
            raise NotImplementedError(
                "`state_dtype` is not implemented yet; leave it at 'float32'. "
                f"Received: state_dtype={given['state_dtype']!r}"
            )
        jit = given["jit_compile"]
        if not (isinstance(jit, bool) or (isinstance(jit, str) and jit == "auto")):
            raise ValueError(
                f'`jit_compile` must be "auto", True or False. Received: jit_compile={jit!r}'
            )
        given = cls.interpret_rule(given)
        for each in cls.concerns:
            given = each.interpret(given, cls)
        return given

    @classmethod
    def stepping(cls, given: dict[str, Any]) -> Sequence[type]:
        """The classes that step variables: this one, or that of each member."""
        return [cls]

    def check_assigned(self, name: str, value: Any, replaced: bool = False) -> None:
        """Raises where an argument can't become this, or be replaced by something of this kind."""
        for each in self.order.all:
            each.check_assigned(name, value, replaced)
        if not replaced:
            return
        decay.check_replaced(vars(self.given), name, value)
        if name == "learning_rate" and self.decay_coupling in decay.NEED_BASE:
            concern.refuse_replacing(self, name, value)
        if name == "learning_rate" and not self.base_is_told:
            self.given.base_learning_rate = None  # it was the number that goes

    def build(self, variables: Sequence, added: bool = False) -> None:
        """Makes the slots of each variable that has none yet, and asks the decay mask about it."""
        variables = list(variables)
        if not variables:
            return  # Keras asks for this while it loads a whole-model `.h5` file
        with tf.init_scope():  # once, not at every step of a function that is being traced
            building.check(self, variables, added)
            for each in self.order.all:
                each.building()
            new = {ref_of(v): v for v in variables if v not in self.cells}
            fresh = building.add(self, list(new.values()))
            known = fresh if self.built else list(self.cells)
            self.restoring.load_waiting(known, first=not self.built)
            self.built = True
            for _, rule in self.rules():
                rule.built = True

    def add_variables(self, variables: Sequence) -> None:
        """Adds variables to those that are optimized; the state of all others stays as it is.

        `apply` does the same when it meets a variable for the first time. Bias corrections count
        from the optimizer's first update, whenever a variable came.
        """
        self.build(variables, added=True)

    def assign_rules(self, cells: Sequence[Cell]) -> None:
        """Decides which rule steps these variables: this one."""
        building.decide(self, self, "", cells)

    @property
    def anchor(self) -> tf.Variable:
        """A variable whose devices are those of the whole step."""
        return tf_variable(self.cells[0].variable)

    def finalize_variable_values(self, var_list: Sequence) -> None:
        """Keras's hook at the end of `fit`: rows catch up, and averages replace variables."""
        for each in self.order:
            each.finalize(var_list)

    def exclude_from_weight_decay(
        self, var_list: Sequence | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Leaves variables, and paths in which one of the patterns is found, out of the decay.

        As in Keras, before the first step; calls add up, and are saved with the mask. Patterns
        that are found in no path are as good as absent; where all of them are, a warning says so.
        """
        masks.exclude_more(self, self.innermost().given, var_list, var_names)

    def decay_report(self) -> reports.DecayReport:
        """Each variable with its shape, whether it decays, and why. Print it."""
        if not self.built:
            raise ValueError("Build the optimizer first: `opt.build(model.trainable_variables)`.")
        return self.report_of(self.cells)

    def report_of(self, cells: Iterable[Cell]) -> reports.DecayReport:
        λ = float(tf.convert_to_tensor(self.weight_decay))
        return reports.DecayReport([*map(reports.row_of, cells)], λ, self.decay_coupling)


def _word_for(value: Any) -> Any:
    """What is saved of a hyperparameter as it was given: the number, or a word for what it is."""
    if value is None or isinstance(value, (int, float)):
        return value
    return "a variable" if is_variable(value) else type(value).__name__


Optimizer.engine_arguments = {name: Optimizer.declared[name] for name in OF_THE_STEP}
Optimizer.join(ORDER)
Optimizer.__doc__ = concern.documented(Optimizer.__doc__, ORDER)
