"""The embedded corpus has TVR's forms, is the same each time, and is there whole or not at all."""

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from utils.basic_utils import InputError, read_json, read_jsonl
from utils.feature_files.feature_file import FeatureFile
from utils.mini_corpus.features import CLIP_LENGTH, n_clips, overlap, subtitle_features
from utils.mini_corpus.files import (
    query_feature_path,
    standing,
    sub_feature_path,
    video_feature_path,
)
from utils.mini_corpus.settings import VID_FEAT_TYPES
from utils.mini_corpus.word_vectors import WordVectors
from utils.mini_corpus.world import Line
from utils.mini_tvr import TINY, MiniSettings, generate, generating_command, main

TEXT_FILES = [
    *(f"mini_{split}_release.jsonl" for split in ("train", "val", "test_public")),
    "mini_video2dur_idx.json",
    "mini_subtitles.jsonl",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus") / "mini"
    generate(out, TINY)
    return out


@pytest.fixture(scope="module")
def durations(corpus: Path) -> dict[str, float]:
    table = read_json(corpus / "mini_video2dur_idx.json")
    return {vid_name: duration for split in table.values() for vid_name, (duration, _) in split.items()}


def arrays(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as h5_file:
        return {key: h5_file[key][()] for key in h5_file}


def feature_files(out: Path) -> list[Path]:
    videos = [video_feature_path(out, "mini", name) for name in VID_FEAT_TYPES]
    return [*videos, sub_feature_path(out, "mini"), query_feature_path(out, "mini")]


def test_files_lie_where_those_of_tvr_do(corpus: Path) -> None:
    found = {str(path.relative_to(corpus)) for path in corpus.rglob("*") if path.is_file()}
    root = "mini_feature_release"
    assert found == {
        *TEXT_FILES,
        "mini_made_by.json",
        f"{root}/video_feature/mini_resnet152_rgb_max_i3d_rgb600_avg_cat_cl-1.5.h5",
        f"{root}/video_feature/mini_resnet152_rgb_max_cl-1.5.h5",
        f"{root}/video_feature/mini_i3d_rgb600_avg_cl-1.5.h5",
        f"{root}/bert_feature/sub_query/mini_query_pretrained_w_sub_query.h5",
        f"{root}/bert_feature/sub_query/mini_sub_pretrained_w_sub_query_max_cl-1.5.h5",
    }


@pytest.mark.parametrize("split", ["train", "val"])
def test_rows_of_train_and_val_have_tvrs_keys_and_fit_the_durations(
    corpus: Path, durations: dict[str, float], split: str
) -> None:
    rows = read_jsonl(corpus / f"mini_{split}_release.jsonl")
    assert len(rows) == 5 * getattr(TINY, f"n_{split}")
    for row in rows:
        assert set(row) == {"vid_name", "duration", "ts", "desc", "type", "desc_id"}
        assert row["duration"] == durations[row["vid_name"]]
        assert 0 <= row["ts"][0] < row["ts"][1] <= row["duration"]
        assert row["type"] in ("v", "t", "vt")
    names = [row["vid_name"] for row in rows]
    assert names != sorted(names)  # the order is mixed


def test_test_public_has_sentences_without_answers(corpus: Path) -> None:
    rows = read_jsonl(corpus / "mini_test_public_release.jsonl")
    assert {frozenset(row) for row in rows} == {frozenset({"desc", "desc_id"})}


def test_desc_ids_are_unique_over_splits_and_all_have_features(corpus: Path) -> None:
    splits = ("train", "val", "test_public")
    rows = [row for split in splits for row in read_jsonl(corpus / f"mini_{split}_release.jsonl")]
    ids = [row["desc_id"] for row in rows]
    assert len(set(ids)) == len(ids) == 5 * 35
    assert set(arrays(query_feature_path(corpus, "mini"))) == {str(desc_id) for desc_id in ids}


def test_query_features_are_those_of_the_sentence_alone(corpus: Path) -> None:
    words = WordVectors(TINY.seed, TINY.text_feat_size)
    features = FeatureFile(query_feature_path(corpus, "mini"))
    for row in read_jsonl(corpus / "mini_val_release.jsonl"):
        np.testing.assert_array_equal(features.read(str(row["desc_id"]), 16), words.encode(row["desc"]))


def test_durations_list_all_splits_with_indices_unique_over_them(corpus: Path) -> None:
    table = read_json(corpus / "mini_video2dur_idx.json")
    assert {split: len(videos) for split, videos in table.items()} == {
        "train": 20,
        "val": 10,
        "test_public": 5,
        "test_challenge": 5,
    }
    indices = [idx for videos in table.values() for _, idx in videos.values()]
    assert indices == list(range(40))
    rows = read_jsonl(corpus / "mini_val_release.jsonl")
    assert {row["vid_name"] for row in rows} == set(table["val"])


@pytest.mark.parametrize("vid_feat_type", VID_FEAT_TYPES)
def test_video_features_have_a_row_a_clip(corpus: Path, durations: dict[str, float], vid_feat_type: str) -> None:
    found = arrays(video_feature_path(corpus, "mini", vid_feat_type))
    assert set(found) == set(durations)
    for vid_name, array in found.items():
        assert array.shape[0] == n_clips(durations[vid_name]) == int(np.ceil(durations[vid_name] / 1.5))
        assert array.dtype == np.float32
        assert np.isfinite(array).all()


def test_halves_are_normalised_2_to_1_and_equal_to_the_files_of_one_half(corpus: Path) -> None:
    both, appearance, motion = (arrays(video_feature_path(corpus, "mini", name)) for name in VID_FEAT_TYPES)
    for vid_name, array in both.items():
        np.testing.assert_allclose(np.linalg.norm(array[:, :16], axis=1), 1, atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(array[:, 16:], axis=1), 1, atol=1e-4)
        np.testing.assert_array_equal(array, np.concatenate([appearance[vid_name], motion[vid_name]], axis=1))


def test_subtitle_features_have_as_many_clips_and_are_zero_where_nobody_speaks(
    corpus: Path, durations: dict[str, float]
) -> None:
    found = arrays(sub_feature_path(corpus, "mini"))
    assert set(found) == {key for name in durations for key in (name, f"{name}-mask")}
    spoken = {row["vid_name"]: row["sub"] for row in read_jsonl(corpus / "mini_subtitles.jsonl")}
    silent = 0
    for vid_name, duration in durations.items():
        array, mask = found[vid_name], found[f"{vid_name}-mask"]
        assert array.shape == (n_clips(duration), 16)
        expected = np.zeros(len(mask))
        for line in spoken[vid_name]:
            expected[int(line["start"] // 1.5) : int(np.ceil(line["end"] / 1.5))] = 1
        np.testing.assert_array_equal(mask, expected)
        np.testing.assert_array_equal(np.abs(array).sum(axis=1) > 0, mask > 0)
        silent += int((mask == 0).sum())
    assert silent > 0


def test_some_videos_are_past_128_clips(durations: dict[str, float]) -> None:
    assert any(n_clips(duration) > 128 for duration in durations.values())


def test_files_say_what_made_them(corpus: Path) -> None:
    for path in feature_files(corpus):
        about = FeatureFile(path).made_by()
        assert about["made_by"] == "utils/mini_tvr.py"
        assert about["seed"] == TINY.seed
        assert "format_version" in about
        assert about.get("clip_length", CLIP_LENGTH) == CLIP_LENGTH


def test_the_same_settings_give_the_same_bytes_and_arrays(corpus: Path, tmp_path: Path) -> None:
    generate(tmp_path, TINY)
    for name in TEXT_FILES:
        assert (tmp_path / name).read_bytes() == (corpus / name).read_bytes()
    for ours, theirs in zip(feature_files(tmp_path), feature_files(corpus), strict=True):
        found, expected = arrays(ours), arrays(theirs)
        assert set(found) == set(expected)
        for key, array in found.items():
            np.testing.assert_array_equal(array, expected[key])


def test_another_seed_gives_another_corpus(corpus: Path, tmp_path: Path) -> None:
    generate(tmp_path, dataclasses.replace(TINY, seed=7, n_train=1, n_val=1, n_test=1))
    name = "harbor_s01e01_seg02_clip_00"
    ours, theirs = (arrays(video_feature_path(out, "mini", "i3d"))[name] for out in (tmp_path, corpus))
    assert ours.shape != theirs.shape or not np.allclose(ours, theirs)


def test_features_of_a_video_do_not_depend_on_the_size_of_the_corpus(corpus: Path, tmp_path: Path) -> None:
    generate(tmp_path, dataclasses.replace(TINY, n_train=3, n_val=2, n_test=1, queries_per_video=1))
    for ours, theirs in zip(feature_files(tmp_path)[:4], feature_files(corpus)[:4], strict=True):
        expected = arrays(theirs)
        for key, array in arrays(ours).items():
            np.testing.assert_array_equal(array, expected[key])


def test_a_corpus_is_complete_only_when_all_of_it_is_there(tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY, n_train=1, n_val=1, n_test=1, vid_feat_types=("resnet_i3d",))
    assert not standing(tmp_path, "mini").as_made
    summary = generate(tmp_path, settings)
    assert standing(tmp_path, "mini").as_made
    assert not standing(tmp_path, "other").as_made
    for name in summary["files"]:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-1])
        assert not standing(tmp_path, "mini").as_made
        (tmp_path / name).write_bytes(content)
    assert standing(tmp_path, "mini").as_made


def test_a_killed_generation_leaves_no_half_written_file_and_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(WordVectors, "encode", killed)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, TINY)
    assert not standing(tmp_path, "mini").as_made
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_disk_that_fills_up_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("utils.feature_files.feature_file.FeatureWriter.put", full)
    with pytest.raises(InputError, match="No space left on device"):
        generate(tmp_path, TINY)


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = generate(tmp_path / "measured", TINY)["files"]
    videos = sum(size for name, size in written.items() if "video_feature" in name)
    for free, fits in ((videos // 2, False), (2 * videos, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        if fits:
            generate(tmp_path / "out", TINY)
            continue
        with pytest.raises(InputError, match=r"has too little room .* are needed, .* are free"):
            generate(tmp_path / "out", TINY)
        assert list((tmp_path / "out").iterdir()) == []


def test_the_command_prints_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "--n_train 2 --n_val 1 --n_test 1 --vid_feat_size 9 --text_feat_size 4 --queries_per_video 2 --seed 3"
    main(["--out", str(tmp_path), *sizes.split(), "--vid_feat_types", "i3d", "--prefix", "small"])
    printed = capsys.readouterr().out
    assert re.search(r"train +2 videos +\d+\.\d\d h +\d+ clips +4 queries", printed)
    assert "small_i3d_rgb600_avg_cl-1.5.h5" in printed
    assert standing(tmp_path, "small").as_made
    assert FeatureFile(video_feature_path(tmp_path, "small", "i3d")).width() == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--n_train 0", "--n_train 0"),
        ("--queries_per_video 0", "--queries_per_video 0"),
        ("--vid_feat_size 2", "--vid_feat_size 2"),
        ("--text_feat_size 0", "--text_feat_size 0"),
        ("--seed -1", "--seed -1"),
        ("--prefix a/b", "--prefix"),
        ("--splits val", "--splits"),
        ("--annotations somewhere_else", "no such folder"),
        ("--annotations . --n_val 3", "--n_val"),
    ],
)
def test_bad_options_are_refused_with_a_message_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(tmp_path / "out"), *options.split()])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken"):
        generate(tmp_path / "taken", TINY)


