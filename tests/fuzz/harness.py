"""Runs readers on hostile inputs in a process of their own, and notes what became of each input."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.worker import keep, read_inputs
from tests.support.fork_server import fork_server

START_S = 120.0  # for the server of processes to import what they need


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
    context = fork_server()
    messages, sender = context.Pipe(duplex=False)
    worker = context.Process(target=read_inputs, args=(name, report.next, count, folder, sender))
    worker.start()
    sender.close()  # so that the worker's is the only one, and its death the end of the messages
    patience, hangs = START_S, False
    try:
        while messages.poll(patience):
            try:
                message = messages.recv()
            except EOFError:
                break
            patience = limit_s
            if "end" in message:
                report.note(
                    message["end"], message["outcome"], message["detail"], folder / str(report.next), save_dir, name
                )
                report.next = message["end"] + 1
            elif time.monotonic() > end:
                return
        else:
            hangs = True
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGABRT)  # faulthandler then says where it was
        worker.join(START_S)
        code = worker.exitcode
        if code != 0:
            how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            said = (folder / "errors").read_text(errors="replace")[-3000:]
            report.note(report.next, "hang" if hangs else "crash", f"{how}\n{said}", folder / "in", save_dir, name)
            report.next += 1
    finally:
        worker.kill()
        worker.join()
        messages.close()
