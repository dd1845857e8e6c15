"""How the data check tells what it found: aligned tables, then defects and notes with their remedies."""

from __future__ import annotations

import os
from collections.abc import Sequence
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


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines with aligned columns, the first row being the heading; columns of numbers to the right."""
    n_columns = max(len(row) for row in rows)
    lines = [""] * len(rows)
    for column in range(n_columns):
        cells = [row[column] if column < len(row) else "" for row in rows]
        # the last cell of a short row is a remark: it may run on over the columns it leaves empty
        width = max(
            len(row[column]) for row in rows if len(row) > column and (len(row) > column + 1 or len(row) == n_columns)
        )
        to_right = column > 0 and all(cell[:1].isdigit() or cell in ("", "-") for cell in cells[1:])
        lines = [
            f"{line}  {cell.rjust(width) if to_right else cell.ljust(width)}"
            for line, cell in zip(lines, cells, strict=True)
        ]
    return "\n".join(line.rstrip() for line in lines)


def size_text(n_bytes: int) -> str:
    """A number of bytes as people read it: '2.1 GB'."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def file_size(path: str | os.PathLike[str]) -> str:
    """The size of a file, or `-` when there is none."""
    return size_text(Path(path).stat().st_size) if Path(path).is_file() else "-"
