"""The most memory of this process during one piece of work, its own and pages of mapped files told apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SAMPLE_S = 0.02  # between looks at this process's memory


class PeakMemory:
    """The most memory of this process while it is watched, in GiB: of its own, and pages of mapped files."""

    def __init__(self) -> None:
        self.peaks = {"RssAnon": 0.0, "RssFile": 0.0}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look every `SAMPLE_S` for the length of the block."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(SAMPLE_S):
                self._look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _look(self) -> None:
        status = Path("/proc/self/status")
        for line in status.read_text(encoding="ascii").splitlines() if status.exists() else ():
            name, _, value = line.partition(":")
            if name in self.peaks:
                self.peaks[name] = max(self.peaks[name], int(value.split()[0]) / 2**20)

    def __str__(self) -> str:
        return f"own memory {self.peaks['RssAnon']:.2f} GiB, file pages {self.peaks['RssFile']:.2f} GiB"
