"""Greedy non-maximum suppression of moments: for all queries at once, and for one list as in TVRetrieval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating]
Integers: TypeAlias = npt.NDArray[np.integer]
Bools: TypeAlias = npt.NDArray[np.bool_]

_BLOCK_ELEMENTS = 1 << 16  # queries x spans handled together: the temporaries then stay in the processor's cache


def temporal_iou(st: Floats, ed: Floats, other_st: Floats, other_ed: Floats) -> Floats:
    """Intersection over the hull of two spans, as in TVRetrieval: the hull is max end - min start, IoU 0 where empty.

    All are in seconds, of shapes that broadcast together.
    """
    intersection = np.maximum(np.minimum(ed, other_ed) - np.maximum(st, other_st), 0)
    hull = np.maximum(ed, other_ed) - np.minimum(st, other_st)
    return np.divide(intersection, hull, out=np.zeros_like(hull), where=hull != 0)


def nms_keep(st: Floats, ed: Floats, valid: Bools, nms_thd: float, group: Integers | None = None) -> Bools:
    """Mark the spans that survive greedy NMS, each query apart from the others.

    Going down a row, a span is dropped when its IoU with a kept one before it is greater than `nms_thd`.

    Args:
        st, ed: (Nq, K) seconds, each row sorted by score, best first.
        valid: (Nq, K) bool; False marks padding, which is never kept and suppresses nothing.
        nms_thd: IoU above which the later span goes.
        group: (Nq, K) int or None; spans of different groups (videos, in VCMR) never suppress each other.

    Returns:
        (Nq, K) bool, True for kept spans.
    """
    starts, ends = np.asarray(st, dtype=np.float64), np.asarray(ed, dtype=np.float64)
    keep = np.array(valid, dtype=bool)
    if group is None:
        _suppress(starts, ends, keep, nms_thd)
        return keep
    order = np.argsort(group, axis=1, kind="stable")  # the spans of a group one after another, best first
    in_order = [np.take_along_axis(column, order, axis=1).ravel() for column in (starts, ends, keep)]
    for places, there in _groups_by_size(np.take_along_axis(group, order, axis=1)):
        st_of_group, ed_of_group, kept = (column[places] for column in in_order)
        kept &= there
        _suppress(st_of_group, ed_of_group, kept, nms_thd)
        in_order[2][places[there]] = kept[there]
    np.put_along_axis(keep, order, in_order[2].reshape(keep.shape), axis=1)
    return keep


def _groups_by_size(group: Integers) -> Iterator[tuple[Integers, Bools]]:
    """Runs of equal values within the rows (Nq, K), those of several, and of about the same number, together.

    Yields (G, n) places in the flattened rows, those of each run in their order, and which of them belong to it.
    """
    first = np.ones(group.shape, dtype=bool)
    first[:, 1:] = group[:, 1:] != group[:, :-1]
    starts = np.flatnonzero(first)
    sizes = np.diff(starts, append=group.size)
    width, widest = 2, int(sizes.max(initial=0))
    while width // 2 < widest:
        some = (sizes > width // 2) & (sizes <= width)
        place = np.arange(min(width, widest))
        there = place < sizes[some, None]
        yield np.where(there, starts[some, None] + place, starts[some, None]), there
        width *= 2


def _suppress(st: Floats, ed: Floats, keep: Bools, nms_thd: float) -> None:
    """Clear in `keep` (Nq, K) every span that a kept one before it in its row suppresses, some rows at a time."""
    block = max(1, _BLOCK_ELEMENTS // max(1, keep.shape[1]))
    for row in range(0, len(keep), block):
        rows = slice(row, row + block)
        # (K, B): what follows is contiguous
        starts, ends = np.ascontiguousarray(st[rows].T), np.ascontiguousarray(ed[rows].T)
        kept = np.ascontiguousarray(keep[rows].T)
        for i in range(len(kept) - 1):
            with np.errstate(invalid="ignore"):  # padding may hold NaN or infinity
                drop = temporal_iou(starts[i], ends[i], starts[i + 1 :], ends[i + 1 :]) > nms_thd
            kept[i + 1 :] &= ~(drop & kept[i])
        keep[rows] = kept.T


def temporal_non_maximum_suppression(
    predictions: Sequence[Sequence[float]], nms_threshold: float, max_after_nms: int = 100
) -> list[Sequence[float]]:
    """The rows that survive greedy NMS, as in TVRetrieval, best first and `max_after_nms` at most.

    Args:
        predictions: rows of [st, ed, score], in any order; of equal scores the earlier row goes first.
        nms_threshold: IoU (see `temporal_iou`) above which the row with the lower score is dropped.
    """
    if len(predictions) <= 1:
        return list(predictions)
    ranked = sorted(predictions, key=lambda row: row[2], reverse=True)
    spans = np.array([row[:2] for row in ranked], dtype=np.float64)
    keep = nms_keep(spans[None, :, 0], spans[None, :, 1], np.ones((1, len(ranked)), dtype=bool), nms_threshold)
    return [ranked[i] for i in np.flatnonzero(keep[0])[:max_after_nms]]
