"""What public annotation files say, checked: queries whose moments lie in their videos, and what had to be left out.

What is wrong with the form of a file is collected and refused together. A moment that is reversed, empty or outside its
video is left out and listed; one that only reaches past an end of its video is clamped and counted.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from standalone_eval.files.forms import ACTIVITYNET, CHARADES, DIDEMO, MOMENT_DETR, Form, form_of_text
from standalone_eval.ground_truth import MAX_MOMENTS, Span
from utils.basic_utils import InputError, first_few, is_name, read_bytes, read_json
from utils.tables import indented

IDS_PER_FILE = 1_000_000  # desc_id = number of the file * this + number of the query in it
DURATIONS_APART = 0.01  # seconds by which two files may differ about a video unsaid
PUBLIC = (ACTIVITYNET, CHARADES, DIDEMO, MOMENT_DETR)
SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
WHERE_FROM = "see utils/annotations/README.md for where it comes from"


@dataclass(frozen=True)
class Query:
    """A query with its moments in seconds: one, or one for each person who annotated it."""

    desc_id: int
    desc: str
    vid_name: str
    moments: tuple[Span, ...]


@dataclass
class Source:
    """One annotation file, and what became of what it says."""

    path: Path
    number: int  # its place among the dataset's files, from 1, whichever of them are there
    split: str  # that it is used as
    videos: dict[str, None] = field(default_factory=dict)  # in the file's order, also those with no query kept
    queries: list[Query] = field(default_factory=list)  # those that are kept
    n_read: int = 0  # queries in the file
    n_clamped: int = 0  # moments that reached past an end of their video
    furthest: float = 0.0  # seconds by which they did, at most
    left_out: list[tuple[str, str]] = field(default_factory=list)  # (place in the file, reason)


@dataclass(frozen=True)
class Split:
    """Videos to search in, and queries, in the order of their file."""

    videos: list[str]
    queries: list[Query]

    def about(self, wanted: Callable[[str], bool]) -> Split:
        """The part of it that is about some of the videos."""
        videos = [video for video in self.videos if wanted(video)]
        return Split(videos, [query for query in self.queries if wanted(query.vid_name)])


class Reader:
    """Takes what the files of a dataset say, one query at a time."""

    def __init__(self) -> None:
        self.durations: dict[str, float] = {}  # seconds by video; the first that a file says of it holds
        self.differing: dict[str, None] = {}  # videos of which a later file says another duration
        self.sources: list[Source] = []  # what has been read
        self.unread: list[tuple[Path, Form]] = []  # annotations in the same folder that are none of the dataset's files
        self._wrong: list[str] = []
        self._lacking: dict[str, dict[str, list[str]]] = {}  # {what there is nowhere: {video: places that need it}}
        self._seen: dict[int, str] = {}

    def open(self, folder: Path, files: Mapping[str, str], form: Form) -> list[Source]:
        """Begin with those of a dataset's annotation files, {name: split}, that are in a folder; one has to be.

        An `InputError` also for annotations of this form under another name, whose split would be missing.
        """
        self.unread = _other_annotations(folder, files)
        try:
            found = there(folder, list(files))
        except InputError as err:
            others = "".join(f"; {path.name} {form}" for path, form in self.unread)
            raise InputError(f"{err}{others}") from err
        for path, other in self.unread:
            split = _split_of(path)
            missing = [name for name in files if files[name] == split and folder / name not in found]
            if other == form and missing:
                raise InputError(
                    f"{path}: would not be read: {split} is read from {missing[0]}: call it so, or move it"
                )
        sources = [Source(folder / name, i, split) for i, (name, split) in enumerate(files.items(), start=1)]
        self.sources = [source for source in sources if source.path in found]
        return self.sources

    def splits(self) -> dict[str, Split]:
        """What has been read, by split."""
        return {source.split: Split(list(source.videos), source.queries) for source in self.sources}

    def wrong(self, where: str, reason: str) -> None:
        """Note a place whose form is wrong."""
        self._wrong.append(f"{where}: {reason}")

    def lacks(self, name: str, what: str, where: str) -> None:
        """Note a video of which there is nowhere what a place needs: said once, however many videos and places."""
        self._lacking.setdefault(what, {}).setdefault(name, []).append(where)

    def video(self, name: Any, seconds: Any, where: str) -> bool:
        """Note a video's duration; False, after noting why, when name or duration are none."""
        if not isinstance(name, str) or not is_name(name) or not name.strip() or "/" in name:
            self.wrong(where, f"{reprlib.repr(name)} is not the name of a video")
            return False
        if seconds is None:
            self.lacks(name, "has no duration: expected seconds", where)
            return False
        if type(seconds) not in (int, float) or not 0 < seconds < math.inf:
            self.wrong(where, f"video {name} has the duration {reprlib.repr(seconds)}: expected seconds")
            return False
        if abs(self.durations.setdefault(name, float(seconds)) - seconds) > DURATIONS_APART:
            self.differing[name] = None
        return True

    def query(
        self, source: Source, number: int, vid_name: str, desc: Any, moments: Sequence[tuple[Any, Any]], where: str
    ) -> None:
        """Take a query, or note what is wrong with it, or list it as left out.

        Args:
            source, number: the file it is in, and its own number there, below `IDS_PER_FILE`.
            vid_name: a video that `video` has taken.
            desc, moments: the sentence, and (start, end) in seconds, as they were read.
            where: its place in the file, for messages.
        """
        source.n_read += 1
        source.videos.setdefault(vid_name)
        desc_id = source.number * IDS_PER_FILE + number
        if not 0 <= number < IDS_PER_FILE:
            self.wrong(where, f"number {number} of a query is not from 0 to {IDS_PER_FILE - 1}")
        elif (other := self._seen.setdefault(desc_id, where)) != where:
            self.wrong(where, f"has the id {number}, which is that of {other} too")
        elif not isinstance(desc, str):
            self.wrong(where, f"{reprlib.repr(desc)} is not a sentence")
        elif not 0 < len(moments) <= MAX_MOMENTS:
            self.wrong(where, f"has {len(moments)} moments, expected 1 to {MAX_MOMENTS}")
        else:
            fitted = [self._fitted(source, moment, vid_name, where) for moment in moments]
            kept = tuple(span for span in fitted if span is not None)
            sentence = " ".join(desc.split())
            if not sentence:
                source.left_out.append((where, "the sentence is empty"))
            elif kept:
                source.queries.append(Query(desc_id, sentence, vid_name, kept))

    def _fitted(self, source: Source, moment: tuple[Any, Any], vid_name: str, where: str) -> Span | None:
        """The part of a moment that lies in its video, or None after noting why there is none."""
        start, end = moment
        if not all(type(second) in (int, float) and math.isfinite(second) for second in moment):
            self.wrong(where, f"{reprlib.repr(list(moment))} is not a start and an end in seconds")
            return None
        duration = self.durations[vid_name]
        span = max(float(start), 0.0), min(float(end), duration)
        if start >= end:
            reason = "is reversed" if start > end else "is empty"
        elif span[0] >= span[1]:
            reason = f"is outside {vid_name}, which lasts {duration:g} s"
        else:
            past = max(-start, end - duration, 0.0)
            source.n_clamped += past > 0
            source.furthest = max(source.furthest, past)
            return span
        source.left_out.append((where, f"moment [{start:g}, {end:g}] {reason}"))
        return None

    def check(self) -> None:
        """Refuse what had a wrong form: the `InputError` names the first places, and how many there are."""
        wrong = [_once(what, places_of) for what, places_of in self._lacking.items()] + self._wrong
        if wrong:
            raise InputError(f"these places have to be mended first:{indented(wrong)}")


