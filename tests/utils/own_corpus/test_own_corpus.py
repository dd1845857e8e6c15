"""Queries of a new corpus are checked and divided: nothing wrong passes, nothing changes unsaid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from method_tvr.dset_configs import DATASETS
from utils.basic_utils import InputError
from utils.dataset_files import named_folder
from utils.feature_files.feature_file import new_feature_file
from utils.feature_files.provenance import made_with, properties
from utils.own_corpus.clips import badly_timed, write_clips
from utils.own_corpus.layout import ALIASES, name_in_files
from utils.own_corpus.queries import (
    Query,
    fit_to_videos,
    other_durations,
    past_the_end,
    read_queries,
    with_known_names,
)
from utils.own_corpus.splits import divide, in_both, val_videos
from utils.own_corpus.steps import Steps
from utils.video_feature.convert_feature_frm_to_clip import convert
from utils.video_feature.merge_align_i3d import merge_align
from utils.video_feature.normalize_and_concat import normalize_and_concat

TIMED = {"desc": "She laughs.", "vid_name": "a", "ts": [1, 2.5]}


def _written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _read(tmp_path: Path, *rows: dict[str, Any]) -> list[Query]:
    return read_queries([_written(tmp_path / "q.jsonl", *rows)])


def test_a_query_without_desc_id_gets_the_same_number_wherever_it_stands(tmp_path):
    others = [{"desc": f"He nods {i} times.", "vid_name": "a", "ts": [0, i]} for i in range(1, 4)]
    first, *_ = _read(tmp_path, TIMED, *others)
    *_, last = _read(tmp_path, *others, TIMED)
    assert first.desc_id == last.desc_id
    assert len({query.desc_id for query in _read(tmp_path, TIMED, *others)}) == 4
    assert _read(tmp_path, {**TIMED, "ts": [1.0, 2.5]})[0].desc_id == first.desc_id
    assert _read(tmp_path, {**TIMED, "desc_id": 17})[0].desc_id == 17


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"desc": None}, '"desc"'),
        ({"desc": " "}, '"desc"'),
        ({"vid_name": 3}, '"vid_name" 3'),
        ({"vid_name": None}, 'no "vid_name"'),
        ({"ts": [2, 1]}, "reversed"),
        ({"ts": [-1, 1]}, "negative"),
        ({"ts": [1]}, "not [start, end]"),
        ({"ts": [True, 2]}, "not [start, end]"),
        ({"ts": "0:01"}, "not [start, end]"),
        ({"desc_id": "7"}, '"desc_id"'),
        ({"desc_id": 2**60}, '"desc_id"'),
        ({"type": 1}, '"type"'),
        ({"type": "v\x1b[2J"}, '"type"'),
        ({"split": "all"}, '"split"'),
        ({"split": "../x"}, '"split"'),
        ({"split": "val", "ts": None}, 'no "ts"'),
    ],
)
def test_a_wrong_line_is_refused_with_file_and_line(tmp_path, wrong, reason):
    with pytest.raises(InputError, match=r"q\.jsonl, line 2") as refused:
        _read(tmp_path, {**TIMED, "desc": "Fine."}, {**TIMED, **wrong})
    assert reason in str(refused.value)
    assert "line 1" not in str(refused.value)


def test_all_wrong_lines_are_named_at_once(tmp_path):
    with pytest.raises(InputError) as refused:
        _read(tmp_path, *({**TIMED, "ts": [9, i]} for i in range(8)), {**TIMED, "desc": ""})
    assert str(refused.value).count("\n") == 9


def test_two_queries_of_one_number_are_refused(tmp_path):
    with pytest.raises(InputError, match=r'line 2: has the "desc_id" 5 as .*line 1'):
        _read(tmp_path, {**TIMED, "desc_id": 5}, {"desc": "Another.", "desc_id": 5})
    with pytest.raises(InputError, match=r"line 2: says the same as .*line 1"):
        _read(tmp_path, TIMED, TIMED)


def test_lines_must_agree_on_how_they_are_divided(tmp_path):
    other = {**TIMED, "desc": "Other."}
    with pytest.raises(InputError, match=r'line 2: says no "split"'):
        _read(tmp_path, {**TIMED, "split": "train"}, other)
    with pytest.raises(InputError, match=r'line 2: has no "ts"'):
        _read(tmp_path, {**TIMED, "split": "test"}, {"desc": "Where?", "split": "test_public"})
    assert len(_read(tmp_path, TIMED, {"desc": "Where?"})) == 2


def test_queries_about_no_video_at_all_are_refused_before_any_work(tmp_path):
    queries = _read(tmp_path, {**TIMED, "vid_name": "a.mp4"})
    with pytest.raises(InputError, match=r"a\.mp4 is none of the videos"):
        with_known_names(queries, ["a", "b"])
    with_known_names([*queries, *_read(tmp_path, TIMED)], ["a"])


def test_queries_that_no_video_fits_are_left_out_with_a_reason_and_others_stay_as_they_are(tmp_path):
    queries = _read(
        tmp_path,
        {"desc": "gone", "vid_name": "gone.mp4", "ts": [0, 1]},
        {"desc": "name with suffix", "vid_name": "a.mkv"},
        {"desc": "failed", "vid_name": "broken", "ts": [0, 1]},
        {"desc": "late", "vid_name": "a", "ts": [10, 11]},
        {"desc": "longer", "vid_name": "a", "ts": [9, 11], "duration": 12},
        {"desc": "anywhere"},
    )
    kept, left_out = fit_to_videos(queries, {"a": 10.0}, {"broken": "is empty"})
    assert [query.desc for query in kept] == ["longer", "anywhere"]
    assert kept[0].ts == (9.0, 11.0)
    assert past_the_end(kept, {"a": 10.0}) == other_durations(kept, {"a": 10.0}) == kept[:1]
    reasons = [str(query) for query in left_out]
    for reason, words in zip(
        reasons, ["no video gone.mp4", "is a meant?", "broken failed", "after a ends (10.00 s)"], strict=True
    ):
        assert words in reason
        assert "q.jsonl, line " in reason


def test_queries_follow_their_videos_into_train_and_val(tmp_path):
    names = [f"v{i}" for i in range(40)]
    rows = [{"desc": f"{i} in {name}", "vid_name": name, "ts": [0, 1]} for name in names for i in range(2)]
    splits = divide(_read(tmp_path, *rows), [*names, "unasked"], 0.25)
    assert list(splits) == ["train", "val", "all"]
    assert sorted(splits["train"].videos + splits["val"].videos) == sorted(names)
    assert not in_both(splits)
    assert 4 <= len(splits["val"].videos) <= 16
    for split in ("train", "val"):
        assert {query.vid_name for query in splits[split].queries} == set(splits[split].videos)
        assert len(splits[split].queries) == 2 * len(splits[split].videos)
    assert splits["all"].videos == sorted([*names, "unasked"])


def test_queries_without_times_search_all_videos(tmp_path):
    splits = divide(_read(tmp_path, {"desc": "Where?", "vid_name": "a"}, {"desc": "Who?"}), ["b", "a"], 0.2)
    assert {name: split.videos for name, split in splits.items()} == {"test_public": ["a", "b"], "all": ["a", "b"]}


def test_splits_that_are_said_are_obeyed(tmp_path):
    rows = [
        {**TIMED, "vid_name": name, "split": split}
        for name, split in (("a", "train"), ("b", "val"), ("a", "val"), ("c", "dev"))
    ]
    rows[2]["desc"] = "Once more."
    splits = divide(_read(tmp_path, *rows, {"desc": "Who?", "split": "test", "vid_name": "c"}), "abcd", 0.2)
    videos = {name: split.videos for name, split in splits.items()}
    assert videos == {
        "train": ["a"], "val": ["a", "b"], "dev": ["c"], "test_public": ["c"], "all": ["a", "b", "c", "d"]
    }  # fmt: skip
    assert in_both(splits) == ["a"]


@given(st.sets(st.text(min_size=1), max_size=30), st.sets(st.text(min_size=1), max_size=5), st.floats(0.05, 0.9))
def test_a_video_stays_on_its_side_when_others_are_added(names, more, share):
    before, after = val_videos(sorted(names), share), val_videos(sorted(names | more), share)
    assert before <= names
    if len(names) > 1:
        assert 0 < len(before) < len(names)
    assert len(before ^ (after & names)) <= 1, "one at most, where a side would have been empty"


def test_split_names_are_those_of_the_commands():
    assert {alias: DATASETS["tvr"].split_name(alias) for alias in ALIASES} == ALIASES


def test_a_corpus_folder_is_named_so_that_files_can_be(tmp_path):
    assert named_folder(str(tmp_path / "own")) == tmp_path / "own"
    with pytest.raises(InputError, match="letters, digits"):
        named_folder(str(tmp_path / "my corpus"))
    assert name_in_files("timm/efficientnet_lite0") == "efficientnet_lite0"
    assert name_in_files("/models/my model/") == "my-model"


def test_a_step_is_done_until_its_output_or_what_it_is_made_of_changes(tmp_path):
    output = tmp_path / "out.h5"
    steps = Steps(tmp_path / "steps.json")
    assert not steps.is_done(output, {"pool": "max"})
    output.write_bytes(b"features")
    assert not steps.is_done(output, {"pool": "max"})
    steps.done(output, {"pool": "max"}, ["a note"])
    again = Steps(tmp_path / "steps.json")
    assert again.is_done(output, {"pool": "max"})
    assert again.notes(output) == ["a note"]
    assert not again.is_done(output, {"pool": "avg"})
    output.write_bytes(b"other features")
    assert not again.is_done(output, {"pool": "max"})


def _halves(folder: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    about = {"weights": "aa", "normalised": "none", "value_range": "imagenet"}
    frames = {**about, "model": "resnet152", "layer": "pool5", "frame_rate": 3.0}
    i3d = {**about, "model": "i3d", "weights": "bb", "frame_rate": 15.0, "clip_length": 1.5, "pooling": "avg"}
    for name, width, rows, record in (("frames", 6, 1, frames), ("i3d", 4, 0, i3d)):
        with new_feature_file(folder / f"{name}.h5", **made_with("s.py", "video", ["numpy"], **record)) as out:
            for i, n_clips in enumerate((1, 4, 7)):
                n = n_clips * 4 + 1 if rows else n_clips + i
                out.put(f"v{i}", rng.standard_normal((n, width)).astype(np.float32))
    return folder / "frames.h5", folder / "i3d.h5"


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_clips_are_those_of_the_three_conversion_scripts(tmp_path, pool):
    frames, i3d = _halves(tmp_path)
    names = ["v0", "v1", "v2"]
    clips, aligned, joined = (tmp_path / f"{name}.h5" for name in ("clips", "aligned", "joined"))
    convert([frames], clips, pool, 1.5)
    merge_align([i3d], clips, aligned)
    normalize_and_concat(clips, aligned, joined)
    for source, expected in ((None, clips), (i3d, joined)):
        ours = tmp_path / "ours.h5"
        write_clips("x.py", names, frames, source, ours, 1.5, pool)
        with h5py.File(ours) as one, h5py.File(expected) as other:
            assert set(one) == set(other) == set(names)
            for name in names:
                np.testing.assert_array_equal(one[name], other[name])
            assert properties(dict(one.attrs)) == properties(dict(other.attrs))


def test_a_video_whose_frames_do_not_fill_its_duration_is_named(tmp_path):
    with new_feature_file(tmp_path / "frames.h5") as frames:
        for name in ("good", "odd"):
            frames.put(name, np.ones((30, 4), np.float32))
    wrong = badly_timed(tmp_path / "frames.h5", {"good": 10.2, "odd": 14.0}, frame_rate=3.0, clip_length=1.5)
    assert list(wrong) == ["odd"]
    assert "10.00 s, but lasts 14.00 s" in wrong["odd"]
