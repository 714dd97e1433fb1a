"""Which optimizer is worth a try: every one of the catalogue on seven small problems.

    python benchmarks/which_optimizer.py                        # all: 15 minutes on two cores
    python benchmarks/which_optimizer.py --only AdamW "*lion*"  # some of them
    python benchmarks/which_optimizer.py --problems quadratic saddle
    python benchmarks/which_optimizer.py --quick                # a tenth of the steps

Writes a table, `which_optimizer.md`, and a picture into --out, and goes on where it was stopped:
`runs.csv` there has a line for each run.

How: each optimizer, with its defaults and no weight decay, is run from several seeds at rates that
are 4 times one another around its default, as many for each. What counts is the mean of the seeds
at its best rate, after as many steps for each; rates fall to 0 in a straight line, but for methods
that average in place of that. ✓ means not worse than AdamW by more than two standard errors, ✗ that
it is. Variables that a method doesn't step, as vectors in Muon, go to an AdamW beside it. Steps of
methods that need more than a gradient count as one.

What it can't tell: these problems are small, budgets are short, and tuning is the rate alone. A
method that is for large batches, for long runs or for little memory shows nothing of that here.
"""

import argparse
import concurrent.futures
import csv
import fnmatch
import functools
import io
import json
import math
import multiprocessing
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(1, os.path.join(os.path.dirname(__file__), "..", "tests"))

import numpy as np
import pure
import tensorflow as tf
from small_problems import PROBLEMS, Problem, starts

import tf_decoupled as td

MEASURE = "AdamW"
EVERY = 10  # steps between two estimates of the Hessian
INSIDE = {"ScheduleFree": dict(beta_1=0.0)}  # of the AdamW that a wrapper goes around: its advice
HEADER = ("problem", "optimizer", "factor", "seed", "score")
Progress = Callable[[str], None]


# What is compared.


def names(patterns: Iterable[str] = ("*",)) -> list[str]:
    """The optimizers of the catalogue whose step is their own, AdamW first."""
    own = []
    for entry in td.list_optimizers():
        cls = getattr(td, entry.name)
        if not cls.defines("measure") and "members" not in cls.positional:
            own.append(entry.name)
    fits = lambda name: any(fnmatch.fnmatch(name.lower(), p.lower()) for p in patterns)  # noqa: E731
    return [MEASURE, *(name for name in own if fits(name) and name != MEASURE)]


class Rate:
    """The rate of a run, for optimizers that are given it as a callable: base · factor · fall."""

    def __init__(self, base: Any):
        self.base, self.now = base, None

    def begin(self, at: tf.Tensor, factor: tf.Tensor, fall: tf.Tensor) -> None:
        base = self.base(at) if callable(self.base) else self.base
        self.now = tf.cast(base, tf.float32) * factor * fall

    def __call__(self) -> tf.Tensor:
        return self.now


class Contestant:
    """A rule and, for the variables that it refuses, AdamW, each with its share of the rate."""

    def __init__(self, name: str):
        cls = getattr(td, name)
        wraps = "learning_rate" not in cls.positional
        default = (td.AdamW if wraps else cls).declared["learning_rate"].default
        self.rate, self.beside = Rate(default), Rate(td.AdamW.declared["learning_rate"].default)
        plain = dict(weight_decay=0.0)
        inner = td.AdamW(self.rate, **plain, **INSIDE.get(name, {})) if wraps else None
        self.rule = cls(inner) if wraps else cls(learning_rate=self.rate, **plain)
        self.adamw = td.AdamW(self.beside, **plain)
        self.observes = not wraps and self.rule.defines("observe")

    def begin(self, at: tf.Tensor, factor: tf.Tensor, steps: int) -> None:
        """The rates of a step. Methods that average keep theirs."""
        fall = 1.0 if self.rule.evaluates() else 1 - tf.cast(at, tf.float32) / steps
        for rate in (self.rate, self.beside):
            rate.begin(at, factor, fall)

    def parts(self, values: list) -> list[tuple[Any, list[int]]]:
        """The rules, and which variables are whose."""
        own = [i for i, p in enumerate(values) if self.rule.refuses(p) is None]
        others = [i for i in range(len(values)) if i not in own]
        return [part for part in ((self.rule, own), (self.adamw, others)) if part[1]]

    def fits(self, values: list) -> bool:
        return self.parts(values)[0][0] is self.rule


# One graph for all runs of a contestant on a problem.