def _once(what: str, places_of: Mapping[str, Sequence[str]]) -> str:
    """What videos lack, with the first place that needs it, and how many more there are."""
    names = list(places_of)
    n_others = sum(map(len, places_of.values())) - 1
    others = f"; so it is in {n_others:,} more places, of videos {first_few(names)}" if n_others else ""
    return f"{places_of[names[0]][0]}: video {names[0]} {what}{others}"


def _split_of(path: Path) -> str | None:
    """The split that a file's name speaks of."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)


def _other_annotations(folder: Path, names: Collection[str]) -> list[tuple[Path, Form]]:
    """Files of the folder that have none of these names, but that of a split and a form of public annotations."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jsonl", ".txt") and path.name not in names and path.is_file() and _split_of(path):
            form = form_of_text(read_bytes(path, WHERE_FROM).decode("utf-8", "replace"))
            if form in PUBLIC:
                found.append((path, form))
    return found


def refuse_others(path: Path, expected: Form) -> None:
    """An `InputError` for a file of a form that is known and is not the expected one."""
    form = form_of_text(read_bytes(path, WHERE_FROM).decode("utf-8", "replace"))
    if form not in (None, expected):
        raise InputError(f"{path}: {form}")


def read_public_json(path: Path, kind: type, expected: Form) -> Any:
    """The JSON of an annotation file of a form that is a dict or a list, whichever is the `kind`.

    An `InputError` if it cannot be read, is not JSON or not of that kind, is of another form that is known, is empty,
    or an object in it has a key twice.
    """
    refuse_others(path, expected)
    content = read_json(path, WHERE_FROM)
    if not isinstance(content, kind) or not content:
        form = "an object {…} with a key for each video" if kind is dict else "a list […] of queries"
        raise InputError(f"{path}: expected {form}, found {reprlib.repr(content)}: {WHERE_FROM}")
    try:  # again, because a parser that is fast keeps the last of two values without a word
        json.loads(read_bytes(path, WHERE_FROM), object_pairs_hook=_refuse_twins)
    except RecursionError as err:
        raise InputError(f"{path}: is nested too deeply for an annotation file: {WHERE_FROM}") from err
    except KeyError as err:
        raise InputError(f"{path}: has {reprlib.repr(err.args[0])} twice: keep one of them") from err
    return content


def _refuse_twins(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise KeyError(key)
        seen.add(key)


def there(folder: Path, names: Sequence[str]) -> list[Path]:
    """Those of a dataset's files that are in a folder; `InputError` when none is."""
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise InputError(f"{folder}: has none of {', '.join(names)}: {WHERE_FROM}")
    return found
