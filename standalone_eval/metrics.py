"""Recall of ranked moments and videos, computed on arrays: predictions and annotations in, percentages out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# what a query with several moments asks of a prediction: to be right for any of them, as where its answer is several
# windows; or, as in DiDeMo, where people chose them, for two that agree
ANY, AGREE = SEVERAL = ("any", "agree")
LEAST_RIGHT = {ANY: 1, AGREE: 2}  # of `Rule`
_TYPE_ORDER = {"v": 0, "t": 1, "vt": 2}  # TVR's types in the order in which its tables have them; others follow


@dataclass(frozen=True)
class Rule:
    """What counts as right.

    Attributes:
        iou_thds: thresholds; a moment is right at t when its IoU is at least t, both in float32.
        ks: a query counts for recall at k when a right prediction is among its first k.
        several_from: queries with at least so many annotated moments (as in DiDeMo) ...
        least_right: ... need a prediction that is right for at least so many of them.
    """

    iou_thds: Sequence[float] = (0.5, 0.7)
    ks: Sequence[int] = (1, 5, 10, 100)
    several_from: int = 4
    least_right: int = 2

    @classmethod
    def typed(cls, iou_thds: Sequence[float] | None, ks: Sequence[int] | None, least_right: int) -> Rule:
        """As options say, of which None are the usual."""
        return cls(iou_thds or cls.iou_thds, ks or cls.ks, least_right=least_right)


def exclusive(spans: npt.NDArray[np.floating], rule: Rule) -> npt.NDArray[np.bool_]:
    """(Nq,) bool: queries of which several moments have to agree, though no two overlap.

    A prediction that has an IoU above 0.5 with two moments has more than half of itself in common with each, so that
    these overlap: such queries can only be answered at IoUs up to that, by a moment that is neither of the two.

    `spans` are (Nq, M, 2) annotated seconds, NaN where a query has fewer than M.
    """
    n_annotated = (~np.isnan(spans[..., 0])).sum(axis=1)
    order = np.argsort(spans[..., 0], axis=1, kind="stable")[..., None]  # NaN comes last
    st, ed = np.moveaxis(np.take_along_axis(spans, order, axis=1), -1, 0)
    overlap = (st[:, 1:] < np.maximum.accumulate(ed, axis=1)[:, :-1]).any(axis=1)  # NaN overlaps nothing
    return (n_annotated >= rule.several_from) & ~overlap & (rule.least_right > 1)


def moment_iou(pred: npt.NDArray[np.floating], annotated: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Intersection over (max end - min start), in float32, as in TVRetrieval; 0 where that hull is empty.

    `pred` and `annotated` are (..., 2) seconds, of shapes that broadcast together; NaN gives NaN.
    """
    st, ed = pred[..., 0].astype(np.float32), pred[..., 1].astype(np.float32)
    other_st, other_ed = annotated[..., 0].astype(np.float32), annotated[..., 1].astype(np.float32)
    with np.errstate(invalid="ignore"):  # padding is NaN
        intersection = np.maximum(np.minimum(ed, other_ed) - np.maximum(st, other_st), np.float32(0))
        hull = np.maximum(ed, other_ed) - np.minimum(st, other_st)
        return np.divide(intersection, hull, out=np.zeros_like(hull), where=hull != 0)


def right_moments(
    pred_spans: npt.NDArray[np.floating], spans: npt.NDArray[np.floating], rule: Rule
) -> npt.NDArray[np.bool_]:
    """Whether each predicted span is right, whatever its video: (T, Nq, K) bool, T thresholds.

    Args:
        pred_spans: (Nq, K, 2) seconds, NaN for padding.
        spans: (Nq, M, 2) annotated seconds, NaN where a query has fewer than M.
    """
    agreeing = np.zeros((len(rule.iou_thds), *pred_spans.shape[:2]), dtype=np.int32)
    for m in range(spans.shape[1]):
        iou = moment_iou(pred_spans, spans[:, m : m + 1])
        for t, iou_thd in enumerate(rule.iou_thds):
            agreeing[t] += iou >= np.float32(iou_thd)
    n_annotated = (~np.isnan(spans[..., 0])).sum(axis=1)
    needed = np.where(n_annotated >= rule.several_from, rule.least_right, 1)
    return agreeing >= needed[:, None]


