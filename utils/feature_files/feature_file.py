"""The h5 files that hold features: one dataset per key, and attributes that say what made them.

`FeatureFile` is the only reader of h5 in the project and `FeatureWriter` the only writer. Files may come from anywhere:
the reader stays inside them (an h5 file can name others) and believes no shape that what is stored could not fill.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from utils.basic_utils import Closing, InputError, StrPath, first_line, whole_file
from utils.feature_files import bfloat16
from utils.feature_files.feature_array import (
    MAX_WIDTH,
    as_features,
    rows_and_width,
    rows_of,
    tell_left_out,
    why_not_features,
)
from utils.feature_files.h5_output import H5Output, h5_output

FORMAT_VERSION = 1
COMPANIONS = ("-mask", "-lengths")  # what keys end with that say more of the features of another key
FREE_BYTES = 1 << 26  # an array up to this size may be compressed as strongly as it likes, silence for example
MAX_EXPANSION = 100  # bytes of a larger one per byte that it takes in the file
# what h5py raises on damaged files
_DAMAGED = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError)


class FeatureError(InputError):
    """One key of a feature file is not as it should be; `reason` says why without naming file and key."""

    def __init__(self, path: Path, key: str, reason: str) -> None:
        super().__init__(f"{path}, key {key}: {reason}")
        self.reason = reason


def expands_too_much(n_bytes: int, stored: int) -> bool:
    """Whether `stored` bytes of a file can hardly hold an array of `n_bytes`: its shape is made up or a trap."""
    return n_bytes > FREE_BYTES + MAX_EXPANSION * stored


def file_identity(path: Path) -> dict[str, int]:
    """What changes when a file is written to or another is put in its place, whatever its time is set to; `OSError`."""
    status = path.stat()
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,  # which nobody can set
        "inode": status.st_ino,
    }


class FeatureWriter:
    """Fills one h5 feature file; see `new_feature_file`."""

    def __init__(self, output: H5Output) -> None:
        self._output = output

    def put(self, key: str, array: np.ndarray, stored_as: str | None = None) -> None:
        """Store `array` under `key` (a vid_name, a desc_id, or either with a suffix such as `-mask`).

        `stored_as`: name of another type than the array's, `bfloat16` for one, that holds its values.
        """
        with self._output.writing():
            if stored_as == bfloat16.NAME:
                bfloat16.write(self._output.h5, key, array)
            else:
                self._output.h5.create_dataset(key, data=array, dtype=stored_as)


@contextmanager
def new_feature_file(path: StrPath, **made_by: str | int | float | bool) -> Iterator[FeatureWriter]:
    """Write a feature file whole or not at all: `path` is replaced when the block ends without an error.

    What made the features (tool, model, clip_length, seed …) is kept as attributes of the file.
    """
    with whole_file(path) as part, h5_output(part) as output:
        with output.writing():
            output.h5.attrs["format_version"] = FORMAT_VERSION
            output.h5.attrs.update(made_by)
        yield FeatureWriter(output)


class FeatureFile(Closing):
    """Checked reading of one h5 feature file.

    The file is opened on first use in each process, so that objects can be handed to data loader workers. It is closed
    by `close` and not when it happens to be forgotten: as long as it is open, nobody can write to it. In files with a
    group for each key instead of a dataset, `inner` is the dataset in each group, such as `c3d_features`.

    Any method raises `InputError` when the file is missing, truncated or not h5, or a key or array is not as it should.
    """

    def __init__(self, path: StrPath, inner: str | None = None) -> None:
        self.path = Path(path)
        self._inner = inner
        self._h5: h5py.File | None = None
        self._pid = -1
        self._closed = False
        self.stamp: dict[str, int] = {}  # of the file as it was opened, see `file_identity`
        self._open()

    def close(self) -> None:
        """Close the file, in this process; only its path is known after that."""
        if self._h5 is not None:
            self._h5.close()
        self._h5, self._closed = None, True

    def _open(self) -> h5py.File:
        assert not self._closed, f"{self.path} is read after it was closed"
        if self._h5 is not None and self._pid == os.getpid():
            return self._h5
        if not os.path.isfile(self.path):
            raise InputError(
                f"{self.path}: feature file not found: see data/README.md for where features lie, "
                "or run `bash data/check.sh` for all that is missing"
            )
        try:
            self.stamp = file_identity(self.path)  # before: what is read is at least as new
            self._h5 = h5py.File(self.path, "r")
        except _DAMAGED as err:
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
            keys = self._open().keys()
            return [key if isinstance(key, str) else key.decode("utf-8", "surrogateescape") for key in keys]
        except _DAMAGED as err:
            raise InputError(f"{self.path}: its keys cannot be read ({first_line(err)}): the file is damaged") from err

    def feature_keys(self) -> list[str]:
        """Keys, one at least, of features, also of such as `read` refuses; not of what says more of them (`-mask`)."""
        keys = [key for key in self.keys() if self._is_meant_as_features(key)]
        if not keys:
            raise InputError(f"{self.path}: holds no feature array (rows, size): is this the right file?")
        return keys

    def _is_meant_as_features(self, key: str) -> bool:
        """Whether an array is one of features, if perhaps of a wrong shape: a row alone is no other number."""
        with self._naming(key):
            dataset = self._dataset(key)
            n_axes = len(dataset.shape or ())
            return n_axes >= 2 or (n_axes == 1 and dataset.dtype.kind == "f" and not key.endswith(COMPANIONS))

    def inner_names(self) -> list[str]:
        """What lies in the group of the first key, of which one may be given as `inner`; empty where it is no group."""
        key = next(iter(self.keys()), None)
        if key is None:
            return []
        with self._naming(key):
            found = self._own_object(self._open(), key, key)
            return sorted(found) if isinstance(found, h5py.Group) else []

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that the file does not have, in their order, each once."""
        there = set(self.keys())
        return [key for key in dict.fromkeys(keys) if key not in there]

    def made_by(self) -> dict[str, Any]:
        """The file's attributes: `format_version` and what made it; empty for files that say nothing."""
        try:
            return dict(self._open().attrs)
        except _DAMAGED as err:
            what = f"its attributes cannot be read ({first_line(err)})"
            raise InputError(f"{self.path}: {what}: the file is damaged") from err

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of an array without reading it."""
        with self._naming(key):
            return tuple(self._dataset(key).shape or ())

    def width(self) -> int:
        """Feature size D, read from the shape of the first feature array of the file."""
        for key in self.keys():
            if counted := rows_and_width(self.shape(key)):
                if counted[1] > MAX_WIDTH:
                    raise FeatureError(self.path, key, f"features are {counted[1]} wide: expected at most {MAX_WIDTH}")
                return counted[1]
        raise InputError(f"{self.path}: holds no feature array (rows, size): is this the right file?")

    def read(self, key: str, width: int | None = None, rows: range | None = None) -> np.ndarray:
        """(rows, D) float32, finite: the feature array of a vid_name or desc_id, rows >= 1, or some rows of it.

        Axes of length 1 besides are taken out, see `feature_array`.

        Args:
            width: expected feature size D, or None for any.
            rows: consecutive ones, the only ones to be read; as many of them as there are.
        """
        dataset = self._features(key, width)
        which = () if rows is None else rows_of(dataset.shape, slice(rows.start, rows.stop))
        features = as_features(self._load(dataset, key, which))
        if features is None:
            raise FeatureError(self.path, key, "holds NaN or Inf: extract it again")
        return features

    def numbers(self, key: str) -> np.ndarray:
        """An array of any shape and kind of number that says more about features, such as the lengths of lines."""
        return self._load(self._numbers(key), key)

    def check_numbers(self, key: str) -> None:
        """Check an array as `numbers` does, but without reading its values."""
        self._numbers(key)

    def form(self, key: str, width: int | None = None) -> tuple[int, int, str]:
        """(rows, D, type that it is stored in) of a feature array, checked as `read` does but without its values."""
        dataset = self._features(key, width)
        counted = rows_and_width(dataset.shape)
        assert counted is not None
        with self._naming(key):
            return (*counted, bfloat16.NAME if bfloat16.is_bfloat16(dataset) else dataset.dtype.name)

    def _numbers(self, key: str) -> h5py.Dataset:
        with self._naming(key):
            dataset = self._dataset(key)
            if dataset.dtype.kind not in "biuf":
                raise FeatureError(self.path, key, f"expected numbers, found {dataset.dtype}: is this the right file?")
            self._check_size(dataset, key)
            return dataset

    def _features(self, key: str, width: int | None) -> h5py.Dataset:
        with self._naming(key):
            dataset = self._dataset(key)
            shape: tuple[int, ...] = dataset.shape or ()
            if wrong := why_not_features(shape, dataset.dtype, width):
                raise FeatureError(self.path, key, wrong)
            self._check_size(dataset, key)
            tell_left_out(self.path, key, shape)
            return dataset

    def _check_size(self, dataset: h5py.Dataset, key: str) -> None:
        """Refuse, before any memory is asked for, an array or a chunk that what is stored could not fill."""
        n_bytes = max(dataset.size, math.prod(dataset.chunks or ())) * dataset.dtype.itemsize
        if expands_too_much(n_bytes, 0):
            stored = min(dataset.id.get_storage_size(), os.path.getsize(self.path))
            if expands_too_much(n_bytes, stored):
                claims = f"claims {n_bytes / 2**20:,.0f} MiB, but {stored / 2**20:,.1f} MiB are stored"
                raise FeatureError(self.path, key, f"{claims}: extract it again")
        if dataset.chunks:
            properties = dataset.id.get_create_plist()
            filters = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
            if len(set(filters)) < len(filters):
                raise FeatureError(self.path, key, "is compressed more than once: write it again, without that")

    def _load(self, dataset: h5py.Dataset, key: str, which: tuple[slice, ...] = ()) -> np.ndarray:
        with self._naming(key):
            return bfloat16.read(dataset, which) if bfloat16.is_bfloat16(dataset) else np.asarray(dataset[which])

    def _dataset(self, key: str) -> h5py.Dataset:
        """A dataset that lies in this file itself; nothing else is opened, which may be any file or device."""
        found = self._own_object(self._open(), key, key)
        if self._inner is not None:
            if not isinstance(found, h5py.Group):
                raise FeatureError(self.path, key, f"is a {type(found).__name__}, not a group with {self._inner}")
            found = self._own_object(found, self._inner, key)
        if isinstance(found, h5py.Group):
            raise FeatureError(self.path, key, "is a Group, not a feature array: name the dataset inside to read")
        if not isinstance(found, h5py.Dataset):
            raise FeatureError(self.path, key, f"is a {type(found).__name__}, not a feature array")
        if found.is_virtual or found.external:  # asked before its shape, which may be that of another file
            raise FeatureError(self.path, key, "has its values in other files: copy them into this one")
        return found

    def _own_object(self, group: h5py.Group, name: str, key: str) -> Any:
        """What `name` means in a group, if that lies in this file."""
        links, encoded = group.id.links, name.encode("utf-8", "surrogateescape")
        if "/" in name or not links.exists(encoded):
            what = key if name == key else f"{key}, no {name} in its group"
            raise InputError(f"{self.path}: has no features for {what}: was it extracted with another split?")
        if links.get_info(encoded).type != h5py.h5l.TYPE_HARD:  # a soft one may lead through an external one
            raise FeatureError(self.path, key, "is a link, which is not followed: copy the array into this file")
        return group[encoded]

    @contextmanager
    def _naming(self, key: str) -> Iterator[None]:
        """Make what h5py raises on damaged files an error that names file and key."""
        try:
            yield
        except _DAMAGED as err:
            raise FeatureError(self.path, key, f"cannot be read ({first_line(err)}): the file is damaged") from err
