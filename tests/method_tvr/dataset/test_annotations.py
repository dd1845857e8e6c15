"""Annotations are read whole, checked line by line, and refused by name."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from method_tvr.dataset.annotations import Query, Video, annotated_spans, load_queries, load_videos, most_agreed
from standalone_eval.metrics import moment_iou
from utils.basic_utils import InputError

VIDEOS = {"val": {"a": Video("a", 10.0, 3), "b": Video("b", 20.0, 4)}, "train": {"c": Video("c", 5.0, 9)}}
GOOD = {"desc_id": 1, "desc": "x", "vid_name": "a", "ts": [1, 4.5], "type": "vt"}


@pytest.fixture
def write(tmp_path):
    def write(*rows):
        path = tmp_path / "val.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
        return path

    return write


def test_queries_come_in_file_order_with_their_lines(write):
    path = write(GOOD, {**GOOD, "desc_id": 7, "vid_name": "c", "ts": [0, 5]}, {**GOOD, "desc_id": 2})
    queries = load_queries(path, VIDEOS)
    assert [(query.desc_id, query.line, query.vid_name) for query in queries] == [(1, 1, "a"), (7, 2, "c"), (2, 3, "a")]
    assert queries[0].ts == (1.0, 4.5)
    assert queries[0].type == "vt"
    assert queries[0].has_moment


def test_queries_without_ground_truth_are_read_too(write):
    queries = load_queries(write({"desc_id": 1, "desc": "x"}, {"desc_id": 2, "desc": "y"}), VIDEOS)
    assert not any(query.has_moment for query in queries)


def test_an_end_past_the_video_is_clamped_counted_and_warned_of(write, capsys):
    late = [{**GOOD, "desc_id": i, "ts": [9, 10.5 + i]} for i in range(3)]
    queries = load_queries(write(GOOD, *[{**row, "desc_id": 5 + row["desc_id"]} for row in late]), VIDEOS)
    assert [query.ts for query in queries] == [(1.0, 4.5)] + [(9.0, 10.0)] * 3
    warning = capsys.readouterr().err
    assert "val.jsonl" in warning
    assert "3 moments" in warning
    assert "desc_id 5, 6, 7" in warning


def test_an_end_at_the_videos_end_is_no_reason_to_warn(write, capsys):
    load_queries(write({**GOOD, "ts": [9, 10.0]}), VIDEOS)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, {**GOOD, "desc_id": 2, "ts": [4, 1]}], r"line 2: desc_id 2: ts \[4, 1\] is reversed"),
        ([{**GOOD, "ts": [-1, 1]}], "line 1: desc_id 1.*negative"),
        ([{**GOOD, "ts": [10, 12]}], r"line 1: desc_id 1: ts \[10.0, 12.0\] starts after a ends"),
        ([{**GOOD, "ts": [1]}], "line 1: desc_id 1.*ts"),
        ([{**GOOD, "ts": ["1", "2"]}], "line 1: desc_id 1.*ts"),
        ([{**GOOD, "ts": [1, True]}], "line 1: desc_id 1.*ts"),
        (['{"desc_id": 1, "desc": "x", "vid_name": "a", "ts": [1, NaN]}'], "line 1: is not valid JSON"),
        ([{**GOOD, "vid_name": None}], "line 1: desc_id 1.*vid_name"),
        ([{**GOOD, "vid_name": "zzz"}], "line 1: desc_id 1: video zzz.*video2dur_idx"),
        ([{**GOOD, "desc_id": "1"}], "line 1.*desc_id"),
        ([{**GOOD, "desc_id": True}], "line 1.*desc_id"),
        ([{**GOOD, "desc": 5}], "line 1.*desc"),
        ([{**GOOD, "type": ["v"]}], "line 1: desc_id 1.*type"),
        ([{**GOOD, "type": 5}], "line 1: desc_id 1.*type"),
        ([GOOD, {**GOOD, "desc_id": 2, "type": None}], "line 2: desc_id 2 has no type, but other lines have"),
        ([{**GOOD, "type": "v\x1b[2J"}], "line 1: desc_id 1.*type"),
        ([{**GOOD, "type": "v\u202e"}], "line 1: desc_id 1.*type"),
        ([GOOD, {"ts": [1, 2]}], "line 2.*desc_id"),
        ([GOOD, GOOD], "line 2: desc_id 1 is that of line 1"),
        ([GOOD, {"desc_id": 2, "desc": "y"}], "line 2: desc_id 2 has no vid_name and ts"),
        ([GOOD, '{"desc_id": 2, "desc"'], "line 2: is not valid JSON"),
        ([GOOD, "", {**GOOD, "desc_id": 2}], "line 2: is not valid JSON"),
        ([GOOD, "[1, 2]"], "line 2: expected an object"),
        ([], "has no lines"),
    ],
)
def test_defective_lines_are_named(write, rows, message):
    path = write(*rows)
    with pytest.raises(InputError, match=message) as caught:
        load_queries(path, VIDEOS)
    assert str(path) in str(caught.value)


def test_a_missing_file_comes_with_a_remedy(tmp_path):
    with pytest.raises(InputError, match=r"val\.jsonl.*data/README\.md"):
        load_queries(tmp_path / "val.jsonl")


def test_videos_keep_their_order_and_index(write, tmp_path):
    path = tmp_path / "video2dur.json"
    path.write_text('{"val": {"b": [20, 4], "a": [10.5, 3]}, "train": {}}')
    videos = load_videos(path)
    assert list(videos["val"].values()) == [Video("b", 20.0, 4), Video("a", 10.5, 3)]
    assert videos["train"] == {}


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"val": [1]}',
        '{"val": {"a": 10}}',
        '{"val": {"a": ["10", 3]}}',
        '{"val": {"a": [0, 3]}}',
        '{"val": {"a": [10, "3"]}}',
        '{"val": {"a": [10, 3.7]}}',
        '{"val": {"a": [10, true]}}',
        '{"val": {"a": [10, 3], "b": [20, 3]}}',
        '{"val": {"a": [10, 3]}, "train": {"b": [20, 3]}}',
        "{",
        "",
    ],
)
def test_durations_of_another_form_are_refused(tmp_path, content):
    path = tmp_path / "video2dur.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"video2dur\.json"):
        load_videos(path)


# ---------------------------------------------------------------------------- several annotated moments


def test_a_query_with_several_moments_is_trained_on_the_most_agreed_and_keeps_all(write):
    several = {**GOOD, "ts": [[0, 5], [0, 5], [0, 10], [8, 10]]}
    one = {**GOOD, "desc_id": 2, "ts": [[2, 3.5]]}
    queries = load_queries(write(several, one, {**GOOD, "desc_id": 3}), VIDEOS)
    assert [query.ts for query in queries] == [(0, 5), (2, 3.5), (1, 4.5)]
    assert queries[0].moments == ((0, 5), (0, 5), (0, 10), (8, 10))
    assert [query.moments for query in queries[1:]] == [(), ()]
    assert [len(query.annotated) for query in queries] == [4, 1, 1]
    assert all(query.has_moment for query in queries)


def test_each_of_several_moments_is_clamped_and_their_query_warned_of_once(write, capsys):
    late = {**GOOD, "ts": [[9, 12], [8, 11], [2, 3]]}
    (query,) = load_queries(write(late), VIDEOS)
    assert query.annotated == ((9, 10), (8, 10), (2, 3))
    assert query.ts == (9, 10)  # of two that agree equally well the first
    warning = capsys.readouterr().err
    assert "1 moments end after their video" in warning
    assert "desc_id 1" in warning


def test_clamping_may_change_which_moment_is_most_agreed(write):
    apart = {**GOOD, "ts": [[0, 9], [1, 9.5], [5, 90], [5, 80]]}
    assert load_queries(write(apart))[0].ts == (5, 80)
    assert load_queries(write(apart), VIDEOS)[0].ts != (5, 80)


@pytest.mark.parametrize(
    ("ts", "message"),
    [
        ([[1, 2], [4, 3]], r"line 1: desc_id 1: ts \[4, 3\] is reversed"),
        ([[1, 2], [-1, 3]], r"line 1: desc_id 1: ts \[-1, 3\] is reversed or negative"),
        ([[1, 2], [10, 11]], r"line 1: desc_id 1: ts \[10.0, 11.0\] starts after a ends"),
        ([[1, 2], [1]], "line 1: desc_id 1: expected"),
        ([[1, 2], None], "line 1: desc_id 1: expected"),
        ([[1, 2], 3], "line 1: desc_id 1: expected"),
        ([[1, 2], [[1, 2]]], "line 1: desc_id 1: expected"),
        ([[1, 2, 3]], "line 1: desc_id 1: expected"),
        ([[]], "line 1: desc_id 1: expected"),
        ([], "line 1: desc_id 1: expected"),
        ([[1, 2]] * 101, "1 to 100 of them"),
    ],
)
def test_a_bad_one_of_several_moments_is_named(write, ts, message):
    path = write({**GOOD, "ts": ts})
    with pytest.raises(InputError, match=message) as caught:
        load_queries(path, VIDEOS)
    assert re.match(re.escape(f"{path}, line 1"), str(caught.value))


seconds = st.integers(0, 20)
spans = st.tuples(seconds, seconds).map(lambda pair: (float(min(pair)), float(max(pair) + 1)))


@given(st.lists(spans, min_size=1, max_size=6))
def test_the_most_agreed_moment_has_the_largest_sum_of_ious(moments):
    def agreement(moment):
        return sum(float(moment_iou(np.array(moment), np.array(other))) for other in moments)

    chosen = most_agreed(moments)
    assert chosen in moments
    assert agreement(chosen) == pytest.approx(max(map(agreement, moments)), abs=1e-5)
    doubled = [*moments, *moments]  # counting everybody twice changes nothing
    assert agreement(most_agreed(doubled)) == pytest.approx(agreement(chosen), abs=1e-5)


def test_of_equally_agreed_moments_the_first_is_taken():
    assert most_agreed([(5.0, 10.0), (0.0, 5.0)]) == (5.0, 10.0)
    assert most_agreed([(0.0, 0.0), (0.0, 0.0)]) == (0.0, 0.0)  # no time at all: every IoU is 0


def test_spans_of_all_annotators_are_padded_with_nan():
    queries = [Query(1, "", 1, "a", (1.0, 2.0)), Query(2, "", 2, "a", (0.0, 5.0), moments=((0.0, 5.0), (3.0, 4.0)))]
    found = annotated_spans(queries)
    np.testing.assert_array_equal(found, [[[1, 2], [np.nan, np.nan]], [[0, 5], [3, 4]]])
    assert annotated_spans(queries[:1]).tolist() == [[[1, 2]]]
    assert annotated_spans([]).shape == (0, 0, 2)


# ---------------------------------------------------------------------------- made to do harm


DEEP = "[" * 1000 + "]" * 1000  # deeper than Python writes out


@pytest.mark.parametrize(
    "row",
    [
        f'{{"desc_id": 1, "desc": "x", "vid_name": "a", "ts": [1, 2], "type": {DEEP}}}',
        f'{{"desc_id": 1, "desc": "x", "vid_name": "a", "ts": {DEEP}}}',
        f'{{"desc_id": {DEEP}, "desc": "x"}}',
        '{"desc_id": 18446744073709551616, "desc": "x"}',
    ],
)
def test_hostile_values_are_refused_in_few_words(write, row):
    with pytest.raises(InputError, match="line 1") as caught:
        load_queries(write(row), VIDEOS)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("entry", [f"[10, {DEEP}]", f"[{DEEP}, 3]", DEEP, "[10, 9007199254740993]", "[1e999, 3]"])
def test_hostile_durations_are_refused_in_few_words(tmp_path, entry):
    path = tmp_path / "video2dur.json"
    path.write_text(f'{{"val": {{"a": {entry}}}}}')
    with pytest.raises(InputError, match=r"video2dur\.json") as caught:
        load_videos(path)
    assert len(str(caught.value)) < 400
