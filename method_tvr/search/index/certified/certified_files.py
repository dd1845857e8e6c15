"""The files of a certified index: a basis of each modality, and for each part of the encoded corpus its rows' codes.

A part is written whole, and again when the corpus' part is another. So videos that are added, replaced or removed in
the corpus are so in the index, which reads the corpus' new parts alone.
"""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from method_tvr.search.corpus_store import ROWS, CorpusStore, OpenPart, Part, part_folders, recipe_seal
from method_tvr.search.index.certified.bounds import Basis, Floats, Layout, Scales, coded
from method_tvr.search.index.certified.certified_index import CertifiedIndex, Level
from method_tvr.search.stored_corpus import StoredCorpus
from standalone_eval.files.parts import part_folder
from utils.basic_utils import NO_ROOM, InputError, progress
from utils.storage.array_file import ArrayFile, open_array
from utils.storage.whole_folder import file_digest, locked_folder, put_in_place, read_sealed, write_sealed

FORMAT_VERSION = 4
DESCRIPTION = "index.json"
BASES = "bases.npy"
SAMPLED_ROWS = 20_000  # by which a basis is found
ROWS_AT_A_TIME = 1 << 12
ROW_BYTES = (64, 128)  # of a clip and modality at each level, where queries lie in so few directions
LOST = 0.01  # of the queries' power, the most that may lie in others; else rows have all numbers, at both levels
MOST_ROW_BYTES = 512  # see `products`
LEAST_POWER = 1e-30
MAX_OPEN = 128  # parts that are open at a time, each with a file for each level
HELD_BYTES = 1 << 30  # up to which an index is held in memory
SEED = 2018
KEPT_OUT = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class CertifiedRecipe:
    """What an index depends on."""

    corpus: str  # seal of what the corpus was made with
    n_modalities: int
    size: int  # D


@dataclass(frozen=True)
class Form:
    """What the rows of an index say, and how they lie in files."""

    bases: list[Basis]  # of each modality
    of_bases: str  # their digest
    row_bytes: list[int]  # of a clip and modality at each level

    @property
    def layouts(self) -> list[Layout]:
        """Of each level."""
        return [Layout.of(n, len(self.bases[0].directions)) for n in self.row_bytes]

    @property
    def kept(self) -> list[Layout]:
        """Of each file of a part: one for each level, or one for all if they say the same."""
        return list(dict.fromkeys(self.layouts))

    def shapes(self, n_rows: int) -> list[tuple[int, int, int]]:
        """Of the rows of a part in each file, see `Level`."""
        first, *others = (layout.row_bytes for layout in self.kept)
        m = len(self.bases)
        return [(m, n_rows, first), *((1, n_rows, m * row_bytes) for row_bytes in others)]


def open_certified_index(
    folder: Path, store: CorpusStore, corpus: StoredCorpus, sample_queries: Callable[[], np.ndarray]
) -> CertifiedIndex:
    """The index in a folder, which is built first where it is not there, or brought up to what the corpus is now.

    Args:
        corpus: videos of the store; what is found is among these.
        sample_queries: (n, M, D) unit vectors of queries like those that will be asked, if there are any: they make
            bounds narrower, and change no answer.

    Raises:
        InputError: it cannot be written or read, or is damaged.
    """
    recipe = CertifiedRecipe(recipe_seal(store.recipe), len(store.recipe.modalities), store.recipe.hidden_size)
    try:
        with locked_folder(store.folder, f"waiting for another process that opens or builds {folder}"):
            form = _form(folder, recipe, store, sample_queries)
            kept = {part.folder.name for part in store.parts}
            for path in part_folders(folder):
                if path.name not in kept and path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
            for number, part in enumerate(progress(store.parts, "certified index")):
                _write_part(folder / part.folder.name, part, partial(store.opened, number), form)
            parts = _Parts(folder, form, store.parts)
            parts.check()
    except OSError as err:
        raise InputError(f"{folder}: {_advice(err, folder)}") from err
    return CertifiedIndex(form.bases, form.layouts, parts.level, *corpus.places, corpus.n_clips, corpus.row_bytes)


def _advice(err: OSError, folder: Path) -> str:
    """Why an index cannot be opened, and what to do."""
    why = err.strerror or err
    if err.errno in NO_ROOM:
        return f"no index can be written there ({why}): make room"
    if err.errno in KEPT_OUT:
        return f"no index can be written there ({why}): allow it, or move the encoded corpus to where it is allowed"
    return f"cannot be read ({why}): {_remedy(folder)}"


def _remedy(folder: Path) -> str:
    return f"remove the folder {folder.name}, and it is built again"


