"""Whether the conclusion of `make demo` depends on luck: its sweep again, from other seeds.

    python benchmarks/repeat_demo.py                    # six sweeps: 24 minutes on two cores
    python benchmarks/repeat_demo.py --sets 2 --epochs=1 --out=try

Each set has seeds of its own, as many as the preset. The first set is run once more with
TF_ENABLE_ONEDNN_OPTS=0: TensorFlow then adds in another order, and its floats differ as they do on
another processor. Flags that aren't listed go to `tf-decoupled sweep`. Sweeps are kept in --out,
and go on where they were stopped.

Prints the differences between the two forms side by side. Exit code 1: some sweep concludes
something else than the first.
"""

import argparse
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tf_decoupled.experiments import grid, optimizers, results, statistics, summary
from tf_decoupled.experiments.summary import Comparison

WIDTH = 27


class Run(NamedTuple):
    """A sweep of the seeds from `first` to `last`, with `environment` set."""

    first: int
    last: int
    environment: dict[str, str]

    @property
    def name(self) -> str:
        return f"seeds {self.first}:{self.last}" + ", no oneDNN" * bool(self.environment)


def runs(seeds: int, sets: int) -> list[Run]:
    """Disjoint sets of so many seeds, and the first again with other floats."""
    others = [Run(seeds * i, seeds * (i + 1) - 1, {}) for i in range(sets)]
    return [*others, others[0]._replace(environment={"TF_ENABLE_ONEDNN_OPTS": "0"})]


def swept(run: Run, folder: pathlib.Path, optimizer: str, flags: Sequence[str]) -> list[Comparison]:
    """What the command's sweep finds, in a process of its own; its last schedule's."""
    out = folder / run.name.replace(" ", "_").replace(",", "").replace(":", "-")
    command = [sys.executable, "-m", "tf_decoupled", "sweep", f"--optimizer={optimizer}"]
    command += [f"--seeds={run.first}:{run.last}", f"--out={out}", *flags]
    print(f"\n{run.name}: {' '.join(command[1:])}", flush=True)
    subprocess.run(command, check=True, env=os.environ | run.environment)
    settings, outcomes, *_ = results.read(out / f"{optimizer}.csv")
    schedule = settings.schedules[-1]
    maps = [statistics.error_map(settings, outcomes, f, schedule) for f in summary.FORMS]
    return summary.compare(maps)


def side_by_side(found: dict[str, list[Comparison]]) -> tuple[str, bool]:
    """The differences that each sweep found, as a table; and whether all say the same."""
    header, *_ = found.values()
    lines = [
        "".join(f"{text:{WIDTH}}" for text in ("difference", *(c.measure.label for c in header)))
    ]
    for name, comparisons in found.items():
        lines.append("".join(f"{text:{WIDTH}}" for text in (name, *(c.gap for c in comparisons))))
    same = [len({c.verdict for c in column}) == 1 for column in zip(*found.values(), strict=True)]
    for comparison, agreed in zip(header, same, strict=True):
        says = {1: "above 0", -1: "below 0", 0: "nothing is claimed"}[comparison.verdict]
        verdict = f"{says} in all {len(found)}" if agreed else "NOT THE SAME IN ALL"
        lines.append(f"{comparison.measure.label}: {verdict}")
    return "\n".join(line.rstrip() for line in lines), all(same)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", default="quick", choices=grid.PRESETS)
    parser.add_argument("--optimizer", default="sgd", choices=optimizers.PAIRS)
    parser.add_argument("--sets", type=int, default=5, help="how many sets of seeds")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("repeat_demo"))
    given, flags = parser.parse_known_args(arguments)
    if given.sets < 1:
        parser.error(f"--sets must be at least 1. Received: {given.sets}")
    seeds = len(grid.preset(given.preset, given.optimizer).seeds)
    flags.append(f"--preset={given.preset}")
    found = {
        run.name: swept(run, given.out, given.optimizer, flags) for run in runs(seeds, given.sets)
    }
    table, same = side_by_side(found)
    print(f"\n{table}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
