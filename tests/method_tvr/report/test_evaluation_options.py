"""eval.sh learns from a results folder what its predictions are to be compared with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from method_tvr.report.evaluation_options import evaluation_options, main
from utils.basic_utils import BAD_INPUT_EXIT_CODE, PROJECT_ROOT, InputError


def results(folder: Path, **saved: object) -> Path:
    (folder / "opt.json").write_text(json.dumps(saved))
    return folder


def test_recalls_and_annotations_are_those_of_the_dataset(tmp_path):
    found = evaluation_options(results(tmp_path, dset_name="anet_cap"), "test")
    assert found == [
        *("--iou_thds", "0.3", "0.5", "0.7", "--ks", "1", "5", "10", "100"),
        *("--gt_path", "data/anet_cap/anet_cap_test_release.jsonl"),
    ]
    assert evaluation_options(results(tmp_path, dset_name="tvr"), "test")[-1] == "data/tvr_test_public_release.jsonl"


def test_what_the_run_was_given_wins_and_a_path_over_both(tmp_path):
    gt_path = tmp_path / "gt.jsonl"
    gt_path.touch()
    saved = {"dset_name": "custom", "iou_thds": [0.1], "recall_ks": [2, 3], "eval_split_name": "val"}
    folder = results(tmp_path, **saved, eval_path="my/val.jsonl")
    expected = "--iou_thds 0.1 --ks 2 3 --gt_path my/val.jsonl"
    assert " ".join(evaluation_options(folder, "val")) == expected
    assert evaluation_options(folder, str(gt_path))[-1] == str(gt_path)
    with pytest.raises(InputError, match="says nothing of annotations of a split test: give the path"):
        evaluation_options(folder, "test")


@pytest.mark.parametrize(
    ("saved", "said"),
    [({"dset_name": "tvrx"}, "does not say which of"), ({"dset_name": "tvr", "iou_thds": "0.5"}, "not a list of numb")],
)
def test_an_unusable_opt_json_is_refused(tmp_path, saved, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(results(tmp_path, **saved)), "val"])
    assert stopped.value.code == BAD_INPUT_EXIT_CODE
    assert said in capsys.readouterr().err


def test_relative_annotations_are_found_from_anywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    saved = {"dset_name": "custom", "eval_split_name": "val", "eval_path": "standalone_eval/sample_val_release.jsonl"}
    main([str(results(tmp_path, **saved)), "val"])
    assert capsys.readouterr().out.split()[-1] == str(PROJECT_ROOT / saved["eval_path"])
