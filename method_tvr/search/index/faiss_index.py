"""Candidates by faiss: the clip vectors of each modality, flat, in an inverted file, or that with compressed vectors.

`flat` compares all clips. `ivf` looks into a few cells of clips that resemble each other; `ivfsq` keeps each number of
their vectors in a byte. `ivfpq` keeps each vector in some bytes, of the directions in which vectors differ most. All
cells are mapped from disk. For one machine.
"""

from __future__ import annotations

import copy
import math
import os
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from method_tvr.search.candidates import (
    CandidateIndex,
    CandidateSettings,
    Nearest,
    clip_vectors,
    n_cells,
)
from method_tvr.search.corpus import Corpus
from method_tvr.search.index.certified.bounds import slack
from method_tvr.search.index.faiss_cells import Cells, Measured
from method_tvr.search.index.faiss_package import import_faiss
from method_tvr.search.records import NO_ENTRY
from standalone_eval.files.parts import part_folder
from utils.basic_utils import InputError, first_line, progress, read_bytes
from utils.storage.array_file import open_regular
from utils.storage.own_folder import refuse_unless_own
from utils.storage.whole_folder import file_digest, put_in_place, read_sealed, write_sealed

FORMAT_VERSION = 3  # to be raised when a recipe means another index
DESCRIPTION = "index.json"
UNSEALED = b'{"format_version"'  # what descriptions began with up to version 2
TRAINED_ON = 64  # clips for each cell, sampled
GRAPH_FROM = 8192  # cells from which these are found in two steps, and the nearest of them by a graph
NUMBERS_A_BYTE = 3  # that vectors are reduced to, by a principal component analysis, before they are compressed
SEED = 2018
MEASURED = ("ivf", "ivfsq")  # kinds whose cells are; those of `ivfpq` lie in a space of fewer numbers
FURTHER = 4  # times as many clips are asked for, to prove an answer
QUERY_BY_QUERY = 3  # what faiss calls it that threads share several queries, where cells were chosen for it


@dataclass(frozen=True)
class FaissRecipe:
    """What an index depends on."""

    kind: str  # flat, ivf, ivfsq or ivfpq
    corpus: str  # seal of the corpus and of the order of its entries
    pq_bytes: int = 48  # of a vector of `ivfpq`; divides D

    def factory_text(self, n_clips: int, size: int) -> str:
        """What faiss calls such an index over `n_clips` vectors of a size."""
        if self.kind == "flat":
            return "IDMap,Flat"
        n = n_cells(n_clips)
        cells = f"IVF{n}_HNSW32" if n >= GRAPH_FROM else f"IVF{n}"
        if self.kind in ("ivf", "ivfsq"):
            return f"{cells},{'Flat' if self.kind == 'ivf' else 'SQ8'}"
        if size % self.pq_bytes:
            raise InputError(f"--pq_bytes {self.pq_bytes}: does not divide {size}, the numbers of a clip's vector")
        reduced = NUMBERS_A_BYTE * self.pq_bytes
        first = f"PCAR{reduced}," if reduced < size else ""
        return f"{first}{cells},PQ{self.pq_bytes}"


