"""What the TPU tests run: every optimizer of the table, and AdamW with what the engine adds."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from cases import CASES, SHAPES, gradients, tell_loss

import tf_decoupled as td

STEPS = 10  # whole groups of each accumulation: what is in between differs on replicas
# Which rows run on 4 replicas: "all", or those of the "engine", where the rules run elsewhere.
WHICH = os.environ.get("TPU_ROWS", "all")
UNCOMPILED = dict(jit_compile=False)  # a TPU's strategy compiles the whole step whatever this is


class Row(NamedTuple):
    """How to make an optimizer, the dtype and the shapes of its variables."""

    make: Callable[[], td.Optimizer]
    dtype: str = "float32"
    shapes: Any = SHAPES


def adamw(**options):
    return lambda: td.AdamW(**dict(learning_rate=0.01, weight_decay=0.1) | UNCOMPILED | options)


OPTIMIZERS = {
    case.name: Row(lambda case=case: case.make(weight_decay=0.1, **UNCOMPILED), shapes=case.shapes)
    for case in CASES
}
OF_THE_ENGINE = {
    CASES[0].name: OPTIMIZERS[CASES[0].name],
    "clipnorm": Row(adamw(clipnorm=0.5)),
    "clipvalue": Row(adamw(clipvalue=0.1)),
    "global_clipnorm": Row(adamw(global_clipnorm=0.5)),
    "accumulation": Row(adamw(gradient_accumulation_steps=2)),
    "accumulation, clip": Row(adamw(gradient_accumulation_steps=5, global_clipnorm=0.5)),
    "averages": Row(adamw(use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=4)),
    "skip_nonfinite": Row(adamw(skip_nonfinite=True)),
    "schedule": Row(
        lambda: td.AdamW(td.schedules.Cosine(0.01, 20), weight_decay=0.1, **UNCOMPILED)
    ),
    "bfloat16, master": Row(adamw(), "bfloat16"),
    "bfloat16, stochastic": Row(adamw(low_precision="stochastic"), "bfloat16"),
}
ROWS = OPTIMIZERS | OF_THE_ENGINE
BIG = Row(adamw(), shapes=[(1024, 1024), (1024,)])


def rows_on(replicas: int) -> dict[str, Row]:
    """All on 4 replicas and on none; on other numbers what differs by the engine."""
    return ROWS if replicas in (0, 4) and WHICH == "all" else OF_THE_ENGINE


class Training:
    """A row's variables and optimizer under a strategy, and steps of given gradients."""

    def __init__(self, row: Row, strategy: tf.distribute.Strategy):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        self.strategy, self.shapes = strategy, row.shapes
        with strategy.scope():
            self.variables = [
                keras.Variable(rng.normal(size=s).astype("float32"), dtype=row.dtype, name=f"v{i}")
                for i, s in enumerate(row.shapes)
            ]
            self.optimizer = row.make()
            self.optimizer.build(self.variables)

    def apply(self, grads: list) -> None:
        tell_loss(self.optimizer, 1.0 / self.strategy.num_replicas_in_sync)
        self.optimizer.apply(grads, self.variables)

    def gradients(self, steps: int) -> list[list]:
        """Each step's, every one in shares for the replicas: none is like their sum."""

        def share(g: np.ndarray) -> Callable[[Any], tf.Tensor]:
            def of_replica(context: Any) -> tf.Tensor:
                n, r = context.num_replicas_in_sync, context.replica_id_in_sync_group
                apart = np.float32(r - (n - 1) / 2) * np.roll(g, 1)
                return tf.constant(g / np.float32(n) + apart)

            return of_replica

        distribute = self.strategy.experimental_distribute_values_from_function
        return [[distribute(share(g)) for g in gs] for gs in gradients(self.shapes, steps)]

    def run(self, steps: int = STEPS) -> None:
        step = tf.function(lambda gs: self.strategy.run(self.apply, (gs,)), autograph=False)
        for grads in self.gradients(steps):
            step(grads)

    def state(self) -> dict[str, tf.Variable]:
        """Every variable of model and optimizer that a step assigns."""
        given = self.optimizer.hyperparameter_variables()
        named = self.optimizer.named_variables()
        fixed = (*given, *(name for name in named if name.endswith(":rounding_seed")))
        state = {name: v for name, v in named.items() if name not in fixed}
        return {f"model {v.name}": v for v in self.variables} | state

    def values(self) -> dict[str, np.ndarray]:
        """The state as numbers; the first axis is that of the replicas."""
        local = self.strategy.experimental_local_results
        return {
            name: np.stack([tf.cast(part, tf.float64) for part in local(getattr(v, "value", v))])
            for name, v in self.state().items()
        }
