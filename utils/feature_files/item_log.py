"""Named groups of arrays in a file that only grows: whatever stops the writer, the groups before stay readable.

The file holds the bytes of the arrays, one after another. An index beside it has a line for each group: the line's
CRC-32, and as JSON what the group is, and where the bytes of each array begin and their CRC-32. A group is written
before its line, so what was not written whole has none; what was damaged later is passed over.

Not a file for each item: of 20,000 small items, files written by `whole_file` took 150 times as long, as each waits for
the disk, and files that wait for nothing five times; 100,000 queries would be as many files, which few quotas allow.
"""

from __future__ import annotations

import math
import os
import time
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from utils.basic_utils import InputError, named_when_full

INDEX_SUFFIX = ".index"
_SYNC_EVERY_S = 2.0  # of the work since then, a power cut may take; a kill takes nothing that was appended


@dataclass(frozen=True)
class Item:
    """A group of arrays in the file."""

    source: str  # what the group was made from, as the writer described it
    about: dict[str, Any]  # plain values kept with it
    arrays: dict[str, tuple[str, tuple[int, ...], int, int]]  # dtype, shape, place of first byte, CRC-32 of each by key
    end: int  # place behind the last byte

    @property
    def keys(self) -> list[str]:
        return list(self.arrays)


class ItemLog:
    """Appends groups of arrays to a file and reads them back; one process at a time.

    The file is made when it is not there. What a kill or a power cut left of a last group is cut off.

    Raises:
        InputError: it or its index is no plain file, or cannot be read and written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.items: dict[str, Item] = {}  # the groups by name; of two with one name, the later
        self.damaged: list[str] = []  # what is not as it was written: names, and lines of the index that say none
        try:
            with ExitStack() as opened:
                self._arrays = _open(path, opened)
                self._index = _open(path.with_name(path.name + INDEX_SUFFIX), opened)
                self.was_cut = self._load()  # as never after a clean end
                self._opened = opened.pop_all()
        except OSError as err:
            raise InputError(
                f"{path}: cannot be read and written ({err.strerror}): "
                "check its permissions, and move it away if it is no plain file"
            ) from err
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Close the file; everything in it would survive a power cut."""
        with self._opened:
            self._sync()

    def append(self, name: str, arrays: Mapping[str, np.ndarray], source: str, about: Mapping[str, Any]) -> None:
        """Add a group of booleans, integers or floats, which replaces one of that name; see `Item`.

        `InputError` when there is no room; the groups before stay as they were.
        """
        forms = {}
        with named_when_full(self.path):
            for key, array in arrays.items():
                block = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
                forms[key] = (array.dtype.str, array.shape, _size(self._arrays), zlib.crc32(block))
                _append(self._arrays, block)
            item = Item(source, dict(about), forms, _size(self._arrays))
            said = orjson.dumps([name, vars(item)], option=orjson.OPT_SERIALIZE_NUMPY)
            _append(self._index, memoryview(b"%08x %s\n" % (zlib.crc32(said), said)))
        self.items[name] = item
        if time.monotonic() - self._synced_at > _SYNC_EVERY_S:
            self._sync()

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a group by key, or None when their bytes have changed since they were written."""
        arrays = {}
        for key, (dtype, shape, start, crc) in self.items[name].arrays.items():
            array = np.fromfile(self.path, dtype, math.prod(shape), offset=start)
            if zlib.crc32(array.data) != crc:
                return None
            arrays[key] = array.reshape(shape)
        return arrays

    def _load(self) -> bool:
        """Find the groups that are as they were written, and cut off what has no whole line: was there any?"""
        *lines, rest = os.pread(self._index, _size(self._index), 0).split(b"\n")
        for number, line in enumerate(lines, start=1):
            crc, _, said = line.partition(b" ")
            if crc == b"%08x" % zlib.crc32(said):
                name, fields = orjson.loads(said)
                self.items[name] = Item(**fields)
            else:
                self.damaged.append(f"line {number} of the index")
        end, size = max((item.end for item in self.items.values()), default=0), _size(self._arrays)
        for name in list(self.items):
            if self.read(name) is None:
                self.damaged.append(name)
                del self.items[name]
        os.ftruncate(self._index, _size(self._index) - len(rest))
        os.ftruncate(self._arrays, min(end, size))
        return bool(rest) or size > end

    def _sync(self) -> None:
        os.fsync(self._arrays)
        os.fsync(self._index)
        self._synced_at = time.monotonic()


def _open(path: Path, opened: ExitStack) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    opened.callback(os.close, handle)
    os.lseek(handle, 0, os.SEEK_SET)  # which pipes refuse
    return handle


def _size(handle: int) -> int:
    return os.fstat(handle).st_size


def _append(handle: int, block: memoryview) -> None:
    """Write to the end of a file, all of it or nothing."""
    size = _size(handle)
    try:
        while block:
            block = block[os.write(handle, block) :]
    except OSError:
        os.ftruncate(handle, size)
        raise
