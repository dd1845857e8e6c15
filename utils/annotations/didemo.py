"""DiDeMo: a list of `{"annotation_id", "video", "description", "times": [[first, last], …], "num_segments"}` a file.

Moments are the first and the last of 5-second segments, counted from 0, and each person who annotated a query gave one.
"""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

from standalone_eval.files.forms import DIDEMO
from utils.annotations.public_files import read_public_json
from utils.annotations.reading import Reader, Source, Split

FILES = {"train_data.json": "train", "val_data.json": "val", "test_data.json": "test"}
SEGMENT = 5.0  # seconds
MAX_SEGMENTS = 6  # videos were cut to half a minute


def read(folder: Path, reader: Reader) -> dict[str, Split]:
    """Read those of the files that are there; `InputError` when none is, or one is not JSON of this kind.

    A query's number is its annotation_id. A video lasts as many segments as it has.
    """
    for source in reader.open(folder, FILES, DIDEMO):
        for place, content in enumerate(read_public_json(source.path, list, DIDEMO), start=1):
            _take_query(reader, source, content, f"{source.path}, entry {place}")
    return reader.splits()


def _take_query(reader: Reader, source: Source, content: Any, where: str) -> None:
    if not isinstance(content, dict):
        reader.wrong(where, f"expected an object {{…}}, found {reprlib.repr(content)}")
        return
    number, n_segments, times = (content.get(key) for key in ("annotation_id", "num_segments", "times"))
    if type(number) is not int:
        reader.wrong(where, f'"annotation_id" {reprlib.repr(number)} is not an integer')
        return
    where = f"{where} (annotation_id {number})"
    if type(n_segments) is not int or not 0 < n_segments <= MAX_SEGMENTS:
        reader.wrong(where, f'"num_segments" {reprlib.repr(n_segments)} is not from 1 to {MAX_SEGMENTS}')
    elif not isinstance(times, list) or not all(_is_pair(pair) for pair in times):
        reader.wrong(where, f'"times" {reprlib.repr(times)} is not a list of [first, last], numbers of segments')
    elif reader.video(content.get("video"), n_segments * SEGMENT, where):
        # [2, 1] is reversed, though by its seconds, [10, 10], it would be empty
        spans = [(first * SEGMENT, (last + (last >= first)) * SEGMENT) for first, last in times]
        reader.query(source, number, content["video"], content.get("description"), spans, where)


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(type(segment) is int and segment >= 0 for segment in pair)
