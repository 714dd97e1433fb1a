"""The command `tf-decoupled`: its verbs, their flags, and what a wrong one is answered with."""

import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple, NoReturn

import tensorflow as tf
from absl import app, flags, logging

import tf_decoupled as td
from tf_decoupled.experiments import curves, files, grid, options, own, strategies, terminal
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


def _dataset(values: flags.FlagValues) -> str | None:
    if values.data is None:
        return values.dataset
    if values.dataset is not None:
        raise InputError("Give one of --data and --dataset.")
    if not own.is_own(values.data):
        raise InputError(f"--data looks like module:function. Received: {values.data!r}")
    return values.data


def _sweep(values: flags.FlagValues) -> None:
    given = {
        name: getattr(values, name)
        for name in ("coupling", "data_dir", "model", "epochs", "batch_size", "examples")
    }
    given |= {"dataset": _dataset(values), "arguments": tuple(values.set)}
    for field, text in (
        ("alphas", values.alphas),
        ("weight_decays", values.lambdas),
        ("l2s", values.l2s),
    ):
        given[field] = None if text is None else grid.rates(field, text)
    given["seeds"] = None if values.seeds is None else grid.integers("seeds", values.seeds)
    if values.schedule is not None:
        given["schedules"] = tuple(filter(None, values.schedule.split(",")))
    settings = grid.preset(values.preset, values.optimizer, **given)
    estimated = values.preset == "paper" if values.estimate is None else values.estimate
    sweep(settings, Path(values.out), values.workers, estimated=estimated)


def _quiet() -> None:
    for logger in (logging.get_absl_logger(), tf.get_logger()):
        logger.setLevel("WARNING")  # TensorFlow reports every collective and every checkpoint.


def _run(values: flags.FlagValues) -> Run:
    """The run that the flags describe: those of them that there are, and that are given."""
    names = {field.name for field in fields(Run)} & {*values}
    given = {name: getattr(values, name) for name in names - {"dataset"}}
    given["dataset"] = _dataset(values)
    return Run(arguments=tuple(values.set), **{k: v for k, v in given.items() if v is not None})


def _deterministic(seed: int) -> None:
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(seed)


def _train(values: flags.FlagValues) -> None:
    _quiet()
    run = _run(values)
    strategy = strategies.make(values.strategy, values.replicas)
    _deterministic(run.seed)
    export = None if values.export is None else Path(values.export)
    try:
        train(run, Path(values.out), export, strategy=strategy)
    except files.PEER_HAS_GONE as error:
        raise WorkerError("Another process of the cluster has gone.") from error


def _curves(values: flags.FlagValues) -> None:
    _quiet()
    run = _run(values)
    _deterministic(run.seed)
    curves.curves(run, Path(values.out), values.l2)


def _plot(values: flags.FlagValues) -> None:
    plot(Path(values.csv))


def _optimizers(values: flags.FlagValues) -> None:
    try:
        found = td.list_optimizers(values.pattern)
    except ValueError as error:
        raise InputError(str(error)) from error
    print(found.markdown() if values.markdown else found, end="" if values.markdown else "\n")


def _migrate(values: flags.FlagValues) -> None:
    if values.file is None:
        raise InputError("migrate needs a file: tf-decoupled migrate FILE.py")
    sys.exit(command.check([values.file]))


VERBS = {
    "sweep": Verb(
        "Figures 1 and 2 of the AdamW paper: a map of test errors over rate and decay.",
        options.sweep,
        _sweep,
    ),
    "train": Verb(
        "Trains one model with one optimizer; can be interrupted, logs and exports.",
        options.train,
        _train,
    ),
    "curves": Verb(
        "Learning curves of Adam + L2, AdamW and AdamWR, or of SGD: the paper's figures 3 and 4.",
        options.curves,
        _curves,
    ),
    "plot": Verb("The figure and summary of a sweep again, from its CSV.", options.plot, _plot),
    "optimizers": Verb(
        "Lists the optimizers: what each is, whose, and how much state it keeps.",
        options.optimizers,
        _optimizers,
        unnamed="pattern",
    ),
    "migrate": Verb(
        "Tells what to write in place of other optimizers in Python files; changes nothing.",
        options.migrate,
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
        text = f"{spelled:14}  {flag.help.splitlines()[0].rstrip(';')}{default}"
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
        _, *surplus = values([name, *_spelled(given, values)])
    except flags.Error as error:
        _refuse(f"{str(error).splitlines()[0]} (tf-decoupled {name} --help lists the flags.)")
    if len(surplus) == 1 and VERBS[name].unnamed and not values[VERBS[name].unnamed].present:
        values[VERBS[name].unnamed].value, surplus = surplus[0], []
    if len(surplus) > 1 and VERBS[name].unnamed:
        _refuse(f"{name} takes one {VERBS[name].unnamed}. Received: {' '.join(surplus)}")
    if surplus:
        _refuse(f"Flags look like --name=value. Received: {' '.join(surplus)}")
    return values


def _spelled(given: Sequence[str], values: flags.FlagValues) -> Iterator[str]:
    """--data-dir=x-y as absl spells it, --data_dir=x-y; values stay as they are."""
    is_value = False
    for argument in given:
        match = re.fullmatch(r"--?([A-Za-z][\w-]*)(=.*)?", argument, re.DOTALL)
        if is_value or not match:
            is_value = False
            yield argument
            continue
        name = match[1].replace("-", "_")
        is_value = match[2] is None and name in values and not values[name].boolean
        yield f"--{name}{match[2] or ''}"


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
    """What `tf_decoupled_command` and `python -m tf_decoupled` call."""
    terminal.spell_out()
    with terminal.output():
        app.run(main, flags_parser=parse)
