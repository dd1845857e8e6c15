"""Queries to look at: what became of them, and which are shown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from method_tvr.dataset.annotations import Query
from method_tvr.report.data import find_annotations, read_report_data
from method_tvr.report.gallery import FOUND_BY, N_ENTRIES, by_outcome, galleries, spread
from standalone_eval.eval import eval_retrieval
from standalone_eval.outcomes import Outcomes
from tests.support.report_files import TASKS, make_report_files


def test_galleries_count_every_query_once_and_agree_with_the_evaluation(tmp_path):
    files = make_report_files(tmp_path)
    data = read_report_data([files.predictions], find_annotations([files.predictions], files.gt))
    found = {gallery.key: gallery for gallery in galleries(data)}
    metrics = eval_retrieval(files.submission, files.ground_truth)["VCMR"]
    assert sum(gallery.n_queries for gallery in found.values()) == len(files.ground_truth)
    assert found["hit"].share == pytest.approx(metrics["0.7-r1"], abs=0.01)
    for gallery in found.values():
        assert len(gallery.entries) == (0 if gallery.key == "found" else min(N_ENTRIES, gallery.n_queries))
    for entry in found["hit"].entries:
        assert entry.ranks == {"A": 1}
        assert entry.predictions[0].right
    for entry in found["near"].entries:
        assert entry.predictions[0].in_video
        assert not entry.predictions[0].right
    for entry in found["miss"].entries:
        assert not entry.predictions or not entry.predictions[0].in_video
        assert entry.ranks["A"] == 0 or entry.ranks["A"] > FOUND_BY


@pytest.mark.parametrize("task", TASKS)
def test_predictions_shown_are_the_files_with_the_evaluations_outcome(tmp_path, task):
    files = make_report_files(tmp_path, (task,))
    data = read_report_data([files.predictions], find_annotations([files.predictions], files.gt))
    rows = {entry["desc_id"]: entry["predictions"] for entry in files.submission[task]}
    names = {idx: name for name, idx in files.submission["video2idx"].items()}
    for gallery in galleries(data):
        for entry in gallery.entries:
            own = rows[entry.query.desc_id]
            for shown, row in zip(entry.predictions, own, strict=False):
                assert [shown.vid_name, shown.st, shown.ed, shown.score] == [names[row[0]], *row[1:]]
                assert shown.in_video == (shown.vid_name == entry.query.vid_name)
            first_right = next((one.rank for one in entry.predictions if one.right), 0)
            assert first_right == (entry.ranks["A"] if entry.ranks["A"] <= len(entry.predictions) else 0)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=30), st.sampled_from(TASKS))
def test_each_query_has_one_outcome(ranks, task):
    rank, before = np.array(ranks).T
    video_rank = np.where(rank > 0, np.minimum(np.maximum(before, 1), rank), before)
    outcomes = Outcomes(task, {"" if task == "VR" else "0.7-": rank}, video_rank, np.zeros(len(rank), np.float32))
    found = by_outcome(outcomes, 0.7)
    assert (sum(mask.astype(int) for mask in found.values()) == 1).all()
    assert np.array_equal(found["hit"], outcomes.hits(1, 0.7))
    assert not (found["miss"] & (rank > 0) & (rank <= FOUND_BY)).any()


@given(st.integers(0, 60), st.integers(1, 12))
def test_queries_are_chosen_evenly_and_always_alike(n_queries, n):
    queries = [Query(i, "", i, f"video_{i % 7}", (0.0, 1.0), "tv"[i % 2]) for i in range(n_queries)]
    numbers = np.arange(n_queries)
    chosen = spread(numbers, queries, n)
    assert chosen == spread(numbers[::-1], queries, n)
    assert len(set(chosen)) == len(chosen) == min(n, n_queries)
    if n_queries >= 40 and n >= 4:
        assert {queries[i].type for i in chosen} == {"t", "v"}