def scores(name: str, problem: Problem) -> np.ndarray:
    """What counts, [rates, seeds]; inf where a run diverged, NaN where it isn't for the problem."""
    factors = 4.0 ** (np.arange(problem.rates) - problem.lower)
    values = starts(problem, problem.rates, range(problem.seeds))
    each = tf.constant(np.repeat(factors, problem.seeds), tf.float32)
    contestant = Contestant(name)
    if not contestant.fits([v[0] for v in values]):
        return np.full((problem.rates, problem.seeds), np.nan)
    found = trained(contestant, problem, values, each)[0].numpy().astype(float)
    found[~np.isfinite(found)] = np.inf
    return found.reshape(problem.rates, problem.seeds)


def trained(
    contestant: Contestant, problem: Problem, values: list[tf.Tensor], factors: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The scores of all runs after the last step, and the path of the first variable, if short."""
    loss, score = problem.make(problem.steps, problem.seeds)
    mapped = functools.partial(tf.vectorized_map, fallback_to_while_loop=False)
    is_short = values[0].shape[1:] == [2]

    def body(at: tf.Tensor, values: list, states: list, path: tf.TensorArray) -> tuple:
        seen = told(contestant, lambda values: loss(values, at), values, at)

        def one(run: tuple) -> tuple:
            contestant.begin(at, run[-1], problem.steps)
            return step(contestant, *run[:-1], at)

        after = mapped(one, (values, states, seen, factors))
        path = path.write(at, values[0]) if is_short else path
        return at + 1, *tf.nest.map_structure(_shaped, (values, states), after), path

    @tf.function(autograph=False)
    def loop(values: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        states = mapped(lambda run: begun(contestant, run), values)
        path = tf.TensorArray(tf.float32, problem.steps if is_short else 0)
        start = [0, values, states, path]
        _, values, states, path = tf.while_loop(lambda at, *_: at < problem.steps, body, start)
        values = mapped(lambda run: evaluated(contestant, *run), (values, states))
        return score(values), path.stack() if is_short else values[0]

    return loop.get_concrete_function(values)(values)  # TensorFlow warns of many traced calls


def told(contestant: Contestant, loss: Callable, values: list, at: tf.Tensor) -> dict[str, Any]:
    """What a step is told: losses, gradients, and estimates of the Hessian where they are used."""
    if not contestant.observes:
        losses, grads = differentiated(loss, values)
        return dict(loss=losses, grads=grads)
    with tf.GradientTape() as tape:
        tape.watch(values)
        losses, grads = differentiated(loss, values)
        signs = [_signs(g, at, i) for i, g in enumerate(grads)]
        along = [tf.reduce_sum(g * z) for g, z in zip(grads, signs, strict=True)]
    curved = tape.gradient(along, values, unconnected_gradients="zero")
    estimates = [z * c for z, c in zip(signs, curved, strict=True)]
    return dict(loss=losses, grads=grads, estimates=estimates)


def differentiated(loss: Callable, values: list) -> tuple[tf.Tensor, list]:
    with tf.GradientTape() as tape:
        tape.watch(values)
        losses = loss(values)
    return losses, [tf.convert_to_tensor(g) for g in tape.gradient(losses, values)]


def _signs(like: tf.Tensor, at: tf.Tensor, number: int) -> tf.Tensor:
    """Random signs, others at each step."""
    return tf.sign(tf.random.stateless_uniform(like.shape, [at, number], -1.0))


def _shaped(before: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(after, before.shape)


def begun(contestant: Contestant, values: list[tf.Tensor]) -> list[dict[str, Any]]:
    """Slots and shared scalars of each rule, before the first step of a run."""
    return [
        dict(
            slots=[pure.started(rule.init(values[i]), values[i], values[i].dtype) for i in own],
            shared=pure.shared_of(rule, values[0].dtype),
        )
        for rule, own in contestant.parts(values)
    ]


def step(contestant: Contestant, values: list, states: list, seen: dict, at: tf.Tensor) -> tuple:
    """One step of one run."""
    after, news = list(values), []
    for (rule, own), state in zip(contestant.parts(values), states, strict=True):
        mine = [[each[i] for i in own] for each in (values, seen["grads"])]
        shared = with_loss(state["shared"], seen["loss"])
        stepped, slots, shared, h = pure.step_all(rule, *mine, state["slots"], shared, at)
        if contestant.observes and rule is contestant.rule:
            slots = [
                observed(rule, values[i], seen["estimates"][i], s, h, at)
                for i, s in zip(own, slots, strict=True)
            ]
        news.append(dict(slots=slots, shared=shared))
        for i, value in zip(own, stepped, strict=True):
            after[i] = value
    return after, news


def with_loss(shared: dict[str, Any], loss: tf.Tensor) -> dict[str, Any]:
    """The scalars of a rule, with the loss for those that ask for it."""
    inside = lambda x: with_loss(x, loss) if isinstance(x, dict) else x  # noqa: E731
    return {name: loss if name == "loss" else inside(x) for name, x in shared.items()}


def observed(rule: Any, p: Any, e: Any, slots: dict, h: Any, at: tf.Tensor) -> dict[str, Any]:
    """Slots after an estimate of the Hessian, which counts at every tenth step."""
    new = rule.observe(p, e, pure.namespace(slots), h)
    due = at % EVERY == 0
    return tf.nest.map_structure(lambda a, b: tf.where(due, a, b), dict(new), dict(slots))


def evaluated(contestant: Contestant, values: list, states: list) -> list[tf.Tensor]:
    """The values that count: averages, where a rule has them."""
    after = list(values)
    for (rule, own), state in zip(contestant.parts(values), states, strict=True):
        for i, slots in zip(own, state["slots"], strict=True):
            if rule.evaluates():
                after[i] = rule.evaluation(values[i], pure.namespace(slots), None)
    return after


# The runs, each a line on the disk.


class Runs:
    """What has been computed: {(problem, optimizer): scores [rates, seeds]}, and its file."""

    def __init__(self, path: pathlib.Path, problems: dict[str, Problem]):
        self.path, self.problems = path, problems
        told = {name: numbers(problem) for name, problem in problems.items()}
        self.settings = "# which_optimizer " + json.dumps(told)
        self.found = self._read()

    def _read(self) -> dict[tuple[str, str], np.ndarray]:
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(f"{self.settings}\n{','.join(HEADER)}\n")
        content = self.path.read_text()
        whole = content[: content.rfind("\n") + 1]
        first, _, *lines = whole.splitlines() if whole.count("\n") > 1 else ["", ""]
        if first != self.settings:
            raise SystemExit(f"{self.path} holds other runs: choose another --out, or remove it.")
        if whole != content:
            self.path.write_text(whole)  # without the half line that a kill left
        cells: dict[tuple[str, str], dict] = {}
        for problem, optimizer, factor, seed, score in csv.reader(lines):
            cells.setdefault((problem, optimizer), {})[float(factor), int(seed)] = float(score)
        found = {}
        for key, scores in cells.items():
            shape = self.problems[key[0]].rates, self.problems[key[0]].seeds
            if len(scores) == math.prod(shape):  # else it was killed while it wrote
                found[key] = np.array([scores[each] for each in sorted(scores)]).reshape(shape)
        return found

    def add(self, problem: str, optimizer: str, scores: np.ndarray) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for (i, seed), score in np.ndenumerate(scores):
            factor = 4.0 ** (i - self.problems[problem].lower)
            writer.writerow((problem, optimizer, factor, seed, score))
        with self.path.open("a") as file:
            file.write(text.getvalue())
        self.found[problem, optimizer] = scores


def numbers(problem: Problem) -> dict[str, int]:
    """What a run costs, and what other runs can't be compared with."""
    return {n: getattr(problem, n) for n in ("steps", "rates", "lower", "seeds")}


def measured(name: str, problem: str, numbers: dict[str, int]) -> tuple[np.ndarray, float]:
    """Scores, and the seconds that they took."""
    begin = time.perf_counter()
    found = scores(name, PROBLEMS[problem]._replace(**numbers))
    return found, time.perf_counter() - begin


def one_thread() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def compute(runs: Runs, wanted: list[tuple[str, str]], workers: int) -> None:
    """Computes what is missing, in processes of one thread each; 0 workers: in this one."""
    missing = [each for each in wanted if each not in runs.found]
    for i, (problem, name, outcome) in enumerate(outcomes(runs, missing, workers), 1):
        if isinstance(outcome, Exception):
            why = "".join(traceback.format_exception_only(outcome)).strip().splitlines()[0]
            print(f"{name} on {problem} failed: {why}", flush=True)
            continue
        runs.add(problem, name, outcome[0])
        print(f"[{i}/{len(missing)}] {name} on {problem}: {outcome[1]:.1f} s", flush=True)


def outcomes(runs: Runs, missing: list, workers: int) -> Iterator[tuple[str, str, Any]]:
    if not workers:
        for problem, name in missing:
            try:
                yield problem, name, measured(name, problem, numbers(runs.problems[problem]))
            except Exception as error:  # the others go on, as with workers
                yield problem, name, error
        return
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, spawn, one_thread) as pool:
        tasks = {
            pool.submit(measured, name, p, numbers(runs.problems[p])): (p, name)
            for p, name in missing
        }
        for task in concurrent.futures.as_completed(tasks):
            yield *tasks[task], task.exception() or task.result()


