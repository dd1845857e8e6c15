"""Chance level: the recalls to expect of a list that is drawn blindly, computed exactly from annotations and lengths.

One draw takes a video uniformly and in it a span uniformly among those that predictions are made of (start and end
boundaries i, j with min_pred_l <= j - i < max_pred_l and j below the number of clips). A ranked list is a sequence of
such draws that never repeats itself:

* VCMR: each draw takes any video of the corpus, and one of its spans that is not in the list yet. A draw that meets a
  video without such a span is lost.
* SVMR: each draw takes a span of the query's own video that is not in the list yet; this is VCMR in a corpus of one.
* VR: each draw takes a video that is not in the list yet.

Recall at k is then the probability that one of the first k draws is right, averaged over queries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from method_tvr.dataset.annotations import Query, annotated_spans
from method_tvr.dataset.clip_times import ClipTimes
from standalone_eval.metrics import Rule, right_moments


def allowed_spans(n_clips: int, min_pred_l: int, max_pred_l: int) -> np.ndarray:
    """(S, 2) int64 first and last clips of all spans that may be predicted: those that `best_spans` scores."""
    st, ed = np.triu_indices(n_clips, k=min_pred_l)
    return np.stack([st, ed], axis=1)[ed - st < max_pred_l]


def hit_probability(n_right: np.ndarray, n_allowed: np.ndarray, n_videos: int, k: int) -> np.ndarray:
    """(Nq,) float64: the probability that one of k draws from `n_videos` is right.

    How many of the k draws meet the query's video is binomial. Its spans come without repetition, so n of them all miss
    with probability C(S - r, n) / C(S, n), S spans (`n_allowed`, (Nq,) int) of which r (`n_right`) are right.
    """
    taken = np.arange(k)  # spans of the video that the list holds already
    left = np.maximum(n_allowed[:, None] - taken, 1)
    wrong_left = np.maximum((n_allowed - n_right)[:, None] - taken, 0)
    still_missing = np.where(n_right[:, None] == 0, 1.0, wrong_left / left)  # (Nq, k)
    misses = np.concatenate([np.ones((len(n_right), 1)), np.cumprod(still_missing, axis=1)], axis=1)  # (Nq, k + 1)
    meets = 1 / n_videos
    weights = [math.comb(k, n) * meets**n * (1 - meets) ** (k - n) for n in range(k + 1)]
    return 1 - misses @ np.array(weights)


def chance_level(
    queries: Sequence[Query],
    n_clips: Mapping[str, int],
    times: ClipTimes,
    min_pred_l: int,
    max_pred_l: int,
    rule: Rule,
) -> dict[str, dict[str, float]]:
    """Expected recalls of blind draws.

    Args:
        queries: with ground truth.
        n_clips: {vid_name: clips} of all videos of the corpus, as the model sees them.
        min_pred_l, max_pred_l: the allowed band of span lengths.

    Returns:
        {"VCMR" or "SVMR": {"{iou_thd}-r{k}": percentage}, "VR": {"r{k}": percentage}}, not rounded.
    """
    n_allowed = np.zeros(len(queries), dtype=np.int64)
    n_right = np.zeros((len(rule.iou_thds), len(queries)), dtype=np.int64)
    for row, query in enumerate(queries):
        if query.vid_name is None or query.ts is None:
            raise ValueError(f"desc_id {query.desc_id} has no ground truth")
        n = n_clips[query.vid_name]
        spans = allowed_spans(n, *times.band(min_pred_l, max_pred_l))
        n_allowed[row] = len(spans)
        seconds = times.seconds(spans, query.duration, n)
        n_right[:, row] = right_moments(seconds[None], annotated_spans([query]), rule)[:, 0].sum(axis=1)

    def moments(n_videos: int) -> dict[str, float]:
        return {
            f"{iou_thd}-r{k}": 100 * float(hit_probability(right, n_allowed, n_videos, k).mean())
            for iou_thd, right in zip(rule.iou_thds, n_right, strict=True)
            for k in rule.ks
        }

    videos = {f"r{k}": 100 * min(k, len(n_clips)) / len(n_clips) for k in rule.ks}
    return {"VCMR": moments(len(n_clips)), "SVMR": moments(1), "VR": videos}
