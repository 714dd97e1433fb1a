"""One training run: checkpoints from which it continues exactly, TensorBoard logs, an export."""

import ast
import json
import numbers
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

import tf_decoupled as td
from tf_decoupled.experiments import data, loop, models, strategies
from tf_decoupled.experiments.cells import first
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.export import Exported
from tf_decoupled.experiments.grid import SCHEDULES, check_name

OPTIMIZERS = {
    name: value
    for name, value in vars(td).items()
    if isinstance(value, type)
    and issubclass(value, td.Optimizer)
    and value not in (td.Optimizer, td.Wrapper)
    and not issubclass(value, (td.Wrapper, td.Partition))
}
SCALARS = "scalars"


@dataclass(frozen=True)
class Run:
    """All that decides the numbers of a run.

    `arguments` are the optimizer's, each "name=value" with a Python literal; `decay_mask` may also
    be the name of a mask in `td.masks`, and is `matrices` unless given. `warmup` is in epochs.
    `examples` keeps the first so many of every split.
    """

    optimizer: str = "AdamW"
    arguments: tuple[str, ...] = ()
    schedule: str = "cosine"
    warmup: float = 0.0
    dataset: str = "fashion_mnist_small"
    data_dir: str | None = None
    model: str = "sbw16"
    epochs: int = 10
    batch_size: int = 128
    seed: int = 0
    examples: int | None = None

    def __post_init__(self):
        check_name("optimizer", self.optimizer, tuple(OPTIMIZERS))
        check_name("schedule", self.schedule, SCHEDULES)
        check_name("dataset", self.dataset, data.NAMES)
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0), ("warmup", 0)):
            if not getattr(self, name) >= least:
                raise InputError(
                    f"{name} must be at least {least}. Received: {getattr(self, name)}"
                )


class Epoch(NamedTuple):
    """What one epoch gave. Errors are shares of the images; training's are taken on the way."""

    number: int
    learning_rate: float
    train_loss: float
    train_error: float
    validation_loss: float
    validation_error: float


def show(epoch: Epoch) -> None:
    print(
        f"epoch {epoch.number}: learning rate {epoch.learning_rate:.3g}, "
        f"train loss {epoch.train_loss:.4f}, error {100 * epoch.train_error:.2f} %, "
        f"validation loss {epoch.validation_loss:.4f}, error {100 * epoch.validation_error:.2f} %",
        flush=True,
    )


def train(
    run: Run,
    out: Path,
    export: Path | None = None,
    report: Callable[[Epoch], None] = show,
    strategy: tf.distribute.Strategy | None = None,
) -> float:
    """Trains, or goes on from the last checkpoint in `out`; returns and prints the test error.

    After every epoch a checkpoint is written, then `report` is called. Of several processes only
    the chief does either, in an `out` that all of them see. Raises `InputError`, also where `out`
    holds another run.
    """
    dataset = data.load(run.dataset, run.data_dir)
    training = Training(run, dataset, strategy)
    _claim(out, run, training.chief)
    training.resume(out)
    if training.chief:
        print(training.loop.optimizer.decay_report())
    for epoch in training.remaining():
        if training.chief:
            report(epoch)
    _, test_error = training.test()
    if training.chief:
        if export is not None:
            Exported(training.on_one_device(dataset), dataset).save(export)
            print(f"Exported: {export}")
        print(f"Checkpoints and TensorBoard logs: {out}\nTest error: {100 * test_error:.2f} %")
    return test_error


def _claim(out: Path, run: Run, chief: bool = True) -> None:
    """Compares the run's settings with those in `out`; the chief writes them if there are none."""
    path = out / "run.json"
    ours = {k: v for k, v in asdict(run).items() if k != "data_dir"} | {
        "arguments": list(run.arguments)
    }
    try:
        if chief and not path.exists():
            out.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".new").write_text(json.dumps(ours, indent=1))
            os.replace(path.with_suffix(".new"), path)
        theirs = json.loads(path.read_text()) if path.exists() else ours
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read or written: {error}.") from error
    differing = [f"{k}: {theirs.get(k)}, not {v}" for k, v in ours.items() if theirs.get(k) != v]
    if differing:
        raise InputError(
            f"{out} holds another run ({'; '.join(differing)}). Choose another --out, or the "
            "settings it was begun with."
        )


