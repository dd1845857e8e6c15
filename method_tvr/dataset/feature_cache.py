"""Packed features kept on disk: what one feature file holds, prepared once, in one array that processes share.

A cache lies beside its h5 file (or under a folder that the user names), in a folder whose name says what decides its
content: the source's size and time, how rows were prepared, and their number type. A folder is made under another
name and renamed when whole, and never changes afterwards, but for its time: the source was last seen to be as packed
then. One that was touched since has to have the digest that it was packed with, whatever its size and time.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from method_tvr.dataset.feature_rows import FeatureRows
from method_tvr.dataset.feature_store import Preparation
from standalone_eval.files.parts import part_folder
from utils.basic_utils import InputError, progress, read_bytes
from utils.feature_files.feature_file import FeatureError, FeatureFile, expands_too_much, file_identity
from utils.model_utils import available_cpus, available_memory
from utils.storage.array_file import open_array
from utils.storage.whole_folder import file_digest, lock, lock_file, npy_header, put_in_place, remove_left_over

CACHE_FORMAT = 1  # to be raised when the layout or the preparation of rows changes
BLOCK_BYTES = 1 << 25  # of rows that a building thread holds at a time
MAX_THREADS = 4
LARGE_BYTES = 1 << 30  # of a cache, from which on it is said what it takes
MEMORY_SHARE = 0.5  # of what is free, the most that rows without a cache may take
PART_PREFIX = ".part-"
REMEDY = "run again, and its features are packed anew"

Sink = Callable[[int, np.ndarray], None]  # takes rows and the number of the first


class NoRoomError(InputError):
    """Packed features find room neither on disk nor in memory."""


def packed_rows(
    file: FeatureFile, width: int, preparation: Preparation, dtype: str, cache_dir: str | os.PathLike[str] | None = None
) -> FeatureRows:
    """All usable features of a file, from its cache, which is built when there is none that fits.

    Keys whose array is not as it should be (NaN, another width …) are left out: reading them from the file says why.
    When no cache can be written, the rows are packed into this process's memory, said aloud, if there is room for them.

    Args:
        width: feature size D.
        preparation: of each key's rows.
        dtype: `float32` or `float16`.
        cache_dir: folder for caches, by default `{file}.cache` beside the file.

    Raises:
        InputError: the file cannot be read, has no usable key, or its values do not fit the dtype.
        NoRoomError: no cache can be written, and the rows would take too much of the memory that is free.
    """
    prepared = {"width": width, "preparation": asdict(preparation), "dtype": dtype}
    recipe = {"format": CACHE_FORMAT, "source": _source(file.stamp), **prepared}
    folder = cache_root(file.path, cache_dir) / hashlib.sha256(orjson.dumps(recipe)).hexdigest()[:16]
    found = _load(folder, recipe, file)
    if found is not None:
        return found
    try:
        return _build_folder(file, recipe, preparation, folder)
    except OSError as err:
        kept = f"{folder}: no feature cache can be kept there ({err.strerror or err})"
    layout, place = _Layout.of(file, width, preparation), "give --feature_cache_dir a folder with room"
    takes, free = layout.n_bytes(dtype), available_memory()
    if takes > free * MEMORY_SHARE:
        sizes = f"{takes / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
        kept += f", and packed {file.path.name} would fill the memory ({sizes})"
        raise NoRoomError(f"{kept}: {place}, or --feature_cache disk")
    print(
        f"note: {kept}: packing {file.path.name} into this process's memory instead; {place}, or --feature_cache disk",
        file=sys.stderr,
    )
    rows = np.empty((layout.n_rows, width), dtype)

    def keep(start: int, block: np.ndarray) -> None:
        rows[start : start + len(block)] = block

    return layout.packed(rows, _fill(file, layout, preparation, dtype, keep))


def cache_root(path: Path, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Folder of all caches of a feature file."""
    if cache_dir is None:
        return path.with_name(f"{path.name}.cache")
    place = hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:8]  # two corpora may use one file name
    return Path(cache_dir) / f"{path.name}-{place}.cache"


def _source(stamp: dict[str, int]) -> dict[str, int]:
    """What of a `file_identity` tells caches of one file apart."""
    return {name: stamp[name] for name in ("size", "mtime_ns")}


@lru_cache(maxsize=8)
def _digest_of(path: Path, **stamp: int) -> str:
    """The digest of a file, computed once as long as its stamp is the same."""
    return file_digest(path)


def _is_as_packed(folder: Path, content: dict[str, Any], file: FeatureFile) -> bool:
    """Whether a file of the same size and time is the one that a cache was packed from."""
    index = folder / "index.json"
    with suppress(OSError):  # of a cache that is gone meanwhile
        if file.stamp["ctime_ns"] <= index.stat().st_mtime_ns:
            return True
    if content.get("sha256") != _digest_of(file.path, **file.stamp):  # earlier versions kept none
        return False
    with suppress(OSError):  # others' caches are compared again the next time
        os.utime(index)
    return True


