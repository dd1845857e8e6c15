"""From a submission as loaded from JSON to arrays, noting everything that is wrong with its form.

Nothing is taken for granted: any JSON document may stand where a submission is expected. Well-formed predictions take
a fast path (whole lists are looked at through their sets of types); row by row only where that finds something.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from .findings import Findings, query_name, shorten

MOMENT_TASKS = ("VCMR", "SVMR")
TASKS = (*MOMENT_TASKS, "VR")
ROW_FORM = "[video_idx, st, ed, score]"
ROW_LENGTH = 4
ROW_KINDS = _MALFORMED, _UNUSABLE, _UNKNOWN_VIDEO = (  # what may be wrong with a row, in the order of messages
    f"row is not {ROW_FORM}, four numbers",
    "NaN, infinite or too large a number",
    "video_idx is not in video2idx",
)
_LARGEST_INDEX = 2**53  # integers up to here are exact in float64


@dataclass(frozen=True)
class TaskPredictions:
    """The predictions of one task, all queries one below the other.

    Attributes:
        desc_ids, names: N, one a query; a name is what messages call it.
        counts: (N,) int64, rows of each query.
        rows: (R, 4) float64, [video_idx, st, ed, score]; NaN where a row was malformed.
    """

    task: str
    desc_ids: list[int]
    names: list[str]
    counts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.float64]

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """(N,) int64: where each query's rows begin."""
        return np.cumsum(self.counts) - self.counts

    def lists(self) -> list[npt.NDArray[np.float64]]:
        """N arrays (n, 4), the rows of each query."""
        return np.split(self.rows, self.starts[1:])

    def first(self, n: int) -> npt.NDArray[np.float64]:
        """(N, n, 4) float64: the first n rows of each query, NaN after its last one."""
        query = np.repeat(np.arange(len(self.counts)), self.counts)
        rank = np.arange(len(self.rows)) - np.repeat(self.starts, self.counts)
        out = np.full((len(self.counts), n, ROW_LENGTH), np.nan)
        counted = rank < n
        out[query[counted], rank[counted]] = self.rows[counted]
        return out

    def padded(self, desc_ids: Sequence[int], n: int) -> npt.NDArray[np.float64]:
        """(N, n, 4) float64: what `first` has, in the order of `desc_ids`, which are the same."""
        place = {desc_id: i for i, desc_id in enumerate(self.desc_ids)}
        return self.first(n)[np.array([place[desc_id] for desc_id in desc_ids], dtype=np.int64)]

    def places(self, mask: npt.NDArray[np.bool_]) -> Iterator[str]:
        """Say for each row marked in `mask` (R,) where it stands and what it holds."""
        starts = self.starts
        for index in np.flatnonzero(mask):
            query = int(np.searchsorted(starts, index, side="right")) - 1
            values = ", ".join(f"{value:g}" for value in self.rows[index])
            yield f"{self.names[query]}, row {index - starts[query] + 1}: [{values}]"


def read_video2idx(submission: Mapping[str, Any], findings: Findings) -> dict[str, int] | None:
    """The submission's {vid_name: video_idx}, or None when it cannot be used."""
    video2idx = submission.get("video2idx")
    if not isinstance(video2idx, dict) or not video2idx:
        found = "missing" if "video2idx" not in submission else f"found {shorten(video2idx)}"
        findings.error("video2idx is not an object {vid_name: video_idx}", [found])
        return None
    good = {
        name: idx
        for name, idx in video2idx.items()
        if isinstance(name, str) and _is_int(idx) and abs(int(idx)) <= _LARGEST_INDEX
    }
    bad = [f"{shorten(name)}: {shorten(idx)}" for name, idx in video2idx.items() if name not in good]
    findings.error("video2idx: value is not an integer", bad)
    first: dict[int, str] = {}
    for name, idx in good.items():
        if first.setdefault(idx, name) != name:
            findings.error("video2idx: two videos share a video_idx", [f"{idx}: {first[idx]} and {name}"])
    return good


def known_videos(video2idx: Mapping[str, int] | None) -> npt.NDArray[np.float64] | None:
    """(V,) the numbers of videos, sorted and each once, by which `read_predictions` checks; None where there are none.

    `video2idx` is what `read_video2idx` returns.
    """
    return None if video2idx is None else np.unique(np.fromiter(video2idx.values(), dtype=np.float64))


