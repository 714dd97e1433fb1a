"""The command `tf-decoupled`: its verbs, their flags, and what a wrong one is answered with."""

import functools
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import tensorflow as tf
from absl import app, flags, logging

import tf_decoupled as td
from tf_decoupled.experiments import data, grid, models, strategies
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.sweep import plot, sweep
from tf_decoupled.experiments.train import Run, train
from tf_decoupled.experiments.worker import WorkerError
from tf_decoupled.migrate import command

HELP_FLAGS = ("-h", "-help", "--help", "help")
INTERRUPTED = 130
WIDTH = 100
SAVED = "What is finished is saved; the same command continues."


class Verb(NamedTuple):
    """What `tf-decoupled NAME` does. `flags` defines its flags; `run` gets their values."""

    help: str
    flags: Callable[[], flags.FlagValues]
    run: Callable[[flags.FlagValues], None]
    unnamed: str | None = None  # the flag whose value may stand without its name


def _text(values: flags.FlagValues, name: str, default: str | None, description: str) -> None:
    flags.DEFINE_string(name, default, description, flag_values=values)


def _data_flags(values: flags.FlagValues) -> None:
    names = {"dataset": data.NAMES, "model": models.NAMES}
    for name, known in names.items():
        _text(values, name, None, f"One of {', '.join(known)}.")
    _text(values, "data_dir", None, "Folder of the data of fashion_mnist or cifar10.")
    flags.DEFINE_integer("epochs", None, "Passes over the training images.", flag_values=values)
    flags.DEFINE_integer("batch_size", None, "Images per update.", flag_values=values)


def _sweep_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    text = functools.partial(_text, values)
    presets = "; ".join(f"{name}: {preset.help}" for name, preset in grid.PRESETS.items())
    text("preset", "quick", f"What the other flags start from. {presets}.")
    text("out", "sweep", "Folder for OPTIMIZER.csv, continued where it exists, and OPTIMIZER.png.")
    text("optimizer", "adam", "adam (Adam + L2 against AdamW) or sgd (SGD + L2 against SGDW).")
    text("schedule", None, "Some of fixed,drop,cosine.")
    text("alphas", None, "Initial learning rates: 0.1,0.3 or a range by factor 2, 0.001:0.016.")
    text("lambdas", None, "Decays of both forms, 0 included or not: 0,0.00625:0.1.")
    text("l2s", None, "Decays of the coupled form, where they are to be others.")
    text("seeds", None, "Seeds of the whole grid: 0,1 or 0:4. Intervals need three.")
    text(
        "coupling",
        None,
        "Decay of the decoupled form: "
        + ", ".join(grid.COUPLINGS)
        + ". By default the paper's, schedule.",
    )
    _data_flags(values)
    flags.DEFINE_integer(
        "workers",
        None,
        "Processes; by default one per core, or one with a GPU. No result depends on it.",
        flag_values=values,
    )
    return values


def _train_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    text = functools.partial(_text, values)
    text("optimizer", "AdamW", "Any optimizer of tf_decoupled.")
    flags.DEFINE_multi_string(
        "set",
        [],
        "An argument of the optimizer: --set weight_decay=0.1",
        flag_values=values,
    )
    text("schedule", "cosine", "fixed, drop or cosine.")
    flags.DEFINE_float("warmup", 0.0, "Epochs of linear warm-up before it.", flag_values=values)
    _data_flags(values)
    flags.DEFINE_integer("seed", 0, "Of weights and order.", flag_values=values)
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


def _plot_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    _text(values, "csv", "sweep/adam.csv", "The CSV of a sweep; the PNG goes beside it.")
    return values


def _optimizers_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    values.set_gnu_getopt()  # the pattern may stand before or after the flags
    _text(values, "pattern", "*", 'As of file names: "*adam*"; capitals don\'t count.')
    flags.DEFINE_boolean("markdown", False, "As the page docs/optimizers.md.", flag_values=values)
    return values


def _sweep(values: flags.FlagValues) -> None:
    given = {
        name: getattr(values, name)
        for name in ("coupling", "dataset", "data_dir", "model", "epochs", "batch_size")
    }
    lambdas = values.lambdas
    for field, text in (
        ("alphas", values.alphas),
        ("weight_decays", lambdas),
        ("l2s", lambdas if values.l2s is None else values.l2s),
    ):
        given[field] = None if text is None else grid.rates(field, text)
    given["seeds"] = None if values.seeds is None else grid.integers("seeds", values.seeds)
    if values.schedule is not None:
        given["schedules"] = tuple(filter(None, values.schedule.split(",")))
    settings = grid.preset(values.preset, values.optimizer, **given)
    sweep(settings, Path(values.out), values.workers)


def _train(values: flags.FlagValues) -> None:
    for logger in (logging.get_absl_logger(), tf.get_logger()):
        logger.setLevel("WARNING")  # TensorFlow reports every collective and every checkpoint.
    strategy = strategies.make(values.strategy, values.replicas)
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(values.seed)
    names = (
        "dataset",
        "data_dir",
        "model",
        "epochs",
        "batch_size",
        "optimizer",
        "schedule",
        "warmup",
        "seed",
    )
    given = {name: getattr(values, name) for name in names}
    run = Run(arguments=tuple(values.set), **{k: v for k, v in given.items() if v is not None})
    export = None if values.export is None else Path(values.export)
    try:
        train(run, Path(values.out), export, strategy=strategy)
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        raise WorkerError("Another process of the cluster has gone.") from error


