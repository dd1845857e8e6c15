"""NDCG of ranked moments: queries with many relevant moments in a corpus, each graded (TVR-Ranking, arXiv 2407.06597).

Predictions are gone through in their order. Each takes, of the query's moments in its video that no earlier one has
taken, that whose IoU is largest; if that is above the threshold, its grade is the prediction's, otherwise it is 0.
DCG@k = sum over r = 1 … k of (2^grade_r - 1) / log2(r + 1), NDCG@k = DCG@k / that of the best possible order.
IoU is here intersection over union, in double precision, and has to be larger than the threshold: not as in `metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IOU_THDS, KS = (0.3, 0.5, 0.7), (10, 20, 40)  # what is published
SHOWN_IOU, SHOWN_K = 0.5, 20  # of the one figure that is shown where there is room for one
NDCG = "NDCG"  # what a file of metrics calls it
AT_A_TIME = 512  # queries, whose arrays stay in a CPU's caches
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RankedTruth:
    """Nq queries, each with its graded moments, the most relevant first, and of equally relevant ones the first named.

    Attributes:
        query_ids: Nq.
        name_of: {number: vid_name} of all videos.
        video: (Nq, M) float64, number of each moment's video; NaN where a query has fewer than M.
        spans: (Nq, M, 2) float64 seconds, NaN there.
        relevance: (Nq, M) float64 from 0, 0 there.
    """

    query_ids: list[int]
    name_of: Mapping[int, str]
    video: Floats
    spans: Floats
    relevance: Floats

    def some(self, which: npt.NDArray[np.bool_]) -> RankedTruth:
        """Those of the queries, (Nq,) bool."""
        ids = [query_id for query_id, wanted in zip(self.query_ids, which, strict=True) if wanted]
        return RankedTruth(ids, self.name_of, self.video[which], self.spans[which], self.relevance[which])


def grades(truth: RankedTruth, predictions: Floats, iou_thd: float) -> Floats:
    """(Nq, P) float64: the grade that each prediction has got.

    `predictions` are (Nq, P, 3 or more) float64 [video, st, ed, …], best first, NaN after a query's last one.
    """
    blocks = range(0, len(predictions), AT_A_TIME)
    parts = [_grades(truth, predictions, slice(first, first + AT_A_TIME), iou_thd) for first in blocks]
    return np.concatenate(parts) if parts else np.zeros(predictions.shape[:2])


def _grades(truth: RankedTruth, predictions: Floats, some: slice, iou_thd: float) -> Floats:
    video, relevance = truth.video[some], truth.relevance[some]
    st, ed = truth.spans[some, :, 0], truth.spans[some, :, 1]
    rows = predictions[some]
    free, numbers, found = np.ones(video.shape, bool), np.arange(len(video)), np.zeros(rows.shape[:2])
    if not video.shape[1]:
        return found
    for rank in range(rows.shape[1]):
        of_video, start, end = (rows[:, rank, i : i + 1] for i in range(3))
        shared = np.maximum(np.minimum(ed, end) - np.maximum(st, start), 0.0)
        union = (ed - st) + (end - start) - shared
        with np.errstate(invalid="ignore"):  # padding is NaN, and no number is equal to it
            comparable = free & (video == of_video) & (union > 0)
        iou = np.divide(shared, union, out=np.zeros_like(shared), where=comparable)
        best = iou.argmax(axis=1)  # the first of equal ones
        taken = iou[numbers, best] > iou_thd
        found[taken, rank] = relevance[numbers[taken], best[taken]]
        free[numbers[taken], best[taken]] = False
    return found


def dcg(relevance: Floats, k: int) -> Floats:
    """(Nq,) DCG@k of (Nq, P) grades in their order."""
    first = relevance[:, :k]
    return ((np.exp2(first) - 1) / np.log2(np.arange(2, first.shape[1] + 2))).sum(axis=1)


def ndcg_of_queries(
    truth: RankedTruth, predictions: Floats, iou_thds: Sequence[float] = IOU_THDS, ks: Sequence[int] = KS
) -> dict[str, Floats]:
    """{"{iou_thd}-n{k}": (Nq,) NDCG of each query}, 0 where no moment of a query is relevant; see `grades`."""
    out: dict[str, Floats] = {}
    for iou_thd in iou_thds:
        found = grades(truth, predictions, iou_thd)
        for k in ks:
            ideal = dcg(truth.relevance, k)
            out[f"{iou_thd}-n{k}"] = np.divide(dcg(found, k), ideal, out=np.zeros_like(ideal), where=ideal > 0)
    return out