# What comes of them.


class Best(NamedTuple):
    """The best rate of an optimizer on a problem: mean and standard error over seeds."""

    factor: float
    mean: float
    error: float

    def passes(self, other: "Best") -> bool:
        """Whether it isn't worse than the other by more than two standard errors."""
        if not math.isfinite(self.mean):
            return False
        return self.mean - other.mean <= 2 * math.hypot(self.error, other.error)


def best(scores: np.ndarray, problem: Problem) -> Best | None:
    """None where the optimizer isn't for the problem."""
    if np.isnan(scores).any():
        return None
    each = np.log10(np.maximum(scores, 1e-12)) if problem.log else scores
    means = each.mean(1)
    i = int(np.argmin(means))
    error = each[i].std(ddof=1) / math.sqrt(problem.seeds) if math.isfinite(means[i]) else math.inf
    return Best(4.0 ** (i - problem.lower), float(means[i]), float(error))


def table_of(runs: Runs, problems: list[str], optimizers: list[str]) -> dict[str, list]:
    """For each optimizer its `Best`, None or "" (not computed) on each problem."""
    return {
        name: [
            best(runs.found[p, name], runs.problems[p]) if (p, name) in runs.found else ""
            for p in problems
        ]
        for name in optimizers
    }


def ranked(table: dict[str, list]) -> list[str]:
    """By the share of problems passed, AdamW's own included."""

    def share(name: str) -> float:
        pairs = zip(table[name], table[MEASURE], strict=True)
        marks = [b.passes(a) for b, a in pairs if isinstance(b, Best) and isinstance(a, Best)]
        return sum(marks) / len(marks) if marks else 0.0

    return sorted(table, key=lambda name: (-share(name), name.lower()))


