"""Which prediction file the page shows, and what is said where it cannot."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from easydict import EasyDict

from method_tvr.web.page_files import NO_ANNOTATIONS, NO_PREDICTIONS, UNUSABLE, newest_predictions, open_outcomes
from utils.basic_utils import InputError

OF_INFERENCE = "inference_tvr_val_run_predictions_VCMR.json"


def options(folder: Path, **changed: object) -> EasyDict:
    """Options of a server of the model in a folder."""
    annotations = folder / "val.jsonl"
    annotations.write_text(json.dumps({"desc_id": 1, "desc": "Omar laughs.", "vid_name": "a_1", "ts": [0, 5]}))
    given = {"model_dir": str(folder), "dset_name": "tvr", "eval_split_name": "val", "predictions": None}
    return EasyDict(given | {"eval_path": str(annotations), "iou_thds": [0.5], "recall_ks": [1]} | changed)


def write(path: Path, content: str | None = None, age: int = 0) -> Path:
    """A prediction file, or what `content` is instead."""
    entry = {"desc_id": 1, "predictions": [[0, 0, 5, 1]]}
    path.write_text(json.dumps({"video2idx": {"a_1": 0}, "VCMR": [entry]}) if content is None else content)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_the_newest_file_of_inference_without_nms_is_shown_and_else_the_best_of_training(tmp_path):
    opt = options(tmp_path)
    assert newest_predictions(opt) is None
    assert open_outcomes(opt) == (None, NO_PREDICTIONS)
    best = write(tmp_path / "best_tvr_val_predictions_VCMR.json")
    assert newest_predictions(opt) == best
    write(tmp_path / "inference_tvr_val_old_predictions_VCMR.json", age=9)
    newest = write(tmp_path / OF_INFERENCE, age=5)
    write(tmp_path / f"{newest.stem}_nms_thd_0.5.json")
    write(tmp_path / f"{newest.stem}_metrics.json")
    write(tmp_path / "inference_tvr_test_run_predictions_VCMR.json")
    assert newest_predictions(opt) == newest
    outcomes, why_not = open_outcomes(opt)
    assert (outcomes is not None, why_not) == (True, "")


def test_a_file_that_nobody_named_is_left_out_when_it_cannot_be_used_and_visitors_do_not_learn_where_it_lies(
    tmp_path, caplog
):
    broken = write(tmp_path / OF_INFERENCE, "{")
    outcomes, why_not = open_outcomes(options(tmp_path))
    assert (outcomes, why_not) == (None, UNUSABLE)
    assert str(broken) in caplog.text
    with pytest.raises(InputError, match=str(broken)):
        open_outcomes(options(tmp_path, predictions=str(broken)))


def test_without_annotations_no_outcomes_are_known(tmp_path):
    write(tmp_path / OF_INFERENCE)
    assert open_outcomes(options(tmp_path, eval_path=None)) == (None, NO_ANNOTATIONS)


def test_predictions_of_unknown_annotations_are_refused_when_they_were_named_and_a_note_when_not(tmp_path):
    path = write(tmp_path / OF_INFERENCE)
    assert open_outcomes(options(tmp_path, eval_path=None)) == (None, NO_ANNOTATIONS)
    with pytest.raises(InputError, match="--eval_path names their file"):
        open_outcomes(options(tmp_path, eval_path=None, predictions=str(path)))


def test_what_is_no_file_is_not_the_newest(tmp_path):
    opt = options(tmp_path)
    (tmp_path / "inference_tvr_val_a_predictions_VCMR.json").symlink_to("gone")
    os.mkfifo(tmp_path / "inference_tvr_val_b_predictions_VCMR.json")
    assert newest_predictions(opt) is None
    there = write(tmp_path / OF_INFERENCE, age=99)
    assert newest_predictions(opt) == there
