"""Frames become clips, I3D is aligned and joined as in the reference; what does not go together is refused."""

import sys

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.feature_files import write
from tests.support.golden_files import load_json, unpack
from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureFile
from utils.video_feature import convert_feature_frm_to_clip, merge_align_i3d, normalize_and_concat
from utils.video_feature.convert_feature_frm_to_clip import convert, frame_times, frames_to_clips
from utils.video_feature.merge_align_i3d import align, merge_align
from utils.video_feature.normalize_and_concat import concat

ROUNDING = {"rtol": 1e-6, "atol": 1e-7}


@pytest.fixture
def golden(tmp_path):
    """One of the reference's files, unpacked."""
    return lambda name: unpack(f"preprocess/{name}", tmp_path / "golden" / name)


def rows(n: int, size: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([n, size, seed]).normal(size=(n, size)).astype(np.float32)


def read(path) -> dict[str, np.ndarray]:
    with h5py.File(path) as h5_file:
        return {key: array[()] for key, array in h5_file.items()}


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert found[key].dtype == array.dtype == np.float32
        np.testing.assert_allclose(found[key], array, **tolerance or {"rtol": 0})


def run(monkeypatch, capsys, script, *argv) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, argv)])
    code = 0
    try:
        script.main()
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


# ---------------------------------------------------------------- frames to clips


@pytest.mark.parametrize(("pool", "tolerance"), [("max", {"rtol": 0}), ("avg", ROUNDING)])
def test_clips_agree_with_the_reference(golden, tmp_path, pool, tolerance):
    assert convert([golden("frame_features.h5")], tmp_path / "clips.h5", pool) == 4
    assert_same(read(tmp_path / "clips.h5"), read(golden(f"clip_features_{pool}.h5")), **tolerance)


def test_clips_begin_at_the_references_frames():
    starts = load_json("preprocess/clip_boundaries_first60.json")
    numbers = np.arange(starts[-1] + 1, dtype=np.float32)[:, None]
    first_frames = -frames_to_clips(-numbers, frame_times(len(numbers)), 1.5, "max")
    assert first_frames[:, 0].tolist() == starts


