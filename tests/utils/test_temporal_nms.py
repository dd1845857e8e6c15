import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import utils.temporal_nms as temporal_nms
from tests.support.golden_files import load_json
from utils.temporal_nms import nms_keep, temporal_iou, temporal_non_maximum_suppression

NMS_CASES = load_json("eval/nms_cases.json")


def scalar_iou(a, b):
    hull = max(a[1], b[1]) - min(a[0], b[0])
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0])) / hull if hull else 0.0


def scalar_keep(spans, valid, thd, group):
    kept = []
    for i, span in enumerate(spans):
        if valid[i] and all(group[i] != group[j] or scalar_iou(spans[j], span) <= thd for j in kept):
            kept.append(i)
    return [i in kept for i in range(len(spans))]


clips = st.integers(0, 8).map(lambda clip: clip * 1.5)
span = st.tuples(clips, clips).map(lambda pair: (min(pair), max(pair)))
thresholds = st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0])


@st.composite
def batches(draw):
    n_query, n_span = draw(st.integers(1, 4)), draw(st.integers(1, 9))

    def table(cell):
        return [[draw(cell) for _ in range(n_span)] for _ in range(n_query)]

    return table(span), table(st.booleans()), table(st.integers(0, 2))


@pytest.mark.parametrize("case", NMS_CASES, ids=range(len(NMS_CASES)))
def test_one_list_agrees_with_the_reference(case):
    got = temporal_non_maximum_suppression(case["predictions"], case["nms_threshold"], case["max_after_nms"])
    assert got == case["out"]


@settings(deadline=None)
@given(batches(), thresholds)
def test_batch_agrees_with_the_scalar_definition(batch, thd):
    spans, valid, group = batch
    array = np.array(spans)
    keep = nms_keep(array[..., 0], array[..., 1], np.array(valid), thd, np.array(group))
    expected = [scalar_keep(*row, thd, g) for *row, g in zip(spans, valid, group, strict=True)]
    assert keep.tolist() == expected


@settings(deadline=None)
@given(batches(), thresholds)
def test_without_groups_all_spans_compete(batch, thd):
    spans, valid, _ = batch
    array = np.array(spans)
    keep = nms_keep(array[..., 0], array[..., 1], np.array(valid), thd)
    assert keep.tolist() == [scalar_keep(row, ok, thd, [0] * len(row)) for row, ok in zip(spans, valid, strict=True)]


@settings(deadline=None)
@given(st.lists(st.tuples(clips, clips, st.integers(0, 3)), max_size=10), thresholds, st.integers(1, 5))
def test_one_list_is_the_batch_of_one_in_score_order(predictions, thd, max_after_nms):
    ranked = sorted(predictions, key=lambda row: -row[2])
    keep = scalar_keep(ranked, [True] * len(ranked), thd, [0] * len(ranked))
    expected = [row for row, kept in zip(ranked, keep, strict=True) if kept][:max_after_nms]
    assert temporal_non_maximum_suppression(predictions, thd, max_after_nms) == expected


def test_queries_are_handled_alike_however_they_fall_into_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    start = rng.integers(0, 30, (23, 12)) * 1.5
    end = start + rng.integers(0, 12, (23, 12)) * 1.5
    valid = rng.random((23, 12)) < 0.9
    group = rng.integers(0, 3, (23, 12))
    whole = nms_keep(start, end, valid, 0.3, group)
    monkeypatch.setattr(temporal_nms, "_BLOCK_ELEMENTS", 60)
    np.testing.assert_array_equal(nms_keep(start, end, valid, 0.3, group), whole)


def test_padding_may_hold_nan_and_is_never_kept():
    start, end = np.array([[np.nan, 0.0, 0.0, np.inf]]), np.array([[np.nan, 3.0, 3.0, np.inf]])
    keep = nms_keep(start, end, np.array([[False, True, True, False]]), 0.5)
    assert keep.tolist() == [[False, True, False, False]]


def test_inputs_are_left_as_they_were():
    start, end, valid = np.zeros((1, 3)), np.ones((1, 3)), np.ones((1, 3), dtype=bool)
    nms_keep(start, end, valid, 0.5)
    assert valid.all()


def test_iou_equal_to_the_threshold_is_kept():
    assert temporal_non_maximum_suppression([[0, 4, 0.9], [2, 4, 0.8]], 0.5) == [[0, 4, 0.9], [2, 4, 0.8]]


def test_disjoint_spans_and_equal_empty_spans_have_no_overlap():
    ious = temporal_iou(np.array([0.0, 3.0]), np.array([1.0, 3.0]), np.array([5.0, 3.0]), np.array([6.0, 3.0]))
    assert ious.tolist() == [0.0, 0.0]


def test_single_and_empty_lists_are_returned_as_they_are():
    assert temporal_non_maximum_suppression([[5.0, 1.0, 0.1]], 0.5) == [[5.0, 1.0, 0.1]]
    assert temporal_non_maximum_suppression([], 0.5) == []


def test_no_query_or_no_span_gives_an_empty_answer():
    for shape in ((0, 5), (3, 0)):
        assert nms_keep(np.zeros(shape), np.zeros(shape), np.ones(shape, dtype=bool), 0.5).shape == shape
