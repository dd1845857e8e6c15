import numpy as np
import pytest
from hypothesis import given, settings

from standalone_eval.aligned import align
from standalone_eval.eval import eval_retrieval
from standalone_eval.metrics import Rule
from standalone_eval.outcomes import Outcomes, all_outcomes
from tests.standalone_eval.scalar_evaluation import cases, scalar_iou, scalar_is_right, scalar_query
from tests.support.golden_files import load_json, load_jsonl

TASKS = ("VCMR", "SVMR", "VR")
RULE = Rule((0.3, 0.5, 1.0), (1, 2, 5))
MAX_PRED = 4


@settings(max_examples=60, deadline=None)
@given(cases())
def test_shares_of_ranks_are_the_recalls(case):
    submission, ground_truth = case
    metrics = eval_retrieval(submission, ground_truth, RULE.iou_thds, RULE.ks, MAX_PRED)
    for task, outcomes in all_outcomes(align(*case), RULE, max_pred=MAX_PRED).items():
        assert outcomes.recalls(RULE) == metrics[task]
        for iou_thd in RULE.iou_thds:
            rank = outcomes.rank(iou_thd)
            for k in RULE.ks:
                name = f"r{k}" if task == "VR" else f"{iou_thd}-r{k}"
                assert round(float(np.mean((rank > 0) & (rank <= k))) * 100, 2) == metrics[task][name]
                assert np.array_equal(outcomes.hits(k, iou_thd), outcomes.hits_at_k(RULE)[name])


@settings(max_examples=60, deadline=None)
@given(cases())
def test_ranks_and_ious_are_those_of_the_scalar_definition(case):
    submission, ground_truth = case
    aligned = align(*case)
    for task in TASKS:
        outcomes = Outcomes.of(aligned, task, RULE, MAX_PRED)
        for number, query in enumerate(ground_truth):
            rows, video_idx, annotated = scalar_query(task, submission, query, MAX_PRED)
            for iou_thd in RULE.iou_thds:
                right = [scalar_is_right(task, row, video_idx, annotated, iou_thd) for row in rows]
                assert outcomes.rank(iou_thd)[number] == (right.index(True) + 1 if any(right) else 0)
            in_video = [row[0] == video_idx for row in rows]
            assert outcomes.video_rank[number] == (in_video.index(True) + 1 if any(in_video) else 0)
            if task != "VR":
                best = max(scalar_iou(rows[0][1:3], span) for span in annotated) if in_video[:1] == [True] else 0
                assert outcomes.first_iou[number] == best


@pytest.mark.parametrize("gt_name", ["eval/ground_truth.jsonl", "eval/ground_truth_multi.jsonl"])
def test_recalls_of_the_references_cases_are_those_of_the_evaluation(gt_name):
    submission, ground_truth = load_json("eval/predictions.json"), load_jsonl(gt_name)
    rule = Rule((0.3, 0.5, 0.7), (1, 3, 10, 100))
    metrics = eval_retrieval(submission, ground_truth, rule.iou_thds, rule.ks)
    for task, outcomes in all_outcomes(align(submission, ground_truth), rule).items():
        assert outcomes.recalls(rule) == metrics[task]


def test_a_rule_of_fewer_thresholds_than_were_computed_gives_its_own_metrics(submission, ground_truth):
    outcomes = Outcomes.of(align(submission, ground_truth), "VCMR", RULE)
    assert list(outcomes.recalls(Rule((0.5,), (7,)))) == ["0.5-r7"]
    with pytest.raises(KeyError):
        outcomes.rank(0.7)


def test_four_annotated_moments_ask_for_two_that_agree_whatever_the_best_iou(submission, ground_truth):
    ground_truth[0]["ts"] = [[3.0, 9.0], [30.0, 33.0], [36.0, 39.0], [45.0, 48.0]]
    outcomes = Outcomes.of(align(submission, ground_truth), "SVMR", RULE)
    assert outcomes.first_iou[0] == 1.0
    assert outcomes.rank(0.5)[0] == 0


def test_in_vr_there_are_no_moments(submission, ground_truth):
    outcomes = Outcomes.of(align(submission, ground_truth), "VR", RULE)
    assert np.isnan(outcomes.first_iou).all()
    assert list(outcomes.rank()) == list(outcomes.video_rank) == [1, 1, 1]


def test_queries_without_predictions_have_no_rank_and_no_iou(submission, ground_truth):
    for task in ("VCMR", "SVMR"):
        submission[task][1]["predictions"] = []
        outcomes = Outcomes.of(align(submission, ground_truth), task, RULE)
        assert list(outcomes.rank(0.5)) == [1, 0, 1]
        assert list(outcomes.first_iou) == [1.0, 0.0, 1.0]
