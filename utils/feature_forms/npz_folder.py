"""A folder with one `.npz` archive for each video or sentence, of whose size nothing is believed unseen."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from utils.feature_forms.file_folder import FileFolder
from utils.feature_forms.named_arrays import features_among
from utils.feature_forms.source import Stored, refuse_claims

MEMBER = ".npy"
MOST_HEADER = 1 << 14  # bytes; numpy's own headers have 128
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpzFolder(FileFolder):
    """Checked reading of `DIR/KEY.npz`: its array `features`, or `last_hidden_state`, or see `named_arrays`."""

    suffixes = (".npz",)

    def find(self, key: str) -> Stored:
        """The features in an archive, by their header."""
        name = self.name_of(key)
        return find_in_npz(lambda: open(self.path / name, "rb"), self.path, name, self.dataset)


def find_in_npz(open_file: Callable[[], IO[bytes]], path: Path, key: str, dataset: str | None) -> Stored:
    """The features in an archive, which is opened when it is needed; raises whatever damaged ones cause."""
    with open_file() as file, zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(MEMBER) for name in archive.namelist() if name.endswith(MEMBER)]
        return features_among(names, lambda name: _find(open_file, archive, name + MEMBER), path, key, dataset)


def _find(open_file: Callable[[], IO[bytes]], archive: zipfile.ZipFile, member: str) -> Stored:
    info = archive.getinfo(member)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # which others unpack without bounds
        raise ValueError(f"{member} is compressed in another way than numpy's")
    with archive.open(info) as opened:
        shape, fortran, dtype = read_npy_header(opened)[:3]
    n_bytes = math.prod(shape) * dtype.itemsize
    assert archive.fp is not None
    refuse_claims(n_bytes, min(info.compress_size, archive.fp.seek(0, os.SEEK_END)))

    def load() -> np.ndarray:
        with open_file() as file, zipfile.ZipFile(file) as again, again.open(member) as opened:
            *_, begun = read_npy_header(opened)
            data = begun[:n_bytes] + opened.read(max(0, n_bytes - len(begun)))
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

    return Stored(shape, dtype, load)


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, bytes]:
    """(shape, whether it is in Fortran's order, type, first bytes of the values) of an npy file that is just opened.

    `ValueError` where it has none. No more than `MOST_HEADER` bytes are read, however long it says it is.
    """
    start = io.BytesIO(file.read(MOST_HEADER))
    version = np.lib.format.read_magic(start)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of npy files is not read")
    shape, fortran, dtype = _HEADERS[version](start)
    if any(length < 0 for length in shape):
        raise ValueError(f"has the shape {shape}")
    return shape, fortran, dtype, start.read()