class Training:
    """Model, optimizer, data and checkpoints of a run, on one device or under a strategy.

    The order of the images depends on (seed, epoch) alone, and everything else that changes is in
    the checkpoint; so a run that was interrupted ends exactly where an uninterrupted one does.
    """

    def __init__(
        self, run: Run, dataset: data.Dataset, strategy: tf.distribute.Strategy | None = None
    ):
        self.run, self.strategy = run, strategy or tf.distribute.get_strategy()
        self.chief = strategies.is_chief(self.strategy)
        dataset = data.standardise(first(dataset, run.examples))
        steps = self._steps(len(dataset.train.labels))
        with self.strategy.scope():
            self.model = models.build(run.model, dataset.train.images.shape[1:], dataset.classes)
            models.reinitialize(self.model, run.seed)
            self.loop = loop.Loop(
                self.model,
                optimizer(run, steps),
                dataset.train,
                augmented=run.dataset == "cifar10",
                strategy=strategy,
            )
        self.validation = loop.Evaluation(self.model, dataset.validation)
        self.test = loop.Evaluation(self.model, dataset.test)
        self.done = tf.Variable(0, dtype=tf.int64, name="epochs_done")

    def _steps(self, examples: int) -> int:
        """The updates of an epoch. Raises `InputError` for a batch that can't be."""
        size, replicas = self.run.batch_size, self.strategy.num_replicas_in_sync
        if size > examples:
            raise InputError(
                f"batch_size must be at most the {examples} training images. Received: {size}"
            )
        if size % replicas:
            raise InputError(
                "batch_size, of all replicas together, must be a multiple of their number "
                f"{replicas}. Received: {size}"
            )
        return examples // size

    def on_one_device(self, dataset: data.Dataset) -> loop.Loop:
        """The loop as it is without a strategy: what can be exported."""
        if self.strategy is tf.distribute.get_strategy():
            return self.loop
        alone = Training(self.run, dataset)
        alone.saved().restore(self.checkpoints.latest_checkpoint).assert_consumed()
        return alone.loop

    def saved(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(
            model=self.model,
            optimizer=self.loop.optimizer,
            epochs_done=self.done,
            random_states=random_states(self.model),
        )

    def resume(self, out: Path) -> None:
        """Keeps checkpoints and logs in `out` from now on; goes back to the last one there.

        All processes save, since values may have to be summed over them; the chief alone in `out`.
        """
        saved, folder = self.saved(), str(out)
        if not self.chief:
            self._scratch = tempfile.TemporaryDirectory()
            folder = self._scratch.name
        self.writer = tf.summary.create_file_writer(f"{folder}/tensorboard")
        self.checkpoints = tf.train.CheckpointManager(saved, f"{folder}/checkpoints", 2)
        if latest := tf.train.latest_checkpoint(str(out / "checkpoints")):
            saved.restore(latest).assert_consumed()
            print(f"Continued from {latest}")
        if not strategies.agree(self.strategy, int(self.done.numpy())):
            raise InputError(
                "The processes found different checkpoints: --out must be a folder that all see. "
                f"Received: {out}, with {int(self.done.numpy())} epochs done here"
            )

    def remaining(self):
        """Runs the epochs that are left; yields each after its checkpoint is written."""
        for number in range(int(self.done.numpy()), self.run.epochs):
            rate = float(self.loop.optimizer.learning_rate)
            trained = self.loop.epoch(self.run.seed, number, self.run.batch_size)
            epoch = Epoch(number + 1, rate, *trained, *self.validation())
            self._log(epoch)
            self.done.assign(epoch.number)
            self.checkpoints.save()
            yield epoch

    def _log(self, epoch: Epoch) -> None:
        with self.writer.as_default():
            for tag, value in epoch._asdict().items():
                if tag != "number":
                    scalar(tag, value, epoch.number)
        self.writer.flush()


def random_states(model: keras.Model) -> list[tf.Variable]:
    """What the model's random layers draw from, which a checkpoint of the model leaves out."""
    weights = {id(variable) for variable in model.weights}
    return [variable.value for variable in model.variables if id(variable) not in weights]


def scalar(tag: str, value: float, step: int) -> None:
    """A point of a curve in TensorBoard.

    What `tf.summary.scalar` writes, which itself needs the package of TensorBoard.
    """
    plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name=SCALARS)
    metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin)
    tf.summary.write(tag, tf.constant(value, tf.float32), step=step, metadata=metadata)


def optimizer(run: Run, steps_per_epoch: int) -> td.Optimizer:
    """The optimizer of a run with its arguments, its rate following the run's schedule."""
    made = OPTIMIZERS[run.optimizer]
    arguments = {"decay_mask": "matrices"} | dict(map(_argument, run.arguments))
    unknown = [name for name in arguments if name not in made.declared]
    if unknown:
        raise InputError(
            f"{run.optimizer} has no argument {unknown[0]!r}. Known: {', '.join(made.declared)}."
        )
    rate = arguments.get("learning_rate", made.declared["learning_rate"].default)
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real):
        raise InputError(
            f"{run.optimizer} needs a rate for its schedule: --set learning_rate=0.01. "
            f"Received: {rate!r}"
        )
    if isinstance(arguments["decay_mask"], str):
        arguments["decay_mask"] = _mask(arguments["decay_mask"])
    try:
        arguments["learning_rate"] = _schedule(run, rate, steps_per_epoch)
        return made(**arguments)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"{run.optimizer}: {error}") from error


def _argument(text: str) -> tuple[str, Any]:
    """ "name=value" as a name and a Python literal; what isn't a literal is a string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"An argument looks like name=value. Received: {text!r}")
    try:
        return name.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return name.strip(), value.strip()


def _mask(name: str) -> td.masks.Mask:
    try:
        return td.masks.named(name)
    except ValueError as error:
        raise InputError(str(error)) from error


def _schedule(run: Run, rate: float, steps_per_epoch: int) -> Any:
    warmup = round(run.warmup * steps_per_epoch)
    after = loop.schedule(run.schedule, rate, max(1, run.epochs * steps_per_epoch - warmup))
    return td.schedules.Warmup(after, warmup) if warmup else after
