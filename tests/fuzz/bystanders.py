"""Files beside a hostile folder, which reading or writing that folder must leave alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRECIOUS = "precious.txt"


def add_bystander(folder: Path) -> None:
    """A file in `folder` that nothing has to do with."""
    (folder / PRECIOUS).write_bytes(b"0123456789")


@contextmanager
def nothing_touched_beside(folder: Path) -> Iterator[None]:
    """Check that in the parent of `folder` all files outside it are in the end as they were, and no others."""

    def others() -> dict[Path, bytes]:
        files = [path for path in folder.parent.rglob("*") if path.is_file() and folder not in path.parents]
        return {path: path.read_bytes() for path in files}

    before = others()
    try:
        yield
    finally:
        assert others() == before
