"""Queries with their moments, and the videos of a split: checked reading of the jsonl and video2dur_idx files."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from standalone_eval.check import about_exclusive
from standalone_eval.ground_truth import MAX_MOMENTS, Span, is_annotated, is_query_type, padded, spans_of
from standalone_eval.metrics import Rule, exclusive, moment_iou
from utils.annotations.public_files import SPLITS
from utils.basic_utils import InputError, first_few, read_json
from utils.dataset_files import MADE_FROM, SUBTITLES, read_queries_file

LARGEST_INDEX = 2**53  # integers up to here are exact in the float64 that predictions are compared in
WHERE_TO_GET = "see data/README.md for where annotations come from"


@dataclass(frozen=True, slots=True)
class Query:
    """One line of an annotation file; what a split without ground truth does not say is None."""

    desc_id: int
    desc: str
    line: int
    vid_name: str | None = None
    ts: Span | None = None  # seconds; of several the one to train on
    type: str | None = None
    duration: float | None = None  # of its video, in seconds
    moments: tuple[Span, ...] = ()  # all that were annotated, where a query has several
    from_subtitles: bool = False  # a subtitle line, which nobody wrote to search
    item_weight: float | None = None  # by which its losses are weighed; None: not at all

    @property
    def has_moment(self) -> bool:
        return self.ts is not None

    @property
    def annotated(self) -> tuple[Span, ...]:
        """All its moments."""
        return self.moments or (() if self.ts is None else (self.ts,))


@dataclass(frozen=True)
class Video:
    """One video of a split: its duration in seconds and the index that predictions name it by."""

    vid_name: str
    duration: float
    idx: int


@dataclass(frozen=True)
class Entry:
    """What is searched as one: a video, or with `clips` a window of one, which is searched as a video of its own."""

    video: Video
    clips: range | None = None

    @property
    def vid_name(self) -> str:
        return self.video.vid_name


def load_videos(path: str | Path) -> dict[str, dict[str, Video]]:
    """Read `{split: {vid_name: [duration, video_idx]}}`, and check it, as {split: {vid_name: Video}}, in file order.

    `{vid_name: duration}` is one corpus for all splits (TVR-Ranking's), whose order numbers the videos.
    """
    try:
        content = read_json(path, WHERE_TO_GET)
        if content and all(type(duration) in (int, float) for duration in content.values()):
            numbered = {name: (duration, idx) for idx, (name, duration) in enumerate(content.items())}
            content = {split: numbered for split in SPLITS}  # noqa: C420 (nothing changes it)
        splits = {
            split: {name: Video(name, _duration(duration), _index(idx)) for name, (duration, idx) in entries.items()}
            for split, entries in content.items()
        }
    except (AttributeError, TypeError, ValueError) as err:
        raise InputError(
            f"{path}: expected {{split: {{vid_name: [duration in seconds, video_idx]}}}} ({err}): mend the file"
        ) from err
    names: dict[int, str] = {}  # two videos of one video_idx could not be told apart in predictions
    for video in (video for entries in splits.values() for video in entries.values()):
        other = names.setdefault(video.idx, video.vid_name)
        if other != video.vid_name:
            both = f"{other} and of {video.vid_name}"
            raise InputError(f"{path}: video_idx {video.idx} is that of {both}: make it unique")
    return splits


def _index(idx: Any) -> int:
    if type(idx) is not int or abs(idx) > LARGEST_INDEX:
        raise ValueError(f"{reprlib.repr(idx)} is not a video_idx")
    return idx


def _duration(seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ValueError(f"{reprlib.repr(seconds)} is not a duration")
    return float(seconds)


def load_queries(path: str | Path, videos: dict[str, dict[str, Video]] | None = None) -> list[Query]:
    """Read and check an annotation file: queries in file order.

    A moment that ends after its video is clamped, and how many were is said on stderr.

    Args:
        path: jsonl with `desc_id` and `desc`, and in splits with ground truth `vid_name`, `ts` and maybe `type`; `ts`
            may be a list of spans, where several people annotated the query.
        videos: from `load_videos`, to check names and times against; all splits are looked in.

    Raises:
        InputError: naming file, line and desc_id.
    """
    durations = {name: video.duration for entries in (videos or {}).values() for name, video in entries.items()}
    queries, clamped = [], []
    seen: dict[int, int] = {}
    for number, row in enumerate(read_queries_file(path, WHERE_TO_GET), start=1):
        query = _parse(row, number, path)
        if query.desc_id in seen:
            raise InputError(
                f"{path}, line {number}: desc_id {query.desc_id} is that of line {seen[query.desc_id]} too"
            )
        seen[query.desc_id] = number
        if query.ts is not None and videos is not None:
            query, was_clamped = _fit_to_video(query, durations, path)
            if was_clamped:
                clamped.append(query.desc_id)
        queries.append(query)
    if clamped:
        print(
            f"warning: {path}: {len(clamped)} moments end after their video and were clamped to its end: "
            f"desc_id {first_few(clamped)}",
            file=sys.stderr,
        )
    odd = next((query for query in queries if not query.has_moment), None)
    if odd is not None and any(query.has_moment for query in queries):
        raise InputError(f"{path}, line {odd.line}: desc_id {odd.desc_id} has no vid_name and ts, but other lines have")
    untyped = next((query for query in queries if query.type is None), None)
    if untyped is not None and any(query.type is not None for query in queries):  # the evaluator refuses them, too
        where = f"{path}, line {untyped.line}: desc_id {untyped.desc_id}"
        raise InputError(f"{where} has no type, but other lines have: give all a type, or none")
    return queries


def _parse(row: dict[str, Any], number: int, path: str | Path) -> Query:
    where = f"{path}, line {number}"
    desc_id, desc, vid_name = row.get("desc_id"), row.get("desc"), row.get("vid_name")
    if isinstance(desc_id, bool) or not isinstance(desc_id, int) or not isinstance(desc, str):
        raise InputError(f'{where}: expected "desc_id" (an integer) and "desc" (a string)')
    if not is_annotated(row):
        return Query(desc_id, desc, number)
    spans = spans_of(row["ts"])
    if not isinstance(vid_name, str) or spans is None or not all(math.isfinite(second) for second in chain(*spans)):
        raise InputError(
            f'{where}: desc_id {desc_id}: expected "vid_name" (a string) and "ts" ([start, end] in seconds, or 1 to '
            f"{MAX_MOMENTS} of them)"
        )
    for start, end in spans:
        if start < 0 or start > end:
            raise InputError(f"{where}: desc_id {desc_id}: ts {[start, end]} is reversed or negative: swap or mend it")
    query_type = row.get("type")
    if query_type is not None and not is_query_type(query_type):
        raise InputError(f'{where}: desc_id {desc_id}: "type" {reprlib.repr(query_type)} is not text such as "v"')
    from_subtitles = row.get(MADE_FROM) == SUBTITLES
    query = Query(desc_id, desc, number, vid_name, type=query_type, from_subtitles=from_subtitles)
    return _with_moments(query, [(float(start), float(end)) for start, end in spans])


def _with_moments(query: Query, moments: Sequence[Span]) -> Query:
    return replace(query, ts=most_agreed(moments), moments=tuple(moments) if len(moments) > 1 else ())


def most_agreed(moments: Sequence[Span]) -> Span:
    """The moment whose IoUs with all of them sum to most: the one to train on. The first of several."""
    if len(moments) == 1:
        return moments[0]
    spans = np.array(moments)
    return moments[int(moment_iou(spans[:, None], spans[None]).sum(axis=1).argmax())]


def annotated_spans(queries: Sequence[Query]) -> np.ndarray:
    """(Nq, M, 2) seconds of all moments of queries with ground truth, NaN where one has fewer than M."""
    return padded([query.annotated for query in queries])


def about_exclusive_moments(queries: Sequence[Query], rule: Rule) -> str | None:
    """What is to be said where moments of queries with ground truth cannot agree as the rule asks."""
    found = [query.desc_id for query in np.array(queries, dtype=object)[exclusive(annotated_spans(queries), rule)]]
    return f"{about_exclusive(rule)} ({len(found)}): desc_id {first_few(found)}" if found else None


def _fit_to_video(query: Query, durations: dict[str, float], path: str | Path) -> tuple[Query, bool]:
    """The query with its moments inside its video, and whether any had to be clamped."""
    where = f"{path}, line {query.line}: desc_id {query.desc_id}"
    if query.vid_name not in durations:
        raise InputError(f"{where}: video {query.vid_name} is in no split of the video2dur_idx file: add it there")
    duration = durations[query.vid_name]
    for start, end in query.annotated:
        if start >= duration:
            raise InputError(f"{where}: ts {[start, end]} starts after {query.vid_name} ends ({duration} s)")
    within = [(start, min(end, duration)) for start, end in query.annotated]
    return _with_moments(replace(query, duration=duration), within), tuple(within) != query.annotated


def outside_split(queries: Sequence[Query], videos: Mapping[str, Video]) -> list[Query]:
    """The queries whose video is not among a split's `videos`, so that no search of the split can find it."""
    return [query for query in queries if query.vid_name and query.vid_name not in videos]