def test_frames_of_tvr_lie_where_it_says():
    times = frame_times(9).reshape(3, 3)
    np.testing.assert_allclose(times, np.arange(3)[:, None] + np.array([3, 13, 23]) / 30)
    np.testing.assert_allclose(frame_times(2, 0.5), [0.6, 2.6])


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=40),
    st.sampled_from([0.1, 0.3, 1.5, 2.0]),
    st.sampled_from(["max", "avg"]),
)
def test_each_clip_pools_its_frames(tenths, clip_length, pool):
    tenths.sort()
    times = np.array(tenths) / 10
    frames = rows(len(times), 2, seed=1)
    found = frames_to_clips(frames, times, clip_length, pool)
    hundredths = round(clip_length * 100)
    clip_of = [tenth * 10 // hundredths for tenth in tenths]  # in whole numbers
    assert len(found) == max(clip_of) + 1
    for clip, row in enumerate(found):
        inside = [i for i, c in enumerate(clip_of) if c == clip]
        if not inside:
            distances = np.abs(times - (clip + 0.5) * clip_length)
            assert any(np.array_equal(row, frames[i]) for i in np.flatnonzero(distances <= distances.min() + 1e-9))
        elif pool == "max":
            assert np.array_equal(row, frames[inside].max(axis=0))
        else:
            np.testing.assert_allclose(row, frames[inside].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_feature_maps_are_pooled_too():
    maps = rows(9, 2 * 3 * 3).reshape(9, 2, 3, 3)
    clips = frames_to_clips(maps, frame_times(9), 1.5, "avg")
    assert clips.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(clips[0], maps[:5].mean(axis=0), **ROUNDING)


def test_the_record_of_the_frames_is_carried_on(tmp_path):
    about = {"model": "m", "weights": "0f", "frame_rate": 2.0, "normalised": "L2", "versions": "torch 2.5", "seed": 3}
    frames = write(tmp_path / "frames.h5", {"v": rows(8)}, made_by="a", **about)
    convert([frames], tmp_path / "clips.h5", "avg", clip_length=2.0)
    record = FeatureFile(tmp_path / "clips.h5").made_by()
    assert record.pop("versions") == f"torch 2.5, numpy {np.__version__}"
    assert record == {
        "format_version": 1,
        "made_by": "utils/video_feature/convert_feature_frm_to_clip.py",
        "kind": "video",
        "model": "m",
        "weights": "0f",
        "frame_rate": 2.0,
        "clip_length": 2.0,
        "pooling": "avg",
    }
    assert len(read(tmp_path / "clips.h5")["v"]) == 2  # the file's frame rate: eight frames are four seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "min"}, "--pool_type min"),
        ({"clip_length": 0.0}, "--clip_length 0.0"),
        ({"clip_length": float("nan")}, "--clip_length nan"),
        ({"frame_rate": -1.0}, "--frame_rate -1.0"),
        ({"frame_rate": 3.0}, r"frames.h5: was made at 2.0 frames a second, not 3.0"),
    ],
)
def test_options_that_make_no_sense_are_refused_and_nothing_is_written(tmp_path, options, message):
    frames = write(tmp_path / "frames.h5", {"v": rows(8)}, frame_rate=2.0)
    with pytest.raises(InputError, match=message):
        convert([frames], tmp_path / "clips.h5", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["frames.h5"]


def test_a_damaged_video_leaves_no_half_file(tmp_path):
    frames = write(tmp_path / "frames.h5", {"a": rows(8), "b": np.full((3, 3), np.nan, np.float32)})
    with pytest.raises(InputError, match="key b: holds NaN"):
        convert([frames], tmp_path / "clips.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["frames.h5"]


# ---------------------------------------------------------------- merge and align


def test_aligned_features_agree_with_the_reference(golden, tmp_path):
    report = merge_align([golden("i3d_raw.h5")], golden("clip_features_max.h5"), tmp_path / "aligned.h5")
    assert_same(read(tmp_path / "aligned.h5"), read(golden("i3d_aligned.h5")))
    assert report.done == sorted(read(golden("i3d_raw.h5")))
    assert (report.far_apart, report.only_i3d, report.only_resnet) == ({}, [], [])


def test_alignment_cuts_or_fills_up():
    features = rows(3)
    assert np.array_equal(align(features, 2), features[:2])
    assert np.array_equal(align(features, 3), features)
    filled = align(features, 5)
    assert np.array_equal(filled[:3], features)
    assert filled.shape == (5, 3)
    assert not filled[3:].any()


def test_shows_are_merged_and_what_one_side_lacks_is_told(tmp_path, monkeypatch, capsys):
    i3d = {"model": "i3d", "frame_rate": 15}
    bbt = write(tmp_path / "bbt.h5", {"b1": rows(4), "b2": rows(5)}, **i3d, layer="pool")
    house = write(tmp_path / "house.h5", {"h1": rows(30), "h2": rows(5)}, **i3d)
    resnet = write(
        tmp_path / "resnet.h5", {name: rows(4, 9) for name in ("b1", "h1", "b2", "x")}, clip_length=1.5, model="resnet"
    )
    argv = ["--src_h5_files", bbt, house, "--resnet_h5_file", resnet, "--tgt_h5_file", tmp_path / "i3d.h5"]
    code, out, err = run(monkeypatch, capsys, merge_align_i3d, *argv)
    assert code == 0, err
    assert "3 videos" in out
    assert "without ResNet features: h2" in err
    assert "without I3D features: x" in err
    assert "h1 (30 and 4)" in err
    assert "b2 (" not in err
    merged = read(tmp_path / "i3d.h5")
    assert {name: array.shape for name, array in merged.items()} == dict.fromkeys(["b1", "b2", "h1"], (4, 3))
    record = FeatureFile(tmp_path / "i3d.h5").made_by()
    assert {name: record.get(name) for name in ("model", "frame_rate", "layer", "clip_length")} == {
        "model": "i3d",
        "frame_rate": 15,
        "layer": None,  # not known of all
        "clip_length": 1.5,
    }


def test_files_that_do_not_go_together_are_refused(tmp_path):
    a = write(tmp_path / "a.h5", {"a": rows(4)}, model="i3d", clip_length=1.5)
    b = write(tmp_path / "b.h5", {"b": rows(4)}, model="i3d", clip_length=2.0)
    other = write(tmp_path / "other.h5", {"b": rows(4)}, model="c3d")
    again = write(tmp_path / "again.h5", {"a": rows(4)})
    resnet = write(tmp_path / "resnet.h5", {"a": rows(4), "b": rows(4)}, clip_length=1.5)
    strange = write(tmp_path / "strange.h5", {"z": rows(4)})
    for sources, reference, message in (
        ([a, other], resnet, r"other.h5: its model is c3d, that of .*a.h5 is i3d"),
        ([a, again], resnet, r"again.h5: a is in .*a.h5 too"),
        ([b], resnet, r"b.h5: has clips of 2.0 s, .*resnet.h5 of 1.5 s"),
        ([a], strange, r"strange.h5: has none of the videos, such as a"),
    ):
        with pytest.raises(InputError, match=message):
            merge_align(sources, reference, tmp_path / "out.h5")
        assert not (tmp_path / "out.h5").exists()


# ---------------------------------------------------------------- normalise and concatenate


def test_joined_features_agree_with_the_reference(golden, tmp_path):
    halves = golden("clip_features_max.h5"), golden("i3d_aligned.h5")
    assert normalize_and_concat.normalize_and_concat(*halves, tmp_path / "cat.h5") == 4
    assert_same(read(tmp_path / "cat.h5"), read(golden("concat_normalized.h5")), **ROUNDING)


def test_halves_are_of_length_one_each_and_zeros_stay():
    resnet, i3d = rows(3, 4) * 100, rows(3, 2)
    i3d[1] = 0
    found = concat(resnet, i3d)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found[:, :4], axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found[:, 4:], axis=1), [1, 0, 1], atol=1e-4)


