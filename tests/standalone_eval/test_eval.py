import copy
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings

from standalone_eval.eval import eval_retrieval, metrics_table
from standalone_eval.files.command import BadInput
from standalone_eval.metrics import Rule, hits_at_k, moment_iou, recalls_by_type, right_moments
from tests.standalone_eval.scalar_evaluation import cases, scalar_recall
from tests.support.golden_files import load_json, load_jsonl

GOLDEN_CASES = [
    ("eval/predictions.json", "eval/ground_truth.jsonl", "eval/metrics.json"),
    ("eval/predictions.json", "eval/ground_truth_multi.jsonl", "eval/metrics_multi.json"),
    ("predictions/val_no_nms.json", "corpus/val.jsonl", "predictions/val_no_nms_metrics.json"),
    ("predictions/val_nms_0.5.json", "corpus/val.jsonl", "predictions/val_nms_0.5_metrics.json"),
    ("predictions/val_svmr_only.json", "corpus/val.jsonl", "predictions/val_svmr_only_metrics.json"),
]


@pytest.mark.parametrize(("submission_name", "gt_name", "metrics_name"), GOLDEN_CASES)
def test_metrics_equal_the_references(submission_name, gt_name, metrics_name):
    found = eval_retrieval(load_json(submission_name), load_jsonl(gt_name))
    expected = load_json(metrics_name)
    assert set(found) >= set(expected)
    for task, values in expected.items():
        assert {key: found[task][key] for key in values} == values


@settings(max_examples=60, deadline=None)
@given(cases())
def test_metrics_equal_the_scalar_definition(case):
    submission, ground_truth = case
    thds, ks, max_pred = (0.3, 0.5, 1.0), (1, 2, 5), 4
    found = eval_retrieval(submission, ground_truth, thds, ks, max_pred)
    for task in ("VCMR", "SVMR", "VR"):
        for kind in {None, *(query["type"] for query in ground_truth)}:
            queries = [query for query in ground_truth if kind in (None, query["type"])]
            values, prefix = (found[task], "") if kind is None else (found[f"{task}_by_type"], f"{kind}-")
            for thd in thds:
                for k in ks:
                    name = f"r{k}" if task == "VR" else f"{thd}-r{k}"
                    assert values[prefix + name] == scalar_recall(task, submission, queries, thd, k, max_pred)


def test_svmr_ranks_only_predictions_on_the_right_video(submission, ground_truth):
    for entry in submission["SVMR"]:
        entry["predictions"] = [[7, 1.5, 3.0, 1.0], [8, 1.5, 3.0, 1.0], [9, 1.5, 3.0, 1.0], *entry["predictions"]]
    found = eval_retrieval(submission, ground_truth, ks=(1, 2))
    assert found["SVMR"] == {"0.5-r1": 0.0, "0.5-r2": 100.0, "0.7-r1": 0.0, "0.7-r2": 100.0}


def test_vcmr_counts_the_ranks_of_other_videos(submission, ground_truth):
    for entry in submission["VCMR"]:
        entry["predictions"] = [[7, 58.5, 60.0, 1.0], [8, 58.5, 60.0, 1.0], *entry["predictions"]]
    found = eval_retrieval(submission, ground_truth, iou_thds=(0.5,), ks=(1, 2, 3))
    assert found["VCMR"] == {"0.5-r1": 0.0, "0.5-r2": 0.0, "0.5-r3": 100.0}


def test_right_times_on_the_wrong_video_are_wrong(submission, ground_truth):
    for entry in submission["VCMR"] + submission["SVMR"]:
        for prediction in entry["predictions"]:
            prediction[0] = 7 + (prediction[0] - 6) % 3
    found = eval_retrieval(submission, ground_truth)
    assert set(found["VCMR"].values()) == set(found["SVMR"].values()) == {0.0}


