"""A file of named groups of arrays that only grows: whatever stops the writer, the groups before stay readable.

A record is a frame (magic, length and CRC-32 of the header), the header as JSON, and the bytes of the arrays, whose
CRC-32 the header holds. A record that was not written whole is noticed by that, and cut off when the file is opened;
one that was damaged later is passed over.

Not a file for each item: of 20,000 small items, files written by `whole_file` took 150 times as long, as each waits for
the disk, and files that wait for nothing five times; 100,000 queries would be as many files, which few quotas allow.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from utils.basic_utils import InputError, named_when_full

_FRAME = struct.Struct("<4sII")
_MAGIC = b"item"
_MOST_HEADER_BYTES = 1 << 24
_BLOCK_BYTES = 1 << 20
_SYNC_EVERY_S = 2.0  # of the work since then, a power cut may take; a kill takes nothing that was appended
_KINDS = "biuf"


@dataclass(frozen=True)
class Item:
    """A group of arrays in the file.

    Args:
        source: what the group was made from, as the writer described it.
        about: plain values kept with it.
        forms: dtype and shape of each array by its key, in the order of their bytes.
        start: place of the first byte.
        crc: CRC-32 of all bytes.
    """

    source: str
    about: dict[str, Any]
    forms: dict[str, tuple[str, tuple[int, ...]]]
    start: int
    crc: int

    @property
    def n_bytes(self) -> int:
        return sum(_n_bytes(dtype, shape) for dtype, shape in self.forms.values())


def _n_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    n_bytes = np.dtype(dtype).itemsize
    for side in shape:
        n_bytes *= side
    return n_bytes


class ItemLog:
    """Appends groups of arrays to a file and reads them back; one process at a time.

    Args:
        path: of the file, made when it is not there. What a kill or a power cut left of a last record is cut off.

    Attributes:
        items: the groups by name; of two with one name, the later.
        lost_bytes: how much was cut off, 0 after a clean end.
        damaged: what is not as it was written and not among `items`: names, and places ("bytes 0 to 99") without one.

    Raises:
        InputError: it is no plain file, or cannot be read and written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.items: dict[str, Item] = {}
        self.damaged: list[str] = []
        self._end = 0
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                self._end, self.lost_bytes = self._begin()
            except BaseException:
                os.close(self._handle)
                raise
        except OSError as err:
            raise InputError(
                f"{path}: cannot be read and written ({err.strerror}): "
                "check its permissions, and move it away if it is no plain file"
            ) from err
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Close the file; everything in it would survive a power cut."""
        try:
            os.fsync(self._handle)
        finally:
            os.close(self._handle)

    def append(self, name: str, arrays: Mapping[str, np.ndarray], source: str, about: Mapping[str, Any]) -> None:
        """Add a group, which replaces one of that name.

        Args:
            name: of the group.
            arrays: booleans, integers or floats, by key.
            source: what it was made from.
            about: strings and numbers to keep with it.

        Raises:
            InputError: there is no room; the file stays as it was.
            TypeError: an array is of another kind.
        """
        in_order = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        forms = {key: (array.dtype.str, array.shape) for key, array in in_order.items()}
        odd = [key for key, array in in_order.items() if array.dtype.kind not in _KINDS]
        if odd:
            raise TypeError(f"{name}: {odd[0]} is an array of {in_order[odd[0]].dtype}, not of numbers")
        blocks = [array.reshape(-1).view(np.uint8).data for array in in_order.values()]
        crc = 0
        for block in blocks:
            crc = zlib.crc32(block, crc)
        content = {"name": name, "source": source, "about": dict(about), "arrays": forms, "crc": crc}
        header = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
        frame = _FRAME.pack(_MAGIC, len(header), zlib.crc32(header)) + header
        start = self._end + len(frame)
        self._write([memoryview(frame), *blocks])
        self.items[name] = Item(source, dict(about), forms, start, crc)

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a group by key, or None when their bytes have changed since they were written."""
        item = self.items[name]
        data = np.empty(item.n_bytes, np.uint8)
        crc = 0
        for at, block in self._blocks(item):
            data[at : at + len(block)] = np.frombuffer(block, np.uint8)
            crc = zlib.crc32(block, crc)
        if crc != item.crc:
            return None
        arrays, at = {}, 0
        for key, (dtype, shape) in item.forms.items():
            n_bytes = _n_bytes(dtype, shape)
            arrays[key] = data[at : at + n_bytes].view(dtype).reshape(shape)
            at += n_bytes
        return arrays

    def _write(self, blocks: list[memoryview]) -> None:
        at = self._end
        with named_when_full(self.path):
            try:
                for block in blocks:
                    while block:
                        written = os.pwrite(self._handle, block, at)
                        if not written:
                            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                        block, at = block[written:], at + written
            except OSError:
                os.ftruncate(self._handle, self._end)
                raise
        self._end = at
        if time.monotonic() - self._synced_at > _SYNC_EVERY_S:
            os.fsync(self._handle)
            self._synced_at = time.monotonic()

    def _begin(self) -> tuple[int, int]:
        """Index the file and cut off what is behind the last whole record: (where that ends, bytes cut off)."""
        size = os.fstat(self._handle).st_size
        end = self._scan(size)
        if size > end:
            os.ftruncate(self._handle, end)
        return end, size - end

    def _scan(self, size: int) -> int:
        """Index the whole records of a file of `size` bytes; returns where the last one ends."""
        end = 0
        while (found := self._next_record(end, size)) is not None:
            at, name, item = found
            if at > end:
                self.damaged.append(f"bytes {end} to {at - 1}")
            self.items.pop(name, None)
            end = item.start + item.n_bytes
            if self._crc_of(item) == item.crc:
                self.items[name] = item
            else:
                self.damaged.append(name)
        return end

    def _next_record(self, at: int, size: int) -> tuple[int, str, Item] | None:
        """The first whole record that begins at a place or after it, with where it begins; None when there is none."""
        record = self._header_at(at, size)
        if record is not None:
            return at, *record
        while len(block := os.pread(self._handle, _BLOCK_BYTES, at)) >= len(_MAGIC):
            for match in re.finditer(_MAGIC, block):
                place = at + match.start()
                if (record := self._header_at(place, size)) is not None:
                    return place, *record
            at += len(block) - len(_MAGIC) + 1  # one may begin in this block and end in the next
        return None

    def _header_at(self, at: int, size: int) -> tuple[str, Item] | None:
        """The record that begins at a place, or None when no whole one does."""
        frame = os.pread(self._handle, _FRAME.size, at)
        if len(frame) < _FRAME.size:
            return None
        magic, length, crc = _FRAME.unpack(frame)
        if magic != _MAGIC or length > min(_MOST_HEADER_BYTES, size - at):
            return None
        header = os.pread(self._handle, length, at + _FRAME.size)
        if len(header) < length or zlib.crc32(header) != crc:
            return None
        content = orjson.loads(header)
        forms = {key: (dtype, tuple(shape)) for key, (dtype, shape) in content["arrays"].items()}
        start = at + _FRAME.size + length
        item = Item(content["source"], content["about"], forms, start, content["crc"])
        return (content["name"], item) if start + item.n_bytes <= size else None

    def _crc_of(self, item: Item) -> int:
        crc = 0
        for _, block in self._blocks(item):
            crc = zlib.crc32(block, crc)
        return crc

    def _blocks(self, item: Item) -> Iterator[tuple[int, bytes]]:
        """The bytes of a group in pieces, each with its place among them; fewer where the file ends before."""
        for at in range(0, item.n_bytes, _BLOCK_BYTES):
            yield at, os.pread(self._handle, min(_BLOCK_BYTES, item.n_bytes - at), item.start + at)
