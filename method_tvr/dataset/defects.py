"""How the data check tells what it found: defects and notes with their remedies."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Defects:
    """Collects what is wrong, so that the first defect does not hide the others.

    Attributes:
        root: folder that file names are shown relative to.
        blocking: (text, remedy) of what training or inference would stumble over.
        notes: (text, remedy) of what they would not.
    """

    root: str
    blocking: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def add(self, text: str, remedy: str, blocking: bool = True) -> None:
        """Collect one finding."""
        (self.blocking if blocking else self.notes).append((text.replace(f"{self.root}/", ""), remedy))

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
