"""Charades-STA: lines `VIDEO start end##sentence`, and the tables of Charades that say how long the videos are."""

from __future__ import annotations

import csv
import reprlib
from pathlib import Path

from standalone_eval.files.forms import CHARADES
from utils.annotations.public_files import WHERE_FROM, refuse_others, there
from utils.annotations.reading import Reader, Source, Split
from utils.basic_utils import InputError, read_bytes

FILES = {"charades_sta_train.txt": "train", "charades_sta_test.txt": "test"}
TABLES = ("Charades_v1_train.csv", "Charades_v1_test.csv")
FORM = "VIDEO start end##sentence"


def read(folder: Path, reader: Reader) -> dict[str, Split]:
    """Read those of the files that are there. A query's number is its line, from 1.

    `InputError` when no annotations or no table are there, or one cannot be read.
    """
    sources = reader.open(folder, FILES, CHARADES)
    for source in sources:
        refuse_others(source.path, CHARADES)
    seconds: dict[str, float] = {}
    tables = there(folder, TABLES)
    for path in tables:
        _read_table(path, reader, seconds)
    absent = [name for name in TABLES if folder / name not in tables]
    no_length = f"has no length in {' or '.join(TABLES)} beside it"
    if absent:
        no_length += f" ({absent[0]} is not there: put it there)"
    reader.check()  # or each line of a video with a bad length would be named too
    for source in sources:
        for number, line in enumerate(_lines(source.path), start=1):
            if line.strip():
                _take_line(reader, source, line, number, seconds, no_length)
    return reader.splits()


def _take_line(
    reader: Reader, source: Source, line: str, number: int, seconds: dict[str, float], no_length: str
) -> None:
    where = f"{source.path}, line {number}"
    head, separator, sentence = line.partition("##")
    try:
        name, start, end = head.split() if separator else []
        moment = float(start), float(end)
    except ValueError:
        reader.wrong(where, f"{reprlib.repr(line.rstrip())} is not {FORM!r}")
        return
    if name not in seconds:
        reader.lacks(name, no_length, where)
    elif reader.video(name, seconds[name], where):
        reader.query(source, number, name, sentence, [moment], where)


def _read_table(path: Path, reader: Reader, seconds: dict[str, float]) -> None:
    """Add the lengths of a table's videos to `seconds`."""
    table = csv.DictReader(_lines(path))
    try:
        if not {"id", "length"} <= set(table.fieldnames or ()):
            raise InputError(f"{path}: has no columns id and length: {WHERE_FROM}")
        for row in table:
            where = f"{path}, line {table.line_num}"
            try:
                length = float(row["length"])
            except (TypeError, ValueError):
                reader.wrong(where, f"length {reprlib.repr(row['length'])} of video {row['id']} is not in seconds")
                continue
            if seconds.setdefault(row["id"], length) != length:
                reader.wrong(where, f"video {row['id']} lasts {length:g} s here and {seconds[row['id']]:g} s before")
    except csv.Error as err:
        raise InputError(f"{path}, line {table.line_num}: is not CSV ({err}): {WHERE_FROM}") from err


def _lines(path: Path) -> list[str]:
    """The lines of a text file with their ends, which quoted cells of a table may contain."""
    content = read_bytes(path, WHERE_FROM)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = content.count(b"\n", 0, err.start) + 1
        raise InputError(f"{path}, line {line}: is not UTF-8 text: {WHERE_FROM}") from err
    return [line + "\n" for line in text.removesuffix("\n").split("\n")]
