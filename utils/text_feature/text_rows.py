"""Queries and subtitles as text tools read them: from jsonl files, or from rows that are in memory already."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import orjson

from utils.basic_utils import InputError, StrPath, first_few
from utils.dataset_files import read_queries_file
from utils.text_feature.decode_text import read_text

LENGTHS_SUFFIX = "-lengths"  # beside a video's tokens: how many each of its lines has
MASK_SUFFIX = "-mask"  # beside a video's subtitle features: which of its clips have lines

Row: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = StrPath | Sequence[StrPath | Row]  # a jsonl file, several, or rows


def named_rows(rows: Rows, read: Callable[[StrPath], Sequence[Row]] | None = None) -> Iterator[tuple[str, Row]]:
    """Each row, with words for its place: "train.jsonl, line 3", "row 3"; a file is `read`, by default line by line."""
    items: Sequence[StrPath | Row] = [rows] if isinstance(rows, str | os.PathLike) else rows
    for number, item in enumerate(items, start=1):
        if isinstance(item, Mapping):
            yield f"row {number}", item
        elif read is not None:
            yield from ((f"{item}, line {i}", row) for i, row in enumerate(read(item), start=1))
        else:
            yield from json_lines(item, read_text(item, "check the path"))


def json_lines(path: StrPath, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The object of each line that is not blank, with file and line; `InputError` when one is none, or without any."""
    n_rows = 0
    for number, line in enumerate(lines_of(text), start=1):
        if line.strip():
            yield f"{path}, line {number}", _object(line, f"{path}, line {number}")
            n_rows += 1
    if not n_rows:
        raise InputError(f"{path}: has no lines: was it downloaded or written whole?")


def lines_of(text: str) -> list[str]:
    """Lines as editors number them, unlike `str.splitlines`, which also splits within sentences of some languages."""
    return re.split(r"\r\n|\r|\n", text)


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = orjson.loads(line.lstrip("\ufeff"))  # which files that were joined have within
    except orjson.JSONDecodeError as err:
        raise InputError(f"{where}: is not valid JSON ({err}): mend or remove the line; a line is an object") from err
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object {{…}}, found {type(row).__name__}")
    return row


def refuse_clashes(vid_names: Collection[str]) -> None:
    """An `InputError` if a video is called as what a feature file keeps beside the features of another."""
    names = set(vid_names)
    for suffix in (LENGTHS_SUFFIX, MASK_SUFFIX):
        clashing = sorted(name for name in names if name + suffix in names)
        if clashing:
            pairs = [f"{name} and {name}{suffix}" for name in clashing]
            raise InputError(
                f"videos {first_few(pairs)}: feature files keep NAME{suffix} beside NAME: rename one of each pair"
            )


def query_texts(queries: Rows) -> dict[str, str]:
    """Sentences by desc_id as text, in order; `InputError` when a row lacks `desc_id` or `desc`, or two have one id."""
    texts: dict[str, str] = {}
    for where, row in named_rows(queries, read_queries_file):
        desc_id, desc = row.get("desc_id"), row.get("desc")
        if not isinstance(desc_id, int) or isinstance(desc_id, bool) or not isinstance(desc, str):
            raise InputError(f'{where}: expected {{"desc_id": number, "desc": sentence, …}}: mend the row')
        if str(desc_id) in texts:
            raise InputError(f"{where}: desc_id {desc_id} is there twice: give each query its own number")
        texts[str(desc_id)] = desc
    return texts


def subtitle_lines(subs: Rows) -> dict[str, list[dict[str, Any]]]:
    """Lines `{"text": str, "start": seconds, "end": seconds}` by vid_name, in order.

    An `InputError` if a file cannot be read, a row is not `{"vid_name", "sub": [line, …]}`, or a video is there twice.
    """
    lines_of: dict[str, list[dict[str, Any]]] = {}
    for where, row in named_rows(subs):
        name, lines = row.get("vid_name"), row.get("sub")
        if not isinstance(name, str) or not isinstance(lines, list) or not all(map(_is_line, lines)):
            raise InputError(
                f'{where}: expected {{"vid_name": …, "sub": [{{"text", "start", "end"}}, …]}}: '
                "make it with utils/text_feature/preprocess_subtitles.py"
            )
        if name in lines_of:
            raise InputError(f"{where}: {name} is there twice: remove one")
        lines_of[name] = lines
    return lines_of


def texts_digest(*texts: str) -> str:
    """What tells whether a query, or the lines of a video, have changed."""
    sha = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        sha.update(f"{len(data)} ".encode() + data)
    return sha.hexdigest()[:16]


def _is_line(line: Any) -> bool:
    if not isinstance(line, dict) or not isinstance(line.get("text"), str):
        return False
    return _is_time(line.get("start")) and _is_time(line.get("end"))


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
