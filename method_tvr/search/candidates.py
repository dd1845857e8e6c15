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
import torch.nn.functional as F

from method_tvr.model_components import pool_clips
from method_tvr.search.corpus import Corpus
from method_tvr.search.records import NO_ENTRY
from utils.basic_utils import InputError
from utils.tensor_utils import to_device

ENTRIES_AT_A_TIME = 40  # that are scored: their clips stay in the caches
ROWS_AT_A_TIME = 1 << 15


@dataclass(frozen=True)
class CandidateSettings:
    """How far an index looks."""

    n_clips: int = 3072  # nearest clips asked for in each modality
    n_entries: int = 250  # named at most, the best of those that these clips belong to; they are scored exactly
    n_probes: int = 256  # lists (cells of an inverted file) that are looked into, by indexes that have such


class CandidateIndex(ABC):
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
    def best_entries(
        self, corpus: Corpus, queries: torch.Tensor, keep: int, allowed: np.ndarray | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The `keep` candidates that score best, (Nq, V) int64, with scores and in the order of an exact search.

        The corpus is that of the index; queries (Nq, M, D) are of unit length; for `allowed` see `nearest_clips`. An
        `InputError` if the index names entries that the corpus does not have.
        """
        usable = np.arange(len(corpus)) if allowed is None else np.flatnonzero(allowed)
        keep = min(keep, len(usable))
        named = []
        for found in self.candidates(queries.float().cpu().numpy(), allowed):
            if ((found < 0) | (found >= len(corpus))).any():
                raise InputError(f"{self.remedy} (it names entries that the corpus does not have)")
            named.append(_filled(found, usable, keep))
        entries, scores = [], []
        for query, candidates in zip(queries, named, strict=True):
            best_scores, best = _scores_of(corpus, query, candidates).topk(keep)
            entries.append(to_device(candidates, best.device)[best])
            scores.append(best_scores)
        return torch.stack(entries), torch.stack(scores)


def _scores_of(corpus: Corpus, query: torch.Tensor, entries: np.ndarray) -> torch.Tensor:
    """(C,) scores of a query (M, D) with entries (C,)."""
    corpus.expect(entries)
    by_modality = torch.block_diag(*query.to(corpus.dtype).unsqueeze(1))  # (M, M * D)
    n = len(query)  # the first vectors of a row
    n_clips = corpus.n_clips[entries]
    order = np.argsort(n_clips, kind="stable")  # those of one length are pooled together
    pooled = []
    for first in range(0, len(order), ENTRIES_AT_A_TIME):
        some = order[first : first + ENTRIES_AT_A_TIME]
        rows, norms = corpus.clips_of(entries[some])
        cosine = F.linear(rows[:, :n].flatten(1), by_modality).float().t() / norms[:n]  # (M, R)
        lengths, counts = np.unique(n_clips[some], return_counts=True)
        runs = zip(cosine.split((lengths * counts).tolist(), dim=1), lengths.tolist(), strict=True)
        pooled += [pool_clips(run.unflatten(1, (-1, length))) for run, length in runs]
    scores = torch.empty(len(entries), device=pooled[0].device)
    scores[to_device(order, scores.device)] = torch.cat(pooled, dim=1).mean(dim=0)
    return scores


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
