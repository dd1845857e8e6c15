"""The h5 files that hold features: one dataset per key, and attributes that say what made them.

`FeatureFile` is the only reader of h5 in the project and `FeatureWriter` the only writer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from utils.basic_utils import InputError, first_line, whole_file

FORMAT_VERSION = 1


class FeatureError(InputError):
    """One key of a feature file is not as it should be; `reason` says why without naming file and key."""

    def __init__(self, path: Path, key: str, reason: str) -> None:
        super().__init__(f"{path}, key {key}: {reason}")
        self.reason = reason


class FeatureWriter:
    """Fills one h5 feature file; see `new_feature_file`."""

    def __init__(self, h5_file: h5py.File) -> None:
        self._h5 = h5_file

    def put(self, key: str, array: np.ndarray) -> None:
        """Store `array` under `key` (a vid_name, a desc_id, or either with a suffix such as `-mask`)."""
        self._h5.create_dataset(key, data=array)


@contextmanager
def new_feature_file(path: str | os.PathLike[str], **made_by: str | int | float | bool) -> Iterator[FeatureWriter]:
    """Write a feature file whole or not at all.

    Args:
        path: target `.h5` file; it is replaced when the block ends without an error.
        made_by: what made the features (tool, model, clip_length, seed …), kept as attributes of the file.
    """
    with whole_file(path) as part, h5py.File(part, "w", libver="latest") as h5_file:
        h5_file.attrs["format_version"] = FORMAT_VERSION
        h5_file.attrs.update(made_by)
        yield FeatureWriter(h5_file)


class FeatureFile:
    """Checked reading of one h5 feature file.

    The file is opened on first use in each process, so that objects can be handed to data loader workers.

    Args:
        path: the `.h5` file.

    Raises:
        InputError: (any method) the file is missing, truncated or not h5, or a key or array is not as it should be.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._h5: h5py.File | None = None
        self._pid = -1
        self._open()

    def _open(self) -> h5py.File:
        if self._h5 is not None and self._pid == os.getpid():
            return self._h5
        if not self.path.is_file():
            raise InputError(
                f"{self.path}: feature file not found: see data/README.md for where features lie, "
                "or run `bash data/check.sh` for all that is missing"
            )
        try:
            self._h5 = h5py.File(self.path, "r")
        except OSError as err:
            raise InputError(
                f"{self.path}: cannot be opened as h5 ({first_line(err)}): "
                "the file is truncated or not h5, download or generate it again"
            ) from err
        self._pid = os.getpid()
        return self._h5

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_h5": None, "_pid": -1}  # an h5 handle does not survive pickling

    def keys(self) -> list[str]:
        """All keys, those with suffixes too."""
        try:
            return list(self._open().keys())
        except (OSError, RuntimeError) as err:
            raise InputError(f"{self.path}: its keys cannot be read ({err}): the file is damaged") from err

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that the file does not have, in their order, each once."""
        there = set(self.keys())
        return [key for key in dict.fromkeys(keys) if key not in there]

    def made_by(self) -> dict[str, Any]:
        """The file's attributes: `format_version` and what made it; empty for files that say nothing."""
        try:
            return dict(self._open().attrs)
        except (OSError, RuntimeError) as err:
            raise InputError(f"{self.path}: its attributes cannot be read ({err}): the file is damaged") from err

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of an array without reading it."""
        return tuple(self._dataset(key).shape)

    def width(self) -> int:
        """Feature size D, read from the first two-dimensional array of the file."""
        for key in self._open():
            shape = self.shape(key)
            if len(shape) == 2:
                return shape[1]
        raise InputError(f"{self.path}: holds no feature array (rows, size): is this the right file?")

    def read(self, key: str, width: int | None = None) -> np.ndarray:
        """Read a feature array.

        Args:
            key: vid_name or desc_id.
            width: expected feature size D, or None for any.

        Returns:
            (rows, D) float32, rows >= 1, finite.
        """
        array = self._load(self._features(key, width), key).astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise FeatureError(self.path, key, "holds NaN or Inf: extract it again")
        return array

    def form(self, key: str, width: int | None = None) -> tuple[int, int, str]:
        """(rows, D, dtype's name) of a feature array, checked as `read` does but without reading its values."""
        dataset = self._features(key, width)
        return dataset.shape[0], dataset.shape[1], dataset.dtype.name

    def _features(self, key: str, width: int | None) -> h5py.Dataset:
        dataset = self._dataset(key)
        if dataset.ndim != 2 or dataset.shape[0] == 0 or dataset.dtype.kind != "f":
            raise FeatureError(
                self.path,
                key,
                "expected floats of shape (rows, size) with rows >= 1, "
                f"found {dataset.dtype} {dataset.shape}: extract it again",
            )
        if width is not None and dataset.shape[1] != width:
            raise FeatureError(
                self.path,
                key,
                f"features are {dataset.shape[1]} wide, expected {width}: "
                "give the size that the file has, or another file",
            )
        return dataset

    def _load(self, dataset: h5py.Dataset, key: str) -> np.ndarray:
        try:
            return np.asarray(dataset[()])
        except OSError as err:
            raise FeatureError(self.path, key, f"cannot be read ({err}): the file is damaged") from err

    def _dataset(self, key: str) -> h5py.Dataset:
        try:
            found = self._open().get(key)
        except (KeyError, OSError, RuntimeError) as err:
            raise FeatureError(self.path, key, f"cannot be read ({err}): the file is damaged") from err
        if found is None:
            raise InputError(f"{self.path}: has no features for {key}: was it extracted with another split?")
        if not isinstance(found, h5py.Dataset):
            raise FeatureError(self.path, key, f"is a {type(found).__name__}, not a feature array")
        return found
