"""The commands of standalone_eval as a user runs them: exit codes, files, messages."""

import json
import os
import shutil
import zipfile

import pytest

from tests.standalone_eval.commands import FOLDER, ROOT, assert_refused, run
from tests.support.golden_files import load_json, unpack


@pytest.fixture
def files(submission, ground_truth, write):
    return write(submission, "predictions.json"), write(ground_truth, "gt.jsonl")


def evaluate(script, submission_path, gt_path, save_path, *options, cwd=None):
    arguments = ("--submission_path", submission_path, "--gt_path", gt_path, "--save_path", save_path)
    return run("python", script, *arguments, *options, cwd=cwd)


def test_folder_works_wherever_it_is_copied(tmp_path):
    alone = shutil.copytree(FOLDER, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("__pycache__", "sample_*"))
    submission_path = unpack("eval/predictions.json", tmp_path / "predictions.json")
    gt_path = unpack("eval/ground_truth.jsonl", tmp_path / "gt.jsonl")
    result = evaluate(alone / "eval.py", submission_path, gt_path, "out/metrics.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == load_json("eval/metrics.json")
    assert "VCMR 0.5" in result.stdout


def test_evaluation_runs_as_a_module_too(files, tmp_path):
    arguments = ("--submission_path", files[0], "--gt_path", files[1], "--save_path", tmp_path / "m.json")
    assert run("python", "-m", "standalone_eval.eval", *arguments, cwd=ROOT).returncode == 0


def test_evaluation_needs_no_torch(tmp_path):
    code = "import sys; import standalone_eval.eval; assert not {'torch', 'orjson', 'utils'} & set(sys.modules)"
    assert run("python", "-c", code, cwd=ROOT).returncode == 0


def test_thresholds_and_ks_are_options(files, tmp_path):
    result = evaluate(FOLDER / "eval.py", *files, tmp_path / "m.json", "--iou_thds", "0.3", "--ks", "2", "7")
    assert result.returncode == 0, result.stderr
    assert list(json.loads((tmp_path / "m.json").read_text())["VCMR"]) == ["0.3-r2", "0.3-r7"]


def test_a_file_that_is_read_is_not_written_over(files):
    submission_path, gt_path = files
    before = gt_path.read_bytes()
    assert_refused(evaluate(FOLDER / "eval.py", submission_path, gt_path, gt_path), "is read too, and would be lost")
    assert gt_path.read_bytes() == before


def test_defects_stop_the_evaluation_and_nothing_is_written(submission, ground_truth, write, tmp_path):
    submission["VCMR"][0]["predictions"][0] = [1, 2]
    submission["VR"].pop()
    gt_path = write(ground_truth, "gt.jsonl")
    result = evaluate(FOLDER / "eval.py", write(submission, "predictions.json"), gt_path, tmp_path / "m.json")
    assert_refused(result, "desc_id 1, row 1: [1, 2]", "VR: desc_id of the annotations has no entry (1)", "2 errors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gt.jsonl", "predictions.json"]


@pytest.mark.parametrize(
    "text",
    ["", "{", pytest.param("[[" * 100_000, id="deep"), pytest.param("1" * 10_000, id="long"), '{"VCMR": [}', "\udcff"],
)
def test_what_is_not_json_is_refused(files, tmp_path, text):
    files[0].write_bytes(text.encode("utf-8", "surrogateescape"))
    assert_refused(evaluate(FOLDER / "eval.py", *files, tmp_path / "m.json"), "predictions.json")
    assert not (tmp_path / "m.json").exists()


def test_missing_file_is_refused(files, tmp_path):
    assert_refused(evaluate(FOLDER / "eval.py", tmp_path / "no.json", files[1], tmp_path / "m.json"), "no.json")


def test_broken_annotation_line_is_named(files, tmp_path):
    with open(files[1], "a", encoding="utf-8") as lines:
        lines.write('\n{"desc_id": 4')
    assert_refused(evaluate(FOLDER / "eval.py", *files, tmp_path / "m.json"), "gt.jsonl, line 4")


def test_empty_annotations_are_refused(files, tmp_path):
    files[1].write_text("\n")
    assert_refused(evaluate(FOLDER / "eval.py", *files, tmp_path / "m.json"), "has no lines")


def test_split_without_ground_truth_can_be_checked_but_not_evaluated(submission, write, tmp_path):
    queries = write([{"desc_id": i, "desc": "q"} for i in (1, 2, 3)], "test_public.jsonl")
    path = write(submission, "predictions.json")
    assert_refused(evaluate(FOLDER / "eval.py", path, queries, tmp_path / "m.json"), "cannot be evaluated here")
    result = run("python", FOLDER / "check.py", "--submission_path", path, "--gt_path", queries)
    assert result.returncode == 0, result.stderr
    assert "SVMR cannot be evaluated" in result.stderr


def test_checker_tells_errors_by_its_exit_code(submission, ground_truth, write):
    gt_path = write(ground_truth, "gt.jsonl")
    command = ("python", FOLDER / "check.py", "--gt_path", gt_path, "--submission_path")
    assert "no defects" in run(*command, write(submission, "good.json")).stdout
    submission["VCMR"][0]["predictions"] = [[7, 5.0, 3.0, float("nan")]]
    assert_refused(run(*command, write(submission, "bad.json")), "VCMR: NaN", "desc_id 1, row 1: [7, 5, 3, nan]")
    del submission["VCMR"]
    assert_refused(run(*command, write(submission, "few.json"), "--tasks", "VCMR"), "VCMR is missing")


@pytest.fixture
def zip_arguments(submission, ground_truth, write, tmp_path):
    queries = [{"desc_id": query["desc_id"], "desc": query["desc"]} for query in ground_truth]
    return [
        *("--val_submission", write(submission, "val.json"), "--val_gt_path", write(ground_truth, "val.jsonl")),
        *("--test_public_submission", write(submission, "test.json")),
        *("--test_public_gt_path", write(queries, "test.jsonl")),
        *("--save_path", tmp_path / "out.zip"),
    ]


def make_zip(arguments):
    return run("python", FOLDER / "make_submission.py", *arguments)


def test_zip_holds_both_splits_with_their_tasks_and_no_folders(zip_arguments, submission, tmp_path):
    result = make_zip(zip_arguments)
    assert result.returncode == 0, result.stderr
    assert "left out 'SVMR'" in result.stdout
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == ["tvr_val_submission.json", "tvr_test_public_submission.json"]
        val, test = (json.loads(archive.read(name)) for name in archive.namelist())
    assert val == submission
    assert test == {key: submission[key] for key in ("video2idx", "VCMR", "VR")}
    first = (tmp_path / "out.zip").read_bytes()
    make_zip(zip_arguments)
    assert (tmp_path / "out.zip").read_bytes() == first


@pytest.mark.parametrize(("name", "task"), [("val.json", "SVMR"), ("val.json", "VR"), ("test.json", "VCMR")])
def test_zip_is_not_made_without_all_tasks(zip_arguments, submission, write, tmp_path, name, task):
    del submission[task]
    write(submission, name)
    assert_refused(make_zip(zip_arguments), f"{task} is missing", name)
    assert not list(tmp_path.glob("*out.zip*"))


def test_zip_that_was_there_survives_a_refusal(zip_arguments, submission, write, tmp_path):
    (tmp_path / "out.zip").write_text("old")
    submission["VCMR"][0]["predictions"][0][0] = 1
    write(submission, "test.json")
    assert_refused(make_zip(zip_arguments), "VCMR: video_idx is not in video2idx")
    assert (tmp_path / "out.zip").read_text() == "old"


@pytest.fixture
def sample(submission, ground_truth, write, tmp_path):
    """A copy of the folder with a sample of its own, whose metrics were worked out by hand."""
    copy = shutil.copytree(FOLDER, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__", "sample_*"))
    write(submission, "copy/sample_val_predictions.json")
    write(ground_truth, "copy/sample_val_release.jsonl")
    write({"VCMR": {"0.5-r1": 100.0}, "VR": {"r1": 100.0}}, "copy/sample_val_predictions_metrics.json")
    return copy


def test_sample_agrees_from_any_folder(sample, tmp_path):
    result = run("bash", sample / "eval_sample.sh", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "agrees with" in result.stdout


def test_sample_that_differs_is_told(sample, write):
    write({"VCMR": {"0.5-r1": 99.0}, "VX": {"r1": 1}}, "copy/sample_val_predictions_metrics.json")
    result = run("bash", sample / "eval_sample.sh")
    assert result.returncode == 1
    assert "VCMR 0.5-r1: expected 99.0, found 100.0" in result.stdout
    assert "VX r1: expected 1, found None" in result.stdout


EVAL_SH = ROOT / "method_tvr" / "scripts" / "eval.sh"


def test_eval_sh_takes_annotations_as_split_or_option(files, tmp_path):
    for arguments in ((files[1], files[0], "a.json"), ("test", files[0], "b.json", "--gt_path", files[1], "--ks", "1")):
        result = run("bash", EVAL_SH, *arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "b.json").read_text())["VR"] == {"r1": 100.0}


def test_eval_sh_looks_for_tvr_beside_itself(files, ground_truth, write, tmp_path):
    for folder in ("data", "method_tvr/scripts"):
        (tmp_path / "project" / folder).mkdir(parents=True)
    shutil.copytree(FOLDER, tmp_path / "project/standalone_eval", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(EVAL_SH.with_name("common.sh"), tmp_path / "project/method_tvr/scripts")
    script = shutil.copy(EVAL_SH, tmp_path / "project/method_tvr/scripts")
    write(ground_truth, "project/data/tvr_val_release.jsonl")
    result = run("bash", script, "val", files[0].name, "m.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "m.json").exists()


@pytest.mark.parametrize(
    ("split", "message"), [("test", "no public ground truth"), ("test_public", "CodaLab"), ("nowhere", "not 'nowhere'")]
)
def test_eval_sh_refuses_splits_without_ground_truth(files, tmp_path, split, message):
    assert_refused(run("bash", EVAL_SH, split, files[0], tmp_path / "m.json"), message)


def test_eval_sh_says_how_it_is_used():
    assert_refused(run("bash", EVAL_SH, "val"), "usage: eval.sh SPLIT_NAME SUBMISSION SAVE_PATH")


def test_pipes_and_devices_are_refused(files, tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait forever
    assert_refused(evaluate(FOLDER / "eval.py", tmp_path / "pipe", files[1], tmp_path / "m.json"), "not a regular file")
    assert_refused(evaluate(FOLDER / "eval.py", files[0], "/dev/zero", tmp_path / "m.json"), "not a regular file")


def test_zip_holds_what_was_checked_and_nothing_else(zip_arguments, submission, write, tmp_path):
    (clean,) = [json.loads(json.dumps(submission))]
    submission["../../evil"] = "x"
    submission["\ud800"] = ["x" * 1000]
    submission["VCMR"][0] |= {"note": float("nan"), "deep": [[[]]]}
    write(submission, "val.json")
    result = make_zip(zip_arguments)
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == ["tvr_val_submission.json", "tvr_test_public_submission.json"]
        assert json.loads(archive.read(archive.namelist()[0])) == clean
