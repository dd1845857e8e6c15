"""Running convert_features.py on small sources, and what it must have written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from utils.annotations import convert_features
from utils.basic_utils import BAD_INPUT_EXIT_CODE
from utils.feature_files.feature_file import FeatureFile

RNG = np.random.default_rng(3)
FEATURES = {name: RNG.normal(size=(rows, 6)).astype(np.float32) for name, rows in (("v_aa", 3), ("v_bb", 1), ("cc", 5))}


def npy_folder(folder: Path, features: dict[str, np.ndarray] = FEATURES) -> Path:
    """A new folder with a file for each."""
    folder.mkdir()
    for name, array in features.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def npz_folder(folder: Path, features: dict[str, np.ndarray] = FEATURES, array: str = "features") -> Path:
    """A new folder with an archive for each."""
    folder.mkdir()
    for name, rows in features.items():
        np.savez(folder / f"{name}.npz", **{array: rows})
    return folder


def convert(src: Path, *options: str, name: str = "video.h5") -> Path:
    """Run the command; what it wrote."""
    out = src.parent / "out" / name
    convert_features.main(["--src", str(src), "--out", str(out), *options])
    return out


def refused(capsys: pytest.CaptureFixture[str], src: Path, *options: str) -> str:
    """Run the command, which must fail without writing anything; its message."""
    with pytest.raises(SystemExit) as stop:
        convert(src, *options)
    assert stop.value.code == BAD_INPUT_EXIT_CODE
    out = src.parent / "out"
    assert not out.exists() or not list(out.iterdir())
    return capsys.readouterr().err


def assert_holds(path: Path, expected: dict[str, np.ndarray]) -> None:
    with FeatureFile(path) as file:
        assert sorted(file.keys()) == sorted(expected)
        for key, array in expected.items():
            np.testing.assert_array_equal(file.read(key), array)
