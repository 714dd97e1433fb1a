"""One training run: checkpoints from which it continues exactly, TensorBoard logs, an export."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

import tf_decoupled as td
from tf_decoupled.experiments import checkpoints, data, files, loop, optimizers, strategies, tasks
from tf_decoupled.experiments.cells import first
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.export import Exported
from tf_decoupled.experiments.grid import (
    SCHEDULES,
    check_name,
    check_seeds,
    check_task,
    check_updates,
    check_whole,
)
from tf_decoupled.experiments.optimizers import OPTIMIZERS

SCALARS = "scalars"


@dataclass(frozen=True)
class Run:
    """All that decides the numbers of a run.

    `arguments` are the optimizer's, each "name=value" with a Python literal; `decay_mask` may also
    be the name of a mask in `td.masks`, and is `matrices` unless given. `warmup` is in epochs.
    `normalized_decay` is the rate of a `td.NormalizedDecay` over the run, or over each restart.
    `examples` keeps the first so many of every split. `model` and `dataset` may be a user's own,
    `module:function`; `fingerprint` is then what these were.
    """

    optimizer: str = "AdamW"
    arguments: tuple[str, ...] = ()
    schedule: str = "cosine"
    warmup: float = 0.0
    normalized_decay: float | None = None
    dataset: str = "fashion_mnist_small"
    data_dir: str | None = None
    model: str = "sbw16"
    epochs: int = 10
    batch_size: int = 128
    seed: int = 0
    examples: int | None = None
    fingerprint: str = ""

    def __post_init__(self):
        check_name("optimizer", self.optimizer, tuple(OPTIMIZERS))
        check_name("schedule", self.schedule, SCHEDULES)
        check_task(self)
        check_whole(self)
        check_seeds((self.seed,))
        if not 0 <= self.warmup <= self.epochs:
            raise InputError(
                f"warmup must be from 0 to the {self.epochs} epochs. Received: {self.warmup}"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values, without `data_dir`: it moves."""
        return {k: v for k, v in asdict(self).items() if k != "data_dir"} | {
            "arguments": list(self.arguments)
        }


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
    dataset = tasks.load(run.dataset, run.data_dir)
    training = Training(run, dataset, strategy)
    run = replace(run, fingerprint=tasks.fingerprint(dataset, training.model))
    checkpoints.claim(out, run.to_json(), Run().to_json(), training.chief)
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
            self.model, reinitialize = tasks.network(run.model, dataset)
            reinitialize(run.seed)
            made = optimizer(run, steps)
            with optimizers.asked(run.optimizer):
                made.build(self.model.trainable_variables)
            self.loop = loop.Loop(
                self.model,
                made,
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
        checkpoints.restore(alone.saved(), self.latest)
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
        self.state, ours = self.saved(), out
        if not self.chief:
            self._scratch = tempfile.TemporaryDirectory()
            ours = Path(self._scratch.name)
        latest, damaged = checkpoints.newest(out / checkpoints.FOLDER)
        if latest is not None:
            checkpoints.restore(self.state, latest)
            print("\n".join([*damaged, f"Continued from {latest}"]))
        with files.writing(ours):
            self.writer = tf.summary.create_file_writer(f"{ours}/tensorboard")
        self.folder, self.latest = ours / checkpoints.FOLDER, latest
        if not strategies.agree(self.strategy, int(self.done.numpy())):
            raise InputError(
                "The processes found different checkpoints: --out must be a folder that all see. "
                f"Received: {out}, with {int(self.done.numpy())} epochs done here"
            )

    def remaining(self):
        """Runs the epochs that are left; yields each after its checkpoint is written."""
        for number in range(int(self.done.numpy()), self.run.epochs):
            rate = float(self.loop.optimizer.learning_rate)
            epoch = Epoch(number + 1, rate, *self._trained(number), *self.validation())
            self.done.assign(epoch.number)
            with files.writing(self.folder.parent):
                self._log(epoch)
            self.save()
            yield epoch

    def save(self) -> None:
        self.latest = checkpoints.save(self.state, self.folder)

    def _trained(self, number: int) -> tuple[float, float]:
        """Loss and error of an epoch. Raises `InputError` where the optimizer gives up."""
        made, name = self.loop.optimizer, self.run.optimizer
        try:
            try:
                return self.loop.epoch(self.run.seed, number, self.run.batch_size)
            finally:
                made.check_skips()  # in words, what a graph says in numbers, or XLA can't say
        except FloatingPointError as error:
            raise InputError(f"{name} gave up in epoch {number + 1}: {error}") from error

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


def optimizer(run: Run, calls_per_epoch: int) -> td.Optimizer:
    """The optimizer of a run with its arguments, its rate following the run's schedule.

    The schedule counts updates: with accumulation there are fewer than `apply` is called.
    """
    made, arguments = OPTIMIZERS[run.optimizer], optimizers.arguments(run.optimizer, run.arguments)
    with optimizers.asked(run.optimizer):
        k = made(**arguments).get_config()["gradient_accumulation_steps"] or 1
        rate = schedule(run, arguments["learning_rate"], calls_per_epoch, k)
        decay = _decay(run, rate, calls_per_epoch, k)
        return made(**arguments | {"learning_rate": rate} | decay)


def schedule(run: Run, rate: float, calls_per_epoch: int, calls_per_update: int = 1) -> Any:
    """The rate over the updates of the run."""
    calls = run.epochs * calls_per_epoch
    check_updates(updates := calls // calls_per_update)
    warmup = round(run.warmup * calls_per_epoch / calls_per_update)
    if not updates:
        raise InputError(
            f"gradient_accumulation_steps must be at most the {calls} batches of the run. "
            f"Received: {calls_per_update}"
        )
    return loop.schedule(run.schedule, rate, max(1, updates - warmup), warmup)


def _decay(run: Run, rate: Any, calls_per_epoch: int, k: int) -> dict[str, Any]:
    """The paper's normalized decay, over the run or over each of its cycles, where it is asked."""
    if run.normalized_decay is None:
        return {}
    if any(text.partition("=")[0].strip() == "weight_decay" for text in run.arguments):
        raise InputError("Give one of --normalized-decay and --set weight_decay.")
    length = {"epochs": run.epochs}
    if isinstance(rate, td.schedules.CosineRestarts):
        length = {"restarts": rate}
    b = run.batch_size
    decay = td.NormalizedDecay(run.normalized_decay, b * k, b * calls_per_epoch, **length)
    return {"weight_decay": decay}