def test_a_corpus_is_replaced_only_where_its_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("utils.mini_tvr.DEFAULT_OUT", tmp_path / "mini")
    sizes = ["--n_train", "1", "--n_val", "1", "--n_test", "1", "--vid_feat_size", "9", "--text_feat_size", "4"]
    main(sizes)
    release = tmp_path / "mini" / "mini_val_release.jsonl"
    release.write_text("edited")
    with pytest.raises(SystemExit) as stop:
        main(sizes)
    assert stop.value.code == 2
    assert f"is there already: give --out {tmp_path / 'mini'}" in capsys.readouterr().err
    assert release.read_text() == "edited"
    main([*sizes, "--out", str(tmp_path / "mini")])
    assert release.read_text() != "edited"


@pytest.mark.parametrize("name", ["mini_val_release.jsonl", video_feature_path(Path(), "mini", "i3d")])
def test_files_that_were_not_generated_are_not_replaced(tmp_path: Path, name: str | Path) -> None:
    own = tmp_path / name
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("downloaded in a week")
    with pytest.raises(InputError, match=f"{own.name}: is not generated, and would be replaced"):
        generate(tmp_path, TINY)
    assert own.read_text() == "downloaded in a week"


def test_a_generation_that_was_killed_is_done_again(tmp_path: Path) -> None:
    generate(tmp_path, TINY)
    (tmp_path / "mini_made_by.json").unlink()
    generate(tmp_path, TINY)
    assert standing(tmp_path, "mini").as_made


