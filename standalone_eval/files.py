"""Reading and writing for the tools of this folder, which stands alone: standard library only."""

from __future__ import annotations

import functools
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .parts import part_file
from .terminal import escaped_output

BAD_INPUT_EXIT_CODE = 2


class BadInput(Exception):  # noqa: N818 (as much a finding as an error)
    """A file the user gave cannot be used; the message lists what is wrong with it."""


def command_line(main: Callable[[], None]) -> Callable[[], None]:
    """Make `main` report `BadInput` and unusable paths as a message with exit code 2 instead of a traceback.

    What is printed meanwhile is `printable`: no name from a file is obeyed by the terminal.
    """

    @functools.wraps(main)
    @escaped_output()
    def wrapped() -> None:
        try:
            main()
        except (BadInput, OSError) as err:
            print(f"error: {err}", file=sys.stderr)
            sys.exit(BAD_INPUT_EXIT_CODE)

    return wrapped


def positive_int(text: str) -> int:
    """An option's value as an integer from 1."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 file, or raise `BadInput` saying why it cannot be read; a pipe or device may have no end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadInput(f"{path}: cannot be read (it is not a regular file): check the path")
        return Path(path).read_text(encoding="utf-8")
    except OSError as err:
        raise BadInput(f"{path}: cannot be read ({err.strerror}): check the path") from err
    except UnicodeDecodeError as err:
        raise BadInput(f"{path}: is not UTF-8 text ({err.reason} at byte {err.start}): is it the right file?") from err


def parse_json(text: str, where: str) -> Any:
    """Parse JSON, or raise `BadInput` naming `where` it stood."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:  # ValueError also covers integers too long for Python
        raise BadInput(f"{where}: is not valid JSON ({err}): was it written whole?") from err


def read_json(path: str | os.PathLike[str]) -> Any:
    """Load a JSON file, or raise `BadInput`."""
    return parse_json(read_text(path), str(path))


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Load a file of one JSON object a line, or raise `BadInput` naming the first line that is none."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise BadInput(f"{path}, line {number}: expected an object {{…}}, found {type(row).__name__}")
        rows.append(row)
    if not rows:
        raise BadInput(f"{path}: has no lines: was it downloaded or written whole?")
    return rows


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends well; `BadInput` if it cannot be."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part_file(target.parent, f".{target.name}.") as part:
            yield part
            umask = os.umask(0)
            os.umask(umask)
            part.chmod(0o666 & ~umask)  # mkstemp makes private files; these are ordinary ones
            part.replace(target)
    except OSError as err:
        raise BadInput(f"{target}: cannot be written ({err.strerror}): make room there, or name another path") from err


def write_json(data: Any, path: str | os.PathLike[str]) -> None:
    """Write `data` as indented JSON, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(data, indent=4, allow_nan=False) + "\n", encoding="utf-8")
