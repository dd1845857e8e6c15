"""Which videos are worth a close look: the small interface behind which search indexes stand.

An index holds the clip vectors of a corpus, normalised, one set for each modality, and names entries whose clips are
near a query. It may be wrong: what it names is scored again with the model's own score, and what it does not name is
lost. How much that is, `recall` measures.

Some indexes also know what the cosine of a clip that they do not name cannot be above. An entry's score is the mean
over modalities of its best cosines. Where that of every entry that was not scored must be below the worst of the best,
none of them would change the answer: it is *proved* complete.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from method_tvr.search.corpus import Corpus
from method_tvr.search.records import NO_ENTRY, UNPROVED, Shortlist
from method_tvr.search.scoring import BestEntries, concatenated, scores_as_among, scores_of_entries
from utils.basic_utils import InputError
from utils.tensor_utils import to_device

ROWS_AT_A_TIME = 1 << 15
INSTALL = "pip install -r method_tvr/search/index/requirements.txt -c constraints.txt"  # what indexes need
ROUNDING = 4 * 2.0**-24  # for each number of a vector: twice what scores of it in two orders differ by at most


@dataclass(frozen=True)
class CandidateSettings:
    """How far an index looks."""

    n_clips: int = 3072  # nearest clips asked for in each modality
    n_entries: int = 250  # named at most, the best of those that these clips belong to; they are scored exactly
    n_probes: int = 256  # lists (cells of an inverted file) that are looked into, by indexes that have such
    prove: bool = False  # look further until answers are proved complete, by indexes that can


class SearchIndex(ABC):
    """What a search goes through a corpus by, instead of scoring all of it."""

    def is_worth_it(self, n_queries: int, keep: int) -> bool:
        """Whether the best `keep` entries of so many queries at once are found sooner by it than by scoring all."""
        return True

    def said(self) -> str:
        """What there is to say of its searches so far, but for their answers."""
        return ""

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


class Nearest(NamedTuple):
    """The clips nearest to Nq queries in a modality, as an index knows them, and what is certain of all clips."""

    entries: np.ndarray  # (Nq, K) int64, see `CandidateIndex.nearest_clips`
    cosines: np.ndarray  # (Nq, K) float32
    above: np.ndarray  # (Nq,) no clip that is not among these has a cosine above this, as a search computes it
    error: float = 0.0  # no clip among these has one that is further above what is said

    def of_query(self, row: int) -> Nearest:
        """Those of one query, (1, K)."""
        return Nearest(self.entries[row : row + 1], self.cosines[row : row + 1], self.above[row : row + 1], self.error)


class CandidateIndex(SearchIndex):
    """An index over the clips of a corpus; `settings` may be changed between searches.

    Attributes:
        proves: whether it knows anything of clips that it does not name.
    """

    settings: CandidateSettings
    remedy = "the index is damaged: build it again"  # said, with where it is, when it names what there is not
    proves = False

    @abstractmethod
    def nearest_clips(
        self, modality: int, queries: np.ndarray, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The entries of the clips nearest to queries (Nq, D) float32 of length 1, and their cosines.

        Entries (Nq, K) int64 are `NO_ENTRY` where there are fewer, an entry as often as it has clips among them; the
        cosines (Nq, K) float32 are as near as the index knows them. If given, `allowed` (Nv,) bool may be named.
        """

    def look(self, modality: int, queries: np.ndarray, allowed: np.ndarray | None) -> Nearest:
        """What `nearest_clips` says, and what is certain: nothing, unless an index knows better."""
        return Nearest(*self.nearest_clips(modality, queries, allowed), np.full(len(queries), np.inf))

    def further(self, query: np.ndarray, needed: float) -> Iterator[CandidateIndex]:
        """Itself, looking further each time for what may score as `needed` for a query (M, D)."""
        return iter(())

    def _look(self, queries: np.ndarray, allowed: np.ndarray | None, n_entries: int) -> list[Nearest]:
        """In each modality, for queries (Nq, M, D), over a corpus of so many entries."""
        each = range(queries.shape[1])
        with ThreadPoolExecutor(len(each)) as pool:  # indexes are not Python, and one query keeps them to one core
            of_modality = [np.ascontiguousarray(queries[:, m]) for m in each]
            found = list(pool.map(self.look, each, of_modality, [allowed] * len(each)))
        if any(((of.entries < NO_ENTRY) | (of.entries >= n_entries)).any() for of in found):
            raise InputError(f"{self.remedy} (it names entries that the corpus does not have)")
        return found

    @torch.inference_mode()
    def find(
        self,
        corpus: Corpus,
        queries: torch.Tensor,
        keep: int,
        allowed: np.ndarray | None = None,
        video_of_entry: torch.Tensor | None = None,
    ) -> Shortlist:
        """The candidates that score best. No video may have several entries, of which some would not be named.

        On a CPU, an answer that is proved is that of an exact search to the last bit.
        """
        if video_of_entry is not None:
            raise ValueError("candidates are videos, not parts of them")
        usable = np.arange(len(corpus)) if allowed is None else np.flatnonzero(allowed)
        keep = min(keep, len(usable))
        asked = queries.float().cpu().numpy()
        found = self._look(asked, allowed, len(corpus))
        proves = self.proves and corpus.device.type == "cpu" and corpus.dtype == torch.float32
        best, looks = [], []
        for row, query in enumerate(queries.split(1)):
            answer, nearest = _Answer(corpus, query, keep, usable, len(queries)), [of.of_query(row) for of in found]
            candidates = nearest_entries([(of.entries[0], of.cosines[0]) for of in nearest], self.settings.n_entries)
            answer.add(_filled(candidates, usable, keep))
            looks.append(self._prove(answer, nearest, asked[row : row + 1], allowed) if proves else UNPROVED)
            best.append(answer.best(looks[-1] != UNPROVED))
        entries_and_scores = concatenated(best)
        return Shortlist(*entries_and_scores, *entries_and_scores, torch.tensor(looks) if proves else None)

    def _prove(self, answer: _Answer, nearest: list[Nearest], query: np.ndarray, allowed: np.ndarray | None) -> int:
        """After how many looks, for a query (1, M, D), an answer is proved, or `UNPROVED`."""
        missing, looks = answer.missing(nearest), 1
        if missing is not None and not len(missing):
            return looks
        if not self.settings.prove:
            return UNPROVED
        for wider in self.further(query[0], answer.needed) if missing is None else ():
            missing, looks = answer.missing(wider._look(query, allowed, answer.n_entries)), looks + 1
            if missing is not None:
                break
        answer.add(answer.others() if missing is None else missing)
        return looks + 1


