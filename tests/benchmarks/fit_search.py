"""What a search of any number of clips would cost: lines through what `bench_search.py` measured at some sizes.

    for n in 5000 50000 250000; do
        python tests/benchmarks/bench_search.py --corpus CORPUS --index certified --videos $n --json $n.json
    done
    python tests/benchmarks/bench_search.py --corpus CORPUS --index certified --json all.json
    python tests/benchmarks/fit_search.py 5000.json 50000.json 250000.json --held_out all.json

Each way of searching gets a line for each of its figures: seconds = a + b * clips, such that relative errors are least
and neither a nor b is negative. A run that is held out is foretold by the lines, and the error shown. The table says
what the lines give for `--clips`, on one machine like that of the runs and on each of `--nodes` that share the clips
and search at once: the slowest answers last, and merging answers is not in it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.common import format_table
from utils.basic_utils import InputError, command_line, read_json

SIZES = (100_000_000, 1_000_000_000)
NODES = (1, 16)


@dataclass(frozen=True)
class Line:
    """seconds = fixed + per_clip * clips."""

    fixed: float
    per_clip: float

    @classmethod
    def through(cls, points: Sequence[tuple[int, float]]) -> Line:
        """The line of least relative errors through (clips, seconds), neither of whose parts is negative."""
        clips, seconds = np.array(points, np.float64).T
        best, error = None, np.inf
        for kept in ([0, 1], [1], [0]):  # parts that are not 0
            table = np.stack([np.ones_like(clips), clips], axis=1)[:, kept] / seconds[:, None]
            parts = np.zeros(2)
            parts[kept] = np.linalg.lstsq(table, np.ones_like(seconds), rcond=None)[0]
            off = float(np.square(table @ parts[kept] - 1).sum())
            if (parts >= 0).all() and off < error:
                best, error = cls(*parts.tolist()), off
        assert best is not None  # one part alone is a mean of positive numbers
        return best

    def at(self, clips: float) -> float:
        return self.fixed + self.per_clip * clips

    def __str__(self) -> str:
        return f"{_seconds(self.fixed)} + {_seconds(1e6 * self.per_clip)} a million"


def figures_of(path: Path) -> dict[str, tuple[int, float]]:
    """{what was done: (clips, seconds)} of a run."""
    run: Any = read_json(path)
    try:
        clips = int(run["settings"]["clips"])
        return {row["work"]: (clips, float(row["timing"]["seconds"])) for row in run["rows"]}
    except (KeyError, TypeError, ValueError) as err:
        raise InputError(f"{path}: is not what bench_search.py writes: give its --json") from err


def _seconds(value: float) -> str:
    if value < 1:
        return f"{1e3 * value:.3g} ms"
    return f"{value:.3g} s" if value < 6000 else f"{value / 3600:.3g} h"


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN.json", help="of several sizes")
    add("--held_out", nargs="*", type=Path, default=[], metavar="RUN.json", help="to compare with what is foretold")
    add("--clips", nargs="*", type=int, default=list(SIZES), help="sizes that are foretold")
    add("--nodes", nargs="*", type=int, default=list(NODES), help="machines that share the clips")
    args = parser.parse_args(argv)
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for path in args.runs:
        for work, point in figures_of(path).items():
            points[work].append(point)
    lines = {work: Line.through(measured) for work, measured in points.items()}
    held_out = [figures_of(path) for path in args.held_out]
    columns = [(clips, nodes) for clips in args.clips for nodes in args.nodes]
    head = ["work", "line", *(f"held out: {next(iter(run.values()))[0]:,} clips" for run in held_out)]
    table = [[*head, *(f"{clips:,} clips, {nodes} nodes" for clips, nodes in columns)]]
    for work, line in lines.items():
        told = [_foretold(line, *run[work]) if work in run else "–" for run in held_out]
        table.append([work, str(line), *told, *(_seconds(line.at(clips / nodes)) for clips, nodes in columns)])
    print(format_table(table))


def _foretold(line: Line, clips: int, seconds: float) -> str:
    expected = line.at(clips)
    return f"{_seconds(seconds)} measured, {_seconds(expected)} foretold ({100 * (expected / seconds - 1):+.0f} %)"


if __name__ == "__main__":
    main()
