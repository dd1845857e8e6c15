"""Exact answers over a corpus in shards, each searched by another process: what is kept of each shard's answers.

A shard is a range of the corpus's entries, numbered from 0 within it; it has all entries of a video or none. First each
shard's best videos are merged into the corpus's; then each shard finds moments in its own among these, and the moments
are merged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from method_tvr.search.retrieval import IMPOSSIBLE, NO_ENTRY, CorpusSearch, EncodedQueries, Found, Moments
from utils.ranks import Ranks

FILLING = -1.0  # weight of a video that only fills a row up: its spans score below all others, or -0


class ShardedSearcher(CorpusSearch):
    """Searches a corpus of which each process has a shard: all ask the same, and get the answers of the whole corpus.

    Args:
        own: searches this process's shard; anything else when the shard is empty.
        shard: the entries of the corpus that are in it.
        ranks: the processes.
    """

    def __init__(self, own: CorpusSearch, shard: range, ranks: Ranks) -> None:
        self.settings = own.settings
        self._own, self._shard, self._ranks = own, shard, ranks

    def find(self, queries: EncodedQueries, allowed: np.ndarray | None = None) -> Found:
        if allowed is not None:
            raise ValueError("a corpus in shards is searched whole")
        found = self._own.find(queries)
        entries = self._merged(found.entries, found.entry_scores)
        if found.videos is found.entries:
            return Found(*entries, *entries)
        return Found(*entries, *self._merged(found.videos, found.video_scores))

    def _merged(self, entries: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Best entries of the corpus out of this shard's and, from the other processes, those of theirs."""
        own = slice(len(self._shard))
        shares = self._ranks.all_gather(((entries[:, own] + self._shard.start).cpu(), scores[:, own].cpu()))
        best = merge_videos(
            [entries for entries, _ in shares], [scores for _, scores in shares], self.settings.max_vcmr_video
        )
        return best[0].to(entries.device), best[1].to(entries.device)

    def search_moments(
        self,
        queries: EncodedQueries,
        entries: torch.Tensor,
        video_weights: torch.Tensor | None = None,
        one_video: bool = False,
    ) -> Moments:
        weights = torch.ones(entries.shape, device=entries.device) if video_weights is None else video_weights
        own = self._own.search_moments(queries, *videos_of_shard(entries, weights, self._shard), one_video)
        return merge_moments(self._ranks.all_gather(moments_of_shard(own, self._shard)), self.settings.max_moments)


def merge_videos(
    entries: Sequence[torch.Tensor], scores: Sequence[torch.Tensor], keep: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best videos of the corpus out of the best ones of each shard.

    Args:
        entries: per shard (Nq, V_i) int64, entries of the corpus; each shard's `keep` best, or all it has.
        scores: per shard (Nq, V_i).
        keep: videos kept per query.

    Returns:
        Entries (Nq, V) and scores (Nq, V), best first, V <= keep; equal scores in order of entry, whatever the shards.
    """
    all_entries, in_order = torch.cat(list(entries), dim=1).sort(dim=1)
    all_scores = torch.cat(list(scores), dim=1).gather(1, in_order)
    best_scores, best = all_scores.sort(dim=1, descending=True, stable=True)
    return all_entries.gather(1, best[:, :keep]), best_scores[:, :keep]


def videos_of_shard(entries: torch.Tensor, weights: torch.Tensor, shard: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of each query's videos that a shard has, as `Searcher.search_moments` takes them.

    Args:
        entries: (Nq, V) int64, entries of the corpus.
        weights: (Nq, V) factor of each video's moments, not negative.
        shard: the entries that it has, at least one.

    Returns:
        Entries (Nq, W) int64 of the shard and their weights (Nq, W), W as many as the query that has most of them, and
        at least 1. Where a query has fewer, rows are filled up; `moments_of_shard` leaves out what is found there.
    """
    inside = (entries >= shard.start) & (entries < shard.stop)
    width = max(1, int(inside.sum(dim=1).max()))
    first = (~inside).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
    found = inside.gather(1, first)
    own = torch.where(found, entries.gather(1, first) - shard.start, 0)
    return own, torch.where(found, weights.gather(1, first), FILLING)


def moments_of_shard(moments: Moments, shard: range) -> Moments:
    """What `search_moments` found in the videos of `videos_of_shard`, with entries of the corpus and no fillings."""
    found = (moments.entry != NO_ENTRY) & ~np.signbit(moments.score)
    return Moments(
        np.where(found, moments.entry + shard.start, NO_ENTRY),
        moments.st,
        moments.ed,
        np.where(found, moments.score, np.float32(IMPOSSIBLE)),
    )


def merge_moments(parts: Sequence[Moments], keep: int) -> Moments:
    """The best moments of the corpus out of the best ones of each shard.

    Args:
        parts: of the same queries, with entries of the corpus; each shard's `keep` best, or all it has.
        keep: moments kept per query.

    Returns:
        At most `keep` moments a query, best first; equal scores in order of entry, start and end, whatever the shards.
    """
    entry, st, ed, score = (
        np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("entry", "st", "ed", "score")
    )
    missing = entry == NO_ENTRY
    best = np.lexsort((ed, st, entry, -score, missing), axis=1)[:, :keep]
    return Moments(*(np.take_along_axis(column, best, axis=1) for column in (entry, st, ed, score)))
