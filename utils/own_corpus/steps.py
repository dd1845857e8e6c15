"""Which steps are done already: one is done again only when something that it depends on has changed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.basic_utils import read_json, write_json
from utils.feature_files.resumable_features import file_stamp


class Steps:
    """A record of finished steps, in a JSON file, and of how long the steps of this run took."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: dict[str, Any] = read_json(path) if path.is_file() else {}
        self.seconds: dict[str, float] = {}  # by step, in order; those done already took next to nothing

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Measure a step, and say that it begins."""
        print(f"== {step}", file=sys.stderr, flush=True)
        start = time.monotonic()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.monotonic() - start

    def is_done(self, output: Path, made_of: dict[str, Any]) -> bool:
        """Whether `output` is there as a step left it that had the same `made_of`: options, stamps, digests."""
        record = self._done.get(output.name)
        return bool(
            output.is_file() and record and record["made_of"] == made_of and record["output"] == file_stamp(output)
        )

    def done(self, output: Path, made_of: dict[str, Any], notes: Sequence[str] = ()) -> None:
        """Record that `output` was made of `made_of`, and what was to be said of it."""
        self._done[output.name] = {"made_of": made_of, "output": file_stamp(output), "notes": list(notes)}
        write_json(self._done, self._path, indent=True)

    def notes(self, output: Path) -> list[str]:
        """What was to be said of a step that is done."""
        return [str(note) for note in self._done[output.name]["notes"]]
