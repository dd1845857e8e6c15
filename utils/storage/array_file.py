"""Large arrays on disk whose rows are read when they are asked for.

They are not mapped into memory: a process that touches what is mapped of a file that was cut short meanwhile is killed
(SIGBUS). One that reads is told, and goes on.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from utils.basic_utils import InputError, StrPath
from utils.storage.whole_folder import file_digest, npy_header

NPY_START = 10  # bytes of an npy file before its text: magic number, version, length of the text


class ArrayFile:
    """An array in an open file; `open_array` makes one. It is closed when nothing refers to it.

    What was opened is read on where its name is given to another file, or removed.

    Args:
        path, remedy: what an `InputError` names, and what it advises.
        handle: of the file, whose array begins at byte `origin`; closed by this object.
    """

    def __init__(self, path: Path, remedy: str, handle: int, origin: int, shape: Sequence[int], dtype: str) -> None:
        self.path, self.shape, self.dtype = path, tuple(shape), np.dtype(dtype)
        self._remedy, self._handle, self._origin = remedy, handle, origin
        sizes = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        self._strides = [size * self.dtype.itemsize for size in sizes]
        weakref.finalize(self, os.close, handle)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows [start, stop), a copy; errors as of `read_into`."""
        first, stop, _ = rows.indices(len(self))
        found = np.empty((max(0, stop - first), *self.shape[1:]), self.dtype)
        self.read_into(found, first)
        return found

    def read_into(self, out: np.ndarray, *place: int) -> None:
        """Fill `out`, which is contiguous and of this type, with what follows a place, given as its first indices.

        An `InputError` if the file has become shorter, or cannot be read.
        """
        data, at = out.reshape(-1).view(np.uint8).data, self._byte(place)
        while data:
            try:
                n = os.preadv(self._handle, [data], at)
            except OSError as err:
                raise InputError(f"{self.path}: cannot be read ({err.strerror or err}): check the disk") from err
            if not n:
                raise InputError(f"{self.path}: has been cut short since it was opened: {self._remedy}")
            data, at = data[n:], at + n

    def read_stretches(self, out: np.ndarray, stretches: Iterable[slice], *place: int) -> None:
        """Fill `out` with stretches of the axis after a place, one after another; errors as of `read_into`.

        There may be many of a few bytes each, for which `read_into` takes three times as long.
        """
        data, origin, row, at = out.reshape(-1).view(np.uint8).data, self._byte(place), self._strides[len(place)], 0
        for stretch in stretches:
            n = (stretch.stop - stretch.start) * row
            try:
                done = os.preadv(self._handle, [data[at : at + n]], origin + stretch.start * row)
            except OSError:  # which `read_into` will meet, too
                done = 0
            if done < n:
                self.read_into(out[at // row : (at + n) // row], *place, stretch.start)
            at += n

    def expect(self, first: int, n: int) -> None:
        """Have the system read `n` rows, from the `first` on, ahead of their use, where it can."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._handle, self._byte((first,)), n * self._strides[0], os.POSIX_FADV_WILLNEED)

    def digest(self) -> str:
        """SHA-256 of the whole file; an `OSError` if it cannot be read."""
        return file_digest(self._handle)

    def _byte(self, place: Sequence[int]) -> int:
        return self._origin + sum(int(i) * stride for i, stride in zip(place, self._strides, strict=False))


def open_array(path: Path, shape: Sequence[int], dtype: str, remedy: str) -> ArrayFile | None:
    """The array in an npy file; None when it is not exactly the file that such an array makes.

    numpy would interpret the text in the file; ours is always the same but for the blanks that fill it up. An `OSError`
    if the file cannot be opened, or is a pipe or device, which are not waited for.
    """
    handle = open_regular(path)
    try:
        origin = _origin(handle, shape, dtype)
        if origin is not None:
            array = ArrayFile(path, remedy, handle, origin, shape, dtype)
            handle = -1  # is the array's now
            return array
        return None
    finally:
        if handle >= 0:
            os.close(handle)


def open_regular(path: StrPath) -> int:
    """The handle of a file, to be read; an `OSError` if it is none, or a pipe or device, which are not waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return handle


def _origin(handle: int, shape: Sequence[int], dtype: str) -> int | None:
    """Where the array begins in an npy file, if it is that of this array."""
    start = os.pread(handle, NPY_START, 0)
    n_text = int.from_bytes(start[-2:], "little")
    text, wanted = os.pread(handle, n_text, NPY_START), npy_header(shape, dtype)
    origin = NPY_START + n_text
    same = start[:-2] == wanted[: NPY_START - 2] and text.strip() == wanted[NPY_START:].strip()
    whole = os.fstat(handle).st_size == origin + math.prod(shape) * np.dtype(dtype).itemsize
    return origin if same and whole else None
