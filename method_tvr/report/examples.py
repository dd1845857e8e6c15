"""Queries chosen by rule, and what a model sees in their videos: start and end probabilities, best moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from method_tvr.dataset.annotations import Entry, Query, Video, annotated_spans
from method_tvr.inference import Evaluation
from method_tvr.model import ReLoCLNet
from method_tvr.report.timeline import ANNOTATED, RIGHT, WRONG, BoundaryCurve, Lane, Timeline
from method_tvr.search.encoding import encode_corpus, encode_queries
from method_tvr.search.retrieval import Searcher
from method_tvr.start_end_dataset import StartEndEvalDataset, prepare_batch_inputs
from standalone_eval.metrics import Rule, right_moments

Row = Sequence[float]  # [video_idx, st, ed, score]


@dataclass(frozen=True)
class Example:
    """One query: its own video with annotated and best moments, and what became of it in the whole corpus."""

    query: Query
    timeline: Timeline
    outcome: str


Examples = Mapping[str, tuple[Example | None, Example | None]]  # {query type: (right at rank 1, wrong)}


def is_right(
    rows: Sequence[Row], query: Query, video: Video, iou_thd: float, least_right: int = Rule.least_right
) -> np.ndarray:
    """(K,) bool: which rows are moments of the query's own video that agree with its annotation; see `Rule`."""
    if not rows:
        return np.zeros(0, dtype=bool)
    table = np.array(rows, dtype=np.float64)
    rule = Rule((iou_thd,), least_right=least_right)
    right_span = right_moments(table[None, :, 1:3], annotated_spans([query]), rule)[0, 0]
    return right_span & (table[:, 0] == video.idx)


def first_right_and_wrong(
    queries: Sequence[Query], right_at_1: Sequence[bool]
) -> dict[str, tuple[Query | None, Query | None]]:
    """For each query type, the first query in order that is right at rank 1, and the first that is not.

    Nobody chooses them, so they are typical rather than flattering. Queries without types make one type, "all".
    """
    chosen: dict[str, tuple[Query | None, Query | None]] = {}
    for query, right in zip(queries, right_at_1, strict=True):
        hit, miss = chosen.get(query.type or "all", (None, None))
        chosen[query.type or "all"] = (hit or query, miss) if right else (hit, miss or query)
    return chosen


def outcome_in_words(rows: Sequence[Row], right: np.ndarray, query: Query, name_of: Mapping[int, str]) -> str:
    """The outcome of a query in the whole corpus, from its VCMR rows and whether each is right."""
    if not len(rows):
        return "VCMR: no prediction"
    if right[0]:
        return "VCMR: right at rank 1"
    idx, st, ed, _ = rows[0]
    first = name_of[int(idx)]
    where = "this video" if first == query.vid_name else first
    rank = f"right at rank {int(np.argmax(right)) + 1}" if right.any() else f"none of {len(rows)} ranks is right"
    return f"VCMR: {rank}; rank 1 is {st:.1f}–{ed:.1f} s of {where}"


@torch.inference_mode()
def span_curves(
    model: ReLoCLNet, queries: Sequence[Query], evaluation: Evaluation
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Start and end probabilities of a few queries, encoded as one batch, over the L clips of each one's own video.

    Args:
        model: in evaluation mode, on the evaluation's device.
        queries: with ground truth.

    Returns:
        For each query (p_st, p_ed), each (L,).
    """
    features, device = evaluation.features, evaluation.device
    videos = {video.vid_name: video for video in evaluation.split.videos}
    own = [Entry(videos[query.vid_name]) for query in queries if query.vid_name]
    dataset = StartEndEvalDataset(queries, own, features, "context")
    context = dataset.batch(range(len(own)), features.max_ctx_l)
    corpus = encode_corpus(model, [context], device, evaluation.trim_padding)
    dataset.set_data_mode("query")
    _, batch = dataset.batch(range(len(queries)), features.max_ctx_l)
    encoded = encode_queries(model, prepare_batch_inputs(batch, device))
    searcher = Searcher(corpus, model.span_predictors, evaluation.search)
    p_st, p_ed, n_clips = searcher.span_probabilities(encoded, torch.arange(len(own), device=device)[:, None])
    return [
        (st[0, : int(n[0])].cpu().numpy(), ed[0, : int(n[0])].cpu().numpy())
        for st, ed, n in zip(p_st, p_ed, n_clips, strict=True)
    ]


def choose_examples(
    model: ReLoCLNet, evaluation: Evaluation, predictions: Mapping[str, Any], iou_thd: float, n_moments: int
) -> Examples:
    """The queries that `first_right_and_wrong` names by their outcomes in VCMR.

    Args:
        model: in evaluation mode, on the evaluation's device.
        predictions: the content of a prediction file with VCMR and SVMR.
        iou_thd: IoU from which a moment is right.
        n_moments: best moments shown of the query's video.
    """
    split = evaluation.split
    videos = {video.vid_name: video for video in split.videos}
    name_of = {video.idx: video.vid_name for video in split.videos}
    rows = {
        task: {answer["desc_id"]: answer["predictions"] for answer in predictions[task]} for task in ("VCMR", "SVMR")
    }

    def hits(task_rows: Sequence[Row], query: Query) -> np.ndarray:
        return is_right(task_rows, query, videos[str(query.vid_name)], iou_thd, evaluation.rule.least_right)

    right = {query.desc_id: hits(rows["VCMR"][query.desc_id], query) for query in split.queries}
    chosen = first_right_and_wrong(split.queries, [bool(right[q.desc_id][:1].any()) for q in split.queries])
    shown = [query for pair in chosen.values() for query in pair if query is not None]

    examples = {}
    for query, (p_st, p_ed) in zip(shown, span_curves(model, shown, evaluation), strict=True):
        video = videos[str(query.vid_name)]
        moments = rows["SVMR"][query.desc_id][:n_moments]
        clips = np.arange(len(p_st))[:, None].repeat(2, axis=1)
        starts, ends = evaluation.times.seconds(clips, video.duration, len(p_st)).T
        lanes = [Lane("annotated", ANNOTATED, query.annotated)]
        for rank, (row, is_hit) in enumerate(zip(moments, hits(moments, query), strict=True), 1):
            lanes.append(Lane(f"rank {rank}", RIGHT if is_hit else WRONG, [(row[1], row[2])]))
        curves = BoundaryCurve("start", starts, p_st), BoundaryCurve("end", ends, p_ed)
        outcome = outcome_in_words(rows["VCMR"][query.desc_id], right[query.desc_id], query, name_of)
        examples[query.desc_id] = Example(query, Timeline(video.duration, lanes, curves), outcome)
    return {
        kind: (examples[hit.desc_id] if hit else None, examples[miss.desc_id] if miss else None)
        for kind, (hit, miss) in chosen.items()
    }
