"""A SavedModel that trains on wherever TensorFlow runs: without this library, without Keras."""

import inspect
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tf_decoupled.engine import arguments, kinds
from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.pieces import Piece
from tf_decoupled.engine.state import tf_variable

__all__ = ["TrainableModel"]


def _loss(where: Where, value: Any) -> Callable[..., Any]:
    takes = (arguments.takes(value, n) for n in (2, 3)) if callable(value) else ()
    if inspect.isclass(value) or not any(takes):
        where.refuse(TypeError, "a callable (y, y_pred) or (y, y_pred, sample_weight)", value)
    return value


def _specs(where: Where, value: Any) -> Any:
    leaves = tf.nest.flatten(value)
    if not leaves or not all(isinstance(leaf, tf.TensorSpec) for leaf in leaves):
        where.refuse(TypeError, "a tf.TensorSpec, or a structure of them", value)
    return value


_optimizer = kinds.instance(keras.optimizers.Optimizer, "a Keras optimizer")
Model = Annotated[keras.Model, kinds.instance(keras.Model, "a keras.Model")]
Optimizer = Annotated[keras.optimizers.Optimizer | None, kinds.optional(_optimizer)]
Loss = Annotated[Callable[..., Any] | None, kinds.optional(_loss)]
Folder = Annotated[str | os.PathLike, kinds.path]
Flag = Annotated[bool, kinds.flag]
Specs = Annotated[Any, kinds.optional(_specs)]
Spec = Annotated[
    tf.TensorSpec | None, kinds.optional(kinds.instance(tf.TensorSpec, "a tf.TensorSpec"))
]


