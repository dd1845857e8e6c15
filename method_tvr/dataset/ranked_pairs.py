"""TVR-Ranking's files (arXiv 2407.06597): pairs of a query and a moment to train on, and queries with graded moments.

A JSON list, by query or a row a pair, as `standalone_eval/ranking/truth.py` shows. A pair of a pseudo training set has
a `similarity` of query and moment, by which its losses are weighed; one that people graded has a `relevance`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from method_tvr.dataset.annotations import WHERE_TO_GET, Query, Video, load_queries
from standalone_eval.files.forms import RANKED, form_of
from standalone_eval.findings import Findings, shorten
from standalone_eval.ranking.ndcg import RankedTruth
from standalone_eval.ranking.truth import MOMENTS, read_ranked_truth
from utils.basic_utils import InputError, first_few, progress, read_json

Splits = dict[str, dict[str, Video]]


def read_ranked(path: Path) -> Any:
    """The document of a file in TVR-Ranking's form; None where it is of another, of which nothing more is read."""
    try:
        with path.open("rb") as file:
            begins = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    except OSError:
        return None  # whoever reads it next says so
    content = read_json(path, WHERE_TO_GET) if begins == b"[" else None
    return content if form_of(content) is RANKED else None


def load_training_queries(path: Path, videos: Splits | None) -> list[Query]:
    """Queries to train on, each with a moment: of a jsonl (`load_queries`), or the pairs of TVR-Ranking's form."""
    content = read_ranked(path)
    return load_queries(path, videos) if content is None else _training_pairs(content, path, videos)


def load_asked_queries(path: Path, videos: Splits | None) -> tuple[list[Query], RankedTruth | None]:
    """Queries to answer: of a jsonl (`load_queries`), or of TVR-Ranking's form, with their graded moments."""
    content = read_ranked(path)
    if content is None:
        return load_queries(path, videos), None
    queries = ranked_queries(content, path)
    findings, numbers = Findings(), {name: video.idx for name, video in _known(videos).items()}
    truth = read_ranked_truth(content, numbers, findings)
    if truth is None:
        raise InputError(
            f"{path}: {'; '.join(f'{kind}: {first_few(found.examples)}' for kind, found in findings.errors.items())}"
        )
    outside = ~np.isin(truth.video, [*map(float, numbers.values()), np.nan]) & ~np.isnan(truth.video)
    if videos is not None and outside.any():
        ids = first_few([truth.query_ids[row] for row in np.flatnonzero(outside.any(axis=1))])
        raise InputError(f"{path}: {outside.sum()} moments are in videos of no corpus, query_id {ids}: add these to it")
    return queries, truth


def ranked_queries(content: Sequence[Any], path: Path) -> list[Query]:
    """The queries of a document in TVR-Ranking's form, in their first order, without their moments."""
    queries: dict[int, Query] = {}
    for line, row in enumerate(content, start=1):
        query_id, desc = _query(row, f"{path}, entry {line}")
        queries.setdefault(query_id, Query(query_id, desc, line))
    return list(queries.values())


def _training_pairs(content: list[Any], path: Path, videos: Splits | None) -> list[Query]:
    """One item a pair, in file order; a moment that ends after its video is clamped, and how many were is said."""
    known = None if videos is None else _known(videos)
    pairs, clamped, inverted = [], 0, 0
    for line, (row, pair) in enumerate(progress(_pairs(content, path), f"pairs of {path.name}"), start=1):
        query = _training_pair(row, pair, line, f"{path}, pair {line}", known)
        clamped += query.ts != tuple(map(float, pair["timestamp"]))
        inverted += query.item_weight is not None and query.item_weight < 0
        pairs.append(query)
    if not pairs:
        raise InputError(f"{path}: has no pairs to train on: give a training set")
    if clamped:
        print(f"warning: {path}: {clamped} moments end after their video and were clamped to its end", file=sys.stderr)
    n_queries = len({query.desc_id for query in pairs})
    if n_queries < len(pairs):
        print(
            f"note: {path}: {len(pairs):,} pairs of {n_queries:,} queries; two pairs of a query in one batch are each "
            "other's negatives, as published (--mask_same_query: they are not)",
            file=sys.stderr,
        )
    if inverted:
        print(
            f"warning: {path}: {inverted} of {len(pairs)} pairs have a similarity below 0, by which their losses are "
            "inverted, as published (--clamp_similarity: such pairs count 0)",
            file=sys.stderr,
        )
    return pairs


def _known(videos: Splits | None) -> dict[str, Video]:
    return {name: video for entries in (videos or {}).values() for name, video in entries.items()}


def _pairs(content: list[Any], path: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """(what has the query, what has the moment) of each pair."""
    for number, row in enumerate(content, start=1):
        _query(row, f"{path}, entry {number}")
        moments = row.get(MOMENTS, [row])
        if not isinstance(moments, list):
            raise InputError(f"{path}, entry {number}: {MOMENTS} is not a list of moments: mend the file")
        for moment in moments:
            yield row, moment


def _query(row: Any, where: str) -> tuple[int, str]:
    if not (isinstance(row, dict) and type(row.get("query_id")) is int and isinstance(row.get("query"), str)):
        raise InputError(f'{where}: expected "query_id" (an integer) and "query" (a sentence): {shorten(row)}')
    return row["query_id"], row["query"]


def _training_pair(row: dict[str, Any], pair: Any, line: int, where: str, known: Mapping[str, Video] | None) -> Query:
    where = f"{where}, query_id {row['query_id']}"
    if not isinstance(pair, dict) or not isinstance(pair.get("video_name"), str):
        raise InputError(f'{where}: expected "video_name" (a string): {shorten(pair)}')
    span, similarity = pair.get("timestamp"), pair.get("similarity")
    if not (isinstance(span, list) and len(span) == 2 and all(map(_is_finite, [*span, similarity]))):
        raise InputError(
            f'{where}: expected "timestamp" ([start, end] in seconds) and "similarity" (a number, of pseudo training '
            f"sets; val and test have a relevance instead): {shorten(pair)}"
        )
    name = pair["video_name"]
    video = Video(name, math.inf, 0) if known is None else known.get(name)
    if video is None:
        raise InputError(f"{where}: video {shorten(name)} is in no split of the durations: add it there")
    start, end = map(float, span)
    if not 0 <= start <= end or start >= video.duration:
        raise InputError(f"{where}: timestamp {span} is reversed, or outside its video, which lasts {video.duration} s")
    ts = start, min(end, video.duration)
    return Query(
        row["query_id"], row["query"], line, video.vid_name, ts, duration=video.duration, item_weight=similarity
    )


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