def first_right_ranks(
    task: str,
    predictions: npt.NDArray[np.float64],
    video_idx: npt.NDArray[np.float64],
    spans: npt.NDArray[np.floating],
    rule: Rule,
) -> dict[str, npt.NDArray[np.int64]]:
    """{"{iou_thd}-": (Nq,) rank from 1 of each query's first right prediction, 0 where none is}, for VR {"": (Nq,)}.

    Args:
        task: VCMR, SVMR (only predictions on the right video have a rank) or VR (the video is all that counts).
        predictions: (Nq, K, 4) float64, [video_idx, st, ed, score] best first, NaN for padding.
        video_idx: (Nq,) the right video of each query.
        spans: (Nq, M, 2) annotated moments, see `right_moments`.
    """
    right_video = predictions[..., 0] == video_idx[:, None]  # (Nq, K)
    if task == "VR":
        names, right = [""], right_video[None]
    else:
        names = [f"{iou_thd}-" for iou_thd in rule.iou_thds]
        right = right_moments(predictions[..., 1:3], spans, rule) & right_video
    rank = np.broadcast_to(np.arange(1, right_video.shape[1] + 1), right_video.shape)
    if task == "SVMR":
        rank = np.cumsum(right_video, axis=1)
    never = np.iinfo(np.int64).max
    ranks: dict[str, npt.NDArray[np.int64]] = {}
    for name, right_at_thd in zip(names, right, strict=True):
        first_right = np.where(right_at_thd, rank, never).min(axis=1, initial=never)  # (Nq,)
        ranks[name] = np.where(first_right == never, 0, first_right)
    return ranks


def is_hit(rank: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.bool_]:
    """Which ranks of `first_right_ranks` count for recall at k."""
    return (rank > 0) & (rank <= k)


def hits_at_k(
    task: str,
    predictions: npt.NDArray[np.float64],
    video_idx: npt.NDArray[np.float64],
    spans: npt.NDArray[np.floating],
    rule: Rule,
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which queries have a right prediction among their first k: {"{iou_thd}-r{k}" or, for VR, "r{k}": (Nq,) bool}.

    For the arguments see `first_right_ranks`.
    """
    return hits_of_ranks(first_right_ranks(task, predictions, video_idx, spans, rule), rule.ks)


def hits_of_ranks(ranks: Mapping[str, npt.NDArray[np.int64]], ks: Sequence[int]) -> dict[str, npt.NDArray[np.bool_]]:
    """From what `first_right_ranks` returns to what `hits_at_k` does."""
    return {f"{name}r{k}": is_hit(rank, k) for name, rank in ranks.items() for k in ks}


def recalls(hits: dict[str, npt.NDArray[np.bool_]]) -> dict[str, float]:
    """Each entry of `hits_at_k` as the percentage of queries, to two decimals."""
    return {name: as_percentage(np.mean(hit)) for name, hit in hits.items()}


def recalls_by_type(hits: dict[str, npt.NDArray[np.bool_]], types: Sequence[str]) -> dict[str, Any]:
    """`recalls` among the queries of each type (Nq), and the types' shares as `desc_type_ratio`, "v 74.32 t 8.85 …"."""
    kinds = sorted(set(types), key=lambda kind: (_TYPE_ORDER.get(kind, len(_TYPE_ORDER)), kind))
    place = {kind: number for number, kind in enumerate(kinds)}
    kind_of = np.array([place[query_type] for query_type in types], dtype=np.int64)
    counts = np.bincount(kind_of, minlength=len(kinds))
    right = {name: np.bincount(kind_of, weights=hit, minlength=len(kinds)) for name, hit in hits.items()}
    out: dict[str, Any] = {}
    for number, kind in enumerate(kinds):
        out |= {f"{kind}-{name}": as_percentage(hit[number] / counts[number]) for name, hit in right.items()}
    shares = zip(kinds, counts / max(1, len(types)), strict=True)
    out["desc_type_ratio"] = " ".join(f"{kind} {as_percentage(share)}" for kind, share in shares)
    return out


def as_percentage(share: np.floating | float) -> float:
    """A share in %, to two decimals."""
    return round(float(share) * 100, 2)
