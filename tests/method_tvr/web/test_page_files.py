"""Which prediction file the page shows, and what is said where it cannot."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from easydict import EasyDict

from method_tvr.web.page_files import (
    NO_ANNOTATIONS,
    NO_PREDICTIONS,
    UNUSABLE,
    default_subtitles,
    default_videos,
    newest_predictions,
    open_outcomes,
    open_subtitles,
)
from utils.basic_utils import InputError

OF_INFERENCE = "inference_tvr_val_run_predictions_VCMR.json"


def options(folder: Path, **changed: object) -> EasyDict:
    """Options of a server of the model in a folder."""
    annotations = folder / "val.jsonl"
    annotations.write_text(json.dumps({"desc_id": 1, "desc": "Omar laughs.", "vid_name": "a_1", "ts": [0, 5]}))
    given = {"model_dir": str(folder), "dset_name": "tvr", "eval_split_name": "val", "predictions": None}
    return EasyDict(
        given | {"eval_path": str(annotations), "iou_thds": [0.5], "recall_ks": [1], "several": "agree"} | changed
    )


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


@pytest.fixture
def own(tmp_path: Path) -> EasyDict:
    """Options of a server of a model of a corpus of one's own, with a record of its videos."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "my_made_by.json").write_text(json.dumps({"options": {"videos": str(tmp_path / "videos")}}))
    place = str(tmp_path / "my_video2dur_idx.json")
    changed = {"dset_name": "custom", "subtitles": None, "eval_split_name": "all", "host": "127.0.0.1"}
    opt = options(tmp_path, **changed, video_duration_idx_path=place)
    (tmp_path / "opt.json").write_text(json.dumps({"eval_split_name": "val", "eval_path": opt.eval_path}))
    return opt


def subtitles(path: Path, *lines: dict) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"vid_name": "a", "sub": list(lines)}) + "\n")
    return path


def shown(opt: EasyDict) -> object:
    """The subtitles that are found unless others are named."""
    return open_subtitles(default_subtitles(opt))


def test_subtitles_of_ones_own_corpus_are_found_beside_it_and_where_they_lay_before(own, tmp_path):
    line, later = ({"text": text, "start": 0, "end": 5} for text in ("Words.", "Others."))
    assert shown(own) == {}
    subtitles(tmp_path / "my_intermediate" / "subtitles.jsonl", line)
    assert shown(own) == {"a": [line]}
    beside = subtitles(tmp_path / "my_subtitles.jsonl", later)
    assert shown(own) == {"a": [later]}
    subtitles(beside)  # nobody speaks in any video
    assert shown(own) == {}
    assert shown(EasyDict({**own, "video_duration_idx_path": str(tmp_path / "else.json")})) == {}


def test_videos_on_record_are_shown_where_only_the_user_can_have_put_them_there(own, tmp_path, caplog):
    assert default_videos(own) == str(tmp_path / "videos")
    assert default_videos(EasyDict({**own, "dset_name": "tvr"})) is None
    assert caplog.text == ""
    assert default_videos(EasyDict({**own, "host": "0.0.0.0"})) is None
    assert "others would see them at --host 0.0.0.0): give --videos DIR" in caplog.text
    for place in (tmp_path / "videos", tmp_path / "my_made_by.json", tmp_path):
        mode = place.stat().st_mode
        place.chmod(0o777)
        caplog.clear()
        assert default_videos(own) is None
        assert "can be written to by other users): give --videos DIR" in caplog.text
        place.chmod(mode)
    (tmp_path / "videos").rmdir()
    assert default_videos(own) is None
    assert "is not there any more): give --videos DIR" in caplog.text


def test_where_all_videos_are_searched_the_mistakes_are_those_of_the_split_of_training(own, tmp_path):
    best = write(tmp_path / "best_custom_val_predictions_VCMR.json")
    assert newest_predictions(own) == best
    assert open_outcomes(own)[0] is not None
    assert newest_predictions(EasyDict({**own, "eval_path": "others.jsonl"})) is None