class FaissIndex(CandidateIndex):
    """An index of faiss for each modality; what they call ids are entries.

    Args:
        folder: where they lie.
        files: of each modality; they are looked at before each search.
        indexes: what faiss made of them.
        settings: how far it looks.
        cells: of each modality, where they were measured.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[_IndexFile],
        indexes: Sequence[Any],
        settings: CandidateSettings,
        cells: Sequence[Cells] = (),
    ) -> None:
        self.remedy = f"{folder}: the index is damaged: {_remedy(folder)}"
        self._files, self._indexes, self.settings, self._cells = files, indexes, settings, cells
        self._is_flat = import_faiss().try_extract_index_ivf(indexes[0]) is None
        self.proves = self._is_flat or len(cells) > 0

    def nearest_clips(
        self, modality: int, queries: np.ndarray, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        found = self.look(modality, queries, allowed)
        return found.entries, found.cosines  # -1, which is NO_ENTRY, where there are fewer

    def look(self, modality: int, queries: np.ndarray, allowed: np.ndarray | None) -> Nearest:
        self._files[modality].check_unchanged()
        index, faiss, chosen = self._indexes[modality], import_faiss(), {}
        if allowed is not None:
            chosen["sel"] = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        n_clips = min(self.settings.n_clips, index.ntotal)
        error = 2 * slack(queries.shape[1])  # of faiss, and of a search
        if self._cells:
            cells = self._cells[modality]
            cosines, entries, above = _search_cells(index, cells, queries, n_clips, self.settings.n_probes, chosen)
            error += cells.error
        else:
            if self._is_flat:
                params = faiss.SearchParameters(**chosen)
            else:
                params = faiss.SearchParametersIVF(nprobe=self.settings.n_probes, **chosen)
            if isinstance(index, faiss.IndexPreTransform):
                params = faiss.SearchParametersPreTransform(index_params=params)
            cosines, entries = index.search(queries, n_clips, params=params)
            above = np.full(len(queries), -np.inf if self._is_flat else np.inf)
        worst = np.where(entries[:, -1] == NO_ENTRY, -np.inf, cosines[:, -1] + error)  # of clips that were looked at
        return Nearest(entries, cosines, np.maximum(above, worst), error)

    def further(self, query: np.ndarray, needed: float) -> Iterator[CandidateIndex]:
        n_all, n_probes = len(self._cells[0].centres) if self._cells else 1, self.settings.n_probes
        if self._cells:  # no look is needed to know what is outside of how many cells
            above = np.mean([of.above_outside(q) for of, q in zip(self._cells, query, strict=True)], axis=0)
            n_probes = max(n_probes, int((above >= needed).sum()))
        for times, probes in ((FURTHER, n_probes), (FURTHER**2, n_all)):
            wider = copy.copy(self)
            wider.settings = replace(self.settings, n_clips=times * self.settings.n_clips, n_probes=probes)
            yield wider


def _search_cells(
    index: Any, cells: Cells, queries: np.ndarray, n_clips: int, n_probes: int, chosen: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of queries (Nq, D), cosines and entries (Nq, n_clips), and (Nq,) what none in other cells is above.

    Which cells are looked into is chosen here, so that it is known.
    """
    faiss, n, n_probes = import_faiss(), len(queries), min(n_probes, index.nlist)
    queries = np.ascontiguousarray(queries)
    products = queries @ cells.centres.T
    looked_into = np.argpartition(-products, n_probes - 1, axis=1)[:, :n_probes].astype(np.int64)
    of_these = np.take_along_axis(products, looked_into, axis=1)
    cosines, entries = np.empty((n, n_clips), np.float32), np.empty((n, n_clips), np.int64)
    pointers = map(faiss.swig_ptr, (looked_into, of_these, cosines, entries))
    params = faiss.SearchParametersIVF(nprobe=n_probes, **chosen)
    index.search_preassigned_c(n, faiss.swig_ptr(queries), n_clips, *pointers, False, params)
    above = np.stack([cells.above(of_query) for of_query in products])
    np.put_along_axis(above, looked_into, -np.inf, axis=1)
    return cosines, entries, above.max(axis=1)


def open_faiss_index(
    folder: Path,
    recipe: FaissRecipe,
    corpus: Corpus,
    n_modalities: int,
    settings: CandidateSettings,
    trusted: bool = False,
) -> FaissIndex:
    """The index in a folder, which is built first when it is not there or of another corpus.

    An `InputError` if it cannot be built, was changed since, or others may have changed it and it is not `trusted`.
    """
    import_faiss()
    said = _description(folder)
    if said is None or {name: said.get(name) for name in _described(recipe)} != _described(recipe):
        build(folder, recipe, corpus, n_modalities)
        said = _description(folder)
    files = [_IndexFile(folder / _file(m)) for m in range(n_modalities)]
    if not trusted:
        refuse_unless_own(folder, [folder, *(file.handle for file in files)])
    digests = said and said.get("files")
    with ThreadPoolExecutor(n_modalities) as pool:  # a digest is not Python
        measured = list(pool.map(_IndexFile.measure, files))
    for file, found in zip(files, measured, strict=True):
        if not isinstance(digests, dict) or digests.get(file.path.name) != found:
            raise InputError(f"{file.path}: is not as it was built: {_remedy(folder)}")
    try:
        indexes = [file.read(recipe) for file in files]
        return FaissIndex(folder, files, indexes, settings, _cells(folder, recipe, said or {}, indexes, settings))
    except RuntimeError as err:
        raise InputError(f"{folder}: cannot be read ({first_line(err)}): {_remedy(folder)}") from err


