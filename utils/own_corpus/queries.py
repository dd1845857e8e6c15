"""Queries for a new dataset: read from files, checked before hours of work, fitted to the videos that there are.

A row is `{"desc": sentence, "vid_name": video, "ts": [start, end] in seconds}`, with `desc_id`, `type`, `split` and
anything else if wanted. What is wrong with a row itself is refused; a query whose video is missing or failed, or ends
before the moment begins, is left out and listed.
"""

from __future__ import annotations

import hashlib
import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from standalone_eval.ground_truth import is_query_type
from utils.basic_utils import InputError, first_few
from utils.inventory.names import Names
from utils.own_corpus.layout import ALL, LEARNT, TEST
from utils.own_corpus.reading.query_keys import splits_meant, standard_keys
from utils.own_corpus.reading.query_rows import read_rows
from utils.tables import indented

LARGEST_ID = 2**53
ID_BYTES = 6
_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,50}")


@dataclass(frozen=True)
class Query:
    """A line of a query file; None is what it does not say."""

    where: str  # file and line
    desc_id: int  # as the line says, else a number made of sentence, video and times: the same in every run
    desc: str
    vid_name: str | None
    ts: tuple[float, float] | None  # (start, end) in seconds
    split: str | None
    content: dict[str, Any]  # all that the line says, `desc`, `vid_name` and `ts` under these keys
    notes: tuple[str, ...] = ()  # what it says in other words, or in words that are not read


@dataclass(frozen=True)
class LeftOut:
    """A query that is not in the dataset, and why."""

    query: Query
    reason: str

    def __str__(self) -> str:
        return f"{self.query.where}: {reprlib.repr(self.query.desc)}{_id_of(self.query.content)}: {self.reason}"


def read_queries(paths: Sequence[str | Path]) -> list[Query]:
    """Read and check query files; `InputError` when one cannot be read, or for wrong lines, naming the first."""
    rows = [row for path in paths for row in read_rows(path)]
    queries: list[Query] = []
    wrong: list[str] = []
    standard: list[tuple[str, dict[str, Any], list[str]]] = []
    for where, content in rows:
        try:
            standard.append((where, *standard_keys(content)))
        except ValueError as err:
            wrong.append(f"{where}: {err}{_id_of(content)}")
    splits = splits_meant({content["split"] for _, content, _ in standard if isinstance(content.get("split"), str)})
    for where, content, notes in standard:
        try:
            queries.append(as_query(content, where, splits, notes))
        except ValueError as err:
            wrong.append(f"{where}: {err}{_id_of(content)}")
    wrong += _same_ids(queries)
    if not wrong:
        wrong = _disagreements(queries)
    if wrong:
        raise InputError(f"these lines have to be mended, or taken out, first:{indented(wrong)}")
    return queries


def as_query(content: dict[str, Any], where: str, splits: Mapping[str, str], notes: Sequence[str] = ()) -> Query:
    """A row as a query; `splits` says what splits are called here. `ValueError` says what is wrong with it."""
    desc, vid_name, ts, split = (content.get(key) for key in ("desc", "vid_name", "ts", "split"))
    if not isinstance(desc, str) or not desc.strip():
        raise ValueError('has no "desc", the sentence to look for')
    if vid_name is not None and not (isinstance(vid_name, str) and vid_name):
        raise ValueError(f'"vid_name" {reprlib.repr(vid_name)} is not the name of a video')
    if content.get("type") is not None and not is_query_type(content["type"]):
        raise ValueError(f'"type" {reprlib.repr(content["type"])} is not text such as "v"')
    if split is not None and not (isinstance(split, str) and _SPLIT.fullmatch(split) and split != ALL):
        raise ValueError(f'"split" {reprlib.repr(split)} is not a name such as "train", "val" or "test"')
    times = None if ts is None else _times(ts, vid_name)
    if split is not None and splits[split] not in (split, TEST):
        notes = [*notes, f'split "{split}" is taken for {splits[split]}']
    split = None if split is None else splits[split]
    if times is None and split in LEARNT:
        raise ValueError(f'has no "ts": queries of split {split} need [start, end] in seconds')
    return Query(where, _desc_id(content, times), desc, vid_name, times, split, content, tuple(notes))


def _id_of(content: Mapping[str, Any]) -> str:
    """The `desc_id` that the user gave, for messages; "" without one."""
    return f" (desc_id {reprlib.repr(content['desc_id'])})" if content.get("desc_id") is not None else ""


def _times(ts: Any, vid_name: str | None) -> tuple[float, float]:
    if not (isinstance(ts, list) and len(ts) == 2 and all(type(t) in (int, float) and math.isfinite(t) for t in ts)):
        raise ValueError(f'"ts" {reprlib.repr(ts)} is not [start, end] in seconds')
    if vid_name is None:
        raise ValueError('has "ts", but no "vid_name" that says which video that is in')
    if ts[0] < 0 or ts[1] < ts[0]:
        raise ValueError(f'"ts" {ts} is {"negative" if ts[0] < 0 else "reversed"}')
    return float(ts[0]), float(ts[1])


