import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from standalone_eval.check import check_submission
from standalone_eval.findings import Findings
from standalone_eval.ground_truth import read_ground_truth

DESC_IDS = (1, 2, 3)
ROW_FORM = "VCMR: row is not [video_idx, st, ed, score], four numbers"
NOT_FINITE = "VCMR: NaN, infinite or too large a number"
UNKNOWN_VIDEO = "VCMR: video_idx is not in video2idx"
NOT_VIDEO2IDX = "video2idx is not an object {vid_name: video_idx}"


def entry(submission, task="VCMR"):
    return submission[task][1]


def set_row(value):
    def change(submission):
        entry(submission)["predictions"][1] = value

    return change


def set_cell(column, value):
    def change(submission):
        entry(submission)["predictions"][1][column] = value

    return change


def set_in_entry(key, value):
    return lambda submission: entry(submission).update({key: value})


def set_top(key, value):
    return lambda submission: submission.update({key: value})


ERRORS = {
    "missing desc_id": (lambda s: s["VCMR"].pop(), "VCMR: desc_id of the annotations has no entry"),
    "surplus desc_id": (
        lambda s: s["VCMR"].append({"desc_id": 99, "predictions": []}),
        "VCMR: desc_id is not in the annotations (of another split?)",
    ),
    "duplicate desc_id": (lambda s: s["VCMR"].append(s["VCMR"][0]), "VCMR: desc_id appears more than once"),
    "three numbers": (set_row([7, 0.0, 1.5]), ROW_FORM),
    "five numbers": (set_row([7, 0.0, 1.5, 0.1, 0.1]), ROW_FORM),
    "empty row": (set_row([]), ROW_FORM),
    "row is a number": (set_row(7), ROW_FORM),
    "row is text of four": (set_row("7123"), ROW_FORM),
    "row is null": (set_row(None), ROW_FORM),
    "row is an object": (set_row({"video_idx": 7, "st": 0, "ed": 1, "score": 1}), ROW_FORM),
    "text in a row": (set_cell(1, "1.5"), ROW_FORM),
    "bool in a row": (set_cell(3, True), ROW_FORM),
    "null in a row": (set_cell(2, None), ROW_FORM),
    "list in a row": (set_cell(0, [7]), ROW_FORM),
    "integer past float64": (set_cell(2, 10**400), ROW_FORM),
    "nan time": (set_cell(1, float("nan")), NOT_FINITE),
    "nan video": (set_cell(0, float("nan")), NOT_FINITE),
    "infinite score": (set_cell(3, float("-inf")), NOT_FINITE),
    "time past float32": (set_cell(2, 1e300), NOT_FINITE),
    "unknown video": (set_cell(0, 6), UNKNOWN_VIDEO),
    "video past all": (set_cell(0, 1e15), UNKNOWN_VIDEO),
    "half a video": (set_cell(0, 7.5), UNKNOWN_VIDEO),
    "task is an object": (set_top("VCMR", {}), "VCMR: is not a list of entries, one a query"),
    "entry is a list": (lambda s: s["VCMR"].append([1]), "VCMR: entry is not an object"),
    "desc_id is text": (set_in_entry("desc_id", "2"), "VCMR: desc_id is not an integer"),
    "desc_id is a bool": (set_in_entry("desc_id", True), "VCMR: desc_id is not an integer"),
    "desc_id is absent": (lambda s: entry(s).pop("desc_id"), "VCMR: desc_id is not an integer"),
    "desc is a number": (set_in_entry("desc", 3), "VCMR: desc is not text"),
    "predictions is text": (set_in_entry("predictions", "[]"), "VCMR: predictions is not a list of rows"),
    "predictions is absent": (lambda s: entry(s).pop("predictions"), "VCMR: predictions is not a list of rows"),
    "no video2idx": (lambda s: s.pop("video2idx"), NOT_VIDEO2IDX),
    "video2idx is a list": (set_top("video2idx", [["show_a", 7]]), NOT_VIDEO2IDX),
    "video2idx is empty": (set_top("video2idx", {}), NOT_VIDEO2IDX),
    "video_idx is text": (lambda s: s["video2idx"].update(show_b="8"), "video2idx: value is not an integer"),
    "video_idx is huge": (lambda s: s["video2idx"].update(show_b=2**70), "video2idx: value is not an integer"),
    "video_idx is shared": (lambda s: s["video2idx"].update(show_b=7), "video2idx: two videos share a video_idx"),
}

