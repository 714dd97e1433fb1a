"""A trial with a compiled model: at other rates, and afterwards all is what it was."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_decoupled.engine import replicas
from tf_decoupled.engine.decay import base_rate
from tf_decoupled.engine.hyperparameters import is_variable
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import tf_variable
from tf_decoupled.gradients import tape


@contextlib.contextmanager
def unchanged(model: keras.Model) -> Iterator[None]:
    """After this context model and optimizer are what they were before it."""
    optimizer = model.optimizer
    with replicas.strategy_of(tf_variable(optimizer.updates)).scope():
        optimizer.build(model.trainable_variables)
    attributes = {n: vars(model)[n] for n in ("history", "stop_training") if n in vars(model)}
    counters = set(optimizer.starts)
    variables = {id(v): v for v in (*_of_model(model), *_of_optimizer(optimizer))}.values()
    with tape.unchanged([part for v in variables for part in replicas.all_components(v)]):
        try:
            yield
        finally:
            model.reset_metrics()  # those that were made inside
            for name in set(optimizer.starts) - counters:
                getattr(optimizer, name).assign(optimizer.starts[name])
            vars(model).pop("history", None)
            for name, value in attributes.items():
                setattr(model, name, value)


def _of_model(model: keras.Model) -> list[tf.Variable]:
    return [tf_variable(v) for v in (*model.variables, *model.metrics_variables)]


def _of_optimizer(optimizer: Optimizer) -> list[tf.Variable]:
    """The variables behind slots and numbers; those of a stack are one array each."""
    stored = [v for block in optimizer.blocks for v in block.stored.values()]
    return [tf_variable(v) for v in (*stored, *optimizer.named_numbers().values())]


@contextlib.contextmanager
def rate(model: keras.Model) -> Iterator[Callable[[float], None]]:
    """A function that sets the rate as if the optimizer had been made with it.

    After this context the rate is what it was, a schedule too.
    """
    optimizer, train_function = model.optimizer, model.train_function
    rules = [rule.innermost() for _, rule in optimizer.branches()]
    ratios, replaced = _ratios(rules), {}

    def assign(η: float) -> None:
        for rule, ratio in zip(rules, ratios, strict=True):
            for name in _names(rule):
                getattr(rule.given, name).assign(ratio * η)

    try:
        for rule, name in ((each, name) for each in rules for name in _names(each)):
            if not is_variable(given := getattr(rule.given, name)):
                replaced[rule, name] = given
                with replicas.strategy_of(tf_variable(optimizer.updates)).scope():
                    setattr(rule.given, name, rule.declared[name].bind(1.0, rule))
        if replaced:
            model.make_train_function(force=True)  # the old trace asks the schedule
        yield assign
    finally:
        for (rule, name), given in replaced.items():
            setattr(rule.given, name, given)
        if replaced:
            model.train_function = train_function


def _names(rule: Any) -> list[str]:
    """The numbers that stand for the rate that a rule was made with."""
    return ["learning_rate"] if rule.base_is_told else ["learning_rate", "base_learning_rate"]


def _ratios(rules: list) -> list[float]:
    """The rate of each rule over that of the first."""
    if len(rules) == 1:
        return [1.0]
    bases = []
    for rule in rules:
        base = base_rate(rule.given.learning_rate)
        bases.append(float(tf.convert_to_tensor(rule.learning_rate if base is None else base)))
    if not bases[0] > 0:
        raise ValueError(
            "Rates of a Partition are tried in their present ratio, and the first of them must be "
            f"above 0 for that. Received: {bases}"
        )
    return [base / bases[0] for base in bases]
