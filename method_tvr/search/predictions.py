"""Ranked moments and videos -> prediction rows in seconds, with and without temporal NMS, -> prediction files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import torch

from method_tvr.dataset.annotations import Entry, Query, Video
from method_tvr.search.records import NO_ENTRY, NOT_GIVEN, Moments, RankedVideos, SearchSettings, Shortlist
from standalone_eval.check import read_submission
from standalone_eval.findings import Findings
from utils.basic_utils import InputError, first_few, whole_file
from utils.dataset_files import read_predictions_file
from utils.temporal_nms import nms_keep
from utils.tensor_utils import to_device

LARGEST_EXPONENT = 88.0  # whose power is a float32
MAX_PREDICTIONS = 100  # rows per query in a prediction file
COLUMNS = ("video_idx", "st", "ed", "score")
PARTS = ("entry", "p_start", "p_end")  # what the score is made of


@dataclass
class RankedRows:
    """The rows of one task, best first, (Nq, K) each."""

    video_idx: np.ndarray  # int64
    st: np.ndarray  # seconds
    ed: np.ndarray
    score: np.ndarray  # float32
    count: np.ndarray  # (Nq,) how many of the K rows each query has; the rest means nothing
    entry: np.ndarray | None = None  # this and the next two: see `Moments`, where they were asked for
    p_start: np.ndarray | None = None
    p_end: np.ndarray | None = None

    @classmethod
    def concatenate(cls, parts: Sequence[RankedRows]) -> RankedRows:
        """Rows of several blocks of queries, one after another."""
        widest = max(part.video_idx.shape[1] for part in parts)

        def joined(name: str) -> np.ndarray:
            arrays = [getattr(part, name) for part in parts]
            return np.concatenate(
                [np.pad(a, ((0, 0), (0, widest - a.shape[1]))) if a.shape[1] < widest else a for a in arrays]
            )

        columns = {name: joined(name) for name in parts[0]._columns()}
        return cls(**columns, count=np.concatenate([part.count for part in parts]))

    def of_query(self, row: int, columns: Sequence[str] = COLUMNS) -> list[tuple[float, ...]]:
        """[(video_idx, st, ed, score), …] of one query, or the values of other columns."""
        n = self.count[row]
        return list(zip(*(getattr(self, name)[row, :n].tolist() for name in columns), strict=True))

    def of_queries(self, rows: np.ndarray) -> RankedRows:
        """The rows of some queries, in the order given: (n,) numbers of queries."""
        return self._changed(lambda column: column[rows], self.count[rows])

    def after_nms(self, nms_thd: float, max_before_nms: int = MAX_PREDICTIONS, n: int = MAX_PREDICTIONS) -> RankedRows:
        """The rows that survive temporal NMS among the best `max_before_nms`, video by video; at most `n`."""
        rows = self.best(max_before_nms)
        valid = np.arange(rows.video_idx.shape[1]) < rows.count[:, None]
        return rows._select(nms_keep(rows.st, rows.ed, valid, nms_thd, group=rows.video_idx), n)

    def best(self, n: int = MAX_PREDICTIONS) -> RankedRows:
        """The first `n` rows of each query."""
        return self._changed(lambda column: column[:, :n], np.minimum(self.count, n))

    def padded(self) -> np.ndarray:
        """(Nq, K, 4) float64 [video_idx, st, ed, score], NaN past a query's last row."""
        rows = np.stack([self.video_idx, self.st, self.ed, self.score.astype(np.float64)], axis=-1)
        rows[np.arange(rows.shape[1]) >= self.count[:, None]] = np.nan
        return rows

    def _select(self, keep: np.ndarray, n: int) -> RankedRows:
        order = np.argsort(~keep, axis=1, kind="stable")[:, :n]  # kept rows first, in their order
        return self._changed(lambda column: np.take_along_axis(column, order, axis=1), np.minimum(keep.sum(axis=1), n))

    def _changed(self, change: Callable[[np.ndarray], np.ndarray], count: np.ndarray) -> RankedRows:
        return RankedRows(**{name: change(column) for name, column in self._columns().items()}, count=count)

    def _columns(self) -> dict[str, np.ndarray]:
        """{name: (Nq, K)} of the columns that there are."""
        columns = {name: getattr(self, name) for name in (*COLUMNS, *PARTS)}
        return {name: column for name, column in columns.items() if column is not None}


