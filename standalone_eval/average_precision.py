"""Average precision of ranked windows, where a query's answer may be several of them, as on QVHighlights.

J. Lei, T. L. Berg and M. Bansal, Detecting Moments and Highlights in Videos via Natural Language Queries, NeurIPS 2021:
what its published evaluation prints as MR-, mAP and R1 of all windows and by the length of annotated ones. In float64,
as there; a query without predictions counts as missed, where that evaluation leaves it out or ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MAX_PRED = 10  # predictions of a query that count
IOU_THDS = tuple(float(f"{iou_thd:.2f}") for iou_thd in np.linspace(0.5, 0.95, 10))
_BLOCK = 4096  # queries whose predictions are compared with their windows at a time
LENGTHS = {  # annotated windows that count: those above the first and up to the second number of seconds
    "full": (-np.inf, np.inf),
    "short": (0, 10),
    "middle": (10, 30),
    "long": (30, 150),
}
Floats = npt.NDArray[np.float64]


def windows_in_video(rows: Floats, video_idx: Floats, n: int) -> Floats:
    """(Nq, n, 3) [st, ed, score] of each query's first predictions in its video, NaN after the last one.

    Args:
        rows: (Nq, K, 4) [video_idx, st, ed, score], NaN after a query's last prediction.
        video_idx: (Nq,) the video of each query.
        n: predictions of a query that are wanted; at least one, and at most K, is returned.
    """
    in_video = rows[..., 0] == video_idx[:, None]
    order = np.argsort(~in_video, axis=1, kind="stable")[:, :n]  # others go to the end
    windows = np.where(in_video[..., None], rows[..., 1:], np.nan)
    return np.take_along_axis(windows, order[..., None], axis=1)


def window_metrics(
    predictions: Floats, windows: Floats, iou_thds: Sequence[float] = IOU_THDS, max_pred: int = MAX_PRED
) -> dict[str, float]:
    """mAP and R1 of all windows and of each class of `LENGTHS`, in % to two decimals.

    In a class, only its windows count, and only queries that have any; one that no window is of is left out.

    Args:
        predictions: (Nq, K, 3) [st, ed, score] in seconds, in the order of the file, NaN after a query's last one.
        windows: (Nq, M, 2) annotated seconds, NaN where a query has fewer than M.
        iou_thds: thresholds.
        max_pred: only so many predictions of a query count for mAP.

    Returns:
        {"full-mAP": mean over `iou_thds`, "full-mAP@0.5", …, "full-R1@0.5", …, "short-mAP", …}.
    """
    length = windows[..., 1] - windows[..., 0]
    metrics: dict[str, float] = {}
    for name, (above, up_to) in LENGTHS.items():
        counted = np.where(((above < length) & (length <= up_to))[..., None], windows, np.nan)
        asked = ~np.isnan(counted[..., 0]).all(axis=1)
        if asked.any():
            of_class, windows_of_class = predictions[asked, :max_pred], counted[asked]
            by_query = [
                average_precision(of_class[i : i + _BLOCK], windows_of_class[i : i + _BLOCK], iou_thds)
                for i in range(0, len(of_class), _BLOCK)
            ]
            mean_ap = np.concatenate(by_query).mean(axis=0)
            iou = iou_of_first(of_class, windows_of_class)
            metrics[f"{name}-mAP"] = _as_percentage(float(np.mean(mean_ap)))
            metrics |= {f"{name}-mAP@{thd}": _as_percentage(ap) for thd, ap in zip(iou_thds, mean_ap, strict=True)}
            metrics |= {f"{name}-R1@{thd}": _as_percentage(float(np.mean(iou >= thd))) for thd in iou_thds}
    return metrics


def average_precision(predictions: Floats, windows: Floats, iou_thds: Sequence[float] = IOU_THDS) -> Floats:
    """(Nq, T) area under the interpolated curve of precision over recall, of each query at each threshold.

    Predictions are taken by falling score, equal ones in their order. One is right when its IoU with a window that no
    earlier one has taken reaches the threshold; of several it takes that with the highest IoU, of equal ones the last.

    For the arguments see `window_metrics`; K is at least 1, and every query has a window.
    """
    order = np.argsort(-predictions[..., 2], axis=1, kind="stable")  # NaN comes last
    spans = np.take_along_axis(predictions[..., :2], order[..., None], axis=1)
    right = _right(_iou(spans[:, :, None], windows[:, None]), np.array(iou_thds))  # (Nq, T, K)
    n_right = np.cumsum(right, axis=2)
    precision = n_right / np.arange(1, right.shape[2] + 1)
    at_least = np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1]  # the best at this recall or a higher one
    n_windows = (~np.isnan(windows[..., 0])).sum(axis=1)
    gained = np.diff(n_right / n_windows[:, None, None], axis=2, prepend=0)
    return np.cumsum(gained * at_least, axis=2)[..., -1]  # which adds up in order


def _right(iou: Floats, iou_thds: Floats) -> npt.NDArray[np.bool_]:
    """(Nq, T, K) bool: which of K ranked predictions are right, by `iou` (Nq, K, M) with M windows."""
    n_queries, n_predictions, n_windows = iou.shape
    right = np.zeros((n_queries, len(iou_thds), n_predictions), dtype=bool)
    free = np.ones((n_queries, len(iou_thds), n_windows), dtype=bool)
    for rank in range(n_predictions):
        of_each = iou[:, None, rank]  # (Nq, 1, M)
        possible = np.where(free & (of_each >= iou_thds[:, None]), of_each, -1)  # NaN reaches nothing
        best = n_windows - 1 - possible[..., ::-1].argmax(axis=2, keepdims=True)  # (Nq, T, 1)
        found = np.take_along_axis(possible, best, axis=2) >= 0
        np.put_along_axis(free, best, np.take_along_axis(free, best, axis=2) & ~found, axis=2)
        right[..., rank] = found[..., 0]
    return right


def iou_of_first(predictions: Floats, windows: Floats) -> Floats:
    """(Nq,) IoU of each query's first prediction with the window that it fits best, 0 where there is none.

    Over the hull of the two, as R1 is computed there: of windows that overlap it is the union, but for its rounding.
    """
    first = predictions[:, :1, :2]  # (Nq, 1, 2)
    iou = _iou(first, windows)
    best = np.where(np.isnan(iou), -1, iou).argmax(axis=1)
    window = np.take_along_axis(windows, best[:, None, None], axis=1)
    hull = np.maximum(first[..., 1], window[..., 1]) - np.minimum(first[..., 0], window[..., 0])
    return np.nan_to_num(_quotient(_intersection(first, window), hull)[:, 0], nan=0.0)


def _iou(spans: Floats, windows: Floats) -> Floats:
    """Intersection over union of (..., 2) seconds that broadcast together, NaN where one is; 0 where both are empty."""
    intersection = _intersection(spans, windows)
    return _quotient(intersection, np.diff(spans)[..., 0] + np.diff(windows)[..., 0] - intersection)


def _intersection(spans: Floats, windows: Floats) -> Floats:
    start = np.maximum(spans[..., 0], windows[..., 0])
    return np.maximum(np.minimum(spans[..., 1], windows[..., 1]) - start, 0)


def _quotient(intersection: Floats, union: Floats) -> Floats:
    return np.divide(intersection, union, out=np.zeros_like(union), where=union != 0)


def _as_percentage(share: float) -> float:
    return float(f"{100 * share:.2f}")
