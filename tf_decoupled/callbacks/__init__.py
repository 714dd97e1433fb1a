"""Callbacks for `fit`: averages where the model is judged or saved, plateaus, and what training
does, in logs, TensorBoard and a figure."""

from tf_decoupled.callbacks.hyperparameter_logger import HyperparameterLogger
from tf_decoupled.callbacks.measuring import QUANTITIES
from tf_decoupled.callbacks.monitor import Monitor
from tf_decoupled.callbacks.reduce_on_plateau import ReduceOnPlateau
from tf_decoupled.callbacks.swap_averaged import SwapAveraged

__all__ = ["QUANTITIES", "HyperparameterLogger", "Monitor", "ReduceOnPlateau", "SwapAveraged"]