def test_from_frames_to_joined_features_by_command(golden, tmp_path, monkeypatch, capsys):
    frames, raw = golden("frame_features.h5"), golden("i3d_raw.h5")
    clips, aligned, cat = (tmp_path / f"{name}.h5" for name in ("clips", "aligned", "cat"))
    with h5py.File(frames, "r+") as file:
        file.attrs.update({"model": "resnet152", "frame_rate": 3.0})
    with h5py.File(raw, "r+") as file:
        file.attrs.update({"model": "i3d", "pooling": "avg", "frame_rate": 15.0})
    for script, argv in (
        (convert_feature_frm_to_clip, ["--src_h5_file", frames, "--tgt_h5_file", clips, "--pool_type", "max"]),
        (merge_align_i3d, ["--src_h5_files", raw, "--resnet_h5_file", clips, "--tgt_h5_file", aligned]),
        (normalize_and_concat, ["--resnet_h5_file", clips, "--i3d_h5_file", aligned, "--tgt_h5_file", cat]),
    ):
        code, out, err = run(monkeypatch, capsys, script, *argv)
        assert code == 0, err
        assert "4 videos" in out
    assert_same(read(cat), read(golden("concat_normalized.h5")), **ROUNDING)
    record = FeatureFile(cat).made_by()
    names = ("model", "frame_rate", "clip_length", "pooling", "normalised", "kind")
    assert [record[name] for name in names] == ["resnet152+i3d", "3+15", 1.5, "max+avg", "L2 per half", "video"]


def test_halves_that_do_not_fit_are_refused(tmp_path):
    resnet = write(tmp_path / "resnet.h5", {"a": rows(4), "b": rows(5)}, clip_length=1.5)
    for name, arrays, attributes, message in (
        ("few.h5", {"a": rows(4)}, {}, r"few.h5: lacks videos of .*resnet.h5: b: run merge"),
        ("more.h5", {"a": rows(4), "b": rows(5), "c": rows(1)}, {}, r"resnet.h5: lacks videos of .*more.h5: c"),
        ("long.h5", {"a": rows(4), "b": rows(6)}, {}, r"long.h5, key b: has 6 clips, .*resnet.h5 has 5"),
        ("other.h5", {"a": rows(4), "b": rows(5)}, {"clip_length": 2.0}, r"other.h5: has clips of 2.0 s, .* of 1.5 s"),
    ):
        i3d = write(tmp_path / name, arrays, **attributes)
        with pytest.raises(InputError, match=message):
            normalize_and_concat.normalize_and_concat(resnet, i3d, tmp_path / "cat.h5")
        assert not (tmp_path / "cat.h5").exists()


@pytest.mark.parametrize("script", [convert_feature_frm_to_clip, merge_align_i3d, normalize_and_concat])
def test_a_missing_file_ends_with_code_2(tmp_path, monkeypatch, capsys, script):
    gone = tmp_path / "gone.h5"
    options = {
        convert_feature_frm_to_clip: ["--src_h5_file", gone],
        merge_align_i3d: ["--src_h5_files", gone, "--resnet_h5_file", gone],
        normalize_and_concat: ["--resnet_h5_file", gone, "--i3d_h5_file", gone],
    }[script]
    code, _, err = run(monkeypatch, capsys, script, *options, "--tgt_h5_file", tmp_path / "out.h5")
    assert code == 2
    assert "gone.h5: feature file not found" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", [convert_feature_frm_to_clip, merge_align_i3d, normalize_and_concat])
def test_a_file_that_is_read_is_not_written_over(tmp_path, monkeypatch, capsys, script):
    one, other = (write(tmp_path / name, {"a": rows(4)}) for name in ("one.h5", "other.h5"))
    options = {
        convert_feature_frm_to_clip: ["--src_h5_files", one],
        merge_align_i3d: ["--src_h5_files", one, "--resnet_h5_file", other],
        normalize_and_concat: ["--resnet_h5_file", other, "--i3d_h5_file", one],
    }[script]
    before = one.read_bytes()
    (tmp_path / "link.h5").symlink_to(one)
    for target in (one, tmp_path / "link.h5"):
        code, _, err = run(monkeypatch, capsys, script, *options, "--tgt_h5_file", target)
        assert code == 2
        assert "is read too, and would be lost" in err
    assert one.read_bytes() == before
