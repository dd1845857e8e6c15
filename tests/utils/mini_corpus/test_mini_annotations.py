"""Real annotations get features laid out as TVR's, and bad ones are refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureFile
from utils.mini_corpus.annotations import generate_for_annotations
from utils.mini_corpus.files import (
    FeatureSettings,
    query_feature_path,
    standing,
    sub_feature_path,
    video_feature_path,
)
from utils.mini_corpus.word_vectors import WordVectors
from utils.mini_tvr import main

SETTINGS = FeatureSettings(vid_feat_size=192, text_feat_size=32, vid_feat_types=("resnet_i3d",))
DURATIONS = {"val": {"a": [31.0, 4], "b": [12.3, 5], "c": [200.0, 6]}, "test_public": {"d": [9.0, 0]}, "train": {}}
VAL = [
    {"vid_name": "a", "duration": 31.0, "ts": [3.0, 12.0], "desc": "A zebra juggles.", "type": "v", "desc_id": 11},
    {"vid_name": "a", "duration": 31.0, "ts": [15, 40.5], "desc": "Nora sings to it.", "type": "t", "desc_id": 12},
    {"vid_name": "b", "duration": 12.3, "ts": [0, 6.0], "desc": "It is what it is.", "type": "vt", "desc_id": 7},
]
TEST = [{"desc": "Who is this?", "desc_id": 99}]


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    folder = tmp_path / "annotations"
    folder.mkdir()
    (folder / "own_video2dur_idx.json").write_text(json.dumps(DURATIONS))
    write_rows(folder / "own_val_release.jsonl", VAL)
    write_rows(folder / "own_test_public_release.jsonl", TEST)
    return folder


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_every_video_and_query_gets_features_of_the_right_shape(annotations: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = generate_for_annotations(annotations, out, SETTINGS)
    video, sub = FeatureFile(video_feature_path(out, "own", "resnet_i3d")), FeatureFile(sub_feature_path(out, "own"))
    assert set(video.keys()) == {"a", "b", "c", "d"}
    assert set(sub.keys()) == {key for name in "abcd" for key in (name, f"{name}-mask")}
    for name, clips in (("a", 21), ("b", 9), ("c", 134), ("d", 6)):
        assert video.shape(name) == (clips, 192)
        assert sub.shape(name) == (clips, 32)
        assert sub.shape(f"{name}-mask") == (clips,)
    query = FeatureFile(query_feature_path(out, "own"))
    assert set(query.keys()) == {"11", "12", "7", "99"}
    np.testing.assert_array_equal(query.read("99"), WordVectors(2018, 32).encode("Who is this?"))
    assert summary["counts"]["val"]["types"] == {"v": 1, "t": 1, "vt": 1}
    assert summary["counts"]["test_public"]["queries"] == 1
    assert str(annotations / "own_val_release.jsonl") in summary["annotations"]
    assert standing(out, "own").as_made
    assert [path.name for path in out.rglob("*.jsonl")] == []


def test_what_is_described_shows_in_the_clips_it_covers(annotations: Path, tmp_path: Path) -> None:
    """The mean similarity of two clips of one moment is above that of a clip in it and one outside."""
    generate_for_annotations(annotations, tmp_path / "out", SETTINGS)
    clips = FeatureFile(video_feature_path(tmp_path / "out", "own", "resnet_i3d")).read("a")
    inside, outside = clips[2:8], clips[9:]
    within = (inside @ inside.T)[~np.eye(len(inside), dtype=bool)].mean()
    assert within > (inside @ outside.T).mean()
    mask = h5py.File(sub_feature_path(tmp_path / "out", "own"))["a-mask"][()]
    assert mask[10:].all()  # a t query up to the end of the video, its ts clamped


def test_features_of_a_video_do_not_depend_on_the_others(annotations: Path, tmp_path: Path) -> None:
    generate_for_annotations(annotations, tmp_path / "all", SETTINGS)
    write_rows(annotations / "own_val_release.jsonl", VAL[:2])
    generate_for_annotations(annotations, tmp_path / "fewer", SETTINGS, splits=["val"])
    for path in (video_feature_path(Path(), "own", "resnet_i3d"), sub_feature_path(Path(), "own")):
        one, other = FeatureFile(tmp_path / "all" / path), FeatureFile(tmp_path / "fewer" / path)
        np.testing.assert_array_equal(one.read("a"), other.read("a"))
        assert other.missing(["d"]) == ["d"]


def test_the_command_takes_sizes_and_splits(annotations: Path, tmp_path: Path) -> None:
    options = ["--annotations", str(annotations), "--splits", "test_public"]
    main([*options, "--out", str(tmp_path / "out"), "--vid_feat_size", "6", "--text_feat_size", "5"])
    assert FeatureFile(video_feature_path(tmp_path / "out", "own", "resnet_i3d")).width() == 6
    assert FeatureFile(query_feature_path(tmp_path / "out", "own")).keys() == ["99"]


def test_the_command_needs_an_output_folder(annotations: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--annotations", str(annotations)])
    assert stop.value.code == 2
    assert "--out" in capsys.readouterr().err


def with_row(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        row = {key: value for key, value in {**VAL[0], **changes}.items() if value is not ...}
        write_rows(folder / "own_val_release.jsonl", [row, *VAL[1:]])

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_row(ts=[12.0, 3.0]), "own_val_release.jsonl, query 1: ts is"),
        (with_row(ts=[31.0, 32.0]), "query 1: ts is"),
        (with_row(ts=...), "query 1: ts is None"),
        (with_row(ts=["a", 2]), "query 1: ts is"),
        (with_row(type="x"), "query 1: type is 'x'"),
        (with_row(vid_name="nobody"), "video nobody is not in video2dur_idx"),
        (with_row(desc_id=...), "query 1: needs desc_id"),
        (with_row(desc_id=12), "desc_id 12 was already used"),
        (lambda folder: (folder / "own_val_release.jsonl").write_text("{broken\n"), "line 1: is not valid JSON"),
        (lambda folder: (folder / "own_val_release.jsonl").write_text(""), "has no lines"),
        (
            lambda folder: (folder / "own_video2dur_idx.json").unlink(),
            "expected one file P_video2dur_idx.json, found none",
        ),
        (lambda folder: (folder / "two_video2dur_idx.json").write_text("{}"), "--prefix P"),
        (lambda folder: (folder / "own_video2dur_idx.json").write_text('{"val": {"a": 3}}'), "is not of the form"),
        (lambda folder: (folder / "own_video2dur_idx.json").write_text("[]"), "is not of the form"),
        (lambda folder: (folder / "own_video2dur_idx.json").write_text('{"val": {"a": [0, 1]}}'), "duration is 0"),
        (
            lambda folder: (folder / "own_video2dur_idx.json").write_text('{"val": {"a": [9, 1]}}'),
            "not in video2dur|no split",
        ),
    ],
)
def test_bad_annotations_are_refused_before_anything_is_complete(
    annotations: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(annotations)
    with pytest.raises(InputError, match=message):
        generate_for_annotations(annotations, tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_a_split_without_annotations_is_refused(annotations: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"own_train_release\.jsonl: not found"):
        generate_for_annotations(annotations, tmp_path / "out", SETTINGS, splits=["train"])


def test_a_folder_without_any_release_is_refused(annotations: Path, tmp_path: Path) -> None:
    for path in annotations.glob("*.jsonl"):
        path.unlink()
    with pytest.raises(InputError, match="nor that of any other split"):
        generate_for_annotations(annotations, tmp_path / "out", SETTINGS)


def test_the_prefix_chooses_among_several_corpora(annotations: Path, tmp_path: Path) -> None:
    (annotations / "two_video2dur_idx.json").write_text("{}")
    generate_for_annotations(annotations, tmp_path / "out", SETTINGS, prefix="own")
    assert standing(tmp_path / "out", "own").as_made


def test_annotations_as_converters_write_them_are_read(tmp_path: Path) -> None:
    """No types, several moments of a query, and a split called test."""
    spans = [[0, 5], [10, 15.0], [29, 40]]
    rows = [{"desc_id": 1, "desc": "A zebra juggles.", "vid_name": "a", "duration": 31.0, "ts": spans}]
    (tmp_path / "own_video2dur_idx.json").write_text(json.dumps({"test": {"a": [31.0, 0], "b": [31.0, 1]}}))
    write_rows(tmp_path / "own_test_release.jsonl", rows)
    summary = generate_for_annotations(tmp_path, tmp_path / "several", SETTINGS)
    assert summary["counts"]["test"]["queries"] == 1
    write_rows(
        tmp_path / "own_test_release.jsonl", [{**rows[0], "ts": span, "desc_id": i} for i, span in enumerate(spans)]
    )
    generate_for_annotations(tmp_path, tmp_path / "apart", SETTINGS)
    video = [FeatureFile(video_feature_path(tmp_path / name, "own", "resnet_i3d")) for name in ("several", "apart")]
    for name in "ab":  # what is shown is what would be if each moment were a query of its own
        np.testing.assert_array_equal(*(file.read(name) for file in video))


def test_queries_that_name_their_video_alone_are_a_split_without_answers(annotations: Path, tmp_path: Path) -> None:
    write_rows(annotations / "own_val_release.jsonl", [{"desc_id": 1, "desc": "A zebra.", "vid_name": "a"}])
    summary = generate_for_annotations(annotations, tmp_path / "out", SETTINGS, splits=["val"])
    assert summary["counts"]["val"]["queries"] == 1


def test_queries_of_a_split_that_is_not_known_are_said_to_be_left_unread(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(annotations / "own_valid_release.jsonl", VAL)
    for splits, said in ((None, 1), (["val"], 0)):
        generate_for_annotations(annotations, tmp_path / "out", SETTINGS, splits=splits)
        assert capsys.readouterr().err.count("own_valid_release.jsonl") == said


def test_another_known_form_is_called_by_its_name(annotations: Path, tmp_path: Path) -> None:
    rows = [{"qid": 1, "query": "A zebra.", "vid": "a", "duration": 31.0, "relevant_windows": [[0, 5]]}]
    write_rows(annotations / "own_val_release.jsonl", rows)
    with pytest.raises(InputError, match=r"own_val_release\.jsonl: holds annotations in Moment-DETR's form"):
        generate_for_annotations(annotations, tmp_path / "out", SETTINGS)
