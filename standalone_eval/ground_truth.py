"""The annotations a submission is measured against: read from jsonl rows, checked, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from .findings import Findings, shorten

MAX_MOMENTS = 100  # of one query; all queries get room for as many as one of them has
LARGEST_SECOND = float(np.finfo(np.float32).max)  # evaluation is in float32
Span = tuple[float, float]


@dataclass(frozen=True)
class GroundTruth:
    """Nq annotated queries.

    Attributes:
        desc_ids, vid_names: Nq query ids, and names of the videos that the queries were written for.
        spans: (Nq, M, 2) float64 seconds, M the most moments annotated for one query; NaN where a query has fewer.
        types: Nq query types (in TVR v, t or vt), or None if the annotations have none.
    """

    desc_ids: list[int]
    vid_names: list[str]
    spans: npt.NDArray[np.float64]
    types: list[str] | None


def read_desc_ids(rows: Sequence[dict[str, Any]], findings: Findings) -> list[int]:
    """The annotations' desc_ids; a missing, malformed or repeated one is noted as an error."""
    desc_ids: list[int] = []
    seen: set[int] = set()
    for number, row in enumerate(rows, start=1):
        desc_id = row.get("desc_id")
        if not isinstance(desc_id, int) or isinstance(desc_id, bool):
            findings.error(
                "ground truth: desc_id is missing or not an integer", [f"query {number}: {shorten(desc_id)}"]
            )
            continue
        if desc_id in seen:
            findings.error("ground truth: desc_id appears more than once", [f"query {number}: {desc_id}"])
        seen.add(desc_id)
        desc_ids.append(desc_id)
    return desc_ids


def is_annotated(row: Mapping[str, Any]) -> bool:
    """Whether a query says where its answer is: it has `ts`. Those of test_public do not."""
    return row.get("ts") is not None


def has_moments(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the annotations say where the answers are."""
    return any(map(is_annotated, rows))


def read_ground_truth(rows: Sequence[dict[str, Any]], findings: Findings) -> GroundTruth | None:
    """Annotations `{"desc_id", "vid_name", "ts"[, "type"]}` as arrays, or None after noting why they cannot be used.

    `ts` is [st, ed] in seconds, or a list of such spans where several people annotated the query.
    """
    before = len(findings.errors)
    desc_ids = read_desc_ids(rows, findings)
    if not has_moments(rows):
        findings.error("ground truth: the queries have no vid_name and ts, as in test_public: cannot be evaluated here")
        return None
    names, spans = [], []
    for number, row in enumerate(rows, start=1):
        name, moments = row.get("vid_name"), annotated_moments(row.get("ts"))
        if not isinstance(name, str):
            findings.error("ground truth: vid_name is missing or not text", [f"query {number}: {shorten(name)}"])
        if moments is None:
            place = f"query {number}: {shorten(row.get('ts'))}"
            findings.error(f"ground truth: ts is not [st, ed] with st <= ed, or 1 to {MAX_MOMENTS} such spans", [place])
        names.append(name)
        spans.append(moments or [])
    types = _types(rows, findings)
    if len(findings.errors) > before:
        return None
    return GroundTruth(desc_ids, [str(name) for name in names], padded(spans), types)


def annotated_moments(ts: Any) -> list[Span] | None:
    """The annotated spans in `ts`, or None if there are none or any is malformed."""
    spans = spans_of(ts)
    return spans if spans and all(-LARGEST_SECOND <= st <= ed <= LARGEST_SECOND for st, ed in spans) else None


def spans_of(ts: Any) -> list[Span] | None:
    """What `ts` holds: one [st, ed], or 1 to `MAX_MOMENTS` of them; None if it is of another form."""
    if not isinstance(ts, list) or not ts:
        return None
    spans = ts if isinstance(ts[0], list) else [ts]
    return [(st, ed) for st, ed in spans] if len(spans) <= MAX_MOMENTS and all(map(_is_pair, spans)) else None


def _is_pair(span: Any) -> bool:
    return isinstance(span, list) and len(span) == 2 and all(type(second) in (int, float) for second in span)


def is_query_type(value: Any) -> TypeGuard[str]:
    """Whether it can be a query's type: text that names rows of tables and curves, without control characters."""
    return isinstance(value, str) and value.isprintable()


def _types(rows: Sequence[dict[str, Any]], findings: Findings) -> list[str] | None:
    """Query types if the annotations have them; all must then have one."""
    if all(row.get("type") is None for row in rows):
        return None
    for number, row in enumerate(rows, start=1):
        query_type = row.get("type")
        if not is_query_type(query_type):
            place = f"query {number}: {shorten(query_type)}"
            findings.error("ground truth: type is missing or not text, though other queries have one", [place])
    return [str(row.get("type")) for row in rows]


def padded(spans: Sequence[Sequence[Span]]) -> npt.NDArray[np.float64]:
    """Lists of spans as (Nq, M, 2) float64, NaN where a query has fewer than M."""
    out = np.full((len(spans), max(map(len, spans), default=0), 2), np.nan)
    for query, moments in enumerate(spans):
        out[query, : len(moments)] = moments
    return out
