"""SwapAveraged."""

import weakref
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tf_decoupled.callbacks.of_model import check_averages, innermost
from tf_decoupled.engine.state import tf_variable


class SwapAveraged(keras.callbacks.Callback):
    """Puts the averages of `use_ema` into the model where it is judged or saved.

        model.fit(..., callbacks=[
            keras.callbacks.BackupAndRestore(folder),  # before it: the raw weights, to go on from
            td.callbacks.SwapAveraged(),
            keras.callbacks.ModelCheckpoint("averaged.keras"),  # after it: the averages
        ])

    Validation in `fit` runs on the averages, and so do `evaluate` and `predict` that get this
    callback. At the end of an epoch callbacks that stand after it in the list see the averages
    (ModelCheckpoint, EarlyStopping with restore_best_weights), those before it the raw weights.
    Training goes on with the raw weights, bit for bit as without it; at its end Keras leaves the
    averages in the model, as it does without it. A checkpoint inside of an epoch (an integer
    `save_freq`) has the raw weights.

    Every raw weight comes back, and at once where the validation of `fit` raises. Where another
    callback raises at the end of an epoch, or something inside of a separate `evaluate`, Keras
    tells no callback: the next SwapAveraged for this optimizer puts the raw weights back, or
    `SwapAveraged.restore(model)` does. Variables assigned meanwhile keep what they were assigned.

    Raises TypeError if the model's optimizer has no averages.
    """

    # By optimizer: its variables with the raw values, and with the averages put in their place.
    swapped: ClassVar[weakref.WeakKeyDictionary] = weakref.WeakKeyDictionary()

    def set_model(self, model: keras.Model) -> None:
        check_averages(model, "SwapAveraged")
        super().set_model(model)
        self.restore(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        innermost(self.model).restore_training_weights()
        evaluate = _unguarded(self.model)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return evaluate(*args, **kwargs)
            except BaseException:
                self.restore(self.model)
                _unguarded(self.model)
                raise

        guarded.unguarded = evaluate
        self.model.evaluate = guarded

    def on_train_end(self, logs: dict | None = None) -> None:
        self.swapped.pop(innermost(self.model), None)  # Keras has made the averages the weights
        _unguarded(self.model)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.restore(self.model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.swap(self.model)

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.swap(self.model)

    def on_test_end(self, logs: dict | None = None) -> None:
        self.restore(self.model)

    def on_predict_begin(self, logs: dict | None = None) -> None:
        self.swap(self.model)

    def on_predict_end(self, logs: dict | None = None) -> None:
        self.restore(self.model)

    @classmethod
    def swap(cls, model: keras.Model) -> None:
        """Puts the averages into the model, once, and remembers the raw weights."""
        if (optimizer := innermost(model)) in cls.swapped:
            return
        variables = [cell.variable for cell in optimizer.cells]
        raw = _values(variables)
        try:
            optimizer.finalize_variable_values(variables)
            cls.swapped[optimizer] = variables, raw, _values(variables)
        except BaseException:
            for variable, value in zip(variables, raw, strict=True):
                variable.assign(value)
            raise

    @classmethod
    def restore(cls, model: keras.Model) -> None:
        """Puts the raw weights back into all variables that hold their averages still."""
        held = cls.swapped.get(innermost(model), ((), (), ()))
        for variable, raw, average in zip(*held, strict=True):
            now = tf.convert_to_tensor(tf_variable(variable))
            if tf.reduce_all((now == average) | tf.math.is_nan(now)):
                variable.assign(raw)
        if innermost(model) in cls.swapped:
            cls.swapped.pop(innermost(model))
            innermost(model).say_held(False)


def _values(variables: list) -> list[tf.Tensor]:
    return [tf.identity(tf_variable(v)) for v in variables]


def _unguarded(model: keras.Model) -> Any:
    """The model's `evaluate`, after taking away what SwapAveraged put around it."""
    if hasattr(model.evaluate, "unguarded"):
        del model.evaluate
    return model.evaluate