def test_the_command_of_a_corpus_makes_the_same_again(corpus: Path, tmp_path: Path) -> None:
    settings = read_json(corpus / "mini_made_by.json")["settings"] | {"vid_feat_types": ["i3d"], "subtitles": False}
    words = generating_command(tmp_path / "my mini", "mini", settings)
    main(shlex.split(words)[2:])
    assert read_json(tmp_path / "my mini" / "mini_made_by.json")["settings"] == settings


def test_settings_survive_the_trip_through_the_manifest(corpus: Path) -> None:
    settings = json.loads((corpus / "mini_made_by.json").read_text())["settings"]
    settings["vid_feat_types"] = tuple(settings["vid_feat_types"])
    assert MiniSettings(**settings) == TINY


def test_a_clip_is_shared_among_spans_in_proportion_to_their_time() -> None:
    shares = overlap(np.array([[0, 1], [1, 4], [4, 4.2]]), duration=4.2)
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3, 0], [0, 1, 0], [0, 5 / 6, 1 / 6]], atol=1e-6)
    np.testing.assert_allclose(overlap(np.array([[0, 1], [1, 3.2]]), duration=3.2).sum(axis=1), 1, atol=1e-6)


def test_lines_past_the_last_clip_are_left_out() -> None:
    lines = [Line("hello", 0.2, 1.4), Line("too late", 4.0, 9.0)]
    features, mask = subtitle_features("v", lines, 3, WordVectors(0, 8))
    np.testing.assert_array_equal(mask, [1, 0, 1])
    assert features.shape == (3, 8)