@dataclass(frozen=True)
class CorpusTimes:
    """From Nv entries and their clips to video_idx and seconds; each entry may have a clip length of its own.

    With a `first_clip`, entries of one video may overlap: what they share is one moment.
    """

    video_idx: np.ndarray  # (Nv,) the index that predictions name each entry's video by
    clip_length: np.ndarray  # (Nv,) seconds of a clip of each entry
    first_clip: np.ndarray | None = None  # (Nv,) int64, clips in the video before each entry; by default none
    end_offset: int = 0  # clips from the start of a moment's last clip to its end

    @classmethod
    def of_entries(cls, entries: Sequence[Entry], clip_length: np.ndarray, end_offset: int = 0) -> CorpusTimes:
        """One entry for each video, or for some clips of it; clip_length (Nv,) in seconds."""
        first_clip = None
        if any(entry.clips for entry in entries):
            first_clip = np.array([entry.clips.start if entry.clips else 0 for entry in entries], dtype=np.int64)
        video_idx = np.array([entry.video.idx for entry in entries])
        return cls(video_idx, clip_length, first_clip, end_offset)

    def moment_rows(self, moments: Moments, n: int | None = None, with_parts: bool = False) -> RankedRows:
        """Moments as rows in seconds, at most `n` of each query. What overlapping entries share counts once."""
        entry, count = moments.entry, (moments.entry != NO_ENTRY).sum(axis=1)
        clips = moments.st, moments.ed + self.end_offset
        if self.first_clip is not None:
            clips = clips[0] + self.first_clip[entry], clips[1] + self.first_clip[entry]
        st, ed = (boundary * self.clip_length[entry] for boundary in clips)
        parts = {name: getattr(moments, name) for name in PARTS if with_parts}
        rows = RankedRows(self.video_idx[entry], st, ed, moments.score, count, **parts)
        if self.first_clip is None:
            return rows if n is None else rows.best(n)
        there = np.arange(entry.shape[1]) < count[:, None]
        return rows._select(there & _first_of_its_kind(rows.video_idx, *clips), entry.shape[1] if n is None else n)

    def video_rows(self, ranked: RankedVideos) -> RankedRows:
        """Videos as rows [video_idx, 0, 0, score]."""
        zero = np.zeros_like(ranked.entry)
        count = (ranked.score >= 0).sum(axis=1)  # fewer than others have, where they were given
        return RankedRows(self.video_idx[ranked.entry], zero, zero, ranked.score, count)


def _first_of_its_kind(*columns: np.ndarray) -> np.ndarray:
    """(Nq, K) bool: False on what equals something before it in its row, in all columns (Nq, K)."""
    order = np.lexsort(columns, axis=1)  # which is stable
    in_order = [np.take_along_axis(column, order, axis=1) for column in columns]
    first = np.ones(order.shape, dtype=bool)
    first[:, 1:] = np.any([column[:, 1:] != column[:, :-1] for column in in_order], axis=0)
    found = np.empty_like(first)
    np.put_along_axis(found, order, first, axis=1)
    return found


def write_predictions(
    path: str | os.PathLike[str],
    videos: Sequence[Video],
    queries: Sequence[Query],
    rows_by_task: Mapping[str, RankedRows],
) -> None:
    """Write a prediction file: `video2idx` and, per task, one object per query. Whole or not at all."""
    with whole_file(path) as part, open(part, "wb") as out:
        out.write(b'{"video2idx":' + orjson.dumps({video.vid_name: video.idx for video in videos}))
        for task, rows in rows_by_task.items():
            out.write(b',"%s":[' % task.encode())
            for number, query in enumerate(queries):
                line = {"desc_id": query.desc_id, "desc": query.desc, "predictions": rows.of_query(number)}
                out.write((b",\n" if number else b"") + orjson.dumps(line))
            out.write(b"]")
        out.write(b"}")


def given_videos(
    path: str, queries: Sequence[Query], videos: Sequence[Video], settings: SearchSettings, device: torch.device
) -> Shortlist:
    """The videos that another system found for each query: VR of its prediction file, in its order, as entries.

    Of each query the first `max_vcmr_video` count. Their scores s are similarities, which become weights as this
    model's do.

    Args:
        queries: each of them has to be there.
        videos: of the split, in the order of the corpus' entries; the file may name no others.

    Raises:
        InputError: it cannot be read, is no such file, does not fit the split, or a weight would not be finite.
    """
    content, findings = read_predictions_file(path), Findings()
    video2idx, predictions = read_submission(content, None, findings, ("VR",))
    if findings.errors:
        raise InputError("\n".join([f"{path}: {findings.summary()}", *findings.lines()]))
    rows = dict(zip(predictions["VR"].desc_ids, predictions["VR"].lists(), strict=True))
    without = [query.desc_id for query in queries if not len(rows.get(query.desc_id, ()))]
    if without:
        raise InputError(f"{path}: VR has no videos for {len(without)} queries: desc_id {first_few(without)}")
    entry_of = {video.vid_name: number for number, video in enumerate(videos)}
    entries_of = {idx: entry_of.get(name, NO_ENTRY) for name, idx in video2idx.items()}
    width = min(settings.max_vcmr_video, max(len(rows[query.desc_id]) for query in queries))
    entries, scores = np.zeros((len(queries), width), np.int64), np.full((len(queries), width), NOT_GIVEN, np.float32)
    for number, query in enumerate(queries):
        found = rows[query.desc_id][:width]
        entries[number, : len(found)] = [entries_of[int(idx)] for idx in found[:, 0]]
        scores[number, : len(found)] = found[:, 3]
    if (entries == NO_ENTRY).any():
        others = [name for name in video2idx if name not in entry_of]
        raise InputError(f"{path}: VR names videos that are not in the split: {first_few(others)}")
    highest = float(scores.max())
    if settings.q2c_alpha * highest > LARGEST_EXPONENT:
        raise InputError(
            f"{path}: VR has scores up to {highest:g}, and exp({settings.q2c_alpha:g} * score) is then no number: give "
            "the other system's similarities, not what it makes of them"
        )
    given = to_device(entries, device), to_device(scores, device)
    return Shortlist(*given, *given)
