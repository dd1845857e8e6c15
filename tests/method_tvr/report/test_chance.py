"""Chance level: against enumeration, simulation and the search's own idea of which spans exist."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from method_tvr.dataset.annotations import Query
from method_tvr.dataset.clip_times import AUTO, BEST_IOU, FLOOR_CEIL, ClipTimes
from method_tvr.report.chance import allowed_spans, chance_level, hit_probability
from method_tvr.search.records import SearchSettings
from method_tvr.search.spans.best_spans import best_spans
from standalone_eval.metrics import Rule

CLIP_LENGTH = 1.5


def probability(n_right: int, n_allowed: int, n_videos: int, k: int) -> float:
    return float(hit_probability(np.array([n_right]), np.array([n_allowed]), n_videos, k)[0])


@given(n_clips=st.integers(0, 40), min_l=st.integers(0, 6), extra=st.integers(1, 20))
def test_allowed_spans_are_those_of_the_band(n_clips: int, min_l: int, extra: int) -> None:
    every = [(i, j) for i in range(n_clips) for j in range(i, n_clips) if min_l <= j - i < min_l + extra]
    assert allowed_spans(n_clips, min_l, min_l + extra).tolist() == [list(span) for span in every]


@given(n_clips=st.integers(1, 25), min_l=st.integers(0, 4), extra=st.integers(1, 16))
def test_allowed_spans_are_those_that_the_search_can_return(n_clips: int, min_l: int, extra: int) -> None:
    settings = SearchSettings(max_moments=10_000, min_pred_l=min_l, max_pred_l=min_l + extra)
    p = torch.full((1, 1, n_clips + 3), 0.1)
    score, _, start, end = best_spans(p, p, torch.tensor([[n_clips]]), settings)
    found = {(int(i), int(j)) for i, j, s in zip(start[0], end[0], score[0], strict=True) if s > 0}
    assert found == {(int(i), int(j)) for i, j in allowed_spans(n_clips, min_l, min_l + extra)}


@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 6))
def test_distinct_draws_in_one_video_miss_as_counted(n_right: int, n_wrong: int, k: int) -> None:
    n = n_right + n_wrong
    draws = list(itertools.combinations(range(n), min(k, n)))
    expected = np.mean([any(span < n_right for span in drawn) for drawn in draws])
    assert probability(n_right, n, 1, k) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 50), st.integers(1, 50), st.integers(1, 300))
def test_one_draw_is_right_video_times_right_span(n_right: int, n_wrong: int, n_videos: int) -> None:
    n = n_right + n_wrong
    assert probability(n_right, n, n_videos, 1) == pytest.approx(n_right / n / n_videos, rel=1e-9, abs=1e-15)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 9), st.integers(1, 40))
def test_more_draws_are_never_worse_and_all_are_probabilities(
    n_right: int, n_wrong: int, n_videos: int, k: int
) -> None:
    fewer, more = (probability(n_right, n_right + n_wrong, n_videos, draws) for draws in (k, k + 1))
    assert -1e-12 <= fewer <= more + 1e-12 <= 1 + 2e-12


def test_probability_is_what_simulated_lists_reach() -> None:
    rng = np.random.default_rng(0)
    n_right, n_allowed, n_videos, k, n_lists = 2, 7, 4, 9, 20_000
    hits = 0
    for _ in range(n_lists):
        n_met = int((rng.integers(n_videos, size=k) == 0).sum())  # draws that meet video 0, the right one
        hits += bool((rng.permutation(n_allowed)[:n_met] < n_right).any())
    assert hits / n_lists == pytest.approx(probability(n_right, n_allowed, n_videos, k), abs=0.015)


def test_chance_level_averages_queries_and_counts_right_spans_by_the_evaluators_iou() -> None:
    # 4 clips, spans of exactly 2 clips: (0, 2) and (1, 3), that is [0, 3] s and [1.5, 4.5] s; a short video has none
    n_clips = {"a": 4, "short": 2}
    queries = [Query(1, "", 1, "a", (0.0, 3.0)), Query(2, "", 2, "short", (0.0, 3.0))]
    chance = chance_level(queries, n_clips, ClipTimes(CLIP_LENGTH), 2, 3, Rule((0.5, 0.7), (1, 2)))
    assert chance["SVMR"] == pytest.approx({"0.5-r1": 25, "0.5-r2": 50, "0.7-r1": 25, "0.7-r2": 50})
    # two draws of VCMR: both meet video a (1/4, surely right), or one does (1/2, right half of the time)
    assert chance["VCMR"] == pytest.approx({"0.5-r1": 12.5, "0.5-r2": 25, "0.7-r1": 12.5, "0.7-r2": 25})
    assert chance["VR"] == {"r1": 50, "r2": 100}


@pytest.mark.parametrize("label_rule", [BEST_IOU, FLOOR_CEIL])
def test_clips_of_their_own_length_and_several_annotations_count_as_enumerated(label_rule: str) -> None:
    """Each video's spans one by one: seconds by hand, right for two of four annotators, or for the only one."""
    n_clips, durations = {"a": 5, "b": 3, "c": 7}, {"a": 31.0, "b": 8.0, "c": 100.0}
    agreed = ((0.0, 12.0), (0.0, 12.0), (5.0, 31.0), (20.0, 31.0))
    queries = [
        Query(1, "", 1, "a", agreed[0], None, durations["a"], agreed),
        Query(2, "", 2, "b", (0.0, 8.0), None, durations["b"]),
        Query(3, "", 3, "c", (60.0, 100.0), None, durations["c"], ((60.0, 100.0), (10.0, 30.0))),
    ]
    rule, min_l, max_l = Rule((0.3, 0.7), (1, 3)), 1, 6
    found = chance_level(queries, n_clips, ClipTimes(AUTO, label_rule), min_l, max_l, rule)
    for iou_thd in rule.iou_thds:
        shares, misses_of_3 = [], []
        for query in queries:
            name = str(query.vid_name)
            n = n_clips[name]
            last_boundary = n if label_rule == BEST_IOU else n - 1
            clip = durations[name] / n
            boundaries = itertools.combinations(range(last_boundary + 1), 2)
            allowed = [(i * clip, j * clip) for i, j in boundaries if min_l <= j - i < max_l]
            needed = 2 if len(query.annotated) >= 4 else 1
            right = [sum(iou(span, moment) >= iou_thd for moment in query.annotated) >= needed for span in allowed]
            shares.append(sum(right) / len(right))
            lists = list(itertools.combinations(right, min(3, len(right))))
            misses_of_3.append(sum(not any(drawn) for drawn in lists) / len(lists))
        assert found["SVMR"][f"{iou_thd}-r1"] == pytest.approx(100 * np.mean(shares))
        assert found["VCMR"][f"{iou_thd}-r1"] == pytest.approx(100 * np.mean(shares) / 3)
        assert found["SVMR"][f"{iou_thd}-r3"] == pytest.approx(100 * (1 - np.mean(misses_of_3)))
        assert 0 < np.mean(shares) < 1


def iou(one: tuple[float, float], other: tuple[float, float]) -> float:
    shared = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / (max(one[1], other[1]) - min(one[0], other[0]))


def test_a_query_without_ground_truth_is_refused() -> None:
    with pytest.raises(ValueError, match="desc_id 1 has no ground truth"):
        chance_level([Query(1, "", 1)], {"a": 4}, ClipTimes(CLIP_LENGTH), 2, 16, Rule())
