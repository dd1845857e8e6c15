"""Features go out as npz and Parquet, whole or not at all, and come back bit for bit."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.utils.feature_forms.converting import FEATURES, RNG, assert_holds, convert, npz_folder
from utils.annotations import convert_features
from utils.feature_files import bfloat16
from utils.feature_files.feature_file import FeatureFile, new_feature_file
from utils.feature_forms.output import parquet as parquet_output

HALF = {name: rows.astype(np.float16) for name, rows in FEATURES.items()}


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    with new_feature_file(tmp_path / "in.h5", model="clip", clip_length=2.0) as out:
        for name, rows in FEATURES.items():
            out.put(name, rows)
    return tmp_path / "in.h5"


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as stop:
        convert_features.main(list(args))
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "array"), [("video", "features"), ("sub", "features"), ("query", "last_hidden_state")]
)
def test_npz_and_back(h5, kind, array):
    out = convert(h5, "--to", "npz", "--kind", kind, name="npz")
    assert sorted(path.name for path in out.iterdir()) == [f"{name}.npz" for name in sorted(FEATURES)]
    for name, rows in FEATURES.items():
        with np.load(out / f"{name}.npz", allow_pickle=False) as archive:
            assert list(archive) == [array]
            np.testing.assert_array_equal(archive[array], rows)
    assert_holds(convert(out, name="back.h5"), FEATURES)
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_names_of_text_features_get_their_prefix(tmp_path):
    with new_feature_file(tmp_path / "in.h5") as out:
        out.put("2579", FEATURES["cc"])
    folder = convert(tmp_path / "in.h5", "--to", "npz", "--kind", "query", "--add_prefix", "qid", name="text")
    assert [path.name for path in folder.iterdir()] == ["qid2579.npz"]


@pytest.mark.parametrize(("stored_as", "there"), [("float16", np.float16), ("bfloat16", np.float32)])
def test_halves_go_out_as_what_numpy_has(tmp_path, stored_as, there):
    with new_feature_file(tmp_path / "in.h5") as out:
        for name, rows in HALF.items():
            if stored_as == "bfloat16":
                rows = bfloat16.from_bits(rows.view(np.uint16) & 0x3FFF)
            out.put(name, rows.astype(np.float32), stored_as)
    folder = convert(tmp_path / "in.h5", "--to", "npz", name="npz")
    with np.load(folder / "cc.npz") as archive:
        assert archive["features"].dtype == there
    with FeatureFile(tmp_path / "in.h5") as file:
        assert_holds(convert(folder, name="back.h5"), {name: file.read(name) for name in HALF})


def test_a_folder_that_is_there_stays(h5, tmp_path, capsys):
    mine = npz_folder(tmp_path / "mine")
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    assert "is there already: give the name of a new folder" in refused(
        capsys, "--src", str(h5), "--to", "npz", "--out", str(mine)
    )
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before
    (tmp_path / "empty").mkdir()
    convert_features.main(["--src", str(h5), "--to", "npz", "--out", str(tmp_path / "empty")])
    assert len(list((tmp_path / "empty").iterdir())) == 3


@pytest.mark.parametrize("form", ["npz", "parquet", "h5"])
def test_nothing_is_left_of_a_conversion_that_failed(h5, tmp_path, capsys, form):
    with h5py.File(h5, "a") as file:
        file["zz"] = np.full((2, 6), np.nan, np.float32)
    assert "key zz: holds NaN" in refused(capsys, "--src", str(h5), "--to", form, "--out", str(tmp_path / "o" / "x"))
    assert list((tmp_path / "o").iterdir()) == []


def test_a_full_disk_is_an_error_that_names_the_folder(h5, tmp_path, monkeypatch, capsys):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    message = refused(capsys, "--src", str(h5), "--to", "npz", "--out", str(tmp_path / "o" / "x"))
    assert "x: cannot be written (No space left on device)" in message
    assert list((tmp_path / "o").iterdir()) == []


def test_a_name_that_no_file_can_have_is_refused(tmp_path, capsys):
    with new_feature_file(tmp_path / "in.h5") as out:
        out.put("x" * 300, FEATURES["cc"])
    message = refused(capsys, "--src", str(tmp_path / "in.h5"), "--to", "npz", "--out", str(tmp_path / "o"))
    assert "is too long for the name of a file" in message
    assert not (tmp_path / "o").exists()


def test_parquet_holds_the_same(h5):
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(convert(h5, "--to", "parquet", name="out.parquet"))
    assert table.schema.names == ["name", "features"]
    assert str(table.schema.field("features").type.value_type.value_type) == "float"
    rows = {row["name"]: np.array(row["features"], np.float32) for row in table.to_pylist()}
    assert list(rows) == sorted(FEATURES)
    for name, features in FEATURES.items():
        np.testing.assert_array_equal(rows[name], features)
    assert table.schema.metadata[b"model"] == b"clip"


def test_parquet_has_row_groups_of_a_bounded_size(tmp_path, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(parquet_output, "GROUP_BYTES", 600)
    features = {f"v{n:02}": RNG.normal(size=(n % 4 + 1, 16)).astype(np.float32) for n in range(20)}
    features["v05"] = RNG.normal(size=(30, 16)).astype(np.float32)  # larger than a group
    src = npz_folder(tmp_path / "npz", features)
    file = pq.ParquetFile(convert(src, "--to", "parquet", name="out.parquet"))
    assert file.metadata.num_row_groups > 5
    found = {row["name"]: row["features"] for row in file.read().to_pylist()}
    for name, rows in features.items():
        np.testing.assert_array_equal(np.array(found[name], np.float32), rows)


def test_a_missing_package_is_named(h5, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = refused(capsys, "--src", str(h5), "--to", "parquet", "--out", str(tmp_path / "o.parquet"))
    assert "--to parquet: needs pyarrow" in message
    assert "pip install -r utils/feature_forms/requirements.txt" in message


def test_a_folder_in_the_place_of_a_file_is_refused(h5, tmp_path, capsys):
    for form in ("h5", "parquet"):
        message = refused(capsys, "--src", str(h5), "--to", form, "--out", str(tmp_path))
        assert f"is a folder: give the {form} file to write" in message
