"""An encoded corpus on disk: a folder of parts, each whole or not there.

    corpus.json               what all parts were made with
    part-00000/index.json     its videos; sizes and digests of the two files beside it
    part-00000/rows.npy       (R, M, D) float32 or float16, encodings of the videos' clips, in order of length;
                              of a video that was cut, those of its windows one after another
    part-00000/norms.npy      (M, R) float32, lengths of these rows
    part-00000/features.json  stamps of the feature files in which its videos were last seen as they were encoded

Parts never change, but for what was last seen. `corpus_writer` makes them, this module reads them. What is read is
checked: the descriptions and the sizes of all parts when a corpus is opened, a part's rows and their lengths when they
are first needed.
"""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from method_tvr.dataset.annotations import Video
from method_tvr.dataset.clip_times import AVERAGE, CUT, WINDOWS
from method_tvr.model import ModelConfig
from method_tvr.search.corpus import row_norms
from method_tvr.search.windows import Windows
from utils.basic_utils import InputError, first_few, recorded
from utils.storage.array_file import ArrayFile, open_array
from utils.storage.whole_folder import read_sealed, seal, write_sealed

FORMAT_VERSION = 1  # to be raised when the layout changes, or what rows mean
DESCRIPTION, INDEX, ROWS, NORMS = "corpus.json", "index.json", "rows.npy", "norms.npy"
SEEN = "features.json"
PART_PREFIX = "part-"
DTYPES = ("float32", "float16")
MAX_OPEN = 256  # parts that are open at a time: each takes two file handles
CHECKED_BYTES = 1 << 20  # of rows whose lengths are compared with the norms at a time
NORM_TOLERANCE = 1e-3  # relative; machines round differently
Stamps = Mapping[str, Mapping[str, int]]  # {modality: `file_identity` of its file}
MADE_BY = ("model", "modalities", "hidden_size", "vectors_for")
LATER: dict[str, Any] = {
    "window_overlap": 0,
    "vectors_for": ModelConfig.vectors_for,
    "cut": False,
}  # of corpora without them
# the options that rows depend on
OPTIONS = ("ctx_mode", "clip_length", "max_ctx_l", "trim_padding", "no_norm_vfeat", "no_norm_tfeat")


@dataclass(frozen=True)
class CorpusRecipe:
    """What the rows of a corpus depend on: the model, options that go by their names, and how rows are kept.

    With a `window_overlap`, videos of more than `max_ctx_l` clips were cut into windows; with 0, averaged down.
    """

    model: str  # digest
    modalities: tuple[str, ...]
    hidden_size: int
    dtype: str
    ctx_mode: str
    clip_length: float | str
    max_ctx_l: int
    trim_padding: bool
    no_norm_vfeat: bool
    no_norm_tfeat: bool
    window_overlap: int = 0
    vectors_for: tuple[str, ...] = ModelConfig.vectors_for  # roles of a row's vectors, of each M
    cut: bool = False  # longer videos were cut off

    @classmethod
    def of(
        cls, model: str, config: ModelConfig, options: Mapping[str, Any], windows: Windows | None, dtype: str
    ) -> CorpusRecipe:
        """What encoding by the model of a digest would give; of `options`, those named in `OPTIONS` are looked at."""
        chosen, cut = {name: options[name] for name in OPTIONS}, options["long_videos"] == CUT
        overlap = windows.overlap if windows else 0
        made_by = model, config.modalities, config.hidden_size
        return cls(*made_by, dtype, **chosen, window_overlap=overlap, vectors_for=config.vectors_for, cut=cut)

    @property
    def n_vectors(self) -> int:
        """Vectors of a row."""
        return len(self.vectors_for) * len(self.modalities)

    @property
    def long_videos(self) -> str:
        """The option by which long videos were treated."""
        return WINDOWS if self.window_overlap else CUT if self.cut else AVERAGE

    @property
    def windows(self) -> Windows | None:
        """How long videos were cut into windows, if they were."""
        return Windows(self.max_ctx_l, self.window_overlap) if self.window_overlap else None

    def rows_fit(self, n_clips: int, n_rows: int) -> bool:
        """Whether a video of so many clips can have so many rows."""
        if n_clips > self.max_ctx_l and self.windows:
            return n_rows == self.windows.count(n_clips) * self.max_ctx_l
        return 1 <= n_clips <= n_rows <= self.max_ctx_l

    def content(self) -> dict[str, Any]:
        """What is written of it: without what was not written before there were windows, and vectors of two roles."""
        return recorded(self, LATER)

    def same_model(self, wanted: CorpusRecipe) -> bool:
        """Whether the model is the one that is `wanted`."""
        return [getattr(self, name) for name in MADE_BY] == [getattr(wanted, name) for name in MADE_BY]

    def check_same(self, wanted: CorpusRecipe, folder: Path) -> None:
        """Raise an InputError that names what differs, where the corpus was made in another way than is `wanted`."""
        if not self.same_model(wanted):
            raise InputError(
                f"{folder}: was encoded by another model (digest {self.model[:12]}…, this one's is "
                f"{wanted.model[:12]}…): give the model that encoded it, or encode again into another folder"
            )
        ours, theirs = self.window_overlap, wanted.window_overlap
        there, here = self.long_videos, wanted.long_videos
        if there != here:
            raise InputError(
                f"{folder}: was encoded with --long_videos {there}, but this run has {here}: give the same, or encode "
                "again into another folder"
            )
        if ours < theirs:
            raise InputError(
                f"{folder}: its windows share {ours} clips, but spans of this run's --max_pred_l need {theirs}: give a "
                "smaller --max_pred_l, or encode again into another folder"
            )
        for name in (*OPTIONS, "dtype"):
            there, here = getattr(self, name), getattr(wanted, name)
            if there != here:
                raise InputError(
                    f"{folder}: was encoded with {name} {there}, but this run has {here}: give the same options, or "
                    "encode again into another folder"
                )


