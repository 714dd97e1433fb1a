"""One cell of the grid: the model trained with one rate, one decay, one schedule, one seed."""

import math

import keras
import tensorflow as tf

import tf_decoupled as td
from tf_decoupled.experiments import data, loop, optimizers, tasks
from tf_decoupled.experiments.grid import Cell, Settings
from tf_decoupled.experiments.results import DIVERGED, Outcome


class Multiplied(keras.optimizers.schedules.LearningRateSchedule):
    """α η_t with a variable α and a table of η: one graph serves every rate and every schedule."""

    def __init__(self, steps: int):
        self.last = steps - 1
        self.alpha = tf.Variable(1.0, name="alpha")
        self.eta = tf.Variable(tf.ones(steps), name="eta")

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return self.alpha * tf.gather(self.eta, tf.minimum(step, self.last))

    @property
    def peak(self) -> tf.Variable:
        return self.alpha


class Cells:
    """Computes cells of a sweep, one after the other, with one model and one graph per form.

    A cell's outcome depends on the settings and the cell alone: weights, order of the images and
    augmentation come from its seed, and everything that training changes is set back before it.
    """

    def __init__(self, settings: Settings, dataset: data.Dataset):
        self.settings = settings
        dataset = data.standardise(first(dataset, settings.examples))
        self.steps = settings.epochs * (len(dataset.train.labels) // settings.batch_size)
        self.model, self.reinitialize = tasks.network(settings.model, dataset)
        self.schedule = Multiplied(self.steps)
        self.loops = {
            form: loop.Loop(
                self.model,
                self._optimizer(form),
                dataset.train,
                augmented=settings.dataset == "cifar10",
            )
            for form in settings.forms
        }
        self.validation = loop.Evaluation(self.model, dataset.validation)
        self.test = loop.Evaluation(self.model, dataset.test)
        self.etas = {name: loop.multipliers(name, self.steps) for name in settings.schedules}

    def _optimizer(self, form: str) -> td.Optimizer:
        s = self.settings
        made = optimizers.in_form(s.optimizer, form, s.arguments, self.schedule, s.coupling)
        with optimizers.asked(s.forms[form].title):
            made.build(self.model.trainable_variables)
        return made

    @property
    def traces(self) -> dict[str, int]:
        """How often the training graph of each form was made."""
        return {form: each.traces for form, each in self.loops.items()}

    def __call__(self, cell: Cell) -> Outcome:
        trained = self.loops["decoupled" if cell.form == "both" else cell.form]
        self._prepare(trained.optimizer, cell)
        for epoch in range(self.settings.epochs):
            train_loss, _ = trained.epoch(cell.seed, epoch, self.settings.batch_size)
            if not math.isfinite(train_loss):
                return DIVERGED
        (_, validation_error), (test_loss, test_error) = self.validation(), self.test()
        if not math.isfinite(test_loss):
            return DIVERGED
        return Outcome(train_loss, validation_error, test_error)

    def _prepare(self, optimizer: td.Optimizer, cell: Cell) -> None:
        self.reinitialize(cell.seed)
        optimizer.reset_state()
        self.schedule.alpha.assign(cell.alpha)
        self.schedule.eta.assign(self.etas[cell.schedule])
        form = "coupled" if cell.form == "coupled" else "decoupled"
        setattr(optimizer, self.settings.forms[form].decay, cell.lam)


def first(dataset: data.Dataset, examples: int | None) -> data.Dataset:
    """The dataset with the first `examples` images of each split; None for all."""
    splits = (dataset.train, dataset.validation, dataset.test)
    train, validation, test = (data.Split(*(part[:examples] for part in s)) for s in splits)
    return dataset._replace(train=train, validation=validation, test=test)
