"""What public annotation files say, checked: queries whose moments lie in their videos, and what had to be left out.

What is wrong with the form of a file is collected and refused together. A moment that is reversed, empty or outside its
video is left out and listed; one that only reaches past an end of its video is clamped and counted.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from standalone_eval.files.forms import Form
from standalone_eval.ground_truth import MAX_MOMENTS, Span
from utils.annotations.public_files import SPLITS, other_annotations, split_of, there
from utils.basic_utils import InputError, first_few, is_name
from utils.own_corpus.splits import val_videos
from utils.tables import indented

IDS_PER_FILE = 1_000_000  # desc_id = number of the file * this + number of the query in it
LARGEST_ID = 2**53  # integers up to here are exact wherever they are read
DURATIONS_APART = 0.01  # seconds by which two files may differ about a video unsaid


@dataclass(frozen=True)
class Query:
    """A query with its moments in seconds: one, or one for each window or person; none where the answer is not public.

    `also` is what else its file says of it, by the keys there.
    """

    desc_id: int
    desc: str
    vid_name: str
    moments: tuple[Span, ...]
    also: Mapping[str, Any] = field(default_factory=dict)


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


def with_val(splits: Mapping[str, Split], share: float) -> dict[str, Split]:
    """Splits, in the usual order, with about `share` of train's videos as val, chosen by name alone, if there is none.

    `InputError` when no queries would be left for train, or for val.
    """
    train = splits.get("train")
    held_out = set() if train is None or "val" in splits else val_videos(train.videos, share)
    if train is None or not train.queries or not held_out:
        return dict(splits)
    parts = {"train": train.about(lambda video: video not in held_out), "val": train.about(held_out.__contains__)}
    for name, part in parts.items():
        if not part.queries:
            raise InputError(
                f"--val_share {share:g}: of the {len(train.videos)} training videos, none with queries is left for "
                f"{name}: give another share, or 0 for no val"
            )
    return {**parts, **{name: split for name, split in splits.items() if name != "train"}}


class Reader:
    """Takes what the files of a dataset say, one query at a time."""

    def __init__(self) -> None:
        self.durations: dict[str, float] = {}  # seconds by video; the first that a file says of it holds
        self.differing: dict[str, None] = {}  # videos of which a later file says another duration
        self.sources: list[Source] = []  # what has been read
        # annotations in the folder that are none of the dataset's files, or hold nothing to convert, and what they are
        self.unread: list[tuple[Path, Form | str]] = []
        self._wrong: list[str] = []
        self._lacking: dict[str, dict[str, list[str]]] = {}  # {what there is nowhere: {video: places that need it}}
        self._seen: dict[int, str] = {}

    def open(self, folder: Path, files: Mapping[str, str], form: Form) -> list[Source]:
        """Begin with those of a dataset's annotation files, {name: split}, that are in a folder; one has to be.

        An `InputError` also for annotations of this form under another name, whose split would be missing.
        """
        others = other_annotations(folder, files)
        self.unread = [*others]
        try:
            found = there(folder, list(files))
        except InputError as err:
            raise InputError(f"{err}{''.join(f'; {path.name} {other}' for path, other in others)}") from err
        for path, other in others:
            split = split_of(path)
            missing = [name for name in files if files[name] == split and folder / name not in found]
            if other == form and missing:
                raise InputError(
                    f"{path}: would not be read: {split} is read from {missing[0]}: call it so, or move it"
                )
        sources = [Source(folder / name, i, split) for i, (name, split) in enumerate(files.items(), start=1)]
        self.sources = [source for source in sources if source.path in found]
        return self.sources

    def begin(self, files: Mapping[str, Path]) -> list[Source]:
        """Begin with the files of some splits, whatever they are called."""
        self.sources = [Source(path, 1 + SPLITS.index(split), split) for split, path in files.items()]
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
        self,
        source: Source,
        number: int,
        vid_name: str,
        desc: Any,
        moments: Sequence[tuple[Any, Any]] | None,
        where: str,
        own_id: bool = False,
        also: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a query, or note what is wrong with it, or list it as left out.

        Args:
            source, number: the file it is in, and its own number there, below `IDS_PER_FILE`.
            vid_name: a video that `video` has taken.
            desc, moments: the sentence, and (start, end) in seconds, as they were read; None where nobody says.
            where: its place in the file, for messages.
            own_id: whether the number is an id among all files of the dataset, which becomes the query's.
            also: see `Query`.
        """
        source.n_read += 1
        source.videos.setdefault(vid_name)
        desc_id, limit = (number, LARGEST_ID) if own_id else (source.number * IDS_PER_FILE + number, IDS_PER_FILE)
        if not 0 <= number < limit:
            self.wrong(where, f"number {number} of a query is not from 0 to {limit - 1}")
        elif (other := self._seen.setdefault(desc_id, where)) != where:
            self.wrong(where, f"has the id {number}, which is that of {other} too")
        elif not isinstance(desc, str):
            self.wrong(where, f"{reprlib.repr(desc)} is not a sentence")
        elif moments is not None and not 0 < len(moments) <= MAX_MOMENTS:
            self.wrong(where, f"has {len(moments)} moments, expected 1 to {MAX_MOMENTS}")
        else:
            fitted = [self._fitted(source, moment, vid_name, where) for moment in moments or ()]
            kept = tuple(span for span in fitted if span is not None)
            sentence = " ".join(desc.split())
            if not sentence:
                source.left_out.append((where, "the sentence is empty"))
            elif kept or moments is None:
                source.queries.append(Query(desc_id, sentence, vid_name, kept, also or {}))

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
