"""ActivityNet Captions: `{video: {"duration", "timestamps": [[start, end], …], "sentences": […]}}` a file."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

from standalone_eval.files.forms import ACTIVITYNET
from utils.annotations.public_files import read_public_json
from utils.annotations.reading import Reader, Source, Split

FILES = {"train.json": "train", "val_1.json": "val", "val_2.json": "test"}  # the split that each is used as


def read(folder: Path, reader: Reader) -> dict[str, Split]:
    """Read those of the files that are there; `InputError` when none is, or one is not JSON of this kind.

    A query's number is its place among all sentences of its file, from 1.
    """
    for source in reader.open(folder, FILES, ACTIVITYNET):
        number = 1
        for name, content in read_public_json(source.path, dict, ACTIVITYNET).items():
            number += _take_video(reader, source, name, content, number)
    return reader.splits()


def _take_video(reader: Reader, source: Source, name: str, content: Any, number: int) -> int:
    """Take the queries of one video, the first of which is `number`; how many there are."""
    where = f"{source.path}, {reprlib.repr(name)}"
    if not isinstance(content, dict):
        reader.wrong(where, f"expected duration, timestamps and sentences, found {reprlib.repr(content)}")
        return 0
    times, sentences = content.get("timestamps"), content.get("sentences")
    if not isinstance(times, list) or not isinstance(sentences, list):
        reader.wrong(where, 'expected lists "timestamps" and "sentences"')
        return 0
    if len(times) != len(sentences):
        reader.wrong(where, f"has {len(times)} timestamps, but {len(sentences)} sentences")
    elif reader.video(name, content.get("duration"), where):
        source.videos.setdefault(name)
        for i, (span, sentence) in enumerate(zip(times, sentences, strict=True)):
            place = f"{where}, sentence {i + 1}"
            if isinstance(span, list) and len(span) == 2:
                reader.query(source, number + i, name, sentence, [(span[0], span[1])], place)
            else:
                reader.wrong(place, f"timestamp {reprlib.repr(span)} is not [start, end]")
    return len(sentences)
