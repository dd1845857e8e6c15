"""Features of several sources side by side: rows of the same clips, cut to the shorter, or a refusal by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.utils.feature_forms.converting import FEATURES, RNG, assert_holds, npy_folder, npz_folder
from utils.annotations import convert_features
from utils.feature_files.feature_file import FeatureFile, new_feature_file
from utils.feature_files.provenance import properties

OTHER = {"v_aa": RNG.normal(size=(4, 3)), "v_bb": RNG.normal(size=(1, 3)), "cc": RNG.normal(size=(4, 3))}
OTHER = {name: rows.astype(np.float32) for name, rows in OTHER.items()}


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    return [npz_folder(tmp_path / "clip"), npy_folder(tmp_path / "slowfast", OTHER)]


def join(sources: list[Path], *options: str) -> Path:
    out = sources[0].parent / "joined.h5"
    convert_features.main(["--src", *map(str, sources), "--out", str(out), *options])
    return out


def side_by_side(key: str, change=lambda rows: rows) -> np.ndarray:
    rows = min(len(FEATURES[key]), len(OTHER[key]))
    return np.concatenate([change(FEATURES[key][:rows]), change(OTHER[key][:rows])], axis=1)


def unit(rows: np.ndarray) -> np.ndarray:
    """As Moment-DETR's l2_normalize_np_array."""
    return rows / (np.linalg.norm(rows, axis=-1, keepdims=True) + 1e-5)


def test_parts_of_two_forms_stand_side_by_side(sources):
    assert_holds(join(sources), {key: side_by_side(key) for key in FEATURES})


def test_parts_are_normalised_alone(sources):
    out = join(sources, "--normalise_parts")
    assert_holds(out, {key: side_by_side(key, unit) for key in FEATURES})
    with FeatureFile(out) as file:
        assert properties(file.made_by())["normalised"] == "L2 per half"
    out = join(sources[:1], "--normalise_parts")
    assert_holds(out, {key: unit(rows) for key, rows in FEATURES.items()})
    with FeatureFile(out) as file:
        assert properties(file.made_by())["normalised"] == "L2"


def test_rows_further_apart_are_refused_together(sources, capsys):
    for name, rows in (("v_aa", 5), ("cc", 1)):
        np.save(sources[1] / f"{name}.npy", np.ones((rows, 3), np.float32))
    with pytest.raises(SystemExit) as stop:
        join(sources)
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert "more than 1 apart: cc (5, 1), v_aa (3, 5): " in message
    assert str(sources[1]) in message
    assert not (sources[0].parent / "joined.h5").exists()


def test_what_only_some_have_is_left_out_and_named(sources, capsys):
    np.save(sources[1] / "v_dd.npy", OTHER["cc"])
    (sources[0] / "v_bb.npz").unlink()
    assert_holds(join(sources), {key: side_by_side(key) for key in ("v_aa", "cc")})
    assert "note: left out, because they are not in all sources: v_bb, v_dd\n" in capsys.readouterr().out


def test_what_only_some_have_is_lacking_where_it_is_asked_for(sources, tmp_path, capsys):
    np.save(sources[1] / "v_dd.npy", OTHER["cc"])
    (sources[0] / "v_bb.npz").unlink()
    videos = tmp_path / "videos.json"
    videos.write_text(json.dumps({"val": {"v_aa": [9, 0], "v_bb": [9, 1]}}))
    assert_holds(join(sources, "--videos", str(videos)), {"v_aa": side_by_side("v_aa")})
    said = capsys.readouterr().out
    assert "warning: 1 videos have no features: v_bb" in said
    assert "not in all sources: v_dd\n" in said


def test_sources_without_a_common_name_are_refused(sources, tmp_path, capsys):
    with pytest.raises(SystemExit):
        join([sources[0], npy_folder(tmp_path / "x", {"v_x": OTHER["cc"]})])
    assert "no name is in all of the sources" in capsys.readouterr().err


def test_a_part_of_another_size_is_refused_though_the_sum_is_right(sources, capsys):
    np.savez(sources[0] / "v_aa.npz", features=np.ones((3, 5), np.float32))
    np.save(sources[1] / "v_aa.npy", np.ones((3, 4), np.float32))
    with pytest.raises(SystemExit):
        join(sources)
    assert "v_aa.npz: features are 5 wide, expected 6" in capsys.readouterr().err


def test_all_unreadable_parts_are_named_together(sources, capsys):
    (sources[0] / "cc.npz").write_bytes(b"")
    (sources[1] / "v_aa.npy").write_bytes(b"")
    with pytest.raises(SystemExit):
        join(sources)
    message = capsys.readouterr().err
    assert "key cc.npz: cannot be read" in message
    assert "key v_aa.npy: cannot be read" in message


def test_records_are_joined_and_clips_of_two_lengths_refused(tmp_path, capsys):
    for name, clip_length in (("a", 2.0), ("b", 2.0), ("c", 1.5)):
        about = {"model": name, "clip_length": clip_length, "versions": "numpy 1.0"}
        with new_feature_file(tmp_path / f"{name}.h5", **about) as out:
            out.put("v", FEATURES["cc"])
    a, b, c = (tmp_path / f"{name}.h5" for name in "abc")
    with FeatureFile(join([a, b])) as file:
        assert properties(file.made_by()) == {"model": "a+b", "clip_length": 2.0}
        assert str(file.made_by()["versions"]).startswith("numpy 1.0, numpy ")
    with pytest.raises(SystemExit):
        join([a, c])
    assert "c.h5: has clips of 1.5 s" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        convert_features.main(["--src", str(a), str(b), "--out", str(b)])
    assert "is read too, and would be lost" in capsys.readouterr().err


def test_three_parts(sources, tmp_path):
    third = {key: np.full((4, 1), 0.5, np.float16) for key in FEATURES} | {"v_bb": np.ones((2, 1), np.float16)}
    out = join([*sources, npz_folder(tmp_path / "third", third)])
    with FeatureFile(out) as file:
        assert {key: file.form(key) for key in FEATURES} == {
            "v_aa": (3, 10, "float32"), "v_bb": (1, 10, "float32"), "cc": (4, 10, "float32"),
        }  # fmt: skip