def test_only_the_first_predictions_count(submission, ground_truth):
    for entry in submission["VCMR"]:
        entry["predictions"] = [[7, 58.5, 60.0, 1.0]] * 100 + entry["predictions"]
    assert eval_retrieval(submission, ground_truth, ks=(1000,))["VCMR"] == {"0.5-r1000": 0.0, "0.7-r1000": 0.0}
    assert eval_retrieval(submission, ground_truth, ks=(101,), max_pred=101)["VCMR"]["0.5-r101"] == 100.0


def test_lists_may_be_shorter_than_k_and_empty(submission, ground_truth):
    submission["VCMR"][1]["predictions"] = []
    assert eval_retrieval(submission, ground_truth)["VCMR"]["0.5-r100"] == 66.67


def test_all_lists_may_be_empty(submission, ground_truth):
    for entry in submission["VCMR"]:
        entry["predictions"] = []
    assert set(eval_retrieval(submission, ground_truth)["VCMR"].values()) == {0.0}


def test_entries_may_come_in_any_order(submission, ground_truth):
    expected = eval_retrieval(submission, ground_truth)
    submission["VCMR"].reverse()
    assert eval_retrieval(submission, ground_truth) == expected


def test_tasks_may_be_left_out_and_untyped_queries_have_no_tables_by_type(submission, ground_truth):
    del submission["SVMR"]
    untyped = [{key: value for key, value in query.items() if key != "type"} for query in ground_truth]
    assert list(eval_retrieval(submission, untyped)) == ["VCMR", "VR"]


def test_numpy_scalars_are_numbers(submission, ground_truth):
    expected = eval_retrieval(submission, ground_truth)
    for entry in submission["VCMR"]:
        entry["predictions"] = [
            (np.int64(v), *np.float32([st_, ed, score])) for v, st_, ed, score in entry["predictions"]
        ]
    assert eval_retrieval(submission, ground_truth) == expected


def test_iou_is_the_overlap_over_the_hull():
    pred = np.array([[0.0, 4.0], [0.0, 1.0], [3.0, 3.0], [3.0, 3.0], [5.0, 2.0]])
    annotated = np.array([[2.0, 6.0], [5.0, 6.0], [3.0, 3.0], [1.0, 5.0], [2.0, 5.0]])
    found = moment_iou(pred, annotated)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.float32([2 / 6, 0, 0, 0, 0]))


def test_threshold_is_compared_in_float32():
    pred, annotated = np.array([[[0.0, 7.0]]]), np.array([[[0.0, 10.0]]])
    assert float(moment_iou(pred, annotated)[0, 0]) < 0.7  # as a float64 threshold would have it
    assert right_moments(pred, annotated, Rule(iou_thds=(0.7,))).all()


@pytest.mark.parametrize(
    ("n_agreeing", "n_annotated", "right"), [(1, 3, True), (1, 4, False), (2, 4, True), (2, 6, True)]
)
def test_four_annotations_ask_for_agreement_with_two(n_agreeing, n_annotated, right):
    annotated = np.array([[[0.0, 3.0]] * n_agreeing + [[30.0, 33.0]] * (n_annotated - n_agreeing)])
    assert right_moments(np.array([[[0.0, 3.0]]]), annotated, Rule()).all() == right


def test_what_several_annotations_ask_for_is_an_argument(submission, ground_truth):
    ground_truth[0]["ts"] = [[3.0, 9.0], [30.0, 33.0]]
    assert eval_retrieval(submission, ground_truth)["VCMR"]["0.5-r1"] == 100.0
    assert eval_retrieval(submission, ground_truth, several_from=2)["VCMR"]["0.5-r1"] == 66.67
    assert eval_retrieval(submission, ground_truth, several_from=2, least_right=1)["VCMR"]["0.5-r1"] == 100.0


def test_arrays_alone_can_be_evaluated():
    predictions = np.full((2, 3, 4), np.nan)
    predictions[0, :2] = [[5, 0, 1.5, 0.9], [4, 3, 6, 0.8]]
    hits = hits_at_k("VCMR", predictions, np.array([4.0, 4.0]), np.array([[[3.0, 6.0]]] * 2), Rule((0.5,), (1, 2)))
    assert {name: hit.tolist() for name, hit in hits.items()} == {"0.5-r1": [False, False], "0.5-r2": [True, False]}


