"""An extraction of six items, and what it leaves."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from utils.feature_files.resumable_features import Extraction

RECIPE = {"model": "m", "frame_rate": 3.0}
NAMES = [f"video_{number}" for number in range(6)]


def features_of(name: str) -> np.ndarray:
    return np.full((3, 4), NAMES.index(name), np.float32)


def extract(out: Path, names: list[str] = NAMES, recipe: dict = RECIPE, broken: tuple[str, ...] = ()) -> list[str]:
    """Extract; returns the names for which there was work."""
    worked = []
    with Extraction(out, recipe) as features:
        for name in names:
            if features.done(name, "source"):
                continue
            worked.append(name)
            if name in broken:
                features.failed(name, "is damaged")
            else:
                features.put(name, {name: features_of(name)}, "source", {"duration": 1.5})
    return worked


def content(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Attributes and arrays of a file."""
    with h5py.File(path) as file:
        return dict(file.attrs), {key: array[()] for key, array in file.items()}


def assert_equal_files(one: Path, other: Path) -> None:
    (attributes, arrays), (other_attributes, other_arrays) = content(one), content(other)
    assert attributes == other_attributes
    assert list(arrays) == list(other_arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, other_arrays[key])


def folder_of(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def interrupted(out: Path, recipe: dict = RECIPE) -> None:
    """Leave the first four items."""

    def run() -> None:
        with Extraction(out, recipe) as features:
            for name in NAMES[:4]:
                features.put(name, {name: features_of(name)}, "source", {"duration": 1.5})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
