"""Runs readers on hostile inputs in a process of their own, and notes what became of each input."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_S = 120.0  # for a process to import what it needs


@dataclass
class Report:
    """What became of a reader's inputs.

    Attributes:
        outcomes: how many were refused, used, or led to a finding, a crash or a hang.
        findings: (number of the input, what happened).
        next: number of the first input that was not tried.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)
    next: int = 0

    @property
    def tried(self) -> int:
        return self.outcomes.total()

    def note(self, number: int, outcome: str, detail: str, folder: Path, save_dir: Path | None, name: str) -> None:
        """Count an input, and keep it if something is wrong."""
        self.outcomes[outcome] += 1
        if outcome in ("refused", "used"):
            return
        self.findings.append((number, f"{outcome}: {detail}"))
        if save_dir is not None and len(self.findings) <= 50:
            kept = save_dir / f"{name}-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            keep(folder, kept)
            (kept / "what_happened.txt").write_text(detail)


def keep(folder: Path, copy: Path) -> None:
    """Copy an input, but for pipes: reading them never ends."""

    def pipes(parent: str, names: list[str]) -> list[str]:
        return [name for name in names if stat.S_ISFIFO(os.lstat(os.path.join(parent, name)).st_mode)]

    shutil.copytree(folder, copy, symlinks=True, ignore=pipes)


def fuzz(
    name: str,
    first: int,
    count: int,
    seconds: float = float("inf"),
    limit_s: float = 20.0,
    save_dir: Path | None = None,
) -> Report:
    """Read `count` inputs of a reader, from number `first` on.

    Args:
        name: of the reader, in `READERS`. An input is decided by this name and its number.
        first, count: the inputs.
        seconds: no input is begun after so long.
        limit_s: an input that takes longer hangs.
        save_dir: where inputs are kept that something is wrong with.
    """
    report, end = Report(next=first), time.monotonic() + seconds
    while report.next < first + count and time.monotonic() < end:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            _one_process(name, first + count - report.next, Path(folder), report, end, limit_s, save_dir)
    return report


def _one_process(
    name: str, count: int, folder: Path, report: Report, end: float, limit_s: float, save_dir: Path | None
) -> None:
    """Go on until all is done, time is up, or the process did not survive an input."""
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-m",
        "tests.fuzz.worker",
        name,
        str(report.next),
        str(count),
        folder,
    ]
    with open(folder / "errors", "wb") as errors:
        worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, bufsize=0)
    assert worker.stdout is not None
    patience, hangs = START_S, False
    try:
        while select.select([worker.stdout], [], [], patience)[0]:
            line = worker.stdout.readline()
            if not line:
                break
            patience, message = limit_s, json.loads(line)
            if "end" in message:
                report.note(
                    message["end"], message["outcome"], message["detail"], folder / str(report.next), save_dir, name
                )
                report.next = message["end"] + 1
            elif time.monotonic() > end:
                return
        else:
            hangs = True
            worker.send_signal(signal.SIGABRT)  # faulthandler then says where it was
        code = worker.wait(START_S)
        if code:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            said = (folder / "errors").read_text(errors="replace")[-3000:]
            report.note(report.next, "hang" if hangs else "crash", f"{how}\n{said}", folder / "in", save_dir, name)
            report.next += 1
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()