def _plot(values: flags.FlagValues) -> None:
    plot(Path(values.csv))


def _optimizers(values: flags.FlagValues) -> None:
    try:
        found = td.list_optimizers(values.pattern)
    except ValueError as error:
        raise InputError(str(error)) from error
    print(found.markdown() if values.markdown else found, end="" if values.markdown else "\n")


def _migrate_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    _text(values, "file", None, "A Python file, or a folder of them; may stand without its name.")
    return values


def _migrate(values: flags.FlagValues) -> None:
    if values.file is None:
        raise InputError("migrate needs a file: tf-decoupled migrate FILE.py")
    sys.exit(command.check([values.file]))


VERBS = {
    "sweep": Verb(
        "Figures 1 and 2 of the AdamW paper: a map of test errors over rate and decay.",
        _sweep_flags,
        _sweep,
    ),
    "train": Verb(
        "Trains one model with one optimizer; can be interrupted, logs and exports.",
        _train_flags,
        _train,
    ),
    "plot": Verb("The figure and summary of a sweep again, from its CSV.", _plot_flags, _plot),
    "optimizers": Verb(
        "Lists the optimizers: what each is, whose, and how much state it keeps.",
        _optimizers_flags,
        _optimizers,
        unnamed="pattern",
    ),
    "migrate": Verb(
        "Tells what to write in place of other optimizers in Python files; changes nothing.",
        _migrate_flags,
        _migrate,
        unnamed="file",
    ),
}


def overview() -> str:
    verbs = "\n".join(f"  {name:12}{verb.help}" for name, verb in VERBS.items())
    return (
        f"usage: tf-decoupled VERB [--flag=value ...]\n\n{verbs}\n\n"
        "tf-decoupled VERB --help lists the flags of a verb."
    )


def verb_help(name: str) -> str:
    """The verb's own flags, each with its description and default."""
    values = VERBS[name].flags()
    lines = [f"usage: tf-decoupled {name} [--flag=value ...]", "", VERBS[name].help, ""]
    for flag in (values[each] for each in values):
        default = f" [{flag.default}]" if flag.default not in (None, []) else ""
        spelled = f"--{flag.name.replace('_', '-')}"
        text = f"{spelled:14}  {flag.help.splitlines()[0]}{default}"
        indents = dict(initial_indent="  ", subsequent_indent=" " * 18)
        lines.append(textwrap.fill(text, WIDTH, break_on_hyphens=False, **indents))
    return "\n".join(lines)


def parse(arguments: Sequence[str]) -> list[str]:
    """The command line, once it is known to name a verb and to give its flags rightly.

    Prints help and exits with 0, or one line on a mistake and exits with 2.
    """
    flags.FLAGS(arguments[:1])  # absl's own flags keep their defaults.
    _, name, *given = arguments if len(arguments) > 1 else [*arguments, "--help"]
    if name in HELP_FLAGS:
        print(overview())
        sys.exit(0)
    if name not in VERBS:
        _refuse(f"Unknown verb {name!r}. Known: {', '.join(VERBS)}.")
    if any(argument in HELP_FLAGS for argument in given):
        print(verb_help(name))
        sys.exit(0)
    _values(name, given)
    return list(arguments)


def _values(name: str, given: Sequence[str]) -> flags.FlagValues:
    """The values of a verb's flags; exits with 2 on an unknown flag or an unreadable value."""
    values = VERBS[name].flags()
    try:
        _, *surplus = values([name, *map(_underscored, given)])
    except flags.Error as error:
        _refuse(f"{str(error).splitlines()[0]} (tf-decoupled {name} --help lists the flags.)")
    if len(surplus) == 1 and VERBS[name].unnamed and not values[VERBS[name].unnamed].present:
        values[VERBS[name].unnamed].value, surplus = surplus[0], []
    if surplus:
        _refuse(f"Flags look like --name=value. Received: {' '.join(surplus)}")
    return values


def _underscored(argument: str) -> str:
    """--data-dir=x-y as absl spells it, --data_dir=x-y."""
    dashes, name, rest = re.fullmatch(r"(-*)([\w-]*)(.*)", argument, re.DOTALL).groups()
    return "--" + name.replace("-", "_") + rest if dashes and name else argument


def _refuse(line: str) -> NoReturn:
    print(f"tf-decoupled: {line}", file=sys.stderr)
    sys.exit(2)


def main(arguments: Sequence[str]) -> None:
    """Runs what `parse` has let through. The user's mistakes are one line and exit code 2."""
    _, name, *given = arguments
    values = _values(name, given)
    try:
        VERBS[name].run(values)
    except InputError as error:
        _refuse(" ".join(str(error).split()))
    except WorkerError as error:
        print(f"\ntf-decoupled: {error}\n{SAVED}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\nStopped. {SAVED}", file=sys.stderr)
        sys.exit(INTERRUPTED)


def run() -> None:
    """The console script's entry point."""
    app.run(main, flags_parser=parse)
