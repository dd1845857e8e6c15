"""The files of a certified index: a basis of each modality, and for each part of the encoded corpus its rows' codes.

A part is written whole, and again when the corpus' part is another. So videos that are added, replaced or removed in
the corpus are so in the index, which reads the corpus' new parts alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from method_tvr.search.corpus_store import ROWS, CorpusStore, OpenPart, Part, recipe_seal
from method_tvr.search.index.certified.bounds import Basis, Codes
from method_tvr.search.index.certified.certified_index import CertifiedIndex, Codebook, Level
from method_tvr.search.stored_corpus import StoredCorpus
from standalone_eval.files.parts import part_folder
from utils.basic_utils import InputError, progress
from utils.storage.array_file import open_array
from utils.storage.whole_folder import file_digest, put_in_place, read_sealed, write_sealed

FORMAT_VERSION = 1
DESCRIPTION = "index.json"
BASES = "bases.npy"
SAMPLED_ROWS = 20_000  # by which a basis is found
ROWS_AT_A_TIME = 1 << 14
BAND = 64  # directions
N_BANDS = 2
SEED = 2018


@dataclass(frozen=True)
class CertifiedRecipe:
    """What an index depends on."""

    corpus: str  # seal of what the corpus was made with
    n_modalities: int
    size: int  # D

    @property
    def bands(self) -> list[slice]:
        """Of directions: as many as there are, up to `N_BANDS`."""
        firsts = range(0, min(N_BANDS * BAND, self.size), BAND)
        return [slice(first, min(first + BAND, self.size)) for first in firsts]


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
        bases, of_bases = _bases(folder, recipe, store, sample_queries)
        kept = {part.folder.name for part in store.parts}
        for path in folder.iterdir():
            if path.is_dir() and not path.name.startswith(".") and path.name not in kept:
                shutil.rmtree(path)
        parts = [
            _codes_of_part(folder / part.folder.name, part, partial(store.opened, number), recipe, bases, of_bases)
            for number, part in enumerate(progress(store.parts, "certified index"))
        ]
    except OSError as err:
        raise InputError(f"{folder}: no index can be written there ({err.strerror or err}): make room") from err
    books = []
    for m, basis in enumerate(bases):
        codes = _from_bytes([of_part[m] for of_part in parts], recipe.bands)
        books.append(Codebook(basis, recipe.bands, list(map(Level, codes))))
    offsets = np.cumsum([0, *(int(part.n_rows.sum()) for part in store.parts)])
    of_entries, first_rows = corpus.places
    return CertifiedIndex(books, offsets[of_entries] + first_rows, corpus.n_clips)


def _remedy(folder: Path) -> str:
    return f"remove the folder {folder.name}, and it is built again"


def _described(recipe: CertifiedRecipe) -> dict[str, Any]:
    return {"format_version": FORMAT_VERSION, "bands": [band.stop for band in recipe.bands], **asdict(recipe)}


def _bases(
    folder: Path, recipe: CertifiedRecipe, store: CorpusStore, sample_queries: Callable[[], np.ndarray]
) -> tuple[list[Basis], str]:
    """Those of an index, which is begun where there is none, or one of another recipe; and their digest."""
    path, remedy = folder / BASES, _remedy(folder)
    shape, wanted = (recipe.n_modalities, recipe.size + 1, recipe.size), _described(recipe)
    said = read_sealed(folder / DESCRIPTION, remedy) if (folder / DESCRIPTION).is_file() else {}
    digest = said.pop("bases", None)
    if said == wanted:
        array = open_array(path, shape, "float64", remedy)
        if array is None or array.digest() != digest:
            raise InputError(f"{path}: is damaged: {remedy}")
        table = array[:]
    else:
        if not said and folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder}: is no certified index, which would be written there: move it")
        table = _new_bases(recipe, store, sample_queries())
        folder.parent.mkdir(parents=True, exist_ok=True)
        with part_folder(folder.parent, f".{folder.name}-") as unfinished:
            np.save(unfinished / BASES, table)
            digest = file_digest(unfinished / BASES)
            write_sealed(unfinished / DESCRIPTION, {**wanted, "bases": digest})
            put_in_place(unfinished, folder, gives_way=lambda: True)
    found = [Basis(of_modality[0], of_modality[1:]) for of_modality in table]
    if not all(basis.is_orthonormal for basis in found):
        raise InputError(f"{path}: is damaged: {remedy}")
    return found, str(digest)


def _new_bases(recipe: CertifiedRecipe, store: CorpusStore, queries: np.ndarray) -> np.ndarray:
    """(M, 1 + D, D): of each modality the mean, and below it the directions."""
    rng, n_rows = np.random.default_rng(SEED), sum(int(part.n_rows.sum()) for part in store.parts)
    sampled: list[list[np.ndarray]] = [[] for _ in range(recipe.n_modalities)]
    for number, part in enumerate(store.parts):
        for unit in _unit_rows(store.opened(number), part):
            chosen = rng.random(unit.shape[1]) < SAMPLED_ROWS / n_rows
            for of_modality, rows in zip(sampled, unit, strict=False):
                of_modality.append(rows[chosen])
    bases = []
    for m, of_modality in enumerate(sampled):
        asked = queries[:, m] if len(queries) else np.empty((0, recipe.size))
        basis = Basis.of(np.concatenate(of_modality), asked)
        bases.append(np.concatenate([basis.mean[None], basis.directions]))
    return np.stack(bases)


def _unit_rows(opened: OpenPart, part: Part) -> Iterator[np.ndarray]:
    """(V, n, D) float32 rows of a part of unit length, some at a time, as a search takes them."""
    n_rows = int(part.n_rows.sum())
    for first in range(0, n_rows, ROWS_AT_A_TIME):
        rows = torch.from_numpy(opened.rows[first : first + ROWS_AT_A_TIME]).float()
        norms = np.empty((len(opened.norms), len(rows)), np.float32)
        opened.norms_into(norms, first)
        yield (rows.transpose(0, 1).double() / torch.from_numpy(norms).double().unsqueeze(2)).numpy()


def _codes_of_part(
    folder: Path,
    part: Part,
    opened: Callable[[], OpenPart],
    recipe: CertifiedRecipe,
    bases: list[Basis],
    of_bases: str,
) -> list[np.ndarray]:
    """For each modality the codes of a part's rows, (R, W) bytes, see `_as_bytes`: read, or made and written first."""
    remedy = _remedy(folder.parent)
    said = read_sealed(folder / DESCRIPTION, remedy) if (folder / DESCRIPTION).is_file() else {}
    wanted = {"rows": part.files[ROWS]["sha256"], "bases": of_bases}
    if {name: said.get(name) for name in wanted} == wanted:
        return [_read(folder / _file(m), part, recipe, said) for m in range(recipe.n_modalities)]
    coded: list[list[np.ndarray]] = [[] for _ in bases]
    for unit in _unit_rows(opened(), part):
        for stretches, basis, rows in zip(coded, bases, unit, strict=False):
            stretches.append(_as_bytes(basis.coded(rows, recipe.bands)))
    made = [np.concatenate(stretches) for stretches in coded]
    with part_folder(folder.parent, f".{folder.name}-") as unfinished:
        digests = {}
        for m, of_modality in enumerate(made):
            np.save(unfinished / _file(m), of_modality)
            digests[_file(m)] = file_digest(unfinished / _file(m))
        write_sealed(unfinished / DESCRIPTION, {**wanted, "sha256": digests})
        put_in_place(unfinished, folder, gives_way=lambda: True)
    return made


