"""The flags of each verb of the command line, their defaults and what help says of them."""

import functools

from absl import flags

from tf_decoupled.experiments import curves as of_curves
from tf_decoupled.experiments import data, grid, models, strategies


def _text(values: flags.FlagValues, name: str, default: str | None, description: str) -> None:
    flags.DEFINE_string(name, default, description, flag_values=values)


def _data_flags(values: flags.FlagValues) -> None:
    names = {"dataset": data.NAMES, "model": models.NAMES}
    for name, known in names.items():
        _text(values, name, None, f"One of {', '.join(known)}; your own is module:function.")
    _text(values, "data", None, "Data of your own: module:function, instead of --dataset.")
    _text(values, "data_dir", None, "Folder of the data of fashion_mnist or cifar10.")
    flags.DEFINE_integer("epochs", None, "Passes over the training images.", flag_values=values)
    flags.DEFINE_integer("batch_size", None, "Images per batch.", flag_values=values)
    flags.DEFINE_integer(
        "examples", None, "Only the first so many images of each split.", flag_values=values
    )


def _arguments(values: flags.FlagValues) -> None:
    description = "An argument of the optimizer, as often as needed: --set beta_1=0.95"
    flags.DEFINE_multi_string("set", [], description, flag_values=values)


def _run_flags(values: flags.FlagValues, of_optimizer: str) -> None:
    """What a single run has."""
    _text(values, "optimizer", "AdamW", of_optimizer)
    _arguments(values)
    flags.DEFINE_float(
        "normalized_decay",
        None,
        "Weight decay times √(number of updates), of the run or of the present restart.",
        flag_values=values,
    )
    _data_flags(values)
    flags.DEFINE_integer("seed", 0, "Of weights and order.", flag_values=values)


def sweep() -> flags.FlagValues:
    values = flags.FlagValues()
    text = functools.partial(_text, values)
    presets = "; ".join(f"{name}: {preset.help}" for name, preset in grid.PRESETS.items())
    text("preset", "quick", f"What the other flags start from. {presets}.")
    text("out", "sweep", "Folder for OPTIMIZER.csv, continued where it exists, and OPTIMIZER.png.")
    text(
        "optimizer",
        "adam",
        "adam (Adam + L2 against AdamW), sgd (SGD + L2 against SGDW), lars, or any other of "
        "tf_decoupled that goes around none: its decoupled form alone.",
    )
    _arguments(values)
    _grid_flags(values)
    _data_flags(values)
    flags.DEFINE_integer(
        "workers",
        None,
        "Processes; by default one per core, or one with a GPU. No result depends on it.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "estimate",
        None,
        "Times a few updates first and says what the sweep will take; by default of paper.",
        flag_values=values,
    )
    return values


def _grid_flags(values: flags.FlagValues) -> None:
    text = functools.partial(_text, values)
    text("schedule", None, "Some of fixed,drop,cosine,restarts.")
    text("alphas", None, "Initial learning rates: 0.1,0.3 or a range by factor 2, 0.001:0.016.")
    text("lambdas", None, "Decays of both forms, 0 included or not: 0,0.00625:0.1.")
    text("l2s", None, "Decays of the coupled form, where they are to be others.")
    text("seeds", None, "Seeds of the whole grid: 0,1 or 0:4.")
    text(
        "coupling",
        None,
        "Decay of the decoupled form: "
        + ", ".join(grid.COUPLINGS)
        + ". By default the paper's, schedule.",
    )


def train() -> flags.FlagValues:
    values = flags.FlagValues()
    text = functools.partial(_text, values)
    _run_flags(values, "Any optimizer of tf_decoupled.")
    text("schedule", "cosine", "fixed, drop, cosine or restarts.")
    flags.DEFINE_float("warmup", 0.0, "Epochs of linear warm-up before it.", flag_values=values)
    text("strategy", "none", f"One of {', '.join(strategies.NAMES)}: see docs/distributed.md.")
    flags.DEFINE_integer(
        "replicas",
        None,
        "GPUs of mirrored, by default all; without a GPU, logical CPUs, to try it.",
        flag_values=values,
    )
    text("out", "train", "Folder for checkpoints, continued where there are any, and TensorBoard.")
    text("export", None, "Folder for a SavedModel with the signatures train and serve.")
    return values


def curves() -> flags.FlagValues:
    values = flags.FlagValues()
    known = ", ".join(of_curves.RATES)
    _run_flags(values, f"{known} have a rate and a decay here; others need --set learning_rate.")
    flags.DEFINE_float(
        "l2",
        None,
        "λ of the coupled form beside it, 0 for none; by default the small setting's.",
        flag_values=values,
    )
    description = "Folder for all runs, continued where there are any, and the PNG."
    _text(values, "out", "curves", description)
    return values


def plot() -> flags.FlagValues:
    values = flags.FlagValues()
    _text(values, "csv", "sweep/adam.csv", "The CSV of a sweep; the PNG goes beside it.")
    return values


def optimizers() -> flags.FlagValues:
    values = flags.FlagValues()
    values.set_gnu_getopt()  # the pattern may stand before or after the flags
    _text(values, "pattern", "*", 'As of file names: "*adam*"; capitals don\'t count.')
    flags.DEFINE_boolean("markdown", False, "As the page docs/optimizers.md.", flag_values=values)
    return values


def migrate() -> flags.FlagValues:
    values = flags.FlagValues()
    _text(values, "file", None, "A Python file, or a folder of them; may stand without its name.")
    return values
