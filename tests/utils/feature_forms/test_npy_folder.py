"""Folders of `.npy` files: any usable array is read, and whatever else is there is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.utils.feature_forms.converting import FEATURES, RNG, assert_holds, convert, npy_folder, refused


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    folder = npy_folder(tmp_path / "npy")
    (folder / "loop.npy").symlink_to("loop.npy")
    os.mkfifo(folder / "pipe.npy")
    (folder / "README.txt").write_text("I3D features")
    return folder


def test_what_is_no_file_is_passed_over_and_said_once(npy, capsys):
    assert_holds(convert(npy), FEATURES)
    assert capsys.readouterr().err.count("passed over") == 2  # loop.npy and pipe.npy


@pytest.mark.parametrize("axes", [(4, 1, 6), (4, 1, 1, 6)])
def test_pooled_axes_are_taken_out(npy, axes):
    array = RNG.normal(size=axes)
    np.save(npy / "dd.npy", array)
    assert_holds(convert(npy), {**FEATURES, "dd": array.reshape(4, 6).astype(np.float32)})


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((2, 6), np.nan, np.float32), "dd.npy: holds NaN or Inf"),
        (np.full((2, 6), 1e300), "dd.npy: holds NaN or Inf"),
        (np.ones((2, 7), np.float32), "dd.npy: features are 7 wide, expected 6"),
        (
            np.ones((2, 3, 6), np.float32),
            "dd.npy: expected floats of shape (rows, size)",
        ),
        (np.ones((0, 6), np.float32), "dd.npy: "),
        (np.ones(6, np.float32), "found float32 (6,)"),
        (np.ones((2, 6), np.int64), "found int64 (2, 6)"),
        (np.array({"features": 3}, dtype=object), "dd.npy: cannot be read"),
    ],
)
def test_a_bad_array_is_refused_by_name(npy, capsys, array, said):
    np.save(npy / "dd.npy", array, allow_pickle=True)
    assert said in refused(capsys, npy)


@pytest.mark.parametrize("kept", [0, 5, 60, 130])
def test_half_a_file_is_refused_by_name(npy, capsys, kept):
    content = (npy / "cc.npy").read_bytes()
    (npy / "cc.npy").write_bytes(content[:kept])
    assert "cc.npy: cannot be read" in refused(capsys, npy)


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        (b"}", b" "),
        (b"(5, 6)", b"(9, 6)"),
        (b"'descr'", b"'d\x17scr'"),
        (b"<f4", b"|O8"),
        (b"\x93NUMPY", b"PK\x03\x04PY"),
    ],
)
def test_a_damaged_header_is_refused_by_name(npy, capsys, said, instead):
    content = (npy / "cc.npy").read_bytes()
    assert said in content
    (npy / "cc.npy").write_bytes(content.replace(said, instead, 1))
    assert "cc.npy: cannot be read" in refused(capsys, npy)


def test_all_bad_files_are_named_at_once(npy, capsys):
    for number in range(15):
        (npy / f"x{number:02}.npy").write_bytes(b"no array")
    message = refused(capsys, npy)
    assert "x00.npy" in message
    assert "… 5 more" in message
