"""Writing files whole or not at all, and none that is read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .command import BadInput
from .parts import make_ordinary, part_file


def why_not_output(
    option: str, out: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str] | None]
) -> str | None:
    """What is to be said where an option names one of the files that are read, which would be lost."""
    if any(path is not None and os.path.realpath(path) == os.path.realpath(out) for path in inputs):
        return f"{option} {out}: is read too, and would be lost: give another file"
    return None


def refuse_input_as_output(out: str | None, inputs: Iterable[str]) -> None:
    """Raise `BadInput` if `--save_path` names one of the files that are read."""
    if out is not None and (reason := why_not_output("--save_path", out, inputs)):
        raise BadInput(reason)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends well; `BadInput` if it cannot be."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part_file(target.parent, f".{target.name}.") as part:
            yield part
            make_ordinary(part, 0o666)
            part.replace(target)
    except OSError as err:
        raise BadInput(f"{target}: cannot be written ({err.strerror}): make room there, or name another path") from err


def write_json(data: Any, path: str | os.PathLike[str]) -> None:
    """Write `data` as indented JSON, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(data, indent=4, allow_nan=False) + "\n", encoding="utf-8")


def write_jsonl(rows: Iterable[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write `rows` as JSON, one a line, whole or not at all."""
    with whole_file(path) as part:
        part.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), encoding="utf-8")
