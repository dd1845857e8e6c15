"""The exact answer, proved, from few bytes: `--index certified`.

A query's search goes through the corpus in levels (`bounds` has the mathematics). The first reads some bytes of every
clip, and so knows what each video's score cannot be above. The most promising videos are scored as an exact search
scores them; the answer needs at least what the worst of the best of these has. Videos that cannot reach it are left
out. Of those that may, the next level reads more bytes, and what may reach it still is scored exactly, too: so the
answer is that of an exact search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from method_tvr.search.candidates import SearchIndex
from method_tvr.search.corpus import Corpus
from method_tvr.search.index.certified.bounds import (
    BEYOND_UNIT,
    BandQuery,
    Basis,
    Codes,
    SplitQuery,
    rounding_unit,
)
from method_tvr.search.records import Shortlist
from method_tvr.search.scoring import BestEntries, scores_of_entries

ROWS_AT_A_TIME = 1 << 16  # whose bounds are computed at a time: they stay in the caches
PROMISING = 1.2  # times as many videos as are kept are scored before any is left out
SCORED_AT_A_TIME = 128  # videos, after which it is known better what the answer needs
Floats = npt.NDArray[np.float32]
Rows = slice | torch.Tensor


class Level:
    """N clips of a modality in one band of directions: `bounds.Codes`, to be multiplied."""

    def __init__(self, codes: Codes) -> None:
        self._numbers, self._scale, self._rounding, self._beyond = map(torch.from_numpy, codes)
        self._rounding_unit = rounding_unit(self._numbers.shape[1])

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def row_bytes(self) -> int:
        """What a clip takes."""
        return self._numbers.shape[1] + 4

    def products(self, query: BandQuery, rows: Rows) -> torch.Tensor:
        """(n,) float32, of some clips with the query in this band, raised by as much as rounding may have taken."""
        whole = torch._int_mm(self._numbers[rows], query.numbers)  # (n, 2) int32, exact
        product = torch.mv(whole.float(), query.steps).mul_(self._scale[rows].float())
        return product.add_(self._rounding[rows], alpha=query.length * self._rounding_unit)

    def beyond(self, query: BandQuery, rows: Rows) -> torch.Tensor:
        """(n,) float32: what lies beyond this band may add as much."""
        return self._beyond[rows].float().mul_(query.beyond * BEYOND_UNIT)


@dataclass(frozen=True)
class Codebook:
    """The clips of a corpus in one modality: a basis, and a level for each band of its directions."""

    basis: Basis
    bands: Sequence[slice]
    levels: Sequence[Level]


@dataclass
class Work:
    """What searches have looked at, to be reported: bytes of the index, and entries scored exactly."""

    index_bytes: int = 0
    scored: int = 0


class _Scored:
    """What of a corpus has been scored for a query as an exact search scores it, and the best of that.

    Entries are known by their places in `usable`.
    """

    def __init__(
        self, corpus: Corpus, query: torch.Tensor, keep: int, usable: np.ndarray, video_of_entry: torch.Tensor | None
    ) -> None:
        self._corpus, self._query, self._usable = corpus, query, usable
        self._best = BestEntries(keep)
        n_videos, self._of_videos = len(usable), self._best
        if video_of_entry is not None:
            n_videos = len(video_of_entry[torch.from_numpy(usable)].unique())
            self._of_videos = BestEntries(keep, video_of_entry, n_videos)
        self._keep = min(keep, n_videos)
        self.done = np.zeros(len(usable), bool)
        self.needed = -np.inf  # the score that the answer needs at least, as far as is known

    def add(self, places: np.ndarray) -> None:
        """Score entries that have not been."""
        entries = self._usable[places]
        scores = scores_of_entries(self._corpus, entries, self._query)[:, :1]
        for best in {id(self._best): self._best, id(self._of_videos): self._of_videos}.values():
            best.add(torch.from_numpy(entries), scores)
        self.done[places] = True
        of_videos = self._of_videos.result()[1][0]
        if len(of_videos) >= self._keep:
            self.needed = float(of_videos[self._keep - 1])

    def result(self) -> tuple[torch.Tensor, ...]:
        """Columns of a `Shortlist`."""
        return *self._best.result(), *self._of_videos.result()


class CertifiedIndex(SearchIndex):
    """Finds what an exact search finds; see above.

    Args:
        codebooks: of each modality.
        first_row, n_clips: (Nv,) int64, where the clips of each entry of the corpus are among those of the codebooks.
    """

    most_at_once = 16  # an exact search serves many by one pass over the corpus

    def __init__(self, codebooks: Sequence[Codebook], first_row: np.ndarray, n_clips: np.ndarray) -> None:
        self._codebooks, self._first, self._n_clips = codebooks, first_row, n_clips
        self._in_order = np.argsort(first_row, kind="stable")  # of entries
        edges = np.stack([first_row, first_row + n_clips], axis=1)[self._in_order]
        self._edges = edges.ravel()  # of each entry's clips, one entry after another
        self.work = Work()

    @torch.inference_mode()
    def find(
        self,
        corpus: Corpus,
        queries: torch.Tensor,
        keep: int,
        allowed: np.ndarray | None = None,
        video_of_entry: torch.Tensor | None = None,
    ) -> Shortlist:
        usable = np.arange(len(corpus)) if allowed is None else np.flatnonzero(allowed)
        as_many = 1 if len(queries) == 1 else 2  # an exact search multiplies a query alone otherwise than several
        each = [
            self._find(corpus, query.expand(as_many, -1, -1), keep, usable, video_of_entry)
            for query in queries.unsqueeze(1)
        ]
        return Shortlist(*(torch.cat(column) for column in zip(*each, strict=True)))

    def _find(
        self, corpus: Corpus, query: torch.Tensor, keep: int, usable: np.ndarray, video_of_entry: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        """Entries, their scores, the best of each video, and their scores, (1, V) each; see `Shortlist`.

        The query is (1, M, D), or (2, M, D) twice the same.
        """
        split = [
            SplitQuery(book.basis, of_modality, book.bands)
            for book, of_modality in zip(self._codebooks, query[0].numpy(), strict=True)
        ]
        scored = _Scored(corpus, query, keep, usable, video_of_entry)
        bound, products = self._bounds_of_all(split)
        bound = bound[usable]
        n_first = min(round(PROMISING * keep), len(bound))
        self._score(scored, np.argpartition(-bound, n_first - 1)[:n_first])
        for level in range(1, len(self._codebooks[0].levels)):
            left = np.flatnonzero((bound >= scored.needed) & ~scored.done)
            if len(left):
                bound[left] = self._bounds(split, usable[left], level, products)
        while True:
            left = np.flatnonzero((bound >= scored.needed) & ~scored.done)
            if not len(left):
                break
            best = np.argsort(-bound[left], kind="stable")[:SCORED_AT_A_TIME]
            self._score(scored, left[best])
        return scored.result()

    def _score(self, scored: _Scored, places: np.ndarray) -> None:
        scored.add(places)
        self.work.scored += len(places)

    def _bounds_of_all(self, split: Sequence[SplitQuery]) -> tuple[Floats, list[torch.Tensor]]:
        """(Nv,) what the score of each entry is not above, by the first level; and of each modality its products."""
        found, products = np.zeros(len(self._first), np.float32), []
        for book, query in zip(self._codebooks, split, strict=True):
            level, band = book.levels[0], query[0]
            product, above = torch.empty(len(level)), torch.empty(len(level) + 1)
            above[-1] = -torch.inf  # of no clip: where the last entry's end
            for first in range(0, len(level), ROWS_AT_A_TIME):
                rows = slice(first, min(first + ROWS_AT_A_TIME, len(level)))
                product[rows] = level.products(band, rows)
                torch.add(product[rows], level.beyond(band, rows), out=above[rows])
            best = np.maximum.reduceat(above.numpy(), self._edges)[::2]
            found[self._in_order] += best + np.float32(query.constant(0))
            products.append(product)
            self.work.index_bytes += len(level) * level.row_bytes
        return found / np.float32(len(split)), products

    def _bounds(
        self, split: Sequence[SplitQuery], entries: np.ndarray, last: int, products: Sequence[torch.Tensor]
    ) -> Floats:
        """The same of some entries, by all levels up to the `last`, of which the first level's products are known."""
        counts = self._n_clips[entries]
        starts = np.cumsum(counts) - counts
        rows = torch.from_numpy(np.repeat(self._first[entries] - starts, counts) + np.arange(counts.sum()))
        found = np.zeros(len(entries), np.float32)
        for book, query, product in zip(self._codebooks, split, products, strict=True):
            above = book.levels[last].beyond(query[last], rows).add_(product[rows])
            for number in range(1, last + 1):
                above += book.levels[number].products(query[number], rows)
                self.work.index_bytes += len(rows) * book.levels[number].row_bytes
            found += np.maximum.reduceat(above.numpy(), starts) + np.float32(query.constant(last))
        return found / np.float32(len(split))