def _desc_id(content: Mapping[str, Any], ts: tuple[float, float] | None) -> int:
    desc_id = content.get("desc_id")
    if desc_id is None:
        said = orjson.dumps([content["desc"], content.get("vid_name"), ts])
        return int.from_bytes(hashlib.sha256(said).digest()[:ID_BYTES], "big")
    if type(desc_id) is not int or not 0 <= desc_id <= LARGEST_ID:
        raise ValueError(f'"desc_id" {reprlib.repr(desc_id)} is not a number such as 17; without it, one is made')
    return desc_id


def _same_ids(queries: Iterable[Query]) -> list[str]:
    wrong: list[str] = []
    first: dict[int, Query] = {}
    for query in queries:
        other = first.setdefault(query.desc_id, query)
        if other is not query:
            what = "says the same" if query.content.get("desc_id") is None else f'has the "desc_id" {query.desc_id}'
            wrong.append(f"{query.where}: {what} as {other.where}")
    return wrong


def _disagreements(queries: Sequence[Query]) -> list[str]:
    """Lines that leave open which split they belong to."""
    timed = [query for query in queries if query.ts is not None]
    unsaid = [query for query in timed if query.split is None]
    if unsaid and len(unsaid) < len(timed):
        return [f'{query.where}: says no "split", but other lines with times do' for query in unsaid]
    wrong = []
    timed_splits = {query.split: query for query in timed if query.split is not None}
    for query in queries:
        other = timed_splits.get(query.split or TEST)
        if query.ts is None and other is not None:
            wrong.append(f'{query.where}: has no "ts", but is of the same split as {other.where}, which has')
    return wrong


def with_known_names(queries: Sequence[Query], videos: Iterable[str]) -> list[Query]:
    """Queries with the names that the videos have, where theirs differ in Unicode form, case or kind of spaces alone.

    Refuses queries of which none is about one of the videos: their names must mean something else.
    """
    names = Names(videos)
    found = [query if query.vid_name is None else _renamed(query, names.known(query.vid_name)) for query in queries]
    named = [query for query in found if query.vid_name is not None]
    if named and not any(query.vid_name in names for query in named):
        name = named[0].vid_name or ""
        such_as = first_few(names.nearest(name) or sorted(names), 3)
        raise InputError(
            f'{named[0].where}: "vid_name" {name} is none of the videos, and no other line names one: a '
            f"video is called as its file without the suffix, such as {such_as}"
        )
    return found


def _renamed(query: Query, name: str | None) -> Query:
    if name is None or name == query.vid_name:
        return query
    said = '"vid_name" differs from the video\'s in Unicode form, case or kind of spaces, and is taken for it'
    content = {**query.content, "vid_name": name}
    return replace(query, vid_name=name, content=content, notes=(*query.notes, said))


def noted(queries: Iterable[Query]) -> dict[str, list[str]]:
    """What is to be said of how queries were read, each with the rows that it is about."""
    rows: dict[str, list[str]] = {}
    for query in queries:
        for note in query.notes:
            rows.setdefault(note, []).append(query.where)
    return rows


def fit_to_videos(
    queries: Sequence[Query], durations: Mapping[str, float], failed: Mapping[str, str]
) -> tuple[list[Query], list[LeftOut]]:
    """The queries that the videos allow, and the others.

    Seconds and reasons are by vid_name, of the videos that have features and of those that have not.
    """
    names = Names({*durations, *failed})
    return parted(queries, lambda query: _hindrance(query, durations, failed, names))


def parted(queries: Sequence[Query], hindrance: Callable[[Query], str | None]) -> tuple[list[Query], list[LeftOut]]:
    """The queries that nothing hinders, and the others."""
    reasons = [(query, hindrance(query)) for query in queries]
    kept = [query for query, reason in reasons if reason is None]
    return kept, [LeftOut(query, reason) for query, reason in reasons if reason is not None]


def _hindrance(query: Query, durations: Mapping[str, float], failed: Mapping[str, str], names: Names) -> str | None:
    name = query.vid_name
    if name is None:
        return None
    if name in failed:
        return f"its video {name} failed"
    if name not in durations:
        near = names.nearest(name)
        return f"there is no video {name}" + (f" (is {first_few(near, 3)} meant?)" if near else "")
    if query.ts is not None and query.ts[0] >= durations[name]:
        return f"its moment {list(query.ts)} begins after {name} ends ({durations[name]:.2f} s)"
    return None


def past_the_end(queries: Iterable[Query], durations: Mapping[str, float]) -> list[Query]:
    """Those whose moment ends more than rounding after their video; training clamps them."""
    return [
        query
        for query in queries
        if query.ts is not None and query.vid_name is not None and query.ts[1] > durations[query.vid_name] + 0.01
    ]


def other_durations(queries: Iterable[Query], durations: Mapping[str, float]) -> list[Query]:
    """Those that say of their video that it is more than a second longer or shorter than it is."""

    def differs(query: Query) -> bool:
        said: Any = query.content.get("duration")
        return type(said) in (int, float) and abs(said - durations[query.vid_name or ""]) > 1

    return [query for query in queries if query.vid_name is not None and differs(query)]