class TrainableModel(tf.Module):
    """A model and its optimizer, as a SavedModel that serves and continues training.

        td.export.TrainableModel(model).save("folder")

        loaded = tf.saved_model.load("folder")       # another process, TensorFlow alone
        loaded.train_step(x, y)                      # {"loss": float32 []}, after one update
        loaded.serve(x)                              # model(x, training=False)
        loaded.set_state(loaded.get_state())         # every variable by name
        loaded.state["learning_rate"].assign(1e-4)   # one of them; `read_value()` reads it

    It continues bit for bit: `state` holds weights, slots, counters, averages, the gradients
    accumulated so far, the seeds of dropout, and each hyperparameter given as a number. Names are
    those of `optimizer.get_state()`, and the paths of the model's variables.

    The same four are signatures, which take and return the state under names that are legal there:
    "hidden_kernel_m" for "hidden/kernel:m"; `keys` maps one to the other. Inputs are x and y there,
    those of several x_0 and x_1, or x_left and x_right. `serve` is the default signature.

    Args:
        model: a built model.
        optimizer: any Keras optimizer; by default the one that the model is compiled with.
        loss: a callable (y, y_pred), or (y, y_pred, sample_weight), of which the mean is taken
            and to which the model's own losses are added; by default what `compile` was given.
        x, y: `tf.TensorSpec`s of a batch, structured as the model's inputs and outputs; by default
            those of inputs and outputs, for any batch size. Labels that are integers need theirs:
            `y=tf.TensorSpec([None], tf.int64)`.
        sample_weight: the spec of a third argument of `train_step`; None leaves it out.

    Raises ValueError where the model isn't built, where optimizer or loss are neither given nor
    compiled, where specs are neither given nor known or don't fit the loss, and where variables
    have replicas: save such a model, and load it outside of the strategy.
    """

    @checked
    def __init__(
        self,
        model: Model,
        optimizer: Optimizer = None,
        loss: Loss = None,
        *,
        x: Specs = None,
        y: Specs = None,
        sample_weight: Spec = None,
    ):
        super().__init__(name="trainable_model")
        step = _Step(model, optimizer, loss)
        specs = {"x": _known(model, "input", x), "y": _known(model, "output", y)}
        if sample_weight is not None:
            specs["sample_weight"] = sample_weight
        specs = [_named(spec, name) for name, spec in specs.items()]
        self.layers = model.layers  # for their tables; the model would bring its optimizer along
        self.train_step = tf.function(step.train, specs, autograph=False)
        self.serve = tf.function(step.serve, specs[:1], autograph=False)
        self.state = step.named_variables(_traced(self.train_step, specs).variables)
        keys = self.keys
        state_specs = {
            name: tf.TensorSpec(v.shape, v.dtype, keys[name]) for name, v in self.state.items()
        }
        self.get_state = tf.function(self._get_state, [], autograph=False)
        self.set_state = tf.function(self._set_state, [state_specs], autograph=False)

    @property
    def keys(self) -> dict[str, str]:
        """Names of the state, and what the signatures call them."""
        keys = _distinct((_legal(name) for name in self.state), "_")
        return dict(zip(self.state, keys, strict=True))

    def _get_state(self) -> dict[str, tf.Tensor]:
        return {name: v.read_value() for name, v in self.state.items()}

    def _set_state(self, state: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        for name, variable in self.state.items():
            variable.assign(state[name])
        return {"variables": tf.constant(len(state))}

    def _get_state_by_key(self) -> dict[str, tf.Tensor]:
        keys = self.keys
        return {keys[name]: value for name, value in self._get_state().items()}

    @checked
    def save(self, folder: Folder, jit_compile: Flag = True) -> None:
        """Writes the SavedModel into `folder`.

        `jit_compile=False` takes XLA's mark off every function in it. Do that for hosts without
        XLA, as under TensorFlow's TPU wheel, where `train_step` raises "could not find registered
        transfer manager for platform Host"; training continues up to rounding then.
        """
        get_state = tf.function(self._get_state_by_key, [], autograph=False)
        signatures = {
            "serving_default": self.serve,
            "serve": self.serve,
            "train_step": self.train_step,
            "get_state": get_state,
            "set_state": self.set_state,
        }
        tf.saved_model.save(self, folder, signatures=signatures)
        if not jit_compile:
            _uncompile(Path(folder) / "saved_model.pb")


class _Step:
    """What is exported, in no object that TensorFlow would track: the optimizer's list of names
    and Keras's compiled loss can't be restored, and `tf.saved_model` says so at each load."""

    def __init__(self, model: keras.Model, optimizer: Any, loss: Callable[..., Any] | None):
        if not model.built:
            raise ValueError(
                "The model has no variables yet: call it on a batch, or `model.build`, before it "
                f"is exported. Received: {model!r}"
            )
        if replicated := [v.path for v in model.variables if _replicas(v) > 1]:
            raise ValueError(
                "Variables with replicas can't be exported with their step. Save the model "
                "(`model.save`) and load it outside of the strategy. "
                f"Received: {_replicas(model.variables[0])} replicas of {replicated}"
            )
        if type(model).train_step is not keras.Model.train_step:
            warnings.warn(
                f"{type(model).__name__} has a `train_step` of its own. What is exported takes one "
                "gradient of the loss in its place: no SAM, and no estimates.",
                stacklevel=4,
            )
        self.model, self.loss = model, loss
        self.optimizer = getattr(model, "optimizer", None) if optimizer is None else optimizer
        if self.optimizer is None or (loss is None and not model.compiled):
            raise ValueError(
                "An optimizer and a loss are needed: compile the model with both, or pass both. "
                f"Received: optimizer={optimizer!r}, loss={loss!r}, and a model that is "
                f"{'' if model.compiled else 'not '}compiled"
            )
        self.optimizer.build(model.trainable_variables)

    def train(self, x: Any, y: Any, *sample_weight: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = self.loss_of(x, y, self.model(x, training=True), *sample_weight)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.model.trainable_variables
        gradients = tape.gradient(scaled, [tf_variable(v) for v in variables])
        self.optimizer.apply(gradients, variables)
        return {"loss": loss}

    def loss_of(self, x: Any, y: Any, y_pred: Any, *sample_weight: tf.Tensor) -> tf.Tensor:
        if self.loss is None:
            return self.model.compute_loss(x, y, y_pred, *sample_weight or (None,))
        return sum(self.model.losses, tf.reduce_mean(self.loss(y, y_pred, *sample_weight)))

    def serve(self, x: Any) -> Any:
        return self.model(x, training=False)

    def named_variables(self, used: Iterable[tf.Variable]) -> dict[str, tf.Variable]:
        """Variables of model and optimizer, and what else the step has `used`, by name."""
        own = getattr(self.optimizer, "named_variables", None)
        optimizer = own() if own else {v.path: v for v in self.optimizer.variables}
        pairs = [(v.path, tf_variable(v)) for v in self.model.variables]
        pieces = {name: v for name, v in optimizer.items() if isinstance(v, Piece)}
        stacks = {piece.array.ref() for piece in pieces.values()}
        pairs += [
            (n, ExportedPiece(v) if n in pieces else tf_variable(v)) for n, v in optimizer.items()
        ]
        pairs += [(v.name.partition(":")[0], v) for v in used if v.ref() not in stacks]
        once: dict[Any, tuple[str, Any]] = {}
        for name, variable in pairs:
            once.setdefault(_identity(variable), (name, variable))
        names, variables = zip(*once.values(), strict=True)
        return dict(zip(_distinct(names, "~"), variables, strict=True))


class ExportedPiece(tf.Module):
    """A piece of a stack in a SavedModel: `read_value()` and `assign(value)`, as a variable has."""

    def __init__(self, piece: Piece):
        super().__init__()
        self.shape, self.dtype, self.array = piece.shape, tf.as_dtype(piece.dtype), piece.array
        spec = tf.TensorSpec(piece.shape, self.dtype)
        self.read_value = tf.function(piece.read_value, [], autograph=False)

        def assign(value: tf.Tensor) -> tf.Tensor:
            piece.assign(value)
            return piece.read_value()

        self.assign = tf.function(assign, [spec], autograph=False)

    def numpy(self) -> np.ndarray:
        return self.read_value().numpy()


def _identity(variable: Any) -> Any:
    return variable.ref() if isinstance(variable, tf.Variable) else id(variable)


def _replicas(variable: keras.Variable) -> int:
    strategy = getattr(tf_variable(variable), "distribute_strategy", None)
    return 1 if strategy is None else strategy.num_replicas_in_sync


def _known(model: keras.Model, end: str, spec: Any) -> Any:
    """The spec given, or one for any batch size from the "input" or "output" of the model."""
    if spec is not None:
        return spec
    tensors = getattr(model, end, None)
    if tensors is None:
        tensors = getattr(model, f"{end}s", None)
        if tensors is None:
            raise ValueError(
                f"This model doesn't tell its {end}s. Give `{'x' if end == 'input' else 'y'}`, as "
                f"tf.TensorSpec([None, 10]). Received: a {type(model).__name__}"
            )
        tensors = tensors[0] if len(tensors) == 1 else tensors
    return tf.nest.map_structure(lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype), tensors)


def _named(specs: Any, name: str) -> Any:
    """The specs with names that a signature can have: x, or x_0 and x_1, or x_left and x_right."""
    if isinstance(specs, dict):
        return {key: _named(spec, f"{name}_{key}") for key, spec in specs.items()}
    if isinstance(specs, (list, tuple)):
        return [_named(spec, f"{name}_{i}") for i, spec in enumerate(specs)]
    return tf.TensorSpec(specs.shape, specs.dtype, _legal(name))


def _legal(name: str) -> str:
    """The name in small letters, with "_" for what is no letter or digit, as signatures need it."""
    return re.sub(r"\W", "_", name, flags=re.ASCII).lower()


def _distinct(names: Iterable[str], mark: str) -> list[str]:
    """The names, those taken already with a number: "kernel", "kernel~1"."""
    taken: list[str] = []
    for name in names:
        candidates = itertools.chain([name], (f"{name}{mark}{n}" for n in itertools.count(1)))
        taken.append(next(c for c in candidates if c not in taken))
    return taken


def _traced(function: Any, specs: Any) -> Any:
    """The concrete function; raises ValueError where the specs are not what it can take."""
    try:
        return function.get_concrete_function()
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            "The step can't be traced with these specs. If the loss takes integer labels, give "
            f"`y=tf.TensorSpec([None], tf.int64)`. Received: {specs}\n{error}"
        ) from error


def _uncompile(path: Path) -> None:
    """Takes XLA's mark off the functions of a saved_model.pb, and off the calls of them."""
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in (meta.graph_def for meta in saved.meta_graphs):
        functions = graph.library.function
        for node in itertools.chain(functions, graph.node, *(f.node_def for f in functions)):
            if "_XlaMustCompile" in node.attr:
                node.attr["_XlaMustCompile"].b = False
    path.write_bytes(saved.SerializeToString())
