"""Ranked moments become rows in seconds, survive NMS by rank, and are written whole."""

import json

import numpy as np
import pytest

from method_tvr.dataset.annotations import Entry, Query, Video
from method_tvr.search.predictions import CorpusTimes, RankedRows, write_predictions
from method_tvr.search.records import NO_ENTRY, Moments, RankedVideos


def moments(*queries: list[tuple[int, int, int, float]]) -> Moments:
    widest = max(map(len, queries))
    padded = np.array([[*query, *[(NO_ENTRY, 0, 0, -1.0)] * (widest - len(query))] for query in queries])
    entry, st, ed = padded[..., :3].astype(np.int64).transpose(2, 0, 1)
    return Moments(entry, st, ed, *[padded[..., 3].astype(np.float32)] * 3)


def rows_of(*queries: list[tuple[int, float, float, float]]) -> RankedRows:
    widest = max(map(len, queries))
    padded = np.array([[*query, *[(0, 0, 0, 0)] * (widest - len(query))] for query in queries], dtype=np.float64)
    columns = padded.transpose(2, 0, 1)
    counts = np.array([len(query) for query in queries])
    return RankedRows(columns[0].astype(np.int64), columns[1], columns[2], columns[3].astype(np.float32), counts)


VIDEOS = [Video("a", 6.0, 70), Video("b", 30.0, 71)]
ENTRIES = [Entry(video) for video in VIDEOS]
QUERIES = [Query(5, "first", 1), Query(9, "zweite “Frage”", 2)]


def test_clips_become_seconds_and_entries_video_indices():
    times = CorpusTimes.of_entries(ENTRIES, np.full(2, 1.5))
    rows = times.moment_rows(moments([(1, 2, 5, 0.5), (0, 0, 2, 0.25)], [(0, 1, 3, 0.125)]))
    assert rows.of_query(0) == [(71, 3.0, 7.5, 0.5), (70, 0.0, 3.0, 0.25)]
    assert rows.of_query(1) == [(70, 1.5, 4.5, 0.125)]


def test_each_entry_may_have_its_own_clip_length_and_first_clip():
    times = CorpusTimes(np.array([8, 8]), np.array([2.0, 0.5]), np.array([0, 200]))
    rows = times.moment_rows(moments([(0, 1, 3, 0.5), (1, 1, 3, 0.25)]))
    assert rows.of_query(0) == [(8, 2.0, 6.0, 0.5), (8, 100.5, 101.5, 0.25)]


def test_videos_are_rows_without_times():
    times = CorpusTimes.of_entries(ENTRIES, np.full(2, 1.5))
    rows = times.video_rows(RankedVideos(np.array([[1, 0]]), np.array([[3.0, 2.0]], dtype=np.float32)))
    assert rows.of_query(0) == [(71, 0, 0, 3.0), (70, 0, 0, 2.0)]


def test_blocks_of_different_widths_are_joined():
    joined = RankedRows.concatenate([rows_of([(1, 0, 1, 0.5)]), rows_of([(2, 0, 1, 0.5), (3, 1, 2, 0.25)], [])])
    assert [joined.of_query(i) for i in range(3)] == [[(1, 0, 1, 0.5)], [(2, 0, 1, 0.5), (3, 1, 2, 0.25)], []]


def test_at_most_a_hundred_rows_are_the_best():
    rows = rows_of([(1, i, i + 1, 1 / (i + 1)) for i in range(130)], [(1, 0, 1, 0.5)])
    assert [len(rows.best().of_query(i)) for i in range(2)] == [100, 1]
    assert rows.best(3).of_query(0) == rows.of_query(0)[:3]


def test_nms_drops_what_overlaps_a_better_row_of_the_same_video():
    rows = rows_of([(1, 0, 10, 0.9), (1, 1, 10, 0.8), (2, 1, 10, 0.7), (1, 20, 30, 0.6)], [(1, 0, 1, 0.5)])
    after = rows.after_nms(0.5)
    assert [row[:3] for row in after.of_query(0)] == [(1, 0, 10), (2, 1, 10), (1, 20, 30)]
    assert after.of_query(1) == [(1, 0, 1, 0.5)]


def test_nms_sees_a_hundred_rows_unless_told_otherwise():
    crowd = [(1, 0, 10, 1 - i / 1000) for i in range(100)]
    rows = rows_of([*crowd, (1, 20, 30, 0.1)])
    assert len(rows.after_nms(0.5).of_query(0)) == 1
    assert len(rows.after_nms(0.5, max_before_nms=200).of_query(0)) == 2


def test_at_most_a_hundred_rows_survive_nms():
    rows = rows_of([(1, 2 * i, 2 * i + 1, 1 - i / 1000) for i in range(150)])
    after = rows.after_nms(0.5, max_before_nms=200)
    assert after.of_query(0) == rows.of_query(0)[:100]


def test_padding_is_nan_for_the_evaluator():
    padded = rows_of([(1, 0, 1, 0.5)], [(2, 0, 1, 0.5), (3, 1, 2, 0.25)]).padded()
    assert padded.shape == (2, 2, 4)
    assert np.isnan(padded[0, 1]).all()
    assert padded[1].tolist() == [[2, 0, 1, 0.5], [3, 1, 2, 0.25]]


def test_files_hold_a_row_a_query_for_each_task(tmp_path):
    path = tmp_path / "predictions.json"
    rows = rows_of([(70, 0, 1.5, 0.5), (71, 1.5, 3, 0.25)], [])
    write_predictions(path, VIDEOS, QUERIES, {"VCMR": rows, "VR": rows})
    written = json.loads(path.read_text(encoding="utf-8"))
    assert list(written) == ["video2idx", "VCMR", "VR"]
    assert written["video2idx"] == {"a": 70, "b": 71}
    assert written["VCMR"] == [
        {"desc_id": 5, "desc": "first", "predictions": [[70, 0, 1.5, 0.5], [71, 1.5, 3, 0.25]]},
        {"desc_id": 9, "desc": "zweite “Frage”", "predictions": []},
    ]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "predictions.json"
    path.write_text("old")
    with pytest.raises(AttributeError):
        write_predictions(path, VIDEOS, QUERIES, {"VCMR": None})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
