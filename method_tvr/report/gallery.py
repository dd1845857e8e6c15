"""Queries to look at: right ones, near misses and misses, each with its best predictions and a timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from method_tvr.dataset.annotations import Query
from method_tvr.report.data import ReportData
from method_tvr.report.timeline import ANNOTATED, RIGHT, WRONG, Lane, Timeline
from standalone_eval.metrics import moment_iou, right_moments
from standalone_eval.outcomes import Outcomes

N_ENTRIES, N_PREDICTIONS = 12, 5
FOUND_BY = 10  # a truth at a later rank counts as missed


@dataclass(frozen=True)
class Prediction:
    """A row of a prediction file as it is shown; in VR without moment, the times and IoU meaning nothing."""

    rank: int
    vid_name: str
    in_video: bool
    st: float
    ed: float
    score: float
    iou: float
    right: bool


@dataclass(frozen=True)
class Entry:
    """One query, with its first predictions.

    Attributes:
        duration: seconds of its video, None where not known.
        ranks: {letter of file: rank of the truth, 0: not among the predictions}.
        timeline: the annotated moments, then the best predictions in the right video.
    """

    query: Query
    duration: float | None
    ranks: Mapping[str, int]
    predictions: Sequence[Prediction]
    timeline: Timeline


E = TypeVar("E")  # what is shown of a query


@dataclass(frozen=True)
class Gallery(Generic[E]):
    """Queries that fared alike: how many, their share in %, and entries of those shown; `key` is for links."""

    key: str
    title: str
    note: str
    n_queries: int
    share: float
    entries: Sequence[E]


def by_outcome(outcomes: Outcomes, iou_thd: float) -> dict[str, npt.NDArray[np.bool_]]:
    """{outcome: (Nq,) bool} of one task: each query has one of these outcomes.

    `hit`: right at rank 1; `near`: in VCMR the right video but another moment at rank 1, in the other tasks right at
    ranks 2 to 10; `found`: in VCMR right at ranks 2 to 10 behind another video; `miss`: the rest.
    """
    rank = outcomes.rank(iou_thd)
    hit, among = rank == 1, (rank > 1) & (rank <= FOUND_BY)
    if outcomes.task != "VCMR":
        return {"hit": hit, "near": among, "miss": ~hit & ~among}
    near = ~hit & (outcomes.video_rank == 1)
    return {"hit": hit, "near": near, "found": among & ~near, "miss": ~hit & ~near & ~among}


def galleries(data: ReportData) -> list[Gallery[Entry]]:
    """Hits, near misses and misses of the first file's main task, some of each."""
    moment = "" if data.main_task == "VR" else f" at IoU {data.main_iou_thd:g}"
    vcmr = data.main_task == "VCMR"
    behind = f"right at ranks 2 to {FOUND_BY}{moment}"
    texts = {
        "hit": ("Hits", f"right at rank 1{moment}"),
        "near": ("Near misses", f"the right video at rank 1, but not the moment{moment}" if vcmr else behind),
        "found": ("Found later", f"{behind}, another video at rank 1"),
        "miss": ("Misses", f"not among the first {FOUND_BY}{', another video at rank 1' if vcmr else ''}"),
    }
    found, rows = [], data.predictions.rows(data.main_task)
    for key, mask in by_outcome(data.first.outcomes[data.main_task], data.main_iou_thd).items():
        numbers = np.flatnonzero(mask)
        shown = [] if key == "found" else spread(numbers, data.queries, N_ENTRIES)
        title, note = texts[key]
        entries = [_entry(data, number, rows[number]) for number in shown]
        found.append(Gallery(key, title, note, len(numbers), 100 * len(numbers) / len(data.queries), entries))
    return found


def spread(numbers: npt.NDArray[np.int64], queries: Sequence[Query], n: int) -> list[int]:
    """`n` of some queries, evenly spaced when these are ordered by type, video and desc_id: nobody chooses them."""

    def place(number: int) -> tuple[str, str, int]:
        return queries[number].type or "", queries[number].vid_name or "", queries[number].desc_id

    ordered = sorted(numbers.tolist(), key=place)
    if len(ordered) <= n:
        return ordered
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, n).round().astype(int)]


def _entry(data: ReportData, number: int, rows: npt.NDArray[np.float64]) -> Entry:
    """Of the query with this number, which has these predictions."""
    query, task = data.queries[number], data.main_task
    ranks = {
        file.letter: int(file.outcomes[task].rank(data.main_iou_thd)[number])
        for file in data.files
        if task in file.outcomes
    }
    predictions = _predictions(data, number, rows)
    duration = data.durations.get(str(query.vid_name))
    in_video = [one for one in predictions if one.in_video and task != "VR"][:N_PREDICTIONS]
    lanes = [Lane("annotated", ANNOTATED, query.annotated)]
    for one in in_video:
        kind, sign = (RIGHT, "✓") if one.right else (WRONG, "✗")
        lanes.append(Lane(f"rank {one.rank} {sign}", kind, [(one.st, one.ed)]))
    end = duration or max(ed for lane in lanes for _, ed in lane.spans) or 1.0
    words = _in_words(query, in_video, end, task)
    timeline = Timeline(end, lanes, ticks=("0 s", f"{end:.1f} s"), in_words=words)
    return Entry(query, duration, ranks, predictions[:N_PREDICTIONS], timeline)


def _predictions(data: ReportData, number: int, rows: npt.NDArray[np.float64]) -> list[Prediction]:
    """All that have a rank."""
    aligned = data.predictions
    spans = aligned.truth.spans[number : number + 1]
    in_video = right = rows[:, 0] == aligned.video_idx[number]
    if data.main_task != "VR":
        rule = replace(data.rule, iou_thds=(data.main_iou_thd,))
        right = in_video & right_moments(rows[None, :, 1:3], spans, rule)[0, 0]
    iou = np.fmax.reduce(moment_iou(rows[:, None, 1:3], spans), axis=1) * in_video
    counted = aligned.have_rank(data.main_task, rows, number)
    shown = zip(rows[counted].tolist(), in_video[counted], iou[counted], right[counted], strict=True)
    return [
        Prediction(rank, aligned.name_of[int(idx)], bool(own), st, ed, score, float(fit), bool(is_right))
        for rank, ((idx, st, ed, score), own, fit, is_right) in enumerate(shown, start=1)
    ]


def _in_words(query: Query, in_video: Sequence[Prediction], end: float, task: str) -> str:
    parts = [f"Timeline of the right video, {end:.1f} s"]
    parts.append("annotated " + ", ".join(f"{st:.1f} to {ed:.1f} s" for st, ed in query.annotated))
    parts += [
        f"rank {one.rank} {one.st:.1f} to {one.ed:.1f} s, {'right' if one.right else 'wrong'}" for one in in_video
    ]
    if not in_video and task != "VR":
        parts.append("no prediction in this video")
    return "; ".join(parts) + "."
