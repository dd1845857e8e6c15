"""Public features become the project's h5: the same values under the right names, or a clear refusal and no file."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.utils.feature_forms.converting import FEATURES, assert_holds, convert, npy_folder, refused
from utils.annotations import convert_features
from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureFile
from utils.feature_files.provenance import properties
from utils.feature_forms.conversion import SCRIPT, renamed


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    return npy_folder(tmp_path / "npy")


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """As ActivityNet's C3D features: a group a video, with the features in its dataset c3d_features."""
    path = tmp_path / "c3d.hdf5"
    with h5py.File(path, "w") as file:
        for name, array in FEATURES.items():
            file.create_group(name)["c3d_features"] = array
    return path


def test_every_source_gives_the_same_file(npy, groups, tmp_path):
    assert_holds(convert(npy), FEATURES)
    assert_holds(convert(groups, "--dataset", "c3d_features"), FEATURES)
    flat = tmp_path / "flat.h5"
    with h5py.File(flat, "w") as file:
        file.update(FEATURES)
        file["cc-mask"] = np.ones(5)
    assert_holds(convert(flat), FEATURES)


def test_groups_are_read_directly_too(groups):
    file = FeatureFile(groups, "c3d_features")
    assert file.feature_keys() == sorted(FEATURES)
    assert file.form("cc") == (5, 6, "float32")
    np.testing.assert_array_equal(file.read("cc", rows=range(1, 3)), FEATURES["cc"][1:3])
    with pytest.raises(InputError, match="v_aa, no i3d in its group"):
        FeatureFile(groups, "i3d").read("v_aa")
    with pytest.raises(InputError, match="key v_aa: is a Group"):
        FeatureFile(groups).read("v_aa")


def test_a_link_inside_a_group_is_not_followed(groups, tmp_path, capsys):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones((2, 6))
    with h5py.File(groups, "a") as file:
        file.create_group("v_dd")["c3d_features"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")
    assert "v_dd: is a link" in refused(capsys, groups, "--dataset", "c3d_features")


def test_names_get_their_prefix_once(npy):
    assert_holds(convert(npy, "--add_prefix", "v_"), {renamed(k, "v_"): a for k, a in FEATURES.items()})
    assert sorted(renamed(key, "v_") for key in FEATURES) == ["v_aa", "v_bb", "v_cc"]
    assert_holds(
        convert(npy, "--remove_prefix", "v_"), {"aa": FEATURES["v_aa"], "bb": FEATURES["v_bb"], "cc": FEATURES["cc"]}
    )


@given(st.text(max_size=5), st.text(max_size=3))
def test_renaming_twice_is_renaming_once(key, prefix):
    once = renamed(key, add_prefix=prefix)
    assert once.startswith(prefix)
    assert once.endswith(key)
    assert renamed(once, add_prefix=prefix) == once


def test_names_that_become_one_are_refused(npy, capsys):
    np.save(npy / "aa.npy", FEATURES["v_aa"])
    assert "aa and v_aa would both be v_aa" in refused(capsys, npy, "--add_prefix", "v_")


def test_only_the_videos_of_the_annotations_are_written_and_lacking_ones_named(npy, tmp_path, capsys):
    videos = tmp_path / "video2dur_idx.json"
    videos.write_text(json.dumps({"train": {"v_aa": [9.0, 0]}, "val": {"v_cc": [9.0, 1], "v_ee": [9.0, 2]}}))
    out = convert(npy, "--add_prefix", "v_", "--videos", str(videos))
    assert_holds(out, {"v_aa": FEATURES["v_aa"], "v_cc": FEATURES["cc"]})
    said = capsys.readouterr().out
    assert "2 written, 3 to 5 rows each, 6 wide" in said
    assert "left out: 1 of" in said
    assert "1 videos have no features: v_ee" in said


def test_names_that_fit_no_video_are_refused(npy, tmp_path, capsys):
    videos = tmp_path / "video2dur_idx.json"
    videos.write_text(json.dumps({"train": {"video_aa": [9.0, 0]}}))
    message = refused(capsys, npy, "--videos", str(videos))
    assert "has none of the videos such as video_aa" in message
    assert "--add_prefix" in message


def test_what_is_known_of_the_features_is_kept(npy, tmp_path):
    out = convert(npy, "--about", "model=i3d", "clip_length=2.56", "layer=avg pool")
    assert properties(FeatureFile(out).made_by()) == {"model": "i3d", "layer": "avg pool", "clip_length": 2.56}
    assert FeatureFile(out).made_by()["made_by"] == SCRIPT
    again = tmp_path / "again.h5"
    convert_features.main(["--src", str(out), "--out", str(again), "--about", "layer=5c"])
    assert properties(FeatureFile(again).made_by()) == {"model": "i3d", "layer": "5c", "clip_length": 2.56}


def test_wrong_options_are_refused(npy, groups, tmp_path, capsys):
    assert "leave it out" in refused(capsys, npy, "--dataset", "c3d_features")
    assert "is a Group" in refused(capsys, groups)
    assert "expected NAME=VALUE" in refused(capsys, npy, "--about", "colour=red")
    assert "is not a number" in refused(capsys, npy, "--about", "clip_length=long")
    assert "feature file not found" in refused(capsys, tmp_path / "nowhere.h5")
    assert "has no .npy file" in refused(capsys, empty_folder(tmp_path))
    with pytest.raises(SystemExit):
        convert_features.main(["--src", str(groups), "--out", str(groups)])
    assert "is read too, and would be lost" in capsys.readouterr().err


def empty_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "nothing"
    folder.mkdir()
    return folder


def test_memory_does_not_grow_with_the_number_of_videos(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    array = np.ones((256, 512), np.float32)  # half a MiB
    for number in range(40):
        np.save(folder / f"{number}.npy", array)
    tracemalloc.start()
    convert(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * array.nbytes