@dataclass(frozen=True)
class Part:
    """The n videos of one part, in the order of their rows."""

    folder: Path
    names: Sequence[str]
    durations: Sequence[float]  # seconds
    n_clips: np.ndarray  # (n,) int64
    n_rows: np.ndarray  # (n,) int64; of a video that was cut, those of all its windows
    files: dict[str, dict[str, Any]]  # {file name: {"bytes": size, "sha256": digest}}
    features: dict[str, list[str]] | None  # {modality: each video's `rows_digest`}; None: an earlier version wrote it

    def seen_in(self, stamps: Stamps) -> bool:
        """Whether its videos' features were compared with files of these stamps, and were those that were encoded."""
        try:
            return bool(read_sealed(self.folder / SEEN, "")["files"] == stamps)
        except (InputError, KeyError):  # they are compared again
            return False

    def written_ns(self) -> int:
        """When it was written, at the latest."""
        return (self.folder / INDEX).stat().st_mtime_ns


def write_seen(folder: Path, stamps: Stamps) -> None:
    """Keep for `Part.seen_in` that the features of a part's videos are in these files as they were encoded."""
    write_sealed(folder / SEEN, {"files": stamps})


class OpenPart(NamedTuple):
    """Rows (R, V, D) and norms (V, R) of a part, which are read from its files."""

    rows: ArrayFile
    norms: ArrayFile

    def norms_into(self, out: np.ndarray, first: int) -> None:
        """Fill `out` (V, n) with the norms of `n` rows, from the `first` on."""
        for number, of_vector in enumerate(out):
            self.norms.read_into(of_vector, number, first)

    def read_stretches(self, rows: np.ndarray, norms: np.ndarray, stretches: Sequence[slice]) -> None:
        """Fill (n, V, D) and (V, n) with stretches of the rows, one after another, and their norms."""
        self.rows.read_stretches(rows, stretches)
        for number, of_vector in enumerate(norms):
            self.norms.read_stretches(of_vector, stretches, number)