def _cells(
    folder: Path, recipe: FaissRecipe, said: Mapping[str, Any], indexes: Sequence[Any], settings: CandidateSettings
) -> list[Cells]:
    """Of each modality, if they were measured when the index was built, by what it says of itself."""
    if recipe.kind not in MEASURED:
        return []
    if "cells" not in said:
        lacking = f"{folder}: was built before its cells were measured, so that it proves no answers"
        if settings.prove:
            raise InputError(f"--prove: {lacking}: {_remedy(folder)}")
        print(f"note: {lacking}; {_remedy(folder)}", file=sys.stderr)
        return []
    try:
        return [Cells.of(index, of) for index, of in zip(indexes, said["cells"], strict=True)]
    except (KeyError, TypeError, ValueError) as err:
        raise InputError(f"{folder / DESCRIPTION}: is damaged: {_remedy(folder)}") from err


class _IndexFile:
    """A file of an index, open: faiss gets what was looked at, whatever the name is given to meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.handle = open_regular(path)
        except OSError as err:
            raise InputError(f"{path}: cannot be read ({err.strerror}): {_remedy(path.parent)}") from err
        weakref.finalize(self, os.close, self.handle)
        self._opened, self._mapped = _stamp(self.handle), False

    def measure(self) -> dict[str, Any]:
        """Its size and digest, as a description has them."""
        try:
            return {"bytes": os.fstat(self.handle).st_size, "sha256": file_digest(self.handle)}
        except OSError as err:
            raise InputError(f"{self.path}: cannot be read ({err.strerror}): check the disk") from err

    def read(self, recipe: FaissRecipe) -> Any:
        """What faiss makes of it; cells are mapped. A `RuntimeError` if it cannot."""
        faiss = import_faiss()
        self._mapped = recipe.kind != "flat"
        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if self._mapped else 0
        index = faiss.read_index(f"/dev/fd/{self.handle}", flags)
        if self._mapped:  # faiss would read on in threads of its own after a search has ended: what is cut then kills
            cells = faiss.extract_index_ivf(index)
            faiss.downcast_InvertedLists(cells.invlists).prefetch_nthread = 0
            cells.parallel_mode = QUERY_BY_QUERY
        return index

    def check_unchanged(self) -> None:
        """Refuse a mapped file that was written to since it was opened: touching one that was cut short kills."""
        if self._mapped and _stamp(self.handle) != self._opened:
            raise InputError(f"{self.path}: was changed since it was opened: {_remedy(self.path.parent)}")


def _stamp(handle: int) -> tuple[int, int]:
    status = os.fstat(handle)
    return status.st_size, status.st_mtime_ns


def _remedy(folder: Path) -> str:
    return f"remove the folder {folder.name}, and it is built again"


def _description(folder: Path) -> dict[str, Any] | None:
    """What an index says of itself, None where there is none, or one of an earlier version, which had no seal.

    An `InputError` if it is damaged.
    """
    path = folder / DESCRIPTION
    if not os.path.lexists(path) or read_bytes(path, _remedy(folder)).startswith(UNSEALED):
        return None
    return read_sealed(path, _remedy(folder))


def _described(recipe: FaissRecipe) -> dict[str, Any]:
    return {"format_version": FORMAT_VERSION, **asdict(recipe)}


def build(folder: Path, recipe: FaissRecipe, corpus: Corpus, n_modalities: int) -> None:
    """Write an index over a corpus into a folder, in the place of what is there, whole or not at all."""
    faiss = import_faiss()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with part_folder(folder.parent, f".{folder.name}-") as unfinished:
            cells = []
            for modality in range(n_modalities):
                index, measured = _filled(recipe, corpus, modality)
                faiss.write_index(index, str(unfinished / _file(modality)))
                cells += [measured.described()] if measured else []
                del index, measured  # before the next one is made
            files = {path.name: _IndexFile(path).measure() for path in unfinished.iterdir()}
            write_sealed(unfinished / DESCRIPTION, {**_described(recipe), "files": files, "cells": cells})
            for path in unfinished.iterdir():
                path.chmod(0o644 & path.stat().st_mode)  # or it would not be the user's own where umask is 002
            put_in_place(unfinished, folder, gives_way=lambda: True, mode=0o755)
    except (OSError, RuntimeError) as err:  # of faiss, the latter
        raise InputError(
            f"{folder}: no index can be written there ({first_line(err)}): make room, or allow it"
        ) from err


def _filled(recipe: FaissRecipe, corpus: Corpus, modality: int) -> tuple[Any, Measured | None]:
    """An index of the clips of a modality, in memory, and what its cells are, where that says something about clips."""
    faiss = import_faiss()
    n_clips, size = int(corpus.n_clips.sum()), int(corpus.rows_of(0).shape[-1])
    index = faiss.index_factory(size, recipe.factory_text(n_clips, size), faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        n_sampled = TRAINED_ON * faiss.extract_index_ivf(index).nlist
        _train(index, _sample(corpus, modality, n_clips, n_sampled))
    measured = Measured(index) if recipe.kind in MEASURED else None
    for entries, vectors in progress(clip_vectors(corpus, modality), f"indexing modality {modality}"):
        if measured is None:
            index.add_with_ids(vectors, entries)
            continue
        codes = index.sa_encode(vectors)
        index.add_sa_codes(codes, entries)
        measured.add(vectors, codes)
    return index, measured


def _train(index: Any, sample: np.ndarray) -> None:
    """Find what vectors are reduced to, the cells of an inverted file, and how what is left in them is compressed."""
    faiss = import_faiss()
    if isinstance(index, faiss.IndexPreTransform):
        reduction = faiss.downcast_VectorTransform(index.chain.at(0))
        reduction.train(sample)
        reduction.have_bias = False  # products of vectors less their mean are not in the order of products of vectors
        sample = reduction.apply(sample)
    cells = faiss.downcast_index(faiss.extract_index_ivf(index))
    if isinstance(cells, faiss.IndexIVFPQ):
        cells.do_polysemous_training = False  # seconds a byte, for codes in the order of a filter that is not used
    cells.cp.min_points_per_centroid = 1  # of small corpora faiss would complain at length
    if cells.nlist >= GRAPH_FROM:
        cells.quantizer.add(two_level_centres(sample, cells.nlist))
    cells.train(sample)
    index.is_trained = True


def two_level_centres(sample: np.ndarray, n: int) -> np.ndarray:
    """(n, D) centres of cells of a sample (N, D) float32, N >= n, of length 1 but where there are as many as vectors.

    They are found in two steps: about sqrt(n) large cells, then small ones within each. That takes about sqrt(n) / 2
    times fewer products than comparing all vectors with all centres.
    """

    def k_means(vectors: np.ndarray, k: int) -> Any:
        found = import_faiss().Kmeans(vectors.shape[1], k, spherical=True, min_points_per_centroid=1, seed=SEED)
        found.train(vectors)
        return found

    cells = k_means(sample, round(math.sqrt(n)))
    _, large = cells.assign(sample)
    ends = np.bincount(large, minlength=cells.k).cumsum()
    shares = np.diff(ends * n // len(sample), prepend=0)  # a large cell of few vectors may get none of the centres
    members = np.split(large.argsort(kind="stable"), ends[:-1])
    return np.concatenate(
        [k_means(sample[of], k).centroids for of, k in zip(members, shares.tolist(), strict=True) if k]
    )


def _file(modality: int) -> str:
    return f"clips-{modality}.faiss"


def _sample(corpus: Corpus, modality: int, n_clips: int, n: int) -> np.ndarray:
    """About `n` of the clips' vectors, drawn evenly."""
    rng, all_vectors = np.random.default_rng(SEED), (vectors for _, vectors in clip_vectors(corpus, modality))
    return np.concatenate([vectors[rng.random(len(vectors)) < n / n_clips] for vectors in all_vectors])
