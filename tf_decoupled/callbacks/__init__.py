"""Callbacks for `fit`: averages where the model is judged or saved, TensorBoard, and plateaus."""

from tf_decoupled.callbacks.hyperparameter_logger import HyperparameterLogger
from tf_decoupled.callbacks.reduce_on_plateau import ReduceOnPlateau
from tf_decoupled.callbacks.swap_averaged import SwapAveraged

__all__ = ["HyperparameterLogger", "ReduceOnPlateau", "SwapAveraged"]
