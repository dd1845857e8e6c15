"""Which videos are worth a close look: the small interface behind which search indexes stand.

An index holds the clip vectors of a corpus, normalised, one set for each modality, and names entries whose clips are
near a query. It may be wrong: what it names is scored again with the model's own score, and what it does not name is
lost. How much that is, `recall` measures.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from method_tvr.search.corpus import Corpus
from method_tvr.search.records import NO_ENTRY, Shortlist
from method_tvr.search.scoring import BestEntries, concatenated, scores_of_entries
from utils.basic_utils import InputError
from utils.tensor_utils import to_device

ROWS_AT_A_TIME = 1 << 15


@dataclass(frozen=True)
class CandidateSettings:
    """How far an index looks."""

    n_clips: int = 3072  # nearest clips asked for in each modality
    n_entries: int = 250  # named at most, the best of those that these clips belong to; they are scored exactly
    n_probes: int = 256  # lists (cells of an inverted file) that are looked into, by indexes that have such


class SearchIndex(ABC):
    """What a search goes through a corpus by, instead of scoring all of it.

    Attributes:
        most_at_once: more queries at once are better answered by scoring all; None: never.
    """

    most_at_once: int | None = None

    @abstractmethod
    def find(
        self,
        corpus: Corpus,
        queries: torch.Tensor,
        keep: int,
        allowed: np.ndarray | None = None,
        video_of_entry: torch.Tensor | None = None,
    ) -> Shortlist:
        """The best `keep` entries, or fewer, and the best of each of the best videos, as an exact search orders them.

        Args:
            corpus: that of the index.
            queries: (Nq, M, D) float32 of unit length.
            allowed: (Nv,) bool, entries to look at, at least one; None: all.
            video_of_entry: (Nv,) int64, by which entries of one video are known; None when none has several.

        Raises:
            InputError: the index does not fit the corpus.
        """


class CandidateIndex(SearchIndex):
    """An index over the clips of a corpus; `settings` may be changed between searches."""

    settings: CandidateSettings
    remedy = "the index is damaged: build it again"  # said, with where it is, when it names what there is not

    @abstractmethod
    def nearest_clips(
        self, modality: int, queries: np.ndarray, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The entries of the clips nearest to queries (Nq, D) float32 of length 1, and their cosines.

        Entries (Nq, K) int64 are `NO_ENTRY` where there are fewer, an entry as often as it has clips among them; the
        cosines (Nq, K) float32 are as near as the index knows them. If given, `allowed` (Nv,) bool may be named.
        """

    def candidates(self, queries: np.ndarray, allowed: np.ndarray | None = None) -> list[np.ndarray]:
        """The entries to score, for each of the queries (Nq, M, D), in no order."""
        each = range(queries.shape[1])
        with ThreadPoolExecutor(len(each)) as pool:  # indexes are not Python, and one query keeps them to one core
            of_modality = [np.ascontiguousarray(queries[:, m]) for m in each]
            found = list(pool.map(self.nearest_clips, each, of_modality, [allowed] * len(each)))
        return [
            nearest_entries([(entries[row], scores[row]) for entries, scores in found], self.settings.n_entries)
            for row in range(len(queries))
        ]

    @torch.inference_mode()
    def find(
        self,
        corpus: Corpus,
        queries: torch.Tensor,
        keep: int,
        allowed: np.ndarray | None = None,
        video_of_entry: torch.Tensor | None = None,
    ) -> Shortlist:
        """The candidates that score best. No video may have several entries, of which some would not be named."""
        if video_of_entry is not None:
            raise ValueError("candidates are videos, not parts of them")
        usable = np.arange(len(corpus)) if allowed is None else np.flatnonzero(allowed)
        keep = min(keep, len(usable))
        named = []
        for found in self.candidates(queries.float().cpu().numpy(), allowed):
            if ((found < 0) | (found >= len(corpus))).any():
                raise InputError(f"{self.remedy} (it names entries that the corpus does not have)")
            named.append(_filled(found, usable, keep))
        best = [BestEntries(keep) for _ in named]
        for query, candidates, of_query in zip(queries, named, best, strict=True):
            scores = scores_of_entries(corpus, candidates, query.unsqueeze(0))
            of_query.add(to_device(candidates, scores.device), scores)
        entries_and_scores = concatenated(best)
        return Shortlist(*entries_and_scores, *entries_and_scores)


def _filled(entries: np.ndarray, usable: np.ndarray, keep: int) -> np.ndarray:
    """Candidates, and others where there are fewer than are kept: these are scored like any."""
    if len(entries) >= keep:
        return entries
    others = np.setdiff1d(usable[: keep + len(entries)], entries, assume_unique=True)
    return np.concatenate([entries, others[: keep - len(entries)]])


def nearest_entries(found: list[tuple[np.ndarray, np.ndarray]], n: int) -> np.ndarray:
    """(n,) int64: the `n` entries, at most, whose nearest clips are nearest, on average over modalities.

    For each modality, entries (K,) and cosines (K,) were found. An entry that has none among the clips nearest in a
    modality is taken to be as far as the farthest of these.
    """
    entries = np.unique(np.concatenate([named[named != NO_ENTRY] for named, _ in found]))
    total = np.zeros(len(entries), dtype=np.float32)
    for named, scores in found:
        there = named != NO_ENTRY
        if there.any():
            nearest = np.full(len(entries), scores[there].min(), dtype=np.float32)
            np.maximum.at(nearest, np.searchsorted(entries, named[there]), scores[there])
            total += nearest
    return entries if len(entries) <= n else entries[np.argpartition(-total, n)[:n]]


def import_backend(index: str, package: str) -> Any:
    """The package that an `--index` needs, or an InputError that says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as err:
        raise InputError(
            f"--index {index}: needs {package} ({err}): "
            "pip install -r method_tvr/search/index/requirements.txt -c constraints.txt"
        ) from err


def n_cells(n_clips: int) -> int:
    """Cells of an inverted file over so many clips: about 4 times the square root, a power of two."""
    return 1 << round(math.log2(max(1.0, 4 * math.sqrt(n_clips))))


def clip_vectors(corpus: Corpus, modality: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Entries (n,) int64 and vectors (n, D) float32 of length 1 of all clips, some at a time; padding is left out."""
    for block in corpus.blocks(ROWS_AT_A_TIME):
        unit = block.rows[:, modality].float() / block.norms[modality].unsqueeze(1)
        for run in block.runs:
            of_run = unit[run.rows].unflatten(0, (len(run.entries), -1))[:, : run.n_clips]
            yield run.entries.repeat(run.n_clips), of_run.flatten(0, 1).cpu().numpy()
