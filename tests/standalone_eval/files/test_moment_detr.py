"""Files in Moment-DETR's form beside this evaluator's own."""

import json

import pytest

from standalone_eval.check import Annotations, check_file
from standalone_eval.eval import eval_retrieval
from standalone_eval.files.command import BadInput
from standalone_eval.files.moment_detr import moment_detr_predictions
from tests.standalone_eval.commands import FOLDER, assert_refused, run

WINDOWS = {"a": [[4.0, 12.5]], "b": [[0, 10], [30, 40], [60, 70], [100, 120]], "c": [[20, 30]]}
APART = "queries with 4 or more moments of which no two overlap"


@pytest.fixture
def annotations():
    """Three queries, one of which has four windows."""
    return [
        {"qid": f"{vid}_{i}", "query": f"query {i}", "duration": 150, "vid": vid, "relevant_windows": windows}
        for i, (vid, windows) in enumerate(WINDOWS.items())
    ]


@pytest.fixture
def predictions():
    """Their answers in another order, the first of which is wrong in c."""
    return [
        {"qid": "c_2", "query": "query 2", "vid": "c", "pred_relevant_windows": [[0, 5, 0.2], [20, 30, 0.9]]},
        {"qid": "b_1", "query": "query 1", "vid": "b", "pred_relevant_windows": [[30, 40, 0.9], [60, 71, 0.4]]},
        {"qid": "a_0", "query": "query 0", "vid": "a", "pred_relevant_windows": [[4.0, 12.5, -3.25]]},
    ]


@pytest.fixture
def ours(annotations):
    """The same annotations in this evaluator's form, with the qids that they came with."""
    return [
        {
            "desc_id": 100 + i,
            "desc": row["query"],
            "vid_name": row["vid"],
            "ts": row["relevant_windows"],
            "qid": row["qid"],
        }
        for i, row in enumerate(annotations)
    ]


@pytest.fixture
def check(write):
    """Read and check rows as files; what has become of them, and the findings."""

    def check(predictions, annotations):
        read = Annotations.read(str(write(annotations, "g.jsonl")))
        suffix = "jsonl" if isinstance(predictions, list) else "json"
        return *check_file(str(write(predictions, f"s.{suffix}")), read), read

    return check


def svmr(check, predictions, annotations, **options):
    submission, findings, read = check(predictions, annotations)
    assert not findings.errors
    return eval_retrieval(submission, read.rows, least_right=1, **options)["SVMR"]


def test_both_files_are_read(check, predictions, annotations):
    assert svmr(check, predictions, annotations, ks=(1, 2)) == {
        **{"0.5-r1": 66.67, "0.5-r2": 100.0},
        **{"0.7-r1": 66.67, "0.7-r2": 100.0},
    }
    assert svmr(check, predictions[:1], annotations[2:], ks=(1, 2))["0.5-r2"] == 100.0  # a file of one line


def test_our_annotations_are_matched_by_qid_or_desc_id(check, predictions, annotations, ours):
    expected = svmr(check, predictions, annotations)
    assert svmr(check, predictions, ours) == expected
    for row, prediction in zip(ours, predictions[::-1], strict=True):
        del row["qid"]
        prediction["qid"] = row["desc_id"]
    assert svmr(check, predictions, ours) == expected


def test_integers_are_desc_ids_and_rows_are_numbered_otherwise(check, annotations):
    submission = {"video2idx": {vid: i for i, vid in enumerate(WINDOWS)}, "SVMR": []}
    for numbers, qids in (((70, 80, 9), (70, 80, 9)), ((1, 2, 3), ("70", 80, 9))):
        for row, qid in zip(annotations, qids, strict=True):
            row["qid"] = qid
        rows = [[i, *windows[0], 1.0] for i, windows in enumerate(WINDOWS.values())]
        submission["SVMR"] = [{"desc_id": n, "predictions": [row]} for n, row in zip(numbers, rows, strict=True)]
        assert svmr(check, submission, annotations)["0.5-r1"] == 100.0


def test_a_video_or_sentence_may_be_left_out(check, predictions, annotations):
    for line in predictions:
        del line["vid"], line["query"]
    assert svmr(check, predictions, annotations)["0.5-r1"] == 66.67


def test_annotations_without_windows_can_be_checked_only(check, predictions, annotations):
    for row in annotations:
        del row["relevant_windows"]
    submission, findings, read = check(predictions, annotations)
    assert findings.lines() == []
    with pytest.raises(BadInput, match="cannot be evaluated here"):
        eval_retrieval(submission, read.rows)


def change(rows, number, **values):
    rows[number] |= values