class _Answer:
    """What was scored for a query, and which other entries may be among the best.

    Args:
        query: (1, M, D).
        keep: how many are the best.
        usable: (n,) entries that may be, n >= keep.
        n_queries: asked at once. Among several an exact search multiplies a query in another order.
    """

    def __init__(self, corpus: Corpus, query: torch.Tensor, keep: int, usable: np.ndarray, n_queries: int) -> None:
        self._corpus, self._query, self._keep, self._usable = corpus, query, keep, usable
        self._scored, self._scores = np.empty(0, np.int64), torch.empty((0, 1), device=corpus.device)
        self._n_queries, self.n_entries = n_queries, len(corpus)
        self._rounding = 0.0 if n_queries == 1 else ROUNDING * (query.shape[-1] + 8)

    def add(self, entries: np.ndarray) -> None:
        """Score entries that have not been."""
        self._scores = torch.cat([self._scores, scores_of_entries(self._corpus, entries, self._query)])
        self._scored = np.concatenate([self._scored, entries])

    def best(self, proved: bool) -> BestEntries:
        """The best entries; if they are `proved` to be, with the scores of an exact search to the last bit."""
        entries, scores = self._scored, self._scores
        if proved and self._n_queries > 1:
            entries = entries[(scores[:, 0] >= self.needed).numpy()]
            scores = scores_as_among(self._corpus, entries, self._query, self._n_queries)
        best = BestEntries(self._keep)
        best.add(to_device(entries, scores.device), scores)
        return best

    def others(self) -> np.ndarray:
        """All that have not been scored."""
        return np.setdiff1d(self._usable, self._scored, assume_unique=True)

    @property
    def needed(self) -> float:
        """An entry with a lower score is not among the best."""
        return float(self._scores[:, 0].topk(self._keep).values[-1]) - self._rounding

    def missing(self, nearest: Sequence[Nearest]) -> np.ndarray | None:
        """Entries that may be among the best, by what an index says in each modality; None: any that it does not name.

        Also where they may have just what is needed: of equal ones their numbers decide.
        """
        needed = self.needed
        found = [(of.entries[0], of.cosines[0].astype(np.float64) + of.error, float(of.above[0])) for of in nearest]
        named = _named([entries for entries, _, _ in found])
        all_known = len(np.union1d(named, self._scored)) == len(self._usable)
        if not all_known and np.mean([above for _, _, above in found]) >= needed:
            return None
        left = np.setdiff1d(named, self._scored, assume_unique=True)
        return left[_sums_of_nearest(left, found) / len(found) >= needed]


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
    entries = _named([named for named, _ in found])
    farthest = [scores[named != NO_ENTRY].min(initial=np.inf) for named, scores in found]
    total = _sums_of_nearest(
        entries,
        [(*each, least) for each, least in zip(found, farthest, strict=True) if np.isfinite(least)],
    )
    return entries if len(entries) <= n else entries[np.argpartition(-total, n)[:n]]


def _named(found: list[np.ndarray]) -> np.ndarray:
    """Each entry once that was found in any modality, in order."""
    return np.unique(np.concatenate([named[named != NO_ENTRY] for named in found]))


def _sums_of_nearest(entries: np.ndarray, found: list[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """(n,) float64: of each of some entries, in order, the sum over modalities of the best cosine that was found.

    For each modality, entries (K,) and cosines (K,) were found, and there is a least that any counts as.
    """
    total = np.zeros(len(entries))
    for named, scores, least in found:
        nearest, there = np.full(len(entries), least), np.isin(named, entries)
        np.maximum.at(nearest, np.searchsorted(entries, named[there]), scores[there])
        total += nearest
    return total


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