class CorpusStore:
    """The parts of an encoded corpus in a folder, in the order in which they were made, and what it was made with.

    Any method raises an InputError if it is none, of another format, damaged or truncated.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.recipe = read_recipe(self.folder)
        self.parts = [_read_part(path, self.recipe) for path in part_folders(self.folder)]
        self.where: dict[str, tuple[int, int]] = {}  # of each video, number of its part and its number in it
        for number, part in enumerate(self.parts):
            for place, name in enumerate(part.names):
                other, _ = self.where.setdefault(name, (number, place))
                if other != number:
                    raise InputError(
                        f"{part.folder}: video {name} is in {self.parts[other].folder.name} already: remove one of the "
                        "two parts, and encode again what only it had"
                    )
                if self.where[name] != (number, place):
                    raise InputError(f"{part.folder}: has video {name} twice: {_remedy(part.folder)}")
        self._open: OrderedDict[int, OpenPart] = OrderedDict()  # the longest unused first
        self._whole: set[int] = set()  # parts whose files have been compared with their digests

    def __len__(self) -> int:
        return len(self.where)

    def require(self, videos: Sequence[Video]) -> None:
        """Check that all of these videos are there, as they are."""
        absent = [video.vid_name for video in videos if video.vid_name not in self.where]
        if absent:
            raise InputError(
                f"{self.folder}: lacks {len(absent)} videos that are to be searched: {first_few(absent)}: add them "
                "with encode.sh"
            )
        self.check_durations(videos)

    def check_durations(self, videos: Iterable[Video]) -> None:
        """Refuse a corpus in which some of these names mean videos of other durations."""
        for video in videos:
            part, place = self.where.get(video.vid_name, (None, 0))
            if part is not None and (duration := self.parts[part].durations[place]) != video.duration:
                raise InputError(
                    f"{self.folder}: has a video {video.vid_name} of {duration} s, but the one asked for takes "
                    f"{video.duration} s: it is another corpus, or the video has changed since: encode again into "
                    "another folder"
                )

    def clip_counts(self, vid_names: Sequence[str]) -> list[int]:
        """How many clips each of these videos has, before any are averaged or cut; all have to be there."""
        where = [self.where[name] for name in vid_names]
        return [int(self.parts[part].n_clips[place]) for part, place in where]

    def opened(self, number: int) -> OpenPart:
        """The files of a part, which are compared with their digests the first time; by any thread."""
        found = self._open.pop(number, None)
        if found is None:
            found = self._opened(number)
        self._open[number] = found  # as the last
        while len(self._open) > MAX_OPEN:
            with suppress(KeyError):  # another thread was sooner
                self._open.popitem(last=False)
        return found

    def _opened(self, number: int) -> OpenPart:
        part, recipe = self.parts[number], self.recipe
        n_rows, n_vectors = int(part.n_rows.sum()), recipe.n_vectors
        try:
            rows = _open_array(part.folder, ROWS, (n_rows, n_vectors, recipe.hidden_size), recipe.dtype)
            opened = OpenPart(rows, _open_array(part.folder, NORMS, (n_vectors, n_rows), "float32"))
            if number not in self._whole:
                for file in opened:
                    if file.digest() != part.files[file.path.name]["sha256"]:
                        raise InputError(f"{file.path}: is damaged: {_remedy(part.folder)}")
        except OSError as err:
            raise InputError(f"{part.folder}: cannot be read ({err.strerror or err}): check the disk") from err
        if number not in self._whole:
            _check_norms(part.folder, opened)
            self._whole.add(number)
        return opened


def write_recipe(folder: Path, recipe: CorpusRecipe) -> None:
    """Begin a corpus."""
    write_sealed(folder / DESCRIPTION, {"format_version": FORMAT_VERSION, **recipe.content()})


def read_recipe(folder: Path) -> CorpusRecipe:
    """What a corpus was made with; an InputError says why where there is none, or one damaged or of another format."""
    path = folder / DESCRIPTION
    content = read_sealed(path, "give a folder that encode.sh wrote, or encode again into another folder")
    version = content.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: has format version {reprlib.repr(version)}, this code reads {FORMAT_VERSION}: encode again into "
            "another folder"
        )
    kinds = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float), "float | str": (int, float, str)}
    accepted = {field.name: kinds.get(str(field.type), (list,)) for field in fields(CorpusRecipe)}
    content = {**LATER, "vectors_for": list(LATER["vectors_for"]), **content}
    if content.keys() != accepted.keys() or not all(type(content[name]) in accepted[name] for name in accepted):
        raise InputError(f"{path}: does not describe an encoded corpus: encode again into another folder")
    names = {name: tuple(content[name]) for name in ("modalities", "vectors_for")}
    recipe = CorpusRecipe(**{**content, **names})
    named = all(of_these and all(type(name) is str for name in of_these) for of_these in names.values())
    cut = recipe.window_overlap == 0 or 0 < recipe.window_overlap < recipe.max_ctx_l
    if recipe.dtype not in DTYPES or recipe.hidden_size < 1 or not named or not cut:
        raise InputError(f"{path}: describes an impossible corpus: encode again into another folder")
    return recipe


def recipe_seal(recipe: CorpusRecipe) -> str:
    """By what a part says which corpus it is of."""
    return seal(recipe.content())


def _read_part(folder: Path, recipe: CorpusRecipe) -> Part:
    content = read_sealed(folder / INDEX, _remedy(folder))
    if content.get("corpus") != recipe_seal(recipe):
        raise InputError(f"{folder}: is a part of another corpus: {_remedy(folder)}")
    if not _describes_part(content, recipe):
        raise InputError(f"{folder / INDEX}: does not describe a part: {_remedy(folder)}")
    for name in (ROWS, NORMS):
        path, expected = folder / name, content["files"][name]["bytes"]
        size = path.stat().st_size if path.is_file() else None
        if size != expected:
            found = "is missing" if size is None else f"has {size} bytes instead of {expected}"
            raise InputError(f"{path}: {found}: {_remedy(folder)}")
    row_bytes = recipe.n_vectors * recipe.hidden_size * np.dtype(recipe.dtype).itemsize
    if sum(content["n_rows"]) * row_bytes > content["files"][ROWS]["bytes"]:  # before numbers become int64
        raise InputError(f"{folder / ROWS}: has fewer rows than {INDEX} says: {_remedy(folder)}")
    n_clips, n_rows = (np.array(content[name], dtype=np.int64) for name in ("n_clips", "n_rows"))
    names, durations, files = content["names"], content["durations"], content["files"]
    return Part(folder, names, durations, n_clips, n_rows, files, content.get("features"))


def part_folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if re.fullmatch(PART_PREFIX + "[0-9]+", path.name))
    except OSError as err:
        raise InputError(f"{folder}: cannot be read ({err.strerror}): check the path") from err


def _describes_part(content: dict[str, Any], recipe: CorpusRecipe) -> bool:
    columns: list[Any] = [content.get(name) for name in ("names", "durations", "n_clips", "n_rows")]
    if not all(isinstance(column, list) and column for column in columns) or len({len(c) for c in columns}) != 1:
        return False
    files: Any = content.get("files")
    if not _has_digests(content.get("features"), recipe.modalities, len(columns[0])):
        return False
    return (
        all(
            type(name) is str
            and type(duration) in (int, float)
            and 0 < duration < math.inf
            and type(n_clips) is int
            and type(n_rows) is int
            and recipe.rows_fit(n_clips, n_rows)
            for name, duration, n_clips, n_rows in zip(*columns, strict=True)
        )
        and isinstance(files, dict)
        and files.keys() == {ROWS, NORMS}
        and all(isinstance(said, dict) and said.keys() == {"bytes", "sha256"} for said in files.values())
    )


def _has_digests(features: Any, modalities: Sequence[str], n: int) -> bool:
    """Whether these are digests of n videos' features, or, of an earlier version, none."""
    if features is None:
        return True
    return (
        isinstance(features, dict)
        and features.keys() == set(modalities)
        and all(isinstance(of, list) and len(of) == n and set(map(type, of)) == {str} for of in features.values())
    )


