"""Comparing two submissions, from Python and as a user runs it."""

import copy
import json
import shutil

import pytest

from standalone_eval.aligned import align
from standalone_eval.compare import compare_outcomes
from standalone_eval.eval import eval_retrieval
from standalone_eval.metrics import Rule
from standalone_eval.outcomes import all_outcomes
from tests.standalone_eval.commands import FOLDER, assert_refused, run
from tests.support.golden_files import load_json, load_jsonl

RULE = Rule()


@pytest.fixture(scope="module")
def golden():
    return load_json("eval/predictions.json"), load_jsonl("eval/ground_truth.jsonl")


@pytest.fixture(scope="module")
def worse(golden):
    """Every other query's answers come a rank later, after one that is never right."""
    submission = copy.deepcopy(golden[0])
    for task in ("VCMR", "SVMR", "VR"):
        for number, entry in enumerate(submission[task]):
            if number % 2 and entry["predictions"]:
                video_idx = entry["predictions"][0][0]
                wrong = min(submission["video2idx"].values()) if task == "VR" else video_idx
                entry["predictions"].insert(0, [wrong, 0, 0, 1])
    return submission


def compare(a, b, gt_path, *options):
    return run("python", FOLDER / "compare.py", a, b, "--gt_path", gt_path, *options)


def test_recalls_are_those_of_the_evaluation(golden, worse):
    submission, ground_truth = golden
    metrics = [eval_retrieval(which, ground_truth) for which in (submission, worse)]
    a, b = (all_outcomes(align(which, ground_truth), RULE) for which in (submission, worse))
    (comparisons,) = compare_outcomes(a, [b], RULE, 100)
    assert {(c.task, c.metric): (c.a, c.b) for c in comparisons} == {
        (task, name): (value, metrics[1][task][name]) for task in a for name, value in metrics[0][task].items()
    }
    for comparison in comparisons:
        assert comparison.difference.difference == pytest.approx(comparison.a - comparison.b, abs=0.0101)


def test_all_comparisons_that_are_made_together_are_corrected_together(golden, worse):
    a, b = (all_outcomes(align(which, golden[1]), RULE) for which in (golden[0], worse))
    (alone,) = compare_outcomes(a, [b], RULE, 1000)
    twice = compare_outcomes(a, [b, b], RULE, 1000)
    smallest = min(alone, key=lambda comparison: comparison.corrected_p)
    assert smallest.corrected_p < 1
    again = min(twice[1], key=lambda comparison: comparison.corrected_p)
    assert again.difference.p == smallest.difference.p
    assert smallest.corrected_p < again.corrected_p


def test_the_table_and_the_file_say_the_same(golden, worse, write, tmp_path):
    a, b, gt_path = (write(golden[0], "a.json"), write(worse, "b.json"), write(golden[1], "gt.jsonl"))
    result = compare(a, b, gt_path, "--save_path", tmp_path / "c.json", "--n_resamples", "500")
    assert result.returncode == 0, result.stderr
    saved = json.loads((tmp_path / "c.json").read_text())
    assert saved["n_queries"] == len(golden[1])
    rows = {tuple(line.split()[:2]): line for line in result.stdout.splitlines() if "significant" in line}
    found = {(task, name): entry for task, entries in saved["metrics"].items() for name, entry in entries.items()}
    assert rows.keys() == found.keys()
    for key, entry in found.items():
        cells = rows[key].replace("[", " ").replace("]", " ").replace(",", " ").split()
        assert [float(cell) for cell in cells[2:9]] == pytest.approx(
            [entry["a"], entry["b"], entry["difference"], *entry["interval"], entry["p"], entry["p_holm"]], abs=1e-4
        )
        assert rows[key].endswith("  significant" if entry["significant"] else "  not significant")
    verdicts = {entry["significant"] for entry in found.values()}
    assert verdicts == {True, False}


def test_a_file_does_not_differ_from_itself(submission, ground_truth, write, tmp_path):
    path = write(submission, "a.json")
    result = compare(path, path, write(ground_truth, "gt.jsonl"), "--save_path", tmp_path / "c.json")
    assert result.returncode == 0, result.stderr
    for entries in json.loads((tmp_path / "c.json").read_text())["metrics"].values():
        for entry in entries.values():
            assert (entry["difference"], entry["p"], entry["significant"]) == (0.0, 1.0, False)


def test_files_of_other_queries_are_refused_and_nothing_is_written(submission, ground_truth, write, tmp_path):
    a, gt_path = write(submission, "a.json"), write(ground_truth, "gt.jsonl")
    for task in ("VCMR", "SVMR", "VR"):
        submission[task][0]["desc_id"] = 77
    result = compare(a, write(submission, "b.json"), gt_path, "--save_path", tmp_path / "c.json")
    assert_refused(result, "b.json: 6 errors", "desc_id is not in the annotations", "VCMR: desc_id of the annotations")
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(("option", "value"), [("--seed", "-1"), ("--n_resamples", "0"), ("--n_resamples", "9" * 15)])
def test_numbers_that_cannot_be_used_are_refused_by_name(submission, ground_truth, write, option, value):
    path, gt_path = write(submission, "a.json"), write(ground_truth, "gt.jsonl")
    assert_refused(compare(path, path, gt_path, option, value), option)


def test_tasks_of_one_file_alone_are_left_out_with_a_note(submission, ground_truth, write):
    a, gt_path = write(submission, "a.json"), write(ground_truth, "gt.jsonl")
    del submission["VR"]
    result = compare(a, write(submission, "b.json"), gt_path)
    assert "note: VR left out: only one file has it" in result.stderr
    assert "VR r1" not in result.stdout
    only_vr = {"video2idx": submission["video2idx"], "VR": json.loads(a.read_text())["VR"]}
    assert_refused(compare(write(only_vr, "vr.json"), tmp_b := write(submission, "b.json"), gt_path), "no task is in")
    assert_refused(compare(a, tmp_b, write([{"desc_id": i} for i in (1, 2, 3)], "t.jsonl")), "cannot be evaluated here")


def test_it_works_wherever_the_folder_is_copied(submission, ground_truth, write, tmp_path):
    alone = shutil.copytree(FOLDER, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("__pycache__", "sample_*"))
    path, gt_path = write(submission, "a.json"), write(ground_truth, "gt.jsonl")
    result = run("python", alone / "compare.py", path, path, "--gt_path", gt_path, "--iou_thds", "0.3", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "SVMR 0.3-r100" in result.stdout
