"""Recall, temporal NMS and prediction files query by query in plain Python: what the fast ways are compared with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

KS = (1, 5, 10, 100)
IOU_THDS = (0.5, 0.7)


def iou(st: float, ed: float, other_st: float, other_ed: float) -> float:
    """Intersection over (max end - min start), 0 where that is 0."""
    hull = max(ed, other_ed) - min(st, other_st)
    return max(min(ed, other_ed) - max(st, other_st), 0) / hull if hull else 0.0


def evaluate(submission: Mapping[str, Any], ground_truth: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """{task: {"{iou_thd}-r{k}": percentage}}, one query after another."""
    metrics = {}
    for task in (name for name in submission if name != "video2idx"):
        predictions = {entry["desc_id"]: entry["predictions"] for entry in submission[task]}
        hits: dict[str, int] = {}
        for query in ground_truth:
            video = submission["video2idx"][query["vid_name"]]
            for name, first in _first_right(task, predictions[query["desc_id"]], video, query["ts"]).items():
                for k in KS:
                    hits[f"{name}r{k}"] = hits.get(f"{name}r{k}", 0) + (first is not None and first < k)
        metrics[task] = {name: round(100 * count / len(ground_truth), 2) for name, count in hits.items()}
    return metrics


def _first_right(task: str, rows: Sequence[Sequence[float]], video: int, ts: Sequence[float]) -> dict[str, int | None]:
    """Rank of the first right prediction, at each threshold."""
    if task == "SVMR":
        rows = [row for row in rows if row[0] == video]
    if task == "VR":
        return {"": next((rank for rank, row in enumerate(rows) if row[0] == video), None)}
    first: dict[str, int | None] = {f"{iou_thd}-": None for iou_thd in IOU_THDS}
    truth = np.float32(ts[0]), np.float32(ts[1])
    for rank, row in enumerate(rows):
        if row[0] != video:
            continue
        overlap = iou(np.float32(row[1]), np.float32(row[2]), *truth)
        for iou_thd in IOU_THDS:
            if overlap >= np.float32(iou_thd) and first[f"{iou_thd}-"] is None:
                first[f"{iou_thd}-"] = rank
    return first


def suppress(rows: Sequence[Sequence[float]], nms_thd: float) -> list[Sequence[float]]:
    """Greedy NMS of one query's ranked rows [video_idx, st, ed, score], video by video."""
    kept: list[Sequence[float]] = []
    for row in rows:
        if not any(other[0] == row[0] and iou(other[1], other[2], row[1], row[2]) > nms_thd for other in kept):
            kept.append(row)
    return kept


def write(path: str | os.PathLike[str], submission: Mapping[str, Any]) -> None:
    """A prediction file with the standard library."""
    with open(path, "w", encoding="utf-8") as out:
        json.dump(submission, out)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A prediction file with the standard library."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)
