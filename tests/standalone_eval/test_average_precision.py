import random

import numpy as np
import pytest

from standalone_eval.average_precision import IOU_THDS, LENGTHS, average_precision, iou_of_first, window_metrics

# The first query has three windows. Its first two predictions are on one of them, the second and the third have the
# same score, and the fourth has an IoU of 0.8. The second query is short, and missed.
WINDOWS = [[[0, 20], [40, 60], [100, 105]], [[10, 20]]]
PREDICTIONS = [[[0, 18, 0.9], [2, 20, 0.8], [40, 60, 0.8], [100, 104, 0.1]], [[50, 60, 1.0]]]


def arrays(predictions, windows):
    """(Nq, K, 3) and (Nq, M, 2), padded with NaN, with K and M one more than is needed."""
    padded = []
    for lists, width in ((predictions, 3), (windows, 2)):
        out = np.full((len(lists), 1 + max(map(len, lists)), width), np.nan)
        for query, rows in enumerate(lists):
            out[query, : len(rows)] = np.array(rows, dtype=float).reshape(-1, width)
        padded.append(out)
    return padded


def test_average_precision_is_what_it_is_by_hand():
    found = average_precision(*arrays(PREDICTIONS, WINDOWS))
    assert IOU_THDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    # up to 0.8 right, wrong, right, right: precisions 1, 1/2, 2/3, 3/4, of which 3/4 holds for recalls above 1/3;
    # up to 0.9 right, wrong, right, wrong; then the third alone
    by_hand = [(1 + 3 / 4 + 3 / 4) / 3] * 7 + [(1 + 2 / 3) / 3] * 2 + [1 / 3 * 1 / 3]
    np.testing.assert_allclose(found, [by_hand, [0] * 10], rtol=1e-12)


def test_metrics_are_what_they_are_by_hand():
    found = window_metrics(*arrays(PREDICTIONS, WINDOWS))
    assert len(found) == 3 * (1 + 10 + 10)  # no window is long
    expected = {
        **{"full-mAP@0.5": 41.67, "full-mAP@0.9": 27.78, "full-mAP@0.95": 5.56, "full-mAP": 35.28},
        **{"full-R1@0.5": 50.0, "full-R1@0.9": 50.0, "full-R1@0.95": 0.0},
        **{"short-mAP@0.5": 12.5, "short-mAP@0.85": 0.0, "short-R1@0.5": 0.0},  # (1/4 + 0) / 2
        **{"middle-mAP@0.5": 83.33, "middle-R1@0.5": 100.0},  # the second query has none, and is dropped
    }
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("first", "r1", "mean_ap"), [(0, 100.0, 100.0), (1, 0.0, 100.0), (9, 0.0, 100.0), (10, 0.0, 0)]
)
def test_r1_goes_by_the_list_and_map_by_the_scores_of_its_first_ten(first, r1, mean_ap):
    others = [[50 + 10 * i, 60 + 10 * i, 0.5] for i in range(11)]
    found = window_metrics(*arrays([[*others[:first], [10, 30, 0.9], *others[first:]]], [[[10, 30]]]))
    assert (found["full-R1@0.5"], found["full-mAP"]) == (r1, mean_ap)


def test_equal_scores_keep_their_order():
    rows = [[10, 30, 0.5], [50, 60, 0.5]]
    assert average_precision(*arrays([rows], [[[10, 30]]]))[0, 0] == 1
    assert average_precision(*arrays([rows[::-1]], [[[10, 30]]]))[0, 0] == 0.5


def test_queries_without_predictions_are_missed():
    found = window_metrics(*arrays([[], [[10, 20, 1.0]]], [[[0, 5]], [[10, 20]]]))
    assert (found["full-mAP"], found["full-R1@0.5"]) == (50.0, 50.0)


@pytest.mark.parametrize("window", [[10, 10], [20, 10]])
def test_empty_and_reversed_predictions_are_wrong(window):
    assert not average_precision(*arrays([[[*window, 1.0]]], [[[10, 10], [10, 20]]])).any()
    assert iou_of_first(*arrays([[[*window, 1.0]]], [[[10, 10], [10, 20]]])).tolist() == [0]


def test_a_prediction_takes_the_window_that_it_fits_best():
    windows = [[[0, 10], [2, 12]]]
    assert average_precision(*arrays([[[2, 12, 0.9], [0, 10, 0.8]]], windows))[0, 0] == 1
    assert average_precision(*arrays([[[1, 11, 0.9], [2, 12, 0.8]]], windows), [0.8]).tolist() == [
        [0.5]
    ]  # of two, the last


def slow_iou(span, window):
    shared = max(0, min(span[1], window[1]) - max(span[0], window[0]))
    union = span[1] - span[0] + window[1] - window[0] - shared
    return shared / union if union else 0


def slow_average_precision(predictions, windows, iou_thd):
    ranked = sorted(predictions[:10], key=lambda row: -row[2])
    taken, right = set(), []
    for row in ranked:
        right.append(False)
        for number in sorted(range(len(windows)), key=lambda n: (slow_iou(row, windows[n]), n), reverse=True):
            if slow_iou(row, windows[number]) < iou_thd:
                break
            if number not in taken:
                taken.add(number)
                right[-1] = True
                break
    precisions = [sum(right[: n + 1]) / (n + 1) for n in range(len(right))]
    return sum(max(precisions[n:]) / len(windows) for n in range(len(right)) if right[n])


def slow_metrics(predictions, windows, iou_thd, above, up_to):
    kept = [[window for window in of_query if above < window[1] - window[0] <= up_to] for of_query in windows]
    queries = [(rows, of_query) for rows, of_query in zip(predictions, kept, strict=True) if of_query]
    if not queries:
        return None
    aps = [slow_average_precision(*query, iou_thd) for query in queries]
    hits = [
        max([slow_iou(row, window) for row in rows[:1] for window in of_query], default=0) for rows, of_query in queries
    ]
    return 100 * sum(aps) / len(aps), 100 * sum(iou >= iou_thd for iou in hits) / len(hits)


@pytest.mark.parametrize("seed", range(40))
def test_metrics_equal_the_plain_definition(seed):
    draw = random.Random(seed)

    def span():
        start, length = draw.randrange(0, 60, 2), draw.choice([0, 2, 4, 6, 10, 12, 20, 30, 40, 160])
        return [start, start + length]

    windows = [[span() for _ in range(draw.randint(1, 5))] for _ in range(8)]
    predictions = [[[*span(), draw.choice([0.1, 0.5, 0.9])] for _ in range(draw.randint(0, 12))] for _ in range(8)]
    for rows, of_query in zip(predictions, windows, strict=True):  # some of them right
        rows[: draw.randint(0, 3)] = [[*draw.choice(of_query), 0.5] for _ in range(draw.randint(0, 3))]
    found = window_metrics(*arrays(predictions, windows))
    for name, (above, up_to) in LENGTHS.items():
        expected = {iou_thd: slow_metrics(predictions, windows, iou_thd, above, up_to) for iou_thd in IOU_THDS}
        if expected[0.5] is None:
            assert f"{name}-mAP" not in found
            continue
        for iou_thd, (mean_ap, r1) in expected.items():
            assert found[f"{name}-mAP@{iou_thd}"] == pytest.approx(mean_ap, abs=0.0051)
            assert found[f"{name}-R1@{iou_thd}"] == pytest.approx(r1, abs=0.0051)
        average = sum(mean_ap for mean_ap, _ in expected.values()) / len(expected)
        assert found[f"{name}-mAP"] == pytest.approx(average, abs=0.0051)
