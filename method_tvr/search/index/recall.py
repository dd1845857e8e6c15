"""How much of an exact search's answers an index finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from method_tvr.search.records import EncodedQueries, Moments, Proofs, RankedVideos
from method_tvr.search.retrieval import Searcher

TOP_VIDEOS = 100


@dataclass(frozen=True)
class IndexRecall:
    """Shares from 0 to 1, over queries."""

    n_queries: int
    videos: float  # of the exact search's first 100 videos (or as many as are kept)
    first_moment: float  # of queries whose exact first moment comes first here too
    proofs: Proofs | None = None  # None: the index proves nothing

    def __str__(self) -> str:
        proved = "" if self.proofs is None else f"; {self.proofs}"
        return (
            f"{self.n_queries} queries: the index finds {self.videos:.4f} of the exact first {TOP_VIDEOS} videos, and "
            f"{self.first_moment:.4f} of the exact first moments{proved}"
        )


def index_recall(searcher: Searcher, queries: EncodedQueries) -> IndexRecall:
    """Ask by way of the index and exactly, and compare."""
    found = searcher.shortlist(queries)
    proofs = None if found.looks is None else Proofs.of(found.looks)
    return compare(searcher.search(queries, given=found), searcher.exact().search(queries), proofs)


def compare(
    found: Iterable[tuple[Moments, RankedVideos]],
    exact: Iterable[tuple[Moments, RankedVideos]],
    proofs: Proofs | None = None,
) -> IndexRecall:
    """Compare answers to the same queries, block by block; how many of those found are proved is known already."""
    shares, first = [], []
    for (moments, videos), (wanted_moments, wanted) in zip(found, exact, strict=True):
        for named, right in zip(videos.entry[:, :TOP_VIDEOS], wanted.entry[:, :TOP_VIDEOS], strict=True):
            shares.append(len(np.intersect1d(named, right)) / len(right))
        same = [getattr(moments, name)[:, 0] == getattr(wanted_moments, name)[:, 0] for name in ("entry", "st", "ed")]
        first.append(np.logical_and.reduce(same))
    return IndexRecall(len(shares), float(np.mean(shares)), float(np.concatenate(first).mean()), proofs)
