"""What somebody brings is called what it is, with the command by which it becomes this project's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from utils.feature_files.feature_file import new_feature_file
from utils.recognise import recognise

ROWS = np.ones((3, 4), np.float32)
QID = {"qid": 7, "query": "waves", "duration": 30, "vid": "a", "relevant_windows": [[5, 12]]}
FIG = {"desc_id": 4, "fig_desc": "He waves.", "video": "a", "time": [1.5, 8.0]}
DESCS = {"desc_id": 5, "vid_name": "a", "ts": [4, 9], "descs": [{"lang": "zh", "desc": "他"}]}
OURS = {"desc_id": 5, "desc": "he waves", "vid_name": "a", "ts": [4, 9]}


def h5_group(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("a")["c3d_features"] = ROWS


def h5_ours(path: Path) -> None:
    with new_feature_file(path, made_by="somebody") as writer:
        writer.put("a", ROWS)


def text(content: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("name", "make", "what", "how"),
    [
        ("qvh/highlight_val_release.jsonl", text(QID), "Moment-DETR's form", "convert.py qvhighlights --in"),
        ("x/charades_test.jsonl", text(QID), "Moment-DETR's form", "convert.py charades_sta --in"),
        ("x/val.jsonl", text(QID), "Moment-DETR's form", "convert.py custom --in"),
        ("charades/fig_train.jsonl", text(FIG), "VERIFIED's form", "charades_sta_video2dur_idx.json"),
        ("x/mtvr_train.jsonl", text(DESCS), "mTVR's form", "convert.py tvr --in"),
        ("x/charades_sta_test.txt", text("AO8RW 0.0 6.9##he waves."), "Charades-STA's form", "convert.py charades_sta"),
        ("x/p.jsonl", text({"qid": 7, "pred_relevant_windows": [[5, 12, 1]]}), "predictions in Moment-DETR", "eval.py"),
        ("x/p.json", text({"video2idx": {"a": 0}, "VR": []}), "a prediction file", "eval.py --submission_path"),
        ("x/val.json", text([{"query_id": 1, "relevant_moment": []}]), "graded moments", "eval.py --submission_path P"),
        ("x/a_val_release.jsonl", text(OURS), "annotations (desc_id", "ours already"),
        ("x/d.json", text({"val": {"a": [30.5, 0]}}), "durations", "ours already"),
        ("x/c3d.hdf5", h5_group, "a group for each video", "--dataset c3d_features"),
        ("x/i3d.h5", h5_ours, "features of 1 videos or queries, 4 wide, made by somebody", "ours already"),
        ("npz/a.npz", lambda path: np.savez(path, features=ROWS), "one file of a folder of features, .npz", "--src"),
        ("x/a.pt", lambda path: torch.save(torch.ones(3, 4), path), "a file of torch", "convert_features.py --src"),
        ("x/film.mkv", text(""), "a video", "extract_features.sh --videos"),
        ("x/film.srt", text(""), "subtitles", "--subtitles"),
        ("x/queries.csv", text("a,b"), "a table", "--queries"),
        ("x/features.tar.gz", text(""), "an archive", "unpack it"),
        ("run/model.ckpt", text(""), "a trained model", "inference.sh"),
    ],
)
def test_a_file_is_called_what_it_is(tmp_path, name, make, what, how):
    path = tmp_path / name
    path.parent.mkdir()
    make(path)
    found = recognise(path)
    assert found is not None
    assert what in found.what
    assert how in found.how
    assert str(found).startswith("is ")


@pytest.mark.parametrize(
    ("files", "what", "how"),
    [
        (
            {"train.jsonl": QID, "val.jsonl": QID},
            "a folder of annotations in Moment-DETR's form (qid, query, vid, relevant_windows): train.jsonl, val.jsonl",
            "convert.py custom --in",
        ),
        ({"a.mp4": "", "sub/b.mov": ""}, "a folder of videos", "extract_features.sh --videos"),
        ({"a.srt": ""}, "a folder of subtitles", "--subtitles"),
        ({"0001.jpg": ""}, "a folder of pictures", "--videos"),
        ({"opt.json": {}, "model.ckpt": ""}, "a trained model", "inference.sh"),
        ({"feature.bin": "", "id.txt": "", "shape.txt": ""}, "a folder of features, feature.bin", "--src"),
        ({"data.mdb": ""}, "a folder of features, data.mdb", "--src"),
        ({"v_a.npy": ""}, "a folder of features, .npy", "--src"),
    ],
)
def test_a_folder_is_called_by_what_is_in_it(tmp_path, files, what, how):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text(content)(tmp_path / name)
    found = recognise(tmp_path)
    assert found is not None
    assert what in found.what
    assert how in found.how


@pytest.mark.parametrize("name", ["x.docx", "noise.json"])
def test_what_is_unknown_is_not_guessed(tmp_path, name):
    (tmp_path / name).write_text('{"a": 1}')
    assert recognise(tmp_path / name) is None
    (tmp_path / "empty").mkdir()
    assert recognise(tmp_path / "empty") is None