def cell(found: Any, measure: Any) -> str:
    if not isinstance(found, Best):
        return "–" if found is None else ""
    if not math.isfinite(found.mean):
        return "diverged ✗"
    mark = "" if not isinstance(measure, Best) else " ✓" if found.passes(measure) else " ✗"
    return f"{found.mean:.2f} ± {found.error:.2f}, ×{found.factor:.3g}{mark}"


def markdown(runs: Runs, problems: list[str], table: dict[str, list]) -> str:
    scale = {p: "log₁₀ of the loss" if runs.problems[p].log else "loss" for p in problems}
    lines = [f"- {p}: {runs.problems[p].what}, {scale[p]}" for p in problems]
    lines += ["", "Loss ± standard error, and the rate as a multiple of the default.", ""]
    lines += ["| optimizer | " + " | ".join(problems) + " |", "|---" * (len(problems) + 1) + "|"]
    for name in ranked(table):
        cells = [cell(b, a) for b, a in zip(table[name], table[MEASURE], strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(runs: Runs, problems: list[str], table: dict[str, list], path: pathlib.Path) -> None:
    """Each optimizer's loss less AdamW's: blue is better, red is worse, grey not for it."""
    from matplotlib.figure import Figure

    order = ranked(table)
    figure = Figure(figsize=(2 + 1.1 * len(problems), 1.2 + 0.2 * len(order)), layout="constrained")
    ax = figure.subplots()
    ax.set_facecolor("0.9")
    difference = np.full((len(order), len(problems)), np.nan)
    for i, name in enumerate(order):
        for j, (b, a) in enumerate(zip(table[name], table[MEASURE], strict=True)):
            if isinstance(b, Best) and isinstance(a, Best):
                reach = 2.0 if runs.problems[problems[j]].log else max(0.2 * a.mean, 1e-9)
                difference[i, j] = np.clip((b.mean - a.mean) / reach, -1, 1)
                shown = f"{b.mean:.2f}" if math.isfinite(b.mean) else "diverged"
                ax.text(j, i, shown, ha="center", va="center", fontsize=6)
    ax.imshow(difference, cmap="RdBu_r", vmin=-1.5, vmax=1.5, aspect="auto")
    ax.set_xticks(range(len(problems)), problems, fontsize=7, rotation=20)
    ax.set_yticks(range(len(order)), order, fontsize=7)
    ax.xaxis.tick_top()
    ax.set_title(
        "Loss at the best rate (log₁₀ but for the networks); red: worse than AdamW", size=8
    )
    figure.savefig(path, dpi=100)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=["*"], help="names, or patterns: *adam*")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps, to try it")
    parser.add_argument("--out", default="which_optimizer", help="folder of results")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    for pattern in given.only:
        td.list_optimizers(pattern)  # raises, with suggestions
    problems = dict(PROBLEMS)
    if given.quick:
        problems = {n: p._replace(steps=p.steps // 10, seeds=2) for n, p in problems.items()}
    out = pathlib.Path(given.out)
    runs = Runs(out / ("quick.csv" if given.quick else "runs.csv"), problems)
    optimizers = names(given.only)
    compute(runs, [(p, name) for name in optimizers for p in given.problems], given.workers)
    table = table_of(runs, given.problems, optimizers)
    written = markdown(runs, given.problems, table)
    print(f"\n{written}")
    (out / "which_optimizer.md").write_text(written)
    draw(runs, given.problems, table, out / "which_optimizer.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