def test_without_subtitles_all_is_about_what_is_seen_and_no_file_is_about_speech(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "mini"
    generate(out, TINY)  # whose subtitles would not be those of the corpus that replaces it
    silent = ["--n_train", "20", "--n_val", "10", "--n_test", "5", "--vid_feat_size", "24", "--text_feat_size", "16"]
    main(["--out", str(out), "--no_subtitles", *silent])
    assert standing(out, "mini").as_made
    made_with = read_json(out / "mini_made_by.json")["settings"]
    assert made_with == read_json(corpus / "mini_made_by.json")["settings"] | {"subtitles": False}
    assert not [path for path in out.rglob("*") if "subtitles" in path.name or "_sub_pretrained" in path.name]
    for split in ("train", "val"):
        rows = read_jsonl(out / f"mini_{split}_release.jsonl")
        assert len(rows) == 5 * getattr(TINY, f"n_{split}")
        assert {row["type"] for row in rows} == {"v"}
    for kind in VID_FEAT_TYPES:  # the videos are the same
        found, expected = (arrays(video_feature_path(root, "mini", kind)) for root in (out, corpus))
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[key], expected[key]) for key in found)
    assert (out / "mini_video2dur_idx.json").read_bytes() == (corpus / "mini_video2dur_idx.json").read_bytes()


def test_no_subtitles_is_refused_with_annotations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--annotations", str(tmp_path), "--out", str(tmp_path), "--no_subtitles"])
    assert stop.value.code == 2
    assert "--no_subtitles: has no meaning with --annotations" in capsys.readouterr().err