def test_evaluation_leaves_its_input_as_it_was(submission, ground_truth):
    before = copy.deepcopy((submission, ground_truth))
    eval_retrieval(submission, ground_truth)
    assert (submission, ground_truth) == before


def test_type_shares_are_reported(submission, ground_truth):
    by_type = eval_retrieval(submission, ground_truth)["VCMR_by_type"]
    assert by_type["desc_type_ratio"] == "v 66.67 t 33.33"
    assert next(iter(by_type)) == "v-0.5-r1"


def test_many_types_take_no_more_than_few():
    """A mask for each type, as many as there are queries, would be 400 MB."""
    n = 20_000
    hits = {"r1": np.arange(n) % 3 == 0}
    tracemalloc.start()
    found = recalls_by_type(hits, [f"type {i:05d}" for i in range(n)])
    assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    tracemalloc.stop()
    assert [found[f"type {i:05d}-r1"] for i in range(4)] == [100.0, 0.0, 0.0, 100.0]
    assert found["desc_type_ratio"].startswith("type 00000 0.01 type 00001 0.01 ")


def test_unusable_input_is_refused_with_every_reason(submission, ground_truth):
    submission["VCMR"].pop()
    submission["SVMR"][0]["predictions"][0][1] = float("nan")
    with pytest.raises(BadInput, match=r"VCMR: desc_id of the annotations has no entry(.|\n)*SVMR: NaN"):
        eval_retrieval(submission, ground_truth)


DEEP = json.loads("[" * 900 + "]" * 900)  # deeper than Python writes out from here


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ts": [9.0, 3.0]}, "ts is not"),
        ({"ts": [[1.0, 2.0], [3.0]]}, "ts is not"),
        ({"ts": [float("nan"), 1.0]}, "ts is not"),
        ({"ts": "soon"}, "ts is not"),
        ({"vid_name": "show_z"}, "video2idx has no entry"),
        ({"vid_name": 3}, "vid_name is missing"),
        ({"desc_id": 2}, "desc_id appears more than once"),
        ({"desc_id": True}, "desc_id is missing or not an integer"),
        ({"type": None}, "type is missing"),
        ({"type": "v\ud800"}, "type is missing"),
        ({"ts": [0, 10**400]}, "ts is not"),
        ({"ts": [0, 1e39]}, "ts is not"),  # past float32
        ({"ts": [[0, 1]] * 101}, "ts is not .* 1 to 100 such spans"),
        ({"ts": DEEP}, "ts is not"),
        ({"desc_id": DEEP}, "desc_id is missing or not an integer"),
        ({"vid_name": DEEP}, "vid_name is missing"),
        ({"type": DEEP}, "type is missing"),
    ],
)
def test_malformed_ground_truth_is_refused(submission, ground_truth, change, message):
    ground_truth[0] |= change
    with pytest.raises(BadInput, match=message):
        eval_retrieval(submission, ground_truth)


def test_annotations_without_answers_cannot_be_evaluated(submission):
    with pytest.raises(BadInput, match="cannot be evaluated here"):
        eval_retrieval(submission, [{"desc_id": i, "desc": "q"} for i in (1, 2, 3)])


def test_no_queries_cannot_be_evaluated():
    with pytest.raises(BadInput):
        eval_retrieval({"video2idx": {"a": 1}, "VR": []}, [])


def test_table_has_a_row_for_each_task_type_and_threshold(submission, ground_truth):
    table = metrics_table(eval_retrieval(submission, ground_truth, ks=(1, 10))).splitlines()
    assert table[0].split() == ["R@1", "R@10"]
    assert table[1].split() == ["VCMR", "0.5", "100.00", "100.00"]
    assert ["VR", "t", "100.00", "100.00"] in [line.split() for line in table]