WARNINGS = {
    "repeated span": (
        lambda s: entry(s)["predictions"].append([8, 40.5, 42.0, 0.1]),
        "VCMR: span appears more than once",
    ),
    "repeated video": (
        lambda s: entry(s, "VR")["predictions"].append([8, 0, 0, 0.1]),
        "VR: video appears more than once",
    ),
    "empty span": (set_cell(2, 40.5), "VCMR: empty span (st = ed), never right"),
    "reversed span": (set_cell(2, 39.0), "VCMR: reversed span (st > ed), never right"),
    "negative time": (set_cell(1, -1.5), "VCMR: span starts before 0 s"),
    "no predictions": (set_in_entry("predictions", []), "VCMR: no predictions"),
    "101 predictions": (
        set_in_entry("predictions", [[7, 0.0, 1.5 + i, 0.1] for i in range(101)]),
        "VCMR: more than 100 rows, the rest does not count",
    ),
    "unknown key": (set_top("VMR", []), "keys other than video2idx, VCMR, SVMR, VR are ignored"),
}


def test_a_good_submission_has_no_defect(submission):
    findings = check_submission(submission, DESC_IDS, ("VCMR", "SVMR", "VR"), vid_names=("show_a", "show_b"))
    assert (findings.lines(), findings.summary()) == ([], "no defects")


@pytest.mark.parametrize(("change", "kind"), ERRORS.values(), ids=ERRORS)
def test_error_is_found(submission, change, kind):
    change(submission)
    assert check_submission(submission, DESC_IDS).errors[kind].count >= 1


@pytest.mark.parametrize(("change", "kind"), WARNINGS.values(), ids=WARNINGS)
def test_warning_is_no_error(submission, change, kind):
    change(submission)
    findings = check_submission(submission, DESC_IDS)
    assert (list(findings.warnings), list(findings.errors)) == ([kind], [])
    assert findings.warnings[kind].count == 1


def test_one_malformed_row_hides_no_other_defect(submission):
    for change in (set_row("x"), lambda s: s["VCMR"][0]["predictions"][0].__setitem__(0, 3)):
        change(submission)
    submission["VCMR"][2]["predictions"][1][1] = float("inf")
    assert set(check_submission(submission, DESC_IDS).errors) == {ROW_FORM, UNKNOWN_VIDEO, NOT_FINITE}


def test_defects_are_located(submission):
    set_cell(0, 5)(submission)
    assert check_submission(submission).errors[UNKNOWN_VIDEO].examples == ["desc_id 2, row 2: [5, 40.5, 42, 0.8]"]


def test_location_is_right_after_queries_without_predictions(submission):
    submission["VCMR"][0]["predictions"] = []
    submission["VCMR"][1]["predictions"] = []
    submission["VCMR"][2]["predictions"][0][0] = 5
    assert check_submission(submission).errors[UNKNOWN_VIDEO].examples == ["desc_id 3, row 1: [5, 0, 30, 0.9]"]


@pytest.mark.parametrize("task", ["VCMR", "SVMR", "VR"])
def test_required_task_must_be_there(submission, task):
    del submission[task]
    assert not check_submission(submission, DESC_IDS).errors
    assert list(check_submission(submission, DESC_IDS, ("VCMR", "SVMR", "VR")).errors) == [f"{task} is missing"]