def read_predictions(
    task: str, entries: Any, known: npt.NDArray[np.float64] | None, findings: Findings, n_before: int = 0
) -> TaskPredictions:
    """One task's list of {"desc_id", "desc", "predictions"} as arrays.

    Every defect is noted. What is malformed is left out of the result (entries) or NaN in it (rows).

    Args:
        task: what messages begin with.
        entries: the list, or a part of it.
        known: `known_videos`; None leaves video_idx unchecked.
        findings: what was found wrong so far.
        n_before: entries of the list before this part.
    """
    desc_ids, names, lists = _read_entries(task, entries, findings, n_before)
    counts = np.array([len(rows) for rows in lists], dtype=np.int64)
    values = _well_formed(list(chain.from_iterable(lists)))
    malformed = np.zeros(int(counts.sum()), dtype=bool)
    if values is None:
        values, malformed = _checked_rows(task, names, lists, findings)
    predictions = TaskPredictions(task, desc_ids, names, counts, values)
    _check_values(predictions, malformed, known, findings)
    return predictions


def _read_entries(
    task: str, entries: Any, findings: Findings, n_before: int
) -> tuple[list[int], list[str], list[Sequence[Any]]]:
    """The well-formed entries' ids, names and lists of predictions."""
    desc_ids: list[int] = []
    names: list[str] = []
    lists: list[Sequence[Any]] = []
    if not isinstance(entries, list):
        findings.error(f"{task}: is not a list of entries, one a query", [f"found {shorten(entries)}"])
        return desc_ids, names, lists
    for number, entry in enumerate(entries, start=n_before + 1):
        if not isinstance(entry, dict):
            findings.error(f"{task}: entry is not an object", [f"entry {number}: {shorten(entry)}"])
            continue
        desc_id, rows = entry.get("desc_id"), entry.get("predictions")
        if not _is_int(desc_id):
            findings.error(f"{task}: desc_id is not an integer", [f"entry {number}: {shorten(desc_id)}"])
            continue
        name = query_name(entry)
        if not isinstance(entry.get("desc", ""), str):
            findings.error(f"{task}: desc is not text", [f"{name}: {shorten(entry['desc'])}"])
        if not isinstance(rows, list):
            findings.error(f"{task}: predictions is not a list of rows", [f"{name}: {shorten(rows)}"])
            rows = []
        desc_ids.append(int(desc_id))
        names.append(name)
        lists.append(rows)
    return desc_ids, names, lists


def _well_formed(rows: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    """Rows as (R, 4) float64, or None when any of them is not four numbers."""
    if not all(issubclass(kind, (list, tuple)) for kind in set(map(type, rows))) or set(map(len, rows)) - {ROW_LENGTH}:
        return None
    kinds = set(map(type, chain.from_iterable(rows)))
    if bool in kinds or not all(issubclass(kind, (int, float, np.integer, np.floating)) for kind in kinds):
        return None
    try:
        flat = np.fromiter(chain.from_iterable(rows), dtype=np.float64, count=ROW_LENGTH * len(rows))
    except OverflowError:  # an integer past float64
        return None
    return flat.reshape(-1, ROW_LENGTH)


def _checked_rows(
    task: str, names: list[str], lists: list[Sequence[Any]], findings: Findings
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """All rows as (R, 4) float64 and a mark (R,) for malformed ones, which are noted and become NaN."""
    values: list[Sequence[float]] = []
    malformed: list[bool] = []
    for name, rows in zip(names, lists, strict=True):
        all_well = _well_formed(rows) is not None
        for number, row in enumerate(rows, start=1):
            well = all_well or _well_formed([row]) is not None
            malformed.append(not well)
            values.append(row if well else (np.nan,) * ROW_LENGTH)
            if not well:
                place = f"{name}, row {number}: {shorten(row)}"
                findings.error(f"{task}: {_MALFORMED}", [place])
    return np.array(values, dtype=np.float64).reshape(-1, ROW_LENGTH), np.array(malformed, dtype=bool)


def _check_values(
    predictions: TaskPredictions,
    malformed: npt.NDArray[np.bool_],
    known: npt.NDArray[np.float64] | None,
    findings: Findings,
) -> None:
    """Note NaN, infinite and unusably large numbers, and videos that are not in video2idx."""
    task, rows = predictions.task, predictions.rows
    with np.errstate(over="ignore"):
        times = rows[:, 1:3].astype(np.float32)  # evaluation is in float32
    usable = np.isfinite(rows).all(axis=1) & np.isfinite(times).all(axis=1)
    bad = ~usable & ~malformed
    findings.error(f"{task}: {_UNUSABLE}", predictions.places(bad), int(bad.sum()))
    if known is not None:
        unknown = usable & ~_is_member(rows[:, 0], known)
        findings.error(f"{task}: {_UNKNOWN_VIDEO}", predictions.places(unknown), int(unknown.sum()))


def _is_member(values: npt.NDArray[np.float64], known: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which `values` are among the sorted `known`; unlike np.isin this does not sort the many values."""
    if not known.size:
        return np.zeros(values.shape, dtype=bool)
    place = np.searchsorted(known, values).clip(max=known.size - 1)
    return known[place] == values


def _is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
