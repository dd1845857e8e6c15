"""What every benchmark shares: the yardstick, timing, the machine's description, the table and its JSON."""

from __future__ import annotations

import argparse
import math
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from utils.basic_utils import InputError, write_json
from utils.model_utils import available_cpus, choose_device

T = TypeVar("T")

UNIT_SIZE = 2048  # one unit: the time of a UNIT_SIZE x UNIT_SIZE x UNIT_SIZE float32 matrix product
MACS_PER_UNIT = 2048**3
UNIT_REPEATS = 5
UNSTEADY = 1.25  # units before and after a measurement that differ by more than this factor: somebody else was busy
_MAXRSS_PER_GB = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts bytes, Linux KiB
OUT = Path(__file__).resolve().parent / "out"


class AnswersDiffer(Exception):  # noqa: N818 (a finding about the program, not an error of the caller's)
    """The fast way and the straightforward way do not agree: a bug, whatever the timings."""


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_unit(device: torch.device) -> float:
    """Seconds of one unit on this device, with all threads: the median of a few."""
    a, b = (torch.randn(UNIT_SIZE, UNIT_SIZE, device=device) for _ in range(2))
    torch.matmul(a, b)
    return statistics.median(_seconds(lambda: torch.matmul(a, b), device)[0] for _ in range(UNIT_REPEATS))


def _seconds(work: Callable[[], T], device: torch.device) -> tuple[float, T]:
    synchronize(device)
    start = time.perf_counter()
    result = work()
    synchronize(device)
    return time.perf_counter() - start, result


@dataclass(frozen=True)
class Timing:
    """A measured time and the yardstick around it, all in seconds."""

    seconds: float
    unit_before: float
    unit_after: float

    @property
    def unit(self) -> float:
        return (self.unit_before + self.unit_after) / 2

    @property
    def units(self) -> float:
        return self.seconds / self.unit

    @property
    def unsteady(self) -> bool:
        low, high = sorted((self.unit_before, self.unit_after))
        return high > UNSTEADY * low

    def per(self, n: int) -> Timing:
        """The share of one of `n` equal pieces of work."""
        return Timing(self.seconds / n, self.unit_before, self.unit_after)


class Stopwatch:
    """Measures work on a device, with the yardstick before and after it.

    Args:
        device: where the work runs.
        repeats: how often it is measured, unless said otherwise; the median counts.
    """

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device = device
        self.repeats = repeats

    def time(self, work: Callable[[], T], repeats: int | None = None, warm_up: bool = True) -> tuple[Timing, T]:
        """Measure `work`; returns its timing and what its last run returned."""
        if warm_up:
            work()
        before = measure_unit(self.device)
        runs = [_seconds(work, self.device) for _ in range(repeats or self.repeats)]
        after = measure_unit(self.device)
        return Timing(statistics.median(seconds for seconds, _ in runs), before, after), runs[-1][1]


def peak_memory_gb(device: torch.device | None = None) -> float:
    """Most memory that this process has had so far: resident, or that of torch on a CUDA device."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MAXRSS_PER_GB


def peak_child_memory_gb() -> float:
    """Most resident memory that any child process of this one has had; pages shared with it count as well."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / _MAXRSS_PER_GB


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    machine: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": available_cpus(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    return machine


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass
class Row:
    """One line of a report.

    Attributes:
        work: what was done.
        timing: how long one piece of it took.
        rate: pieces of `noun` a second.
        noun: what throughput counts.
        floor: units that its multiply-adds take at the yardstick's speed; None where arithmetic is not the cost.
        note: whether answers were compared, memory, and the like.
    """

    work: str
    timing: Timing
    rate: float
    noun: str
    floor: float | None
    note: str

    def cells(self) -> list[str]:
        share = "–" if self.floor is None else f"{100 * self.floor / self.timing.units:.0f}%"
        mark = " *" if self.timing.unsteady else ""
        return [
            self.work,
            f"{_figures(self.timing.seconds)}{mark}",
            _figures(self.timing.units),
            f"{_figures(self.rate)} {self.noun}/s",
            "–" if self.floor is None else _figures(self.floor),
            share,
            self.note,
        ]