def _load(folder: Path, recipe: dict[str, Any], file: FeatureFile) -> FeatureRows | None:
    """The cache of a file in a folder; None when there is none, it is damaged or was never ours, or of another file."""
    content = _read_index(folder)
    if content is None or content["recipe"] != recipe or not _is_as_packed(folder, content, file):
        return None
    keys, n_rows = content.get("keys"), content.get("n_rows")
    table = _table([content.get(name) for name in ("starts", "lengths", "counts")])
    if not isinstance(keys, list) or set(map(type, keys)) - {str} or len(set(keys)) != len(keys):
        return None
    if type(n_rows) is not int or table is None or table.shape[1] != len(keys):
        return None
    starts, lengths, counts = table
    in_range = (starts >= 0) & (lengths > 0) & (lengths <= recipe["preparation"]["max_rows"]) & (lengths <= counts)
    try:
        rows = open_array(folder / "rows.npy", (n_rows, recipe["width"]), recipe["dtype"], REMEDY)
    except OSError:
        return None
    if rows is None or not (in_range & (starts <= n_rows - lengths)).all():
        return None
    return FeatureRows(rows, {key: entry for entry, key in enumerate(keys)}, starts, lengths, counts)


def _table(columns: list[Any]) -> np.ndarray | None:
    """Columns of an index as (3, K) int64; None when they are not lists of that many integers."""
    if any(not isinstance(column, list) or set(map(type, column)) - {int} for column in columns):
        return None
    try:
        return np.array(columns, dtype=np.int64).reshape(len(columns), len(columns[0]))
    except (OverflowError, ValueError):  # past int64, or lists of different lengths
        return None


def _read_index(folder: Path) -> dict[str, Any] | None:
    """What a cache says about itself, a recipe at least; None when it says nothing or its checksum is another."""
    try:
        checksum, _, text = read_bytes(folder / "index.json").partition(b"\n")
        content = orjson.loads(text) if hashlib.sha256(text).hexdigest().encode() == checksum else None
    except (InputError, orjson.JSONDecodeError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("recipe"), dict) else None


@dataclass(frozen=True)
class _Layout:
    """Where each key's rows go, from the shapes alone."""

    keys: list[str]
    counts: np.ndarray
    lengths: np.ndarray
    width: int

    @classmethod
    def of(cls, file: FeatureFile, width: int, preparation: Preparation) -> _Layout:
        n_rows = {}
        for key in progress(file.keys(), f"listing {file.path.name}"):
            with suppress(FeatureError):
                n_rows[key], _, _ = file.form(key, width)
        if not n_rows:
            raise InputError(f"{file.path}: holds no feature array (rows, {width}): is this the right file?")
        counts = np.array(list(n_rows.values()), dtype=np.int64)
        layout = cls(list(n_rows), counts, np.minimum(counts, preparation.max_rows), width)
        if expands_too_much(layout.n_bytes("float32"), file.path.stat().st_size):
            raise InputError(f"{file.path}: its arrays claim far more than the file can hold: generate it again")
        return layout

    @property
    def starts(self) -> np.ndarray:
        return np.cumsum(self.lengths) - self.lengths

    @property
    def n_rows(self) -> int:
        return int(self.lengths.sum())

    def n_bytes(self, dtype: str) -> int:
        """Of all rows in a number type."""
        return self.n_rows * self.width * np.dtype(dtype).itemsize

    def blocks(self) -> list[range]:
        """Runs of keys whose rows together fill about a block."""
        number = self.starts * self.width * 4 // BLOCK_BYTES
        edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(self.keys)]
        return [range(*edge) for edge in itertools.pairwise(edges)]

    def packed(self, rows: np.ndarray, usable: np.ndarray) -> FeatureRows:
        """The rows with the keys that turned out usable; those of others are never read."""
        keys = [self.keys[number] for number in usable]
        entries = {key: entry for entry, key in enumerate(keys)}
        return FeatureRows(rows, entries, self.starts[usable], self.lengths[usable], self.counts[usable])


