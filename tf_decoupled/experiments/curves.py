"""Learning curves as in the paper's figures 3 and 4: L2, decoupled decay, and warm restarts."""

import io
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tf_decoupled.experiments import files, loop, optimizers
from tf_decoupled.experiments.errors import InputError
from tf_decoupled.experiments.train import Run, train

PANELS = {"train_loss": "training loss", "validation_error": "validation error, %"}
# What is good at the small setting: a rate, the decay times √(number of updates), and the λ of L2.
RATES = {"AdamW": 0.004, "SGDW": 0.1}
ARGUMENTS = {"SGDW": ("momentum=0.9",)}
NORMALIZED_DECAY = 0.3
L2S = {"AdamW": 0.1, "SGDW": 0.02}

Curves = dict[str, dict[int, float]]  # of each tag, by epoch


class Curve(NamedTuple):
    """What is drawn as one line: its title, the run, and the name of its folder."""

    title: str
    run: Run
    folder: str


def planned(run: Run, l2: float | None = None) -> list[Curve]:
    """The lines beside each other: the coupled form where there is one, one cosine, restarts.

    `l2` is the λ of the coupled form: `L2S` unless given, and 0 for no such line.
    """
    run, name = _with_defaults(run), run.optimizer
    lines = [
        Curve(f"{name}, one cosine", replace(run, schedule="cosine"), f"{name}_cosine"),
        Curve(f"{name}R, warm restarts", replace(run, schedule="restarts"), f"{name}_restarts"),
    ]
    l2 = L2S.get(name, 0.0) if l2 is None else l2
    if not l2:
        return lines
    coupled = optimizers.forms(optimizers.swept(name)).get("coupled")
    if coupled is None:
        raise InputError(f"{name} has no coupled form: leave --l2 out. Received: {l2}")
    with_l2 = dict(arguments=(*run.arguments, f"{coupled.decay}={l2}"), normalized_decay=None)
    other = replace(lines[0].run, optimizer=coupled.optimizer.__name__, **with_l2)
    return [Curve(f"{coupled.title} of {l2:g}, one cosine", other, f"{name}_l2"), *lines]


def curves(run: Run, out: Path, l2: float | None = None) -> Path:
    """Trains what is `planned`, each line in a folder of `out`; draws and sums up.

    What is finished in `out` is not computed again. Returns the path of the PNG.
    """
    lines, found = planned(run, l2), {}
    for line in lines:
        print(f"{line.title}:")
        error = train(line.run, out / line.folder)
        found[line.title] = logged(out / line.folder / "tensorboard"), error
    picture = out / f"{run.optimizer}.png"
    draw({title: each for title, (each, _) in found.items()}, lines[-1].run, picture)
    for title, (_, error) in found.items():
        print(f"{title}: test error {100 * error:.2f} %")
    print(f"One seed: the difference is no result.\nPicture: {picture}")
    return picture


def _with_defaults(run: Run) -> Run:
    """The run with rate and decay where they aren't given."""
    texts = {text.partition("=")[0].strip() for text in run.arguments}
    if "learning_rate" not in texts and run.optimizer not in RATES:
        raise InputError(f"{run.optimizer} needs a rate: --set learning_rate=0.01.")
    further = [f"learning_rate={RATES.get(run.optimizer)}", *ARGUMENTS.get(run.optimizer, ())]
    further = [text for text in further if text.partition("=")[0] not in texts]
    decay = NORMALIZED_DECAY if run.normalized_decay is None else run.normalized_decay
    return replace(run, arguments=(*further, *run.arguments), normalized_decay=decay)


def logged(folder: Path) -> Curves:
    """The curves in the TensorBoard files of a run; what was computed again counts once."""
    found: Curves = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime):
        for event in _events(path):
            for value in event.summary.value:
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(value.tag, {})[event.step] = number
    return found


def _events(path: Path) -> list:
    events = []
    try:
        for record in tf.data.TFRecordDataset([str(path)]).as_numpy_iterator():
            events.append(tf.compat.v1.Event.FromString(record))
    except tf.errors.DataLossError:  # its last record is half-written: the run was killed
        pass
    return events


def draw(found: dict[str, Curves], run: Run, path: Path) -> None:
    """Writes the PNG: training loss and validation error over the epochs, restarts as lines."""
    figure = Figure(figsize=(9, 3.6), dpi=160, layout="constrained")
    for ax, (tag, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for name, each in found.items():
            epochs, values = zip(*sorted(each[tag].items()), strict=True)
            scale = 100 if tag.endswith("error") else 1
            ax.plot(epochs, [scale * value for value in values], label=name, linewidth=1.4)
        for restart in restarts(run.epochs):
            ax.axvline(restart, color="0.7", linewidth=0.8, linestyle=":")
        ax.set(xlabel="epoch", ylabel=title, yscale="log")
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        ax.yaxis.set(major_formatter=plain, minor_formatter=plain)
    ax.legend(frameon=False)
    figure.suptitle(
        f"{run.dataset}, {run.model}, seed {run.seed}, normalized decay {run.normalized_decay}",
        fontsize=10,
    )
    content = io.BytesIO()
    figure.savefig(content, format="png")
    files.replace(path, content.getvalue())


def restarts(epochs: int) -> list[float]:
    """After how many epochs the rate is back at its peak."""
    first = epochs / (2**loop.CYCLES - 1)
    return [first * (2**i - 1) for i in range(1, loop.CYCLES)]
