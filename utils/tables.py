"""Tables, lists and sizes as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from standalone_eval.files.terminal import printable
from utils.basic_utils import StrPath


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines with aligned columns, the first row being the heading; columns of numbers to the right.

    Cells are `printable`: each stays in its line.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
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


def indented(lines: Sequence[str], most: int = 10) -> str:
    """Lines below each other, indented, to end a message with: the first `most`, and how many more there are."""
    more = [f"… {len(lines) - most} more"] if len(lines) > most else []
    return "".join(f"\n  {line}" for line in [*lines[:most], *more])


def size_text(n_bytes: int) -> str:
    """A number of bytes as people read it: '2.1 GB'."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def file_size(path: StrPath) -> str:
    """The size of a file, or `-` when there is none."""
    return size_text(Path(path).stat().st_size) if Path(path).is_file() else "-"
