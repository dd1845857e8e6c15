"""Exact answers over a corpus in shards, each searched by another process: what is kept of each shard's answers.

A shard is a range of the corpus's entries, numbered from 0 within it; it has all entries of a video or none. First each
shard's best videos are merged into the corpus's; then each shard finds moments in its own among these, and the moments
are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from method_tvr.search.records import IMPOSSIBLE, NO_ENTRY, Moments
from utils.ranks import Ranks

FILLING = -1.0  # weight of a video that only fills a row up: its spans score below all others, or -0


@dataclass(frozen=True)
class Shard:
    """The part of a corpus that this process searches.

    There are no entries in it where there are more processes than videos: what is searched in their place has no say.
    """

    entries: range  # of the corpus
    ranks: Ranks

    def merged_videos(
        self, entries: torch.Tensor, scores: torch.Tensor, keep: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Best entries of the corpus out of this shard's (Nq, V) and, from the other processes, those of theirs."""
        own = slice(len(self.entries))
        shares = self.ranks.all_gather(((entries[:, own] + self.entries.start).cpu(), scores[:, own].cpu()))
        best = merge_videos([named for named, _ in shares], [scored for _, scored in shares], keep)
        return best[0].to(entries.device), best[1].to(entries.device)

    def merged_moments(self, own: Moments, keep: int) -> Moments:
        """Best moments of the corpus out of those found in `videos_of_shard` and, from the other processes, theirs."""
        return merge_moments(self.ranks.all_gather(moments_of_shard(own, self.entries)), keep)


def merge_videos(
    entries: Sequence[torch.Tensor], scores: Sequence[torch.Tensor], keep: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `keep` best videos (Nq, V) of the corpus out of each shard's (Nq, V_i), or all it has; and their scores.

    They come best first; equal scores in order of entry, whatever the shards.
    """
    all_entries, in_order = torch.cat(list(entries), dim=1).sort(dim=1)
    all_scores = torch.cat(list(scores), dim=1).gather(1, in_order)
    best_scores, best = all_scores.sort(dim=1, descending=True, stable=True)
    return all_entries.gather(1, best[:, :keep]), best_scores[:, :keep]


def videos_of_shard(entries: torch.Tensor, weights: torch.Tensor, shard: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of each query's videos (Nq, V) that a shard has, (Nq, W) int64 in its own numbers, and their weights.

    W is as many as the query has that has most of them, and at least 1. Where a query has fewer, rows are filled up;
    `moments_of_shard` leaves out what is found there. Weights must not be negative, nor the shard empty.
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
    entry = np.where(found, moments.entry + shard.start, NO_ENTRY)
    return replace(moments, entry=entry, score=np.where(found, moments.score, np.float32(IMPOSSIBLE)))


def merge_moments(parts: Sequence[Moments], keep: int) -> Moments:
    """The best `keep` moments of the corpus out of each shard's, whose entries are the corpus's.

    They come best first; equal scores in order of entry, start and end, whatever the shards.
    """
    columns = [np.concatenate([getattr(part, one.name) for part in parts], axis=1) for one in fields(Moments)]
    entry, st, ed, score, *_ = columns
    missing = entry == NO_ENTRY
    best = np.lexsort((ed, st, entry, -score, missing), axis=1)[:, :keep]
    return Moments(*(np.take_along_axis(column, best, axis=1) for column in columns))
