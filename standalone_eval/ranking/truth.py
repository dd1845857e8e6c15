"""Graded moments as TVR-Ranking publishes them: JSON, by query or a row a pair of query and moment, as arrays.

    by query    [{"query_id", "query", "relevant_moment": [{"video_name", "timestamp": [st, ed], "relevance"}, …]}, …]
    flat        [{"query_id", "query", "video_name", "timestamp": [st, ed], "relevance"}, …]

Rows of one query belong together, in the file's order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import numpy as np

from ..findings import Findings, shorten
from .ndcg import RankedTruth

MOMENTS = "relevant_moment"
MOST_RELEVANT = 64.0  # a gain is two to the power of it


def read_ranked_truth(content: Any, video2idx: Mapping[str, int], findings: Findings) -> RankedTruth | None:
    """The graded moments in a document, or None after noting why they cannot be used.

    `video2idx` numbers videos; those that it lacks get numbers of their own.
    """
    before = len(findings.errors)
    of_query: dict[int, list[tuple[float, float, float, float]]] = {}
    numbers = {name: float(idx) for name, idx in video2idx.items()}
    unnamed = min([0.0, *numbers.values()])  # of no video of the predictions
    for place, row in enumerate(content if isinstance(content, list) else [content], start=1):
        if not isinstance(row, dict) or type(row.get("query_id")) is not int:
            findings.error("ground truth: query_id is missing or not an integer", [f"entry {place}: {shorten(row)}"])
            continue
        moments = of_query.setdefault(row["query_id"], [])
        for where, pair in _pairs(row, place, findings):
            if (wrong := _why_wrong(pair)) is not None:
                findings.error(f"ground truth: {wrong}", [f"{where}: {shorten(pair)}"])
                continue
            video = numbers.setdefault(pair["video_name"], unnamed - len(numbers) - 1)
            st, ed = pair["timestamp"]
            moments.append((float(pair["relevance"]), video, float(st), float(ed)))
    if not of_query:
        findings.error("ground truth: has no queries")
    if len(findings.errors) > before:
        return None
    return _as_arrays(of_query, {int(number): name for name, number in numbers.items()})


def _pairs(row: dict[str, Any], place: int, findings: Findings) -> Iterator[tuple[str, Any]]:
    """The pairs of an entry, each with where it is."""
    where = f"entry {place}, query_id {row['query_id']}"
    moments = row.get(MOMENTS, [row])
    if not isinstance(moments, list):
        findings.error(f"ground truth: {MOMENTS} is not a list of moments", [f"{where}: {shorten(moments)}"])
        return
    for number, pair in enumerate(moments, start=1):
        yield (f"{where}, moment {number}" if MOMENTS in row else where), pair


def _why_wrong(pair: Any) -> str | None:
    """What is wrong with a graded moment; None if nothing is."""
    if not isinstance(pair, dict) or not isinstance(pair.get("video_name"), str):
        return "video_name is missing or not text"
    span, relevance = pair.get("timestamp"), pair.get("relevance")
    if not (isinstance(span, list) and len(span) == 2 and all(map(_is_number, span)) and span[0] <= span[1]):
        return "timestamp is not [st, ed] in seconds, with st <= ed"
    if not _is_number(relevance) or not 0 <= relevance <= MOST_RELEVANT:
        return f"relevance is not a number from 0 to {MOST_RELEVANT:g} (pseudo training sets have none)"
    return None


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < 2**53


def _as_arrays(
    of_query: Mapping[int, list[tuple[float, float, float, float]]], name_of: Mapping[int, str]
) -> RankedTruth:
    shape = len(of_query), max(map(len, of_query.values()), default=0)
    table = np.full((*shape, 4), np.nan)
    for number, moments in enumerate(of_query.values()):
        in_order = sorted(moments, key=lambda moment: -moment[0])  # stable: ties stay as the file has them
        table[number, : len(moments)] = np.array(in_order).reshape(-1, 4)
    relevance = np.nan_to_num(table[..., 0])
    return RankedTruth(list(of_query), name_of, table[..., 1], table[..., 2:], relevance)
