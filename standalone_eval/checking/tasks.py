"""One task of a submission, checked some entries at a time, so that not all of its rows need to be in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..findings import Findings
from ..submission import MOMENT_TASKS, ROW_KINDS, TaskPredictions, known_videos, read_predictions, read_video2idx

MAX_PRED = 100  # predictions of a query that count
_BATCH = 256  # entries that are checked at a time, of those that are all in memory
Taker = Callable[[TaskPredictions], None]
NewTaker = Callable[[str, Mapping[str, int]], Taker]


class CheckedTask:
    """What is wrong with the entries of one task, and which queries they are of.

    Args:
        task: its name.
        submission: what is known of the submission it is in, with `video2idx` if that is known.
        max_lines: see `Findings`.
        new_taker: gives, for the task and the numbers of videos, what takes well-formed predictions as they come.

    Attributes:
        video2idx: the document's value of that name, by which rows were checked; None leaves their videos unchecked.
        desc_ids: of the well-formed entries.
    """

    def __init__(
        self, task: str, submission: Mapping[str, Any], max_lines: int = 10, new_taker: NewTaker | None = None
    ) -> None:
        self.video2idx = submission.get("video2idx")
        self.desc_ids: list[int] = []
        self._task = task
        self._findings = Findings(max_lines)
        self._n_entries = 0
        self._warnings: list[str] = []
        video2idx = read_video2idx(submission, Findings())
        self._known = known_videos(video2idx)
        self._take = new_taker(task, video2idx or {}) if new_taker else None

    @classmethod
    def of(
        cls, task: str, submission: Mapping[str, Any], max_lines: int = 10, new_taker: NewTaker | None = None
    ) -> CheckedTask:
        """The task of a loaded submission, which may be anything."""
        checked, entries = cls(task, submission, max_lines, new_taker), submission[task]
        if isinstance(entries, list):
            for first in range(0, len(entries), _BATCH):
                checked.add(entries[first : first + _BATCH])
        else:
            read_predictions(task, entries, None, checked._findings)
        return checked

    def add(self, elements: list[Any]) -> None:
        """Check the next entries."""
        predictions = read_predictions(self._task, elements, self._known, self._findings, self._n_entries)
        self._n_entries += len(elements)
        self.desc_ids += predictions.desc_ids
        suspicious = _suspicious(predictions)
        self._warnings = [f"{self._task}: {kind}" for kind in suspicious]
        for kind, (examples, count) in suspicious.items():
            self._findings.warn(f"{self._task}: {kind}", examples, count)
        if self._take:
            self._take(predictions)

    def findings(self, asked: Mapping[int, None] | None) -> Findings:
        """All that was found, once all entries are there, in the order of one look after another at all of them.

        `asked` are the queries that must be answered; None leaves that unchecked.
        """
        self._findings.put_last([f"{self._task}: {kind}" for kind in ROW_KINDS] + self._warnings)
        compare_desc_ids(self._task, self.desc_ids, asked, self._findings)
        return self._findings


def compare_desc_ids(task: str, desc_ids: Sequence[int], asked: Mapping[int, None] | None, findings: Findings) -> None:
    """Note queries answered twice, not at all, or not asked."""
    counts = Counter(desc_ids)
    twice = [f"{desc_id} ({count} times)" for desc_id, count in counts.items() if count > 1]
    findings.error(f"{task}: desc_id appears more than once", twice)
    if asked is not None:
        missing = [str(desc_id) for desc_id in asked if desc_id not in counts]
        surplus = [str(desc_id) for desc_id in counts if desc_id not in asked]
        findings.error(f"{task}: desc_id of the annotations has no entry", missing)
        findings.error(f"{task}: desc_id is not in the annotations (of another split?)", surplus)


def _suspicious(predictions: TaskPredictions) -> dict[str, tuple[Iterable[str], int]]:
    """{kind: (cases, how many)} of what a prediction list may hold but hardly means to."""
    names, counts, rows = predictions.names, predictions.counts, predictions.rows
    long, empty = np.flatnonzero(counts > MAX_PRED), np.flatnonzero(counts == 0)
    kinds: dict[str, tuple[Iterable[str], int]] = {
        f"more than {MAX_PRED} rows, the rest does not count": (
            (f"{names[query]}: {counts[query]} rows" for query in long),
            len(long),
        ),
        "no predictions": ((names[query] for query in empty), len(empty)),
    }
    is_of_moments = predictions.task in MOMENT_TASKS
    masks = {f"{'span' if is_of_moments else 'video'} appears more than once": _repeated(predictions)}
    if is_of_moments:
        st, ed = rows[:, 1], rows[:, 2]
        masks["empty span (st = ed), never right"] = st == ed
        masks["reversed span (st > ed), never right"] = st > ed
        masks["span starts before 0 s"] = st < 0
    return kinds | {kind: (predictions.places(mask), int(mask.sum())) for kind, mask in masks.items()}


def _repeated(predictions: TaskPredictions) -> npt.NDArray[np.bool_]:
    """(R,) bool: rows whose video and times an earlier row of the same query has."""
    query = np.repeat(np.arange(len(predictions.counts)), predictions.counts)
    video_idx, st, ed = predictions.rows[:, :3].T
    order = np.lexsort((ed, st, video_idx, query))  # stable: of equal rows the first stays first
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for column in (query, video_idx, st, ed):
        same &= column[order][1:] == column[order][:-1]
    repeated = np.zeros(len(order), dtype=bool)
    repeated[order[1:]] = same
    return repeated