def _fill(file: FeatureFile, layout: _Layout, preparation: Preparation, dtype: str, sink: Sink) -> np.ndarray:
    """Prepare all rows, block by block in threads, into `sink`; returns the numbers of the usable keys, ascending."""
    starts = layout.starts

    def prepare(numbers: range) -> list[int]:
        first, last = numbers[0], numbers[-1]
        block = np.zeros((int(starts[last] + layout.lengths[last] - starts[first]), layout.width), dtype)
        usable = []
        for number in numbers:
            try:
                features = preparation(file.read(layout.keys[number], layout.width))
            except FeatureError:
                continue
            at = int(starts[number] - starts[first])
            with np.errstate(over="ignore"):
                block[at : at + len(features)] = features
            if dtype == "float16" and not np.isfinite(block[at : at + len(features)]).all():
                raise InputError(
                    f"{file.path}, key {layout.keys[number]}: has values that float16 cannot hold: "
                    "use --cache_dtype float32"
                )
            usable.append(number)
        sink(int(starts[first]), block)
        return usable

    blocks = layout.blocks()
    pool = ThreadPoolExecutor(min(available_cpus(), MAX_THREADS))
    try:
        done = progress(pool.map(prepare, blocks), f"packing {file.path.name}", total=len(blocks))
        return np.array([number for usable in done for number in usable], dtype=np.int64)
    finally:
        pool.shutdown(cancel_futures=True)


def _build_folder(file: FeatureFile, recipe: dict[str, Any], preparation: Preparation, folder: Path) -> FeatureRows:
    """Build the cache `folder`, or take it from a run that built it meanwhile; an OSError says why it cannot be."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock_file(folder.parent) as handle:
        # nothing depends on the lock but time: runs that build at once all make the same folder
        alone = lock(handle, folder.parent, f"waiting for another run that builds a feature cache in {folder.parent}")
        found = _load(folder, recipe, file)
        if found is not None:
            return found
        reason = _reason(folder, recipe, file)
        print(f"note: {file.path}: packing its features into {folder} ({reason})", file=sys.stderr)
        if alone:
            remove_left_over(folder.parent, PART_PREFIX)
        with part_folder(folder.parent, PART_PREFIX) as part:
            _write_folder(file, recipe, preparation, part)
            put_in_place(part, folder, gives_way=lambda: _load(folder, recipe, file) is None)
        _remove_outdated(folder.parent, recipe["source"])
    found = _load(folder, recipe, file)
    if found is None:
        raise OSError(f"{folder} cannot be read back")
    return found


def _reason(folder: Path, recipe: dict[str, Any], file: FeatureFile) -> str:
    if folder.exists():
        content = _read_index(folder)
        touched = content is not None and not _is_as_packed(folder, content, file)
        return "the file may have changed since it was last packed" if touched else "the one there is damaged"
    others = [content["recipe"].get("source") for content in map(_read_index, folder.parent.iterdir()) if content]
    if any(source != recipe["source"] for source in others):
        return "the file has changed since it was last packed"
    return "not packed this way before" if others else "once"


def _write_folder(file: FeatureFile, recipe: dict[str, Any], preparation: Preparation, part: Path) -> None:
    layout = _Layout.of(file, recipe["width"], preparation)
    shape, dtype = (layout.n_rows, layout.width), np.dtype(recipe["dtype"])
    needed, free = layout.n_bytes(recipe["dtype"]), shutil.disk_usage(part).free
    if needed > free:
        raise OSError(f"it needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")
    if needed >= LARGE_BYTES:
        half = "" if dtype == np.float16 else ", half of it with --cache_dtype float16"
        print(f"note: {file.path}: packed, its features take {needed / 2**30:.1f} GiB of disk{half}", file=sys.stderr)
        there = sum(path.stat().st_size for path in part.parent.glob("[!.]*/rows.npy"))
        if there:
            print(f"note: {part.parent}: {there / 2**30:.1f} GiB of other options or files lie there", file=sys.stderr)
    with open(part / "rows.npy", "wb") as out:
        out.write(npy_header(shape, recipe["dtype"]))
        out.flush()
        origin, row_bytes, handle = out.tell(), layout.width * dtype.itemsize, out.fileno()

        def write(start: int, block: np.ndarray) -> None:
            data, at = block.reshape(-1).view(np.uint8).data, origin + start * row_bytes
            while data:
                written = os.pwrite(handle, data, at)
                data, at = data[written:], at + written

        usable = _fill(file, layout, preparation, recipe["dtype"], write)
    digest = _digest_of(file.path, **file.stamp)
    if file_identity(file.path) != file.stamp:
        raise InputError(f"{file.path}: changed while it was read: run again when it is complete")
    content = {
        "recipe": recipe,
        "sha256": digest,
        "n_rows": layout.n_rows,
        "keys": [layout.keys[number] for number in usable],
        "starts": layout.starts[usable],
        "lengths": layout.lengths[usable],
        "counts": layout.counts[usable],
    }
    text = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    (part / "index.json").write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def _remove_outdated(root: Path, source: dict[str, int]) -> None:
    """Remove caches of what the file was before; those prepared in other ways stay."""
    for folder in root.iterdir():
        content = _read_index(folder)
        if content is not None and content["recipe"].get("source") != source:
            print(f"note: {folder}: removed, its source has changed", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