def _form(folder: Path, recipe: CertifiedRecipe, store: CorpusStore, sample_queries: Callable[[], np.ndarray]) -> Form:
    """That of an index, which is begun where there is none, or one of another recipe."""
    path, remedy = folder / BASES, _remedy(folder)
    shape = (recipe.n_modalities, recipe.size, recipe.size)
    wanted = {"format_version": FORMAT_VERSION, **asdict(recipe)}
    said = read_sealed(folder / DESCRIPTION, remedy) if (folder / DESCRIPTION).is_file() else {}
    if said.items() >= wanted.items():
        array = open_array(path, shape, "float64", remedy)
        if array is None or array.digest() != said.get("bases") or not _are_row_bytes(said.get("row_bytes")):
            raise InputError(f"{path}: is damaged: {remedy}")
        table = array[:]
    else:
        if not said and folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder}: is no certified index, which would be written there: move it")
        queries = sample_queries()
        table = _new_bases(recipe, store, queries)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with part_folder(folder.parent, f".{folder.name}-") as unfinished:
            np.save(unfinished / BASES, table)
            said = {**wanted, "bases": file_digest(unfinished / BASES), "row_bytes": _row_bytes(table, queries)}
            write_sealed(unfinished / DESCRIPTION, said)
            put_in_place(unfinished, folder, gives_way=lambda: True)
    form = Form(list(map(Basis, table)), said["bases"], said["row_bytes"])
    if not all(basis.is_orthonormal for basis in form.bases):
        raise InputError(f"{path}: is damaged: {remedy}")
    return form


def _are_row_bytes(said: Any) -> bool:
    return isinstance(said, list) and len(said) == len(ROW_BYTES) and all(type(n) is int and n > 0 for n in said)


def _row_bytes(table: np.ndarray, queries: np.ndarray) -> list[int]:
    """Of each level, for queries (n, M, D) in bases (M, D, D): few where they are known to lie in few directions."""
    size, lost = table.shape[1], [0.0 if len(queries) else math.inf]
    n_kept = Layout.of(ROW_BYTES[-1], size).n_directions
    for asked, directions in zip(queries.swapaxes(0, 1), table, strict=True):
        products, others = asked.T @ asked, directions[:, n_kept:]
        lost.append(float(np.sum(products @ others * others) / max(np.trace(products), LEAST_POWER)))
    return list(ROW_BYTES) if all(share <= LOST for share in lost) else [min(size, MOST_ROW_BYTES)] * len(ROW_BYTES)


def _new_bases(recipe: CertifiedRecipe, store: CorpusStore, queries: np.ndarray) -> np.ndarray:
    """(M, D, D): of each modality the directions."""
    rng = np.random.default_rng(SEED)
    counts = [int(part.n_rows.sum()) for part in store.parts]
    share = min(1.0, SAMPLED_ROWS / sum(counts))
    chosen = [
        (number, row)
        for number, n_rows in enumerate(counts)
        for row in np.sort(rng.choice(n_rows, max(1, round(share * n_rows)), replace=False)).tolist()
    ]
    # in one array: thousands of small ones would leave their memory with the process
    sampled = np.empty((recipe.n_modalities, len(chosen), recipe.size))
    for place, (number, row) in enumerate(progress(chosen, "looking for directions")):
        sampled[:, place] = _unit(store.opened(number), row, 1, slice(recipe.n_modalities))[:, 0]
    bases = []
    for m in range(recipe.n_modalities):
        asked = queries[:, m] if len(queries) else np.empty((0, recipe.size))
        bases.append(Basis.of(sampled[m], asked).directions)
    return np.stack(bases)


def _unit(opened: OpenPart, first: int, n: int, vectors: slice = slice(None)) -> np.ndarray:
    """(V, n, D) float64 rows of a part of unit length, as a search takes them; V those of their vectors."""
    rows, norms = opened.rows[first : first + n], np.empty((len(opened.norms), n), np.float32)
    opened.norms_into(norms, first)
    unit = rows[:, vectors].swapaxes(0, 1).astype(np.float64)
    unit /= norms[vectors, :, None]
    return unit


def _made_of(part: Part, form: Form) -> dict[str, Any]:
    """What a part of an index depends on."""
    return {"rows": part.files[ROWS]["sha256"], "bases": form.of_bases, "row_bytes": form.row_bytes}


def _write_part(folder: Path, part: Part, opened: Callable[[], OpenPart], form: Form) -> None:
    """Write what is kept of a part's rows, unless it is there."""
    said = read_sealed(folder / DESCRIPTION, _remedy(folder.parent)) if (folder / DESCRIPTION).is_file() else {}
    wanted = _made_of(part, form)
    if said.items() >= wanted.items():
        return
    n_rows, layouts = int(part.n_rows.sum()), form.kept
    rows = [np.empty(shape, np.int8) for shape in form.shapes(n_rows)]
    scales: list[list[Scales]] = [[] for _ in layouts]
    for m, basis in enumerate(form.bases):
        for level, (numbers, lengths) in enumerate(_coordinates(opened(), m, n_rows, basis, layouts)):
            kept, found = coded(numbers, lengths)
            width = kept.shape[1]
            (rows[level][m] if level == 0 else rows[level][0, :, m * width : (m + 1) * width])[:] = kept
            scales[level].append(found)
    with part_folder(folder.parent, f".{folder.name}-") as unfinished:
        digests = {}
        for level, of_level in enumerate(rows):
            np.save(unfinished / _file(level), of_level)
            digests[_file(level)] = file_digest(unfinished / _file(level))
        written = [[of.written() for of in of_level] for of_level in scales]
        write_sealed(unfinished / DESCRIPTION, {**wanted, "sha256": digests, "scales": written})
        put_in_place(unfinished, folder, gives_way=lambda: True)


