"""How the data check tells what it found: defects and notes with their remedies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from utils.basic_utils import InputError


@dataclass
class Defects:
    """Collects (text, remedy) of what is wrong, so that the first defect does not hide the others."""

    root: str  # folder that file names are shown relative to
    blocking: list[tuple[str, str]] = field(default_factory=list)  # what training or inference would stumble over
    notes: list[tuple[str, str]] = field(default_factory=list)  # what they would not

    def add(self, text: str, remedy: str, blocking: bool = True) -> None:
        """Collect one finding."""
        (self.blocking if blocking else self.notes).append((text.replace(f"{self.root}/", ""), remedy))

    @contextmanager
    def collecting(self, remedy: str, blocking: bool = True) -> Iterator[None]:
        """Collect what an `InputError` in the block says, which ends the block."""
        try:
            yield
        except InputError as err:
            self.add(str(err), remedy, blocking)

    def is_there(self, path: str, remedy: str) -> bool:
        """Whether `path` is a file; if not, that is collected as a defect."""
        if Path(path).is_file():
            return True
        self.add(f"{path}: {'is not a file' if Path(path).exists() else 'is not there'}", remedy)
        return False

    def print_all(self, purpose: str) -> None:
        """Print all findings, and a last line that says whether what `purpose` needs is there."""
        for title, found in (("Defects", self.blocking), ("Notes", self.notes)):
            if found:
                print(f"\n{title} ({len(found)})")
            for number, (text, remedy) in enumerate(found, start=1):
                print(f"  {number}. {text}\n     -> {remedy}")
        if self.blocking:
            count = f"{len(self.blocking)} defect{'s' if len(self.blocking) > 1 else ''}"
            print(f"\nNOT READY: {count} in what {purpose} needs")
        else:
            print(f"\nOK: all that {purpose} needs is there")