def _read(path: Path, part: Part, recipe: CertifiedRecipe, said: dict[str, Any]) -> np.ndarray:
    remedy, digests = _remedy(path.parent.parent), said.get("sha256")
    shape = (int(part.n_rows.sum()), sum(_width(band) for band in recipe.bands))
    try:
        array = open_array(path, shape, "uint8", remedy)
        intact = array is not None and isinstance(digests, dict) and array.digest() == digests.get(path.name)
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror or err}): {remedy}") from err
    if array is None or not intact:
        raise InputError(f"{path}: is damaged: {remedy}")
    return array[:]


def _file(modality: int) -> str:
    return f"codes-{modality}.npy"


def _width(band: slice) -> int:
    """Bytes of a row in a band: a number for each direction, and three about all of them."""
    return band.stop - band.start + 4


def _as_bytes(codes: Sequence[Codes]) -> np.ndarray:
    """(R, W) uint8: of each band numbers, scale (two bytes), rounding and beyond."""
    return np.concatenate(
        [
            column.view(np.uint8).reshape(len(of_band.scale), -1)
            for of_band in codes
            for column in (of_band.numbers, of_band.scale, of_band.rounding, of_band.beyond)
        ],
        axis=1,
    )


def _from_bytes(parts: Sequence[np.ndarray], bands: Sequence[slice]) -> list[Codes]:
    """The codes of all parts' rows, in each band."""
    found, first = [], 0
    for band in bands:
        edges = np.cumsum([first, band.stop - band.start, 2, 1, 1]).tolist()
        numbers, scale, rounding, beyond = (
            np.concatenate([part[:, begin:end] for part in parts]) for begin, end in pairwise(edges)
        )
        found.append(Codes(numbers.view(np.int8), scale.view(np.float16)[:, 0], rounding[:, 0], beyond[:, 0]))
        first = edges[-1]
    return found
