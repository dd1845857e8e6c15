"""Reading JSON and jsonl that others wrote: `BadInput` names the file, the place and what it is instead."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .command import BadInput
from .forms import ANNOTATIONS, Form, form_of, form_of_text


@dataclass(frozen=True)
class Lines:
    """Rows that a file has one a line, and the places of these, such as `gt.jsonl, line 3`."""

    rows: list[dict[str, Any]]
    places: list[str]


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


def read_json(path: str | os.PathLike[str], lines: Form | None = None) -> Any:
    """Load a JSON file, or raise `BadInput`; one that holds lines of a known form is called so.

    One of the form `lines`, if that is given, is read as `read_lines` does.
    """
    text = read_text(path)
    try:
        content = parse_json(text, str(path))
        form = form_of(content) if lines else None
    except BadInput as err:
        form = form_of_text(text)
        if form is None or form is not lines:
            raise BadInput(f"{path}: {form}") if form else err from err
    return _lines_of(text, path) if form and form is lines else content


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of `read_lines`."""
    return read_lines(path).rows


def read_lines(path: str | os.PathLike[str]) -> Lines:
    """Load a file of one JSON object a line, or raise `BadInput`, naming the form or the first line that is none."""
    return _lines_of(read_text(path), path)


def _lines_of(text: str, path: str | os.PathLike[str]) -> Lines:
    lines = {f"{path}, line {number}": line for number, line in enumerate(text.split("\n"), start=1) if line.strip()}
    try:
        rows = [_parse_row(line, place) for place, line in lines.items()]
    except BadInput as err:
        raise BadInput(reason) if (reason := why_no_rows(text, path)) else err from err
    if not rows:
        raise BadInput(f"{path}: has no lines: was it downloaded or written whole?")
    return Lines(rows, list(lines))


def _parse_row(line: str, where: str) -> dict[str, Any]:
    row = parse_json(line, where)
    if not isinstance(row, dict):
        raise BadInput(f"{where}: expected an object {{…}}, found {type(row).__name__}")
    return row


def why_no_rows(text: str, path: str | os.PathLike[str]) -> str | None:
    """What is to be said of a text that is not one object a line, if it is known what it is instead."""
    form, is_list = form_of_text(text), text.lstrip().startswith("[")
    if form is ANNOTATIONS:
        return f"{path}: is one JSON list of annotations: write its rows one a line (jsonl)" if is_list else None
    return f"{path}: {form}" if form else None


def refuse_others(content: Any, expected: Form, where: str | os.PathLike[str]) -> None:
    """Raise `BadInput` for a document, or rows, of a form that is known and is not the expected one."""
    form = form_of(content)
    if form not in (None, expected):
        raise BadInput(f"{where}: {form}")
