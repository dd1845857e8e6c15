"""MS-SL's BigFile: a folder with `feature.bin`, rows of float32, their names in `id.txt`, and `shape.txt`, "n d"."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.basic_utils import InputError, first_few, first_line, read_bytes
from utils.feature_files.feature_array import MAX_WIDTH
from utils.feature_forms.source import DAMAGED, ArraySource, Stored, refuse_claims
from utils.storage.array_file import ArrayFile, open_regular

FILE, IDS, SHAPE, VIDEOS = "feature.bin", "id.txt", "shape.txt", "video2frames.txt"
REMEDY = "copy the folder again"
_NUMBERED = re.compile(r"(.+)_(\d+)")
_WORD = re.compile(r"[^ \t\r\n]+")  # spaces of other kinds may be in a name


class BigFileFolder(ArraySource):
    """Checked reading of a BigFile, whose rows are put together to videos; errors name the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        ids, n_rows, width = _WORD.findall(_text(path / IDS)), *_shape(path / SHAPE)
        if len(ids) != n_rows:
            raise InputError(f"{path / IDS}: has {len(ids):,} names, {SHAPE} says {n_rows:,} rows: {REMEDY}")
        if len(row_of := {name: row for row, name in enumerate(ids)}) < n_rows:
            twice = [name for name, count in Counter(ids).items() if count > 1]
            raise InputError(f"{path / IDS}: has {first_few(twice)} more than once: {REMEDY}")
        if (path / VIDEOS).exists():
            self._rows = _rows_of_frames(path / VIDEOS, row_of)
        else:
            self._rows = _rows_of_numbers(row_of)
        self._file: ArrayFile | None = _open(path / FILE, n_rows, width)

    def close(self) -> None:
        """Let go of the file, which closes it."""
        super().close()
        self._file = None

    def feature_keys(self) -> list[str]:
        """Videos in the order of `video2frames.txt`, or of their first rows."""
        return list(self._rows)

    def find(self, key: str) -> Stored:
        """The rows of a key."""
        file, rows = self._file, self._rows[key]
        assert file is not None, f"{self.path} is read after it was closed"
        n_rows, width = file.shape
        refuse_claims(4 * len(rows) * width, 4 * n_rows * width)  # a video may name a row again and again
        return Stored((len(rows), width), file.dtype, lambda: _read(file, rows))


def _read(file: ArrayFile, rows: Sequence[int]) -> np.ndarray:
    found = np.empty((len(rows), file.shape[1]), file.dtype)
    ends = [i for i in range(1, len(rows)) if rows[i] != rows[i - 1] + 1]
    for first, end in zip([0, *ends], [*ends, len(rows)], strict=True):  # of rows that follow each other there
        file.read_into(found[first:end], rows[first])
    return found


def _text(path: Path) -> str:
    data = read_bytes(path, REMEDY)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # what w2vv's reader takes all of them for


def _shape(path: Path) -> tuple[int, int]:
    """(rows, size) of the numbers in `shape.txt`."""
    words = _text(path)[:200].split()
    if len(words) != 2 or not all(word.isascii() and word.isdigit() for word in words):
        raise InputError(f"{path}: expected the number of rows and their size, such as '8000 512': {REMEDY}")
    n_rows, width = map(int, words)
    if not 0 < width <= MAX_WIDTH or not n_rows:
        raise InputError(f"{path}: says {n_rows} rows of {width}: expected 1 to {MAX_WIDTH} numbers a row")
    return n_rows, width


def _open(path: Path, n_rows: int, width: int) -> ArrayFile:
    """The rows, which are not read before they are asked for."""
    try:
        handle, there = open_regular(path), path.stat().st_size
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror}): {REMEDY}") from err
    file = ArrayFile(path, REMEDY, handle, 0, (n_rows, width), "<f4")
    if there != (expected := 4 * n_rows * width):
        raise InputError(f"{path}: has {there:,} bytes, {SHAPE} says {n_rows:,} × {width}, {expected:,}: {REMEDY}")
    return file


def _rows_of_frames(path: Path, row_of: Mapping[str, int]) -> dict[str, list[int]]:
    """The rows of each video by `video2frames.txt`, `{video: [names]}` as Python writes it."""
    try:
        frames_of = ast.literal_eval(_text(path).strip())
        if not isinstance(frames_of, dict) or not frames_of:
            raise ValueError(f"a {type(frames_of).__name__}")
        found = {name: [row_of.get(frame, -1) for frame in frames] for name, frames in frames_of.items()}
    except DAMAGED as err:
        what = "expected {video: [names of its rows]}"
        raise InputError(f"{path}: cannot be read ({first_line(err)[:200]}): {what}: {REMEDY}") from err
    if wrong := [name for name, rows in found.items() if not isinstance(name, str) or not rows or -1 in rows]:
        raise InputError(f"{path}: videos without rows, or with some that {IDS} does not name: {first_few(wrong)}")
    return found


def _rows_of_numbers(row_of: Mapping[str, int]) -> dict[str, list[int]]:
    """The rows `NAME_0`, `NAME_1`, … of each name, by their numbers; any other name, `VIDEO#enc#0` too, has one row."""
    numbered: dict[str, list[tuple[int, int]]] = {}
    for name, row in row_of.items():
        match = None if "#" in name else _NUMBERED.fullmatch(name)
        key, number = (match[1], int(match[2][:18])) if match else (name, 0)
        numbered.setdefault(key, []).append((number, row))
    return {key: [row for _, row in sorted(rows)] for key, rows in numbered.items()}
