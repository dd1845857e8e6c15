"""Annotations and predictions in other forms than this evaluator's are called by their names."""

import json

import pytest

from standalone_eval.aligned import align
from standalone_eval.files.command import BadInput
from standalone_eval.files.forms import form_of
from tests.standalone_eval.commands import FOLDER, assert_refused, run

OWN = [{"desc_id": i, "desc": "q", "vid_name": "a", "ts": [5.0, 12.0]} for i in (7, 8)]
PREDICTIONS = {"video2idx": {"a": 0}, "SVMR": [{"desc_id": i, "predictions": [[0, 5, 12, 1.0]]} for i in (7, 8)]}
QIDS = [{"qid": i, "query": "q", "duration": 30.0, "vid": "a", "relevant_windows": [[5.0, 12.0]]} for i in ("a_1", 8)]
ANSWERS = [{"qid": 7, "query": "q", "vid": "a", "pred_relevant_windows": [[5.0, 12.0, 0.9]]}]
ACTIVITYNET = {"v_a": {"duration": 9.5, "timestamps": [[0, 1]], "sentences": ["q"]}}
DIDEMO = [{"annotation_id": 1, "video": "a", "description": "q", "times": [[0, 0]], "num_segments": 6}] * 2


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


FOREIGN = {
    "Moment-DETR in a list": (json.dumps(QIDS), "annotations in Moment-DETR's form (qid"),
    "Moment-DETR's predictions in a list": (
        json.dumps(ANSWERS),
        "predictions in Moment-DETR's form (qid, vid, pred_relevant_windows)",
    ),
    "ActivityNet": (json.dumps(ACTIVITYNET), "ActivityNet Captions' form"),
    "ActivityNet, indented": (json.dumps(ACTIVITYNET, indent=1), "ActivityNet Captions' form"),
    "DiDeMo": (json.dumps(DIDEMO), "DiDeMo's form"),
    "DiDeMo, indented": (json.dumps(DIDEMO, indent=1), "DiDeMo's form"),
    "Charades-STA": ("AO8RW 0.0 6.9##a person.\n", "Charades-STA's form"),
    "durations": (json.dumps({"train": {"a": [3.5, 0]}, "val": {}} | {"val": {"b": [3, 1]}}), "holds durations"),
    "entries alone": (json.dumps(PREDICTIONS["SVMR"]), "the entries of one task"),
}


@pytest.fixture
def check(tmp_path):
    def check(submission, ground_truth):
        (tmp_path / "s.json").write_text(submission)
        (tmp_path / "g.jsonl").write_text(ground_truth)
        paths = ("--submission_path", tmp_path / "s.json", "--gt_path", tmp_path / "g.jsonl")
        return run("python", FOLDER / "check.py", *paths)

    return check


@pytest.mark.parametrize(("text", "form"), FOREIGN.values(), ids=list(FOREIGN))
def test_the_form_is_all_that_is_said(check, text, form):
    for name, result in (("g.jsonl", check(json.dumps(PREDICTIONS), text)), ("s.json", check(text, jsonl(OWN)))):
        assert_refused(result, form, name)
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("rows", [QIDS, [{"qid": 1, "query": "q", "vid": "a"}]])
def test_annotations_in_moment_detrs_form_are_no_predictions(check, rows):
    assert_refused(check(jsonl(rows), jsonl(OWN)), "s.json: holds annotations in Moment-DETR's form (qid")
    assert_refused(check(jsonl(rows), jsonl(QIDS)), "s.json: holds annotations in Moment-DETR's form (qid")
    assert_refused(check(json.dumps(PREDICTIONS), jsonl(ANSWERS)), "g.jsonl: holds predictions in Moment-DETR's form")


def test_half_rewritten_annotations_are_told_what_they_lack(check):
    rows = [{"desc_id": 7, "vid_name": "a", "relevant_windows": [[5, 12]]}]
    assert_refused(check(json.dumps(PREDICTIONS), jsonl(rows)), "qid is missing", "vid is missing")


def test_swapped_paths_and_rows_in_a_list_are_named(check):
    good = json.dumps(PREDICTIONS)
    assert "s.json: holds annotations" in check(jsonl(OWN), good).stderr + check(jsonl(OWN), jsonl(OWN)).stderr
    assert "g.jsonl: holds a prediction file" in check(good, good).stderr
    for indent in (None, 1):
        assert_refused(check(good, json.dumps(OWN, indent=indent)), "g.jsonl: is one JSON list", "one a line")


def test_a_broken_line_among_good_ones_is_what_is_named(check):
    assert_refused(check(json.dumps(PREDICTIONS), jsonl(OWN) + "{"), "g.jsonl, line 3: is not valid JSON")


def test_rows_of_no_known_form_are_not_taken_for_test_public(check):
    result = check(json.dumps(PREDICTIONS), jsonl([{"id": 7}, {"id": 8}]))
    assert_refused(result, "ground truth: desc_id is missing or not an integer (2)", "1 kind")
    assert "test_public" not in result.stderr


def test_python_is_told_as_well():
    with pytest.raises(BadInput, match="ground truth: holds annotations in Moment-DETR's form"):
        align(PREDICTIONS, QIDS)
    with pytest.raises(BadInput, match="submission: holds predictions in Moment-DETR's form"):
        align(ANSWERS, OWN)


@pytest.mark.parametrize("content", [None, 3, "text", [], {}, [[]], [None], {"a": {}}, {"a": {"b": 1}}, [{"x": 1}]])
def test_anything_else_has_no_name(content):
    assert form_of(content) is None


def test_rows_that_kept_the_keys_they_came_with_are_this_projects():
    rows = [{**theirs, **ours} for theirs, ours in zip(QIDS, OWN, strict=True)]
    assert align(PREDICTIONS, rows).truth.desc_ids == [7, 8]