def _open_array(folder: Path, name: str, shape: tuple[int, ...], dtype: str) -> ArrayFile:
    array = open_array(folder / name, shape, dtype, _remedy(folder))
    if array is None:
        raise InputError(f"{folder / name}: is no array of shape {shape} in {dtype}: {_remedy(folder)}")
    return array


def _check_norms(folder: Path, part: OpenPart) -> None:
    """Refuse rows that are no finite numbers, and norms that are not theirs: their scores would be no numbers."""
    row_bytes = part.rows.dtype.itemsize * math.prod(part.rows.shape[1:])
    step = max(1, CHECKED_BYTES // row_bytes)
    for first in range(0, len(part.rows), step):
        rows = part.rows[first : first + step]
        norms = np.empty((len(part.norms), len(rows)), part.norms.dtype)
        part.norms_into(norms, first)
        found, actual = torch.from_numpy(norms), row_norms(torch.from_numpy(rows)).t()
        if not actual.isfinite().all() or not found.allclose(actual, rtol=NORM_TOLERANCE, atol=0):
            raise InputError(f"{folder / NORMS}: does not hold the lengths of the rows: {_remedy(folder)}")


def _remedy(part: Path) -> str:
    return f"remove the folder {part.name} and run encode.sh again, which encodes its videos anew"
