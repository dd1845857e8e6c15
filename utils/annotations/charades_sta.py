"""Charades-STA: lines `VIDEO start end##sentence`, and the tables of Charades that say how long the videos are.

It has no validation split: a share of the training videos is held out, chosen by name alone.
"""

from __future__ import annotations

import csv
import reprlib
from pathlib import Path

from standalone_eval.files.forms import CHARADES
from utils.annotations.reading import WHERE_FROM, Reader, Source, Split, refuse_others, there
from utils.basic_utils import InputError, read_bytes
from utils.own_corpus.splits import val_videos

FILES = {"charades_sta_train.txt": "train", "charades_sta_test.txt": "test"}
TABLES = ("Charades_v1_train.csv", "Charades_v1_test.csv")
FORM = "VIDEO start end##sentence"


def read(folder: Path, reader: Reader, val_share: float) -> dict[str, Split]:
    """Read those of the files that are there; about `val_share` of the training videos, 0 for none, become val.

    A query's number is its line, from 1, in train and in what is held out of it alike.

    Raises:
        InputError: no annotations or no table are there, one cannot be read, or train or val would have no queries.
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
    reader.check()
    return _with_val(reader.splits(), val_share)


def _with_val(splits: dict[str, Split], share: float) -> dict[str, Split]:
    """Splits with a part of train as val, in the usual order."""
    train = splits.get("train")
    held_out = set() if train is None else val_videos(train.videos, share)
    if train is None or not train.queries or not held_out:
        return splits
    parts = {"train": train.about(lambda video: video not in held_out), "val": train.about(held_out.__contains__)}
    for name, part in parts.items():
        if not part.queries:
            raise InputError(
                f"--val_share {share:g}: of the {len(train.videos)} training videos, none with queries is left for "
                f"{name}: give another share, or 0 for no val"
            )
    return {**parts, **{name: split for name, split in splits.items() if name != "train"}}


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