@dataclass
class Report:
    """Collects rows, prints them as they come and writes them down.

    Args:
        name: the benchmark's, which its JSON is called after.
        what: what one line of it measures.
        device: where it runs.
        settings: options that decide the figures.
    """

    name: str
    what: str
    device: torch.device
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    peaks: dict[str, float] = field(default_factory=dict)  # GiB, up to the last line: checks may follow

    HEADER = ("work", "seconds", "units", "throughput", "floor", "share of floor", "note")

    def add(
        self,
        work: str,
        timing: Timing,
        items: float,
        noun: str,
        floor_macs: float | None = None,
        note: str = "",
    ) -> None:
        """Note a line.

        Args:
            work: what was done.
            timing: how long it took.
            items, noun: how many of what were dealt with in that time.
            floor_macs: multiply-adds that cannot be avoided.
            note: anything else.
        """
        floor = None if floor_macs is None else floor_macs / MACS_PER_UNIT
        self.rows.append(Row(work, timing, items / timing.seconds, noun, floor, note))
        self.peaks = {"resident": peak_memory_gb(), "largest child process": peak_child_memory_gb()}
        if self.device.type == "cuda":
            self.peaks["device"] = peak_memory_gb(self.device)
        print(f"{work}: {_figures(timing.seconds)} s, {_figures(timing.units)} units {note}", flush=True)

    def finish(self, path: str | os.PathLike[str] | None) -> dict[str, Any]:
        """Print the table and write its JSON to `path`, by default out/{name}.json; returns what was written.

        Raises:
            InputError: there is nothing to print.
        """
        if not self.rows:
            raise InputError("nothing was measured: give smaller sizes or a higher limit")
        machine = describe_machine(self.device)
        units = [unit for row in self.rows for unit in (row.timing.unit_before, row.timing.unit_after)]
        content = {
            "benchmark": self.name,
            "what": self.what,
            "settings": self.settings,
            "machine": machine,
            "unit_seconds": {"least": min(units), "median": statistics.median(units), "most": max(units)},
            "peak_memory_gb": self.peaks,
            "rows": [asdict(row) | {"units": row.timing.units, "unsteady": row.timing.unsteady} for row in self.rows],
        }
        print(f"\n{self.what}\n{', '.join(f'{name} {value}' for name, value in machine.items())}")
        print(f"unit {1e3 * statistics.median(units):.3g} ms ({1e3 * min(units):.3g} to {1e3 * max(units):.3g})")
        print(format_table([list(self.HEADER), *(row.cells() for row in self.rows)]))
        if any(row.timing.unsteady for row in self.rows):
            print("* the yardstick changed meanwhile: the machine was busy with something else, measure again")
        print(f"peak memory in GiB: {', '.join(f'{name} {peak:.2f}' for name, peak in self.peaks.items())}")
        target = Path(path) if path else OUT / f"{self.name}.json"
        write_json(content, target, indent=True)
        print(f"written to {target}")
        return content


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _figures(value: float) -> str:
    """Three significant figures, without an exponent where that reads well."""
    if value == 0 or not 1e-6 <= abs(value) < 1e9:
        return f"{value:.3g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and the description as it stands."""


def benchmark_parser(description: str | None, repeats: int = 5) -> argparse.ArgumentParser:
    """A command line with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=_HelpFormatter, allow_abbrev=False)
    add = parser.add_argument_group("measuring").add_argument
    add("--device", type=int, default=-1, help="CUDA device, -1 for the CPU")
    add("--repeats", type=int, default=repeats, help="measurements of each work; the median counts")
    add("--seed", type=int, default=2018, help="seed of everything that is drawn")
    add("--json", help="where the figures go (default: tests/benchmarks/out/NAME.json)")
    return parser


def made_folder(path: str) -> str:
    """A folder for files of a while, as an option's type: made if it is not there."""
    Path(path).mkdir(parents=True, exist_ok=True)
    return path


def generator_parser(description: str | None, share_of: str) -> argparse.ArgumentParser:
    """A command line with the options that all generators of corpora have; `share_of` is what --share is a part of."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", required=True, type=Path, metavar="FOLDER", help="folder to write into")
    add("--share", type=float, default=1.0, help=f"fraction of the {share_of} (%(default)s)")
    add("--seed", type=int, default=2018, help="seed of everything that is drawn (%(default)s)")
    return parser


def generator_options(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """What was typed for a parser of `generator_parser`; an `InputError` where --share is no share."""
    args = parser.parse_args(argv)
    if not 0 < args.share <= 1:
        raise InputError(f"--share {args.share}: must be above 0 and at most 1")
    return args


def start(name: str, what: str, args: argparse.Namespace) -> tuple[Report, Stopwatch]:
    """The report and the stopwatch that the options ask for."""
    device = choose_device(args.device)
    return Report(name, what, device, vars(args)), Stopwatch(device, args.repeats)