def test_types_that_are_null_are_none_as_when_they_are_left_out(ground_truth):
    findings = Findings()
    rows = [{**query, "type": None} for query in ground_truth]
    assert read_ground_truth(rows, findings).types is None
    assert not findings.errors


def test_some_task_must_be_there(submission):
    assert check_submission({"video2idx": submission["video2idx"]}).errors


def test_video2idx_must_cover_the_ground_truth(submission):
    findings = check_submission(submission, vid_names=["show_a", "show_y", "show_z", "show_z"])
    assert findings.errors["video2idx has no entry for a video of the ground truth"].examples == ["show_y", "show_z"]


def test_svmr_without_ground_truth_is_said_to_be_of_no_use(submission):
    findings = check_submission(submission, DESC_IDS, has_ground_truth=False)
    assert any("SVMR cannot be evaluated" in kind for kind in findings.warnings)


def test_rows_of_a_split_of_any_size_take_the_same_checks(submission):
    rows = [[7, float(i), i + 1.5, 0.1] for i in range(99)]
    submission["VCMR"] = [{"desc_id": i, "predictions": [list(row) for row in rows]} for i in range(200)]
    submission["VCMR"][150]["predictions"][98][0] = 10
    assert check_submission(submission).errors[UNKNOWN_VIDEO].count == 1
    submission["VCMR"][3]["predictions"][4].append(1.0)
    findings = check_submission(submission)
    assert [finding.count for finding in findings.errors.values()] == [1, 1]


def test_every_case_is_counted_and_the_first_are_shown(submission):
    submission["VCMR"] = [{"desc_id": i, "predictions": []} for i in range(100, 125)]
    findings = check_submission(submission, range(100, 103), max_lines=4)
    surplus = findings.errors["VCMR: desc_id is not in the annotations (of another split?)"]
    assert (surplus.count, surplus.examples) == (22, ["103", "104", "105", "106"])
    assert "    … and 18 more" in findings.lines()


def test_no_limit_shows_every_case():
    findings = Findings(max_lines=0)
    findings.warn("odd", map(str, range(50)), 50)
    assert len(findings.lines()) == 51
    assert findings.lines(brief_warnings=True) == ["warning: odd (50)"]


def test_repeats_are_found_whatever_lies_between_them(submission):
    rng = np.random.default_rng(3)
    rows = [
        [int(v), st_, st_ + 3.0, 0.5]
        for v, st_ in zip(rng.integers(7, 10, 80), rng.integers(0, 9, 80) * 1.5, strict=True)
    ]
    submission["VCMR"] = [{"desc_id": i, "predictions": rows} for i in DESC_IDS]
    findings = check_submission(submission, DESC_IDS)
    distinct = len({tuple(row[:3]) for row in rows})
    assert findings.warnings["VCMR: span appears more than once"].count == 3 * (80 - distinct)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["video2idx", "VCMR", "VR", "desc_id", "desc", "predictions", "a"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(json_values, json_values, json_values)
def test_any_json_document_is_checked_without_a_crash(anything, rows, entries):
    video2idx = {"a": 1}
    for submission in (
        anything,
        {"video2idx": anything, "VCMR": entries, "VR": rows},
        {"video2idx": video2idx, "VCMR": [{"desc_id": 1, "desc": anything, "predictions": rows}, entries]},
        {"video2idx": video2idx, "VCMR": [{"desc_id": 1, "predictions": [rows, anything, [1, 2, 3, 4]]}]},
    ):
        for line in check_submission(submission, [1, 2]).lines():
            assert isinstance(line, str)


def test_hostile_sizes_are_shortened_in_messages(submission):
    set_row(["x" * 10**6] * 10**4)(submission)
    submission["VR"] = 10**6000
    lines = check_submission(submission, DESC_IDS).lines()
    assert max(map(len, lines)) < 500


def test_integral_floats_name_videos(submission):
    set_cell(0, 8.0)(submission)
    assert not check_submission(json.loads(json.dumps(submission)), DESC_IDS).errors