def _coordinates(
    opened: OpenPart, modality: int, n_rows: int, basis: Basis, layouts: Sequence[Layout]
) -> list[tuple[Floats, Floats]]:
    """Of the rows of a part, for each layout, their first coordinates (R, B) and lengths (R, S) of the others."""
    numbers = np.empty((n_rows, max(layout.n_directions for layout in layouts)))
    lengths = [np.empty((n_rows, len(layout.stretches))) for layout in layouts]
    own = slice(modality, modality + 1)
    for first in range(0, n_rows, ROWS_AT_A_TIME):
        z = basis.coordinates(_unit(opened, first, min(ROWS_AT_A_TIME, n_rows - first), own)[0])
        some = slice(first, first + len(z))
        numbers[some] = z[:, : numbers.shape[1]]
        for layout, of_layout in zip(layouts, lengths, strict=True):
            for k, stretch in enumerate(layout.stretches):
                of_layout[some, k] = np.linalg.norm(z[:, slice(*stretch)], axis=1)
    return [(numbers[:, : layout.n_directions], found) for layout, found in zip(layouts, lengths, strict=True)]


class _Parts:
    """The parts of an index, as they are read."""

    def __init__(self, folder: Path, form: Form, parts: Sequence[Part]) -> None:
        self._folder, self._form, self._parts = folder, form, parts
        self._remedy = _remedy(folder)
        self._opened = lru_cache(MAX_OPEN)(self._open)
        n_bytes = sum(int(np.prod(shape)) for part in parts for shape in form.shapes(int(part.n_rows.sum())))
        self._holds = n_bytes <= HELD_BYTES
        self._held: list[list[Level]] = []

    def level(self, number: int, level: int) -> Level:
        """A level of a part; an `InputError` if it is damaged."""
        kept = self._held[number] if self._holds else self._opened(number)
        return kept[min(level, len(kept) - 1)]

    def check(self) -> None:
        """Compare all files with their digests, once; what is held in memory is read then."""
        for part in progress(self._parts, "checking the certified index"):
            digests, scales = self._description(part)
            files = self._files(part)
            for rows, digest in zip(files, digests, strict=True):
                try:
                    intact = rows.digest() == digest
                except OSError as err:
                    raise InputError(f"{rows.path}: cannot be read ({err.strerror or err}): {self._remedy}") from err
                if not intact:
                    raise InputError(f"{rows.path}: is damaged: {self._remedy}")
            if self._holds:
                self._held.append([Level(*one) for one in zip(scales, (rows[:] for rows in files), strict=True)])

    def _description(self, part: Part) -> tuple[list[str], list[list[Scales]]]:
        """The digest of each of a part's files, and the scales of its rows in each modality, as it says itself.

        Raises:
            InputError: it was made of other rows or in another form, or is damaged.
        """
        path = self._folder / part.folder.name / DESCRIPTION
        said = read_sealed(path, self._remedy)
        if not said.items() >= _made_of(part, self._form).items():
            raise InputError(f"{path}: another process has written the index anew since it was opened: start again")
        try:
            scales = [[Scales.read(**of) for of in of_level] for of_level in said["scales"]]
            files = [_file(level) for level, _ in enumerate(zip(scales, self._form.kept, strict=True))]
            return [said["sha256"][name] for name in files], scales
        except (LookupError, TypeError, ValueError) as err:
            raise InputError(f"{path}: is damaged: {self._remedy}") from err

    def _open(self, number: int) -> list[Level]:
        part = self._parts[number]
        _, scales = self._description(part)  # before the files: another process may have written others
        return [Level(*one) for one in zip(scales, self._files(part), strict=True)]

    def _files(self, part: Part) -> list[ArrayFile]:
        folder, shapes = self._folder / part.folder.name, self._form.shapes(int(part.n_rows.sum()))
        return [self._rows(folder / _file(level), shape) for level, shape in enumerate(shapes)]

    def _rows(self, path: Path, shape: tuple[int, ...]) -> ArrayFile:
        try:
            array = open_array(path, shape, "int8", self._remedy)
        except OSError as err:
            raise InputError(f"{path}: cannot be read ({err.strerror or err}): {self._remedy}") from err
        if array is None:
            raise InputError(f"{path}: is damaged: {self._remedy}")
        return array


def _file(level: int) -> str:
    return f"level-{level + 1}.npy"