MALFORMED = {
    "qid is null": (
        lambda p, g: change(p, 1, qid=None),
        ["SVMR: qid is missing, or neither an integer nor text", "line 2, qid None"],
    ),
    "qid is a list": (lambda p, g: change(p, 0, qid=[1]), ["SVMR: qid is missing", "line 1, qid [1]"]),
    "qid twice": (lambda p, g: p.append(p[0]), ["SVMR: qid appears more than once (1)", "line 4, qid 'c_2'"]),
    "of another split": (
        lambda p, g: p.append({"qid": "z", "pred_relevant_windows": []}),
        ["SVMR: qid is not in the annotations (of another split?) (1)", "    'z'"],
    ),
    "not answered": (lambda p, g: p.pop(), ["SVMR: qid of the annotations has no line (1)", "    'a_0'"]),
    "another video": (
        lambda p, g: change(p, 0, vid="b"),
        ["SVMR: vid is not the video of the annotations", "line 1, qid 'c_2': 'b', expected 'c'"],
    ),
    "vid is a number": (lambda p, g: change(p, 0, vid=3), ["SVMR: vid is missing or not text", "line 1, qid 'c_2': 3"]),
    "no score": (
        lambda p, g: change(p, 2, pred_relevant_windows=[[0, 1, 0.5], [4, 5]]),
        ["SVMR: window in pred_relevant_windows is not [st, ed, score]", "line 3, qid 'a_0', window 2: [4, 5]"],
    ),
    "text in a window": (
        lambda p, g: change(p, 2, pred_relevant_windows=[["0", 1, 0.5]]),
        ["SVMR: window in pred_relevant_windows", "window 1: ['0', 1, 0.5]"],
    ),
    "windows are no list": (
        lambda p, g: change(p, 2, pred_relevant_windows={}),
        ["SVMR: pred_relevant_windows is missing or not a list", "line 3, qid 'a_0': {}"],
    ),
    "NaN": (
        lambda p, g: change(p, 2, pred_relevant_windows=[[0, float("nan"), 0.5]]),
        ["SVMR: NaN, infinite or too large a number", "qid 'a_0', row 1: [2, 0, nan, 0.5]"],
    ),
    "annotated qid is a bool": (
        lambda p, g: change(g, 1, qid=True),
        ["ground truth: qid is missing, or neither an integer nor text (1)", "line 2, qid True"],
    ),
    "annotated twice": (lambda p, g: change(g, 1, qid="a_0"), ["ground truth: qid appears more than once (1)"]),
    "annotated video is null": (
        lambda p, g: change(g, 0, vid=None),
        ["ground truth: vid is missing or not text", "line 1, qid 'a_0': None"],
    ),
    "one moment without its list": (
        lambda p, g: change(g, 2, relevant_windows=[20, 30]),
        ["ground truth: relevant_windows is not a list of 1 to 100 windows", "line 3, qid 'c_2': [20, 30]"],
    ),
    "reversed window": (
        lambda p, g: change(g, 2, relevant_windows=[[30, 20]]),
        ["ground truth: relevant_windows is not", "[[30, 20]]"],
    ),
    "windows of some rows alone": (
        lambda p, g: g[0].pop("relevant_windows"),
        ["ground truth: relevant_windows is not", "line 1, qid 'a_0': None"],
    ),
}


