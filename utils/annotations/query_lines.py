"""Public annotations of one query a line: the forms of Moment-DETR, VERIFIED and mTVR, whatever the dataset.

    Moment-DETR, Lighthouse, UniVTG     {"qid", "query", "duration", "vid", "relevant_windows": [[st, ed], …]}
    VERIFIED (…-FIG)                    {"desc_id", "fig_desc", "video", "time": [st, ed]}
    mTVR                                {"desc_id", "descs": [{"lang", "desc"}, …], "duration", "vid_name", "ts"}

What else a line says is kept as it is.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from standalone_eval.files.forms import MOMENT_DETR, MTVR, VERIFIED, Form
from standalone_eval.ground_truth import is_query_type
from utils.annotations.public_files import files_of_lines, read_lines
from utils.annotations.reading import Reader, Source, Split
from utils.basic_utils import is_writable

OURS = ("desc_id", "desc", "vid_name", "duration", "ts")  # keys that every converted query has
QID = "qid"  # the key of a query's own id, where that could not become its desc_id
TYPE = "type"  # which all queries have, or none (v, t, vt)
NO_DURATION = "has no duration: give --durations with a file that has it, such as its dataset's video2dur_idx.json"


@dataclass(frozen=True)
class Keys:
    """What a form calls the parts of a query."""

    id: str
    sentence: str
    video: str
    moments: str


KEYS: dict[Form, Keys] = {
    MOMENT_DETR: Keys("qid", "query", "vid", "relevant_windows"),
    VERIFIED: Keys("desc_id", "fig_desc", "video", "time"),
    MTVR: Keys("desc_id", "descs", "vid_name", "ts"),
}


@dataclass(frozen=True)
class Line:
    """A query as a file has it.

    Attributes:
        number: of the line, from 1.
        own_id: whether its id is an integer that no other query of the dataset has.
        answered: whether the file says where queries have their moments.
        left_out: keys that are not kept.
    """

    row: Mapping[str, Any]
    number: int
    keys: Keys
    own_id: bool
    answered: bool
    left_out: tuple[str, ...] = ()

    @property
    def id(self) -> Any:
        return self.row.get(self.keys.id)

    def also(self) -> dict[str, Any]:
        """What becomes of its other keys, and of its id."""
        used = (*vars(self.keys).values(), *OURS, QID, *self.left_out)
        others = {key: value for key, value in self.row.items() if key not in used}
        return others if self.own_id else {QID: self.id, **others}


def read(
    folder: Path, reader: Reader, known: Mapping[str, str], durations: Mapping[str, float], language: str
) -> dict[str, Split]:
    """Read the files of a folder whose names say train, val or test.

    An id that is an integer becomes the query's desc_id, unless two queries of the dataset have the same. Otherwise a
    query's number is its line, and its id is kept under `QID`.

    Args:
        known: see `files_of_lines`.
        durations: {vid_name: seconds} of videos whose duration the files do not say.
        language: which of mTVR's sentences, such as `en`.

    Raises:
        InputError: no file is there, or they are of several forms, or one is no list of objects.
    """
    form, files = files_of_lines(folder, known)
    keys = KEYS[form]
    rows = {split: read_lines(path) for split, path in files.items()}
    for split in [split for split in files if all(keys.video not in row for row in rows[split])]:
        reader.unread.append((files.pop(split), "names no videos"))
    queries = [row for split in files for row in rows[split]]
    left_out = () if all(is_query_type(row.get(TYPE)) for row in queries) else (TYPE,)
    if left_out and any(TYPE in row for row in queries):
        print(f"note: {folder}: {TYPE} is left out, which not all queries have as text", file=sys.stderr)
    ids = [row.get(keys.id) for row in queries]
    own_id = all(type(number) is int for number in ids) and len(set(ids)) == len(ids)
    for source in reader.begin(files):
        answered = any(keys.moments in row for row in rows[source.split])
        numbered = enumerate(rows[source.split], start=1)
        lines = (Line(row, number, keys, own_id, answered, left_out) for number, row in numbered)
        _take_lines(reader, source, lines, durations, language)
    return reader.splits()


def _take_lines(
    reader: Reader, source: Source, lines: Iterable[Line], durations: Mapping[str, float], language: str
) -> None:
    first: dict[int | str, int] = {}
    for line in lines:
        where = f"{source.path}, line {line.number}"
        if type(line.id) not in (int, str):
            reader.wrong(where, f'"{line.keys.id}" {reprlib.repr(line.id)} is no id')
        elif (other := first.setdefault(line.id, line.number)) != line.number:
            reader.wrong(where, f"has the id {reprlib.repr(line.id)}, which is that of line {other} too")
        else:
            _take(reader, source, line, durations, language, where)


def _take(
    reader: Reader, source: Source, line: Line, durations: Mapping[str, float], language: str, where: str
) -> None:
    name, moments = line.row.get(line.keys.video), line.row.get(line.keys.moments)
    seconds = line.row.get("duration", durations.get(name) if isinstance(name, str) else None)
    spans = _spans(moments)
    desc, lacking = _sentence(line.row.get(line.keys.sentence), language)
    if isinstance(name, str) and seconds is None:
        reader.lacks(name, NO_DURATION, where)
    elif lacking is not None:
        reader.wrong(where, lacking)
    elif not is_writable(line.row):
        reader.wrong(where, "has something in it that JSON cannot be written of, such as lists in lists in lists …")
    elif moments == []:
        source.n_read += 1
        source.left_out.append((where, f"{line.keys.moments} is empty"))
    elif spans is None and (line.answered or source.split != "test"):
        reader.wrong(where, f'"{line.keys.moments}" {reprlib.repr(moments)} is not a list of [start, end] in seconds')
    elif reader.video(name, seconds, where):
        number = line.id if line.own_id else line.number
        reader.query(source, number, str(name), desc, spans, where, own_id=line.own_id, also=line.also())


def _spans(moments: Any) -> list[tuple[Any, Any]] | None:
    """(start, end) of one moment or of several, None if it is neither."""
    if not isinstance(moments, list) or not moments:
        return None
    spans = moments if isinstance(moments[0], list) else [moments]
    return [(st, ed) for st, ed in spans] if all(isinstance(s, list) and len(s) == 2 for s in spans) else None


def _sentence(value: Any, language: str) -> tuple[Any, str | None]:
    """A query's sentence, of several the one in a language; and what to say where there is none."""
    if not isinstance(value, list | dict):
        return value, None
    entries = [{"lang": lang, "desc": desc} for lang, desc in value.items()] if isinstance(value, dict) else value
    named = [(entry.get("lang", entry.get("language")), entry) for entry in entries if isinstance(entry, dict)]
    spoken = {name: entry.get("desc") for name, entry in named if isinstance(name, str)}
    if language in spoken:
        return spoken[language], None
    there = ", ".join(map(str, spoken)) or reprlib.repr(value)
    return None, f"has no sentence in {language}, but {there}: give --language"
