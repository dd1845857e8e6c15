"""Candidates by faiss: the clip vectors of each modality, flat, in an inverted file, or that with compressed vectors.

`flat` compares all clips. `ivf` looks into a few cells of clips that resemble each other; `ivfsq` keeps each number of
their vectors in a byte. `ivfpq` keeps each vector in some bytes, of the directions in which vectors differ most. All
cells are mapped from disk. For one machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from method_tvr.search.candidates import CandidateIndex, CandidateSettings, clip_vectors, import_backend, n_cells
from method_tvr.search.corpus import Corpus
from standalone_eval.parts import part_folder
from utils.basic_utils import InputError, first_line, progress, read_json, write_json
from utils.whole_folder import put_in_place

FORMAT_VERSION = 2  # to be raised when a recipe means another index
DESCRIPTION = "index.json"
TRAINED_ON = 64  # clips for each cell, sampled
GRAPH_FROM = 8192  # cells from which these are found in two steps, and the nearest of them by a graph
NUMBERS_A_BYTE = 3  # that vectors are reduced to, by a principal component analysis, before they are compressed
PQ_TRAINED_ON = 64  # vectors for each of a sub-quantizer's 256 centres
SEED = 2018


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
    """An index of faiss for each modality; what they call ids are entries."""

    def __init__(self, indexes: Sequence[Any], settings: CandidateSettings) -> None:
        self._indexes, self.settings = indexes, settings

    def nearest_clips(
        self, modality: int, queries: np.ndarray, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        index, faiss, chosen = self._indexes[modality], import_faiss(), {}
        if allowed is not None:
            chosen["sel"] = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if faiss.try_extract_index_ivf(index) is None:
            params = faiss.SearchParameters(**chosen)
        else:
            params = faiss.SearchParametersIVF(nprobe=self.settings.n_probes, **chosen)
        if isinstance(index, faiss.IndexPreTransform):
            params = faiss.SearchParametersPreTransform(index_params=params)
        scores, entries = index.search(queries, min(self.settings.n_clips, index.ntotal), params=params)
        return entries, scores  # -1, which is NO_ENTRY, where there are fewer


def import_faiss() -> Any:
    """The faiss package."""
    return import_backend("faiss", "faiss")


def open_faiss_index(
    folder: Path, recipe: FaissRecipe, corpus: Corpus, n_modalities: int, settings: CandidateSettings
) -> FaissIndex:
    """The index in a folder, which is built first when it is not there or of another corpus."""
    faiss = import_faiss()
    if not _is_of(folder, recipe):
        build(folder, recipe, corpus, n_modalities)
    flags = 0 if recipe.kind == "flat" else faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
    try:
        indexes = [faiss.read_index(str(folder / _file(m)), flags) for m in range(n_modalities)]
    except RuntimeError as err:
        raise InputError(f"{folder}: cannot be read ({first_line(err)}): remove it, and it is built again") from err
    return FaissIndex(indexes, settings)


def _is_of(folder: Path, recipe: FaissRecipe) -> bool:
    path = folder / DESCRIPTION
    return path.is_file() and bool(read_json(path) == {"format_version": FORMAT_VERSION, **asdict(recipe)})


def build(folder: Path, recipe: FaissRecipe, corpus: Corpus, n_modalities: int) -> None:
    """Write an index over a corpus into a folder, in the place of what is there, whole or not at all."""
    faiss = import_faiss()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with part_folder(folder.parent, f".{folder.name}-") as unfinished:
            for modality in range(n_modalities):
                index = _filled(recipe, corpus, modality)
                faiss.write_index(index, str(unfinished / _file(modality)))
                del index  # before the next one is made
            write_json({"format_version": FORMAT_VERSION, **asdict(recipe)}, unfinished / DESCRIPTION)
            put_in_place(unfinished, folder, gives_way=lambda: True)
    except (OSError, RuntimeError) as err:  # of faiss, the latter
        raise InputError(f"{folder}: no index can be written there ({first_line(err)}): make room on the disk") from err


def _filled(recipe: FaissRecipe, corpus: Corpus, modality: int) -> Any:
    """An index of the clips of a modality, in memory."""
    faiss = import_faiss()
    n_clips, size = int(corpus.n_clips.sum()), int(corpus.rows_of(0).shape[-1])
    index = faiss.index_factory(size, recipe.factory_text(n_clips, size), faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        n_sampled = TRAINED_ON * faiss.extract_index_ivf(index).nlist
        _train(index, _sample(corpus, modality, n_clips, n_sampled))
    for entries, vectors in progress(clip_vectors(corpus, modality), f"indexing modality {modality}"):
        index.add_with_ids(vectors, entries)
    return index


def _train(index: Any, sample: np.ndarray) -> None:
    """Find what vectors are reduced to, the cells of an inverted file, and how what is left in them is compressed."""
    faiss = import_faiss()
    if isinstance(index, faiss.IndexPreTransform):
        reduction = faiss.downcast_VectorTransform(index.chain.at(0))
        reduction.train(sample)
        reduction.have_bias = False  # products of vectors less their mean are not in the order of products of vectors
        sample = reduction.apply(sample)
    cells = faiss.extract_index_ivf(index)
    cells.cp.min_points_per_centroid = 1  # of small corpora faiss would complain at length
    if hasattr(cells, "pq"):
        cells.pq.cp.min_points_per_centroid, cells.pq.cp.max_points_per_centroid = 1, PQ_TRAINED_ON
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
