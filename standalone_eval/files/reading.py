"""Reading JSON and jsonl that others wrote: `BadInput` names the file, the place and what it is instead."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .command import BadInput
from .document import NewSink, NotJson, read_document
from .forms import ANNOTATIONS, CHARADES, Form, form_of, form_of_text
from .pieces import MAX_LINE, first_line, lines_of, pieces_of


@dataclass(frozen=True)
class Lines:
    """Rows that a file has one a line, and the places of these, such as `gt.jsonl, line 3`."""

    rows: list[dict[str, Any]]
    places: list[str]


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 file, or raise `BadInput` saying why it cannot be read; a pipe or device may have no end."""
    return "".join(pieces_of(path))


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
    return read_lines(path) if form and form is lines else content


def read_json_by_piece(path: str | os.PathLike[str], new_sink: NewSink, lines: Form | None = None) -> Any:
    """What `read_json` reads, whose lists sinks take; see `read_document`."""
    try:
        content = read_document(path, new_sink)
        form = form_of(content) if lines else None
    except NotJson as err:
        form = form_of_text(first_line(path)) or form_of(err.first)
        if form is None or form is not lines:
            raise BadInput(f"{path}: {form}") if form else err from err
    return read_lines(path) if form and form is lines else content


def form_of_file(path: str | os.PathLike[str]) -> Form | None:
    """What `form_of_text` says of a file's text, which need not fit into memory."""
    of_line = form_of_text(first_line(path))
    try:
        of_file = form_of(read_document(path))
    except NotJson as err:
        return of_line or form_of(err.first)
    return of_line if of_line is CHARADES else of_file


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of `read_lines`."""
    return read_lines(path).rows


def read_lines(path: str | os.PathLike[str]) -> Lines:
    """Load a file of one JSON object a line, or raise `BadInput`, naming the form or the first line that is none."""
    lines = Lines([], [])
    for place, row in placed_rows(path):
        lines.rows.append(row)
        lines.places.append(place)
    return lines


def placed_rows(path: str | os.PathLike[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of `read_lines` one after another, each with its place."""
    is_empty = True
    for number, line in enumerate(lines_of(path), start=1):
        if line.strip():
            is_empty, place = False, f"{path}, line {number}"
            try:
                row = _parse_row(line, place)
            except BadInput as err:
                raise BadInput(reason) if (reason := why_no_rows_in(path)) else err from err
            yield place, row
    if is_empty:
        raise BadInput(f"{path}: has no lines: was it downloaded or written whole?")


def _parse_row(line: str, where: str) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise BadInput(f"{where}: is longer than {MAX_LINE >> 20} million characters: is it the right file?")
    row = parse_json(line, where)
    if not isinstance(row, dict):
        raise BadInput(f"{where}: expected an object {{…}}, found {type(row).__name__}")
    return row


def why_no_rows_in(path: str | os.PathLike[str]) -> str | None:
    """What is to be said of a file that is not one object a line, if it is known what it is instead."""
    return _why_no_rows(form_of_file(path), first_line(path), path)


def why_no_rows(text: str, path: str | os.PathLike[str]) -> str | None:
    """What `why_no_rows_in` says of a file with this text."""
    return _why_no_rows(form_of_text(text), text, path)


def _why_no_rows(form: Form | None, text: str, path: str | os.PathLike[str]) -> str | None:
    if form is ANNOTATIONS:
        is_list = text.lstrip().startswith("[")
        return f"{path}: is one JSON list of annotations: write its rows one a line (jsonl)" if is_list else None
    return f"{path}: {form}" if form else None


def refuse_others(content: Any, expected: Form, where: str | os.PathLike[str]) -> None:
    """Raise `BadInput` for a document, or rows, of a form that is known and is not the expected one."""
    form = form_of(content)
    if form not in (None, expected):
        raise BadInput(f"{where}: {form}")
