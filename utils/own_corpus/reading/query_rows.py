"""Rows of a query file as people make them: jsonl, a JSON list, or a table (csv, tsv) such as Excel saves."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from utils.basic_utils import InputError, StrPath
from utils.own_corpus.reading.query_keys import TEXT_KEYS, key_meant
from utils.text_feature.decode_text import read_text
from utils.text_feature.text_rows import json_lines, lines_of

FORMS = 'a line {"desc": sentence, "vid_name": video, "ts": [start, end]} for each query'
HEADER = "a header that names the columns desc, vid_name, start and end"
TABLE_SUFFIXES = (".csv", ".tsv")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")


def read_rows(path: StrPath) -> list[tuple[str, dict[str, Any]]]:
    """What each row says by key, with words for its place; blank lines are passed over.

    Raises:
        InputError: the file cannot be read, is none of these forms, or a row, which is named, is damaged.
    """
    if Path(path).suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise InputError(f"{path}: is a workbook: save it as CSV UTF-8 in Excel, with {HEADER}")
    text = read_text(path, "give a file of queries as text")
    if text.lstrip().startswith("["):
        return _json_list(path, text)
    lines = lines_of(text.lstrip())
    separator = _separator(lines[0])
    if not text.lstrip().startswith("{") and "desc" in map(key_meant, _cells(path, lines[0], separator)):
        return list(_table(path, text, separator))
    if Path(path).suffix.lower() in TABLE_SUFFIXES:
        raise InputError(f"{path}: begins with {lines[0][:60]!r}: a table of queries needs {HEADER}")
    return list(json_lines(path, text))


def _json_list(path: StrPath, text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        rows = orjson.loads(text)
    except orjson.JSONDecodeError as err:
        raise InputError(f"{path}: is not valid JSON ({err}): write {FORMS}") from err
    odd = [number for number, row in enumerate(rows, start=1) if not isinstance(row, dict)]
    if odd or not rows:
        raise InputError(f"{path}: entry {odd[0] if odd else 1} is no object {{…}}: write {FORMS}")
    return [(f"{path}, entry {number}", row) for number, row in enumerate(rows, start=1)]


def _separator(header: str) -> str:
    """Of a table's cells: Excel takes a semicolon where a comma is the decimal point."""
    return max("\t;,", key=header.count)


def _cells(path: StrPath, line: str, separator: str) -> list[str]:
    return next(_parsed(path, line, separator), (0, []))[1]


def _parsed(path: StrPath, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its line, cells) of each row."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for cells in reader:
            yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as err:
        raise InputError(f"{path}, line {reader.line_num}: is no row of a table ({err}): mend or remove it") from err


def _table(path: StrPath, text: str, separator: str) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = ((number, cells) for number, cells in _parsed(path, text, separator) if any(cells))
    _, header = next(rows)
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise InputError(f"{path}: two columns are called {twice[0]}: rename one")
    for number, cells in rows:
        if any(cells[len(header) :]):
            raise InputError(f'{path}, line {number}: has more cells than the header: put "…" around text with commas')
        named = zip(header, cells, strict=False)
        row = {name: _value(name, cell, separator == ";") for name, cell in named if name and cell}
        yield f"{path}, line {number}", row


def _value(name: str, cell: str, decimal_comma: bool) -> Any:
    """A cell as JSON would have it: a number, a list, or text."""
    if key_meant(name) in TEXT_KEYS:
        return cell
    if decimal_comma and _DECIMAL_COMMA.fullmatch(cell):
        cell = cell.replace(",", ".")
    try:
        return orjson.loads(cell)
    except orjson.JSONDecodeError:
        return cell