@pytest.mark.parametrize(("change", "messages"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_found_once_and_named(check, predictions, annotations, change, messages):
    change(predictions, annotations)
    _, findings, _ = check(predictions, annotations)
    lines = findings.lines()
    assert len(findings.errors) == 1
    for message in messages:
        assert message in "\n".join(lines)


def test_lines_are_counted_with_empty_ones(check, predictions, annotations, tmp_path):
    _, _, read = check(predictions, annotations)
    predictions[2]["pred_relevant_windows"] = None
    path = tmp_path / "apart.jsonl"
    path.write_text("\n\n".join(map(json.dumps, predictions)))
    assert f"    {path}, line 5, qid 'a_0': None" in check_file(str(path), read)[1].lines()


def test_warnings_name_the_qid(check, predictions, annotations):
    predictions[0]["pred_relevant_windows"] = [[5, 5, 0.1]]
    predictions[1]["pred_relevant_windows"] = []
    _, findings, _ = check(predictions, annotations)
    assert findings.lines() == [
        *("warning: SVMR: no predictions (1)", "    qid 'b_1'"),
        *("warning: SVMR: empty span (st = ed), never right (1)", "    qid 'c_2', row 1: [0, 5, 5, 0.1]"),
    ]


def test_they_go_out_and_come_back_as_they_were(check, predictions, annotations, ours):
    submission, _, read = check(predictions, ours)
    assert moment_detr_predictions(submission, read.rows, max_pred=100) == predictions[::-1]
    assert [len(row["pred_relevant_windows"]) for row in moment_detr_predictions(submission, ours, max_pred=1)] == [
        1
    ] * 3


def test_ours_go_out_and_come_back_as_they_were(check, submission, ground_truth):
    for number, entry in enumerate(submission["SVMR"]):
        entry["predictions"] += [[7, 0.1 + 0.2, 40, -1e30], [9, 1 / 3, 41.0, 5e-324]]
        entry["predictions"].insert(number, [8, 2, 3.5, 17])
    out = moment_detr_predictions(submission, ground_truth, max_pred=100)
    back, findings, _ = check(out, ground_truth)
    assert not findings.errors
    name_of, name_back = ({idx: name for name, idx in each["video2idx"].items()} for each in (submission, back))
    for query, entry, returned in zip(ground_truth, submission["SVMR"], back["SVMR"], strict=True):
        own = [row for row in entry["predictions"] if name_of[row[0]] == query["vid_name"]]
        assert [name_back[row[0]] for row in returned["predictions"]] == [query["vid_name"]] * len(own)
        assert [row[1:] for row in returned["predictions"]] == [row[1:] for row in own]
    asked = {"ks": (1, 2, 3, 4), "miou": True}
    assert (
        eval_retrieval(back, ground_truth, **asked)["SVMR"] == eval_retrieval(submission, ground_truth, **asked)["SVMR"]
    )


@pytest.fixture
def files(write, predictions, annotations):
    return write(predictions, "preds.jsonl"), write(annotations, "gt.jsonl")


def command(name, files, *options):
    paths = ("--submission_path", files[0], "--gt_path", files[1])
    return run("python", FOLDER / f"{name}.py", *paths, *options)


def test_any_window_is_enough_and_that_is_said(files, write, ours, tmp_path):
    save = ("--save_path", tmp_path / "m.json")
    for gt, options, said, r1 in (
        (files[1], (), "note", 66.67),
        (files[1], ("--several", "any"), "", 66.67),
        (files[1], ("--several", "agree"), APART, 33.33),
        (write(ours, "ours.jsonl"), (), APART, 33.33),
    ):
        result = command("eval", (files[0], gt), *save, *options)
        assert result.returncode == 0, result.stderr
        assert json.loads((tmp_path / "m.json").read_text())["SVMR"]["0.5-r1"] == r1
        assert (said in result.stderr, len(result.stderr.splitlines())) == (True, bool(said))


def test_check_and_compare_read_them_too(files, write, ours):
    result = command("check", files)
    assert (result.returncode, "fits the 3 queries" in result.stdout, result.stderr.count("note:")) == (0, True, 1)
    own = {"video2idx": {vid: i for i, vid in enumerate(WINDOWS)}}
    own["SVMR"] = [{"desc_id": 1 + i, "predictions": []} for i in range(3)]
    options = ("--gt_path", files[1], "--n_resamples", "10")
    result = run("python", FOLDER / "compare.py", files[0], write(own, "own.json"), *options)
    assert result.returncode == 0, result.stderr
    assert "66.67     0.00" in result.stdout
    assert result.stderr.count("note:") == 1


def test_metrics_for_several_windows_are_options(files, tmp_path):
    plain, asked = tmp_path / "plain.json", tmp_path / "asked.json"
    assert "mAP" not in command("eval", files, "--save_path", plain).stdout
    result = command("eval", files, "--save_path", asked, "--map", "--miou")
    assert result.returncode == 0, result.stderr
    assert "SVMR mIoU 66.67" in result.stdout
    assert "middle: over 10 to 30 s" in result.stdout
    metrics, by_length = json.loads(asked.read_text()), json.loads(asked.read_text())["SVMR_by_length"]
    assert metrics["SVMR"].pop("mIoU") == 66.67
    assert json.loads(plain.read_text()) == {"SVMR": metrics["SVMR"]}
    # of b, two of four windows, one with an IoU of 10 / 11; c is right in its second row, which has the higher score
    assert (by_length["full-mAP@0.5"], by_length["full-R1@0.5"]) == (83.33, 66.67)
    assert (by_length["full-mAP@0.95"], by_length["middle-mAP@0.5"]) == (75.0, 0.0)


def test_metrics_of_svmr_need_it(submission, ground_truth):
    del submission["SVMR"]
    for option in ("miou", "mean_ap"):
        with pytest.raises(BadInput, match="are of SVMR"):
            eval_retrieval(submission, ground_truth, **{option: True})


def test_svmr_is_written_for_others(files, write, ours, predictions, tmp_path):
    out = tmp_path / "out.jsonl"
    result = command("to_moment_detr", (files[0], write(ours, "ours.jsonl")), "--save_path", out)
    assert result.returncode == 0, result.stderr
    assert [json.loads(line) for line in out.read_text().splitlines()] == predictions[::-1]


def test_nothing_is_written_without_svmr_or_videos(submission, ground_truth, write, tmp_path):
    del submission["VR"]
    path, out = write(submission, "s.json"), tmp_path / "out.jsonl"
    secret = write([{"desc_id": row["desc_id"], "desc": "q"} for row in ground_truth], "secret.jsonl")
    assert_refused(
        command("to_moment_detr", (path, secret), "--save_path", out), "secret.jsonl: a query has no vid_name"
    )
    del submission["SVMR"]
    files = write(submission, "s.json"), write(ground_truth, "g.jsonl")
    assert_refused(command("to_moment_detr", files, "--save_path", out), "SVMR is missing")
    assert not out.exists()


def test_they_are_no_submission_to_codalab(files, tmp_path):
    options = [f"--{split}_{kind}" for split in ("val", "test_public") for kind in ("submission", "gt_path")]
    arguments = [word for pair in zip(options, files * 2, strict=True) for word in pair]
    result = run("python", FOLDER / "make_submission.py", *arguments, "--save_path", tmp_path / "s.zip")
    assert_refused(result, "gt.jsonl: holds annotations in Moment-DETR's form")
    assert not (tmp_path / "s.zip").exists()
