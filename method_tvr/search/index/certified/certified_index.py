"""The exact answer, proved, from few bytes: `--index certified`.

A query's search goes through the corpus in two levels (`bounds` has the mathematics). The first reads some bytes of
every clip, and so knows what each video's score cannot be above. Of the most promising videos the second reads more,
and the best of these are scored as an exact search scores them: the answer needs at least what the worst of them has.
Videos that cannot reach it are left out. Of those that may, the second level is read, and what may reach it still is
scored exactly, too: so the answer is that of an exact search. Where little can be left out, one pass over the corpus
scores the rest, and the search takes longer than one without an index.

The rows of the second level are longer; or, where all numbers are needed to leave anything out, they are those of the
first, multiplied with more precise weights.

Of many queries at once, any video is promising for some. So these go to the second level without the first, and what
they ask of a video is computed together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from method_tvr.search.candidates import SearchIndex
from method_tvr.search.corpus import Corpus
from method_tvr.search.index.certified.bounds import Basis, Floats, Layout
from method_tvr.search.index.certified.upper_bounds import MANY, Level, UpperBounds
from method_tvr.search.records import Shortlist
from method_tvr.search.scoring import (
    BestEntries,
    as_among,
    scores_as_among,
    scores_by_a_pass,
    scores_of_pairs,
    way_on,
)

PROMISING = 3  # times as many videos as are kept are looked at closely before any is left out
SCORED_AT_A_TIME = 64  # videos, after which it is known better what the answer needs
FEW, CLIPS_A_QUERY = 4, 100_000  # an exact search serves many by one pass: more than 15 of 1.1 million clips
CLIPS_A_BYTE = 150  # or, where they look together, more than 58 with rows of 128 bytes, and 19 with rows of 384
A_PASS = 8  # as soon as more than a share of 1/8 of all entries is left, a pass over the corpus is faster
A_PASS_OF_MANY = 50  # and as soon as more than 1/50 is for many queries, which a pass serves together
WORTH_IT = 0.8  # of the corpus' bytes, beyond which an exact search is faster
ONE_LOOK = torch.ones(1, dtype=torch.int64)  # and an answer is proved
BOUNDS_AT_A_TIME = 1 << 25  # of entries and queries: 128 MB


@dataclass
class Work:
    """What searches have read of index and corpus, and how many entries they scored exactly, to be reported."""

    queries: int = 0
    index_bytes: int = 0
    row_bytes: int = 0
    scored: int = 0


class _Scored:
    """What of a corpus has been scored for a query, asked with so many, as an exact search does, and the best of it."""

    def __init__(
        self,
        corpus: Corpus,
        query: torch.Tensor,
        n_queries: int,
        keep: int,
        usable: np.ndarray,
        video_of_entry: torch.Tensor | None,
    ) -> None:
        self._corpus, self._query, self._n_queries = corpus, query, n_queries
        self._kept = [(BestEntries(keep), min(keep, len(usable)))]  # and how many the answer has
        if video_of_entry is not None:
            n_videos = len(video_of_entry[torch.from_numpy(usable)].unique())
            self._kept.append((BestEntries(keep, video_of_entry, n_videos), min(keep, n_videos)))
        self.needed = -np.inf  # the score that the answer needs at least, as far as is known
        self.n_entries = self.n_clips = 0

    def add(self, entries: np.ndarray) -> None:
        """Score entries that have not been."""
        self.keep_best(entries, scores_as_among(self._corpus, entries, self._query, self._n_queries))

    def keep_best(self, entries: np.ndarray, scores: torch.Tensor) -> None:
        """Of entries (n,) that have been scored (n, 1) elsewhere."""
        self.n_entries += len(entries)
        self.n_clips += int(self._corpus.n_clips[entries].sum())
        for best, _ in self._kept:
            best.add(torch.from_numpy(entries), scores)
        found = [(best.result()[1][0], n) for best, n in self._kept]
        # of both: where there are fewer videos than are kept, entries go on below the worst of the videos
        if all(len(of_best) >= n for of_best, n in found):
            self.needed = min(float(of_best[n - 1]) for of_best, n in found)

    def add_by_a_pass(self, entries: np.ndarray) -> None:
        """The same for so many that one pass over the corpus is faster."""
        self.keep_best(entries, _scored_by_a_pass(self._corpus, entries, as_among(self._query, self._n_queries))[:, :1])

    def result(self) -> tuple[torch.Tensor, ...]:
        """Columns of a `Shortlist`."""
        (entries, _), (videos, _) = self._kept[0], self._kept[-1]
        return *entries.result(), *videos.result()


class CertifiedIndex(SearchIndex):
    """Finds what an exact search finds; see above.

    Args:
        bases: of each modality.
        layouts: of each level.
        level: number of a part and of a level -> that level of the part's rows.
        part, first_row: (Nv,) int64, where each entry of the corpus lies: its part, and the first of its rows there.
        n_clips: (Nv,) int64.
        row_bytes: what the model's own row of a clip takes.
    """

    def __init__(
        self,
        bases: Sequence[Basis],
        layouts: Sequence[Layout],
        level: Callable[[int, int], Level],
        part: np.ndarray,
        first_row: np.ndarray,
        n_clips: np.ndarray,
        row_bytes: int,
    ) -> None:
        self._bases, self._n_clips, self._row_bytes = bases, n_clips, row_bytes
        self._longest_row = layouts[-1].row_bytes  # of a modality
        self._above = UpperBounds(layouts, level, part, first_row, n_clips)
        self.work = Work()

    def is_worth_it(self, n_queries: int, keep: int) -> bool:
        n_clips = int(self._n_clips.sum())
        if self._looks_together(n_queries, keep, len(self._n_clips)):
            return n_queries <= n_clips // (CLIPS_A_BYTE * self._longest_row)
        return n_queries <= FEW + n_clips // CLIPS_A_QUERY

    @staticmethod
    def _looks_together(n_queries: int, keep: int, n_entries: int) -> bool:
        return n_queries >= MANY and n_entries >= A_PASS_OF_MANY * PROMISING * keep

    @torch.inference_mode()
    def find(
        self,
        corpus: Corpus,
        queries: torch.Tensor,
        keep: int,
        allowed: np.ndarray | None = None,
        video_of_entry: torch.Tensor | None = None,
    ) -> Shortlist:
        usable = self._above.in_order if allowed is None else self._above.in_order[allowed[self._above.in_order]]
        self.work.queries += len(queries)
        found = []
        for some in queries.split(max(1, BOUNDS_AT_A_TIME // len(usable))):
            asked = [basis.coordinates(of.numpy()) for basis, of in zip(self._bases, some.unbind(1), strict=True)]
            scored = [_Scored(corpus, query, len(queries), keep, usable, video_of_entry) for query in some.split(1)]
            if len(usable) <= keep:
                for one in scored:
                    one.add(usable)
            elif self._looks_together(len(some), keep, len(usable)):
                self._find_together(scored, asked, usable, corpus, some, keep)
            else:
                bounds = self._bounds(asked, usable, 0)
                for number, one in enumerate(scored):
                    alone = [of_modality[number : number + 1] for of_modality in asked]
                    self._find(one, alone, usable, bounds[number], keep)
            for one in scored:
                self.work.scored += one.n_entries
                self.work.row_bytes += one.n_clips * self._row_bytes
                found.append((*one.result(), ONE_LOOK))
        return Shortlist(*(torch.cat(column) for column in zip(*found, strict=True)))

    def said(self) -> str:
        if not self.work.queries:
            return "that many at once were searched exactly, by one pass over the corpus"
        n, corpus_bytes = self.work.queries, int(self._n_clips.sum()) * self._row_bytes
        read = (self.work.index_bytes + self.work.row_bytes) / n
        advice = "; --index exact is faster on encodings such as these" if read > WORTH_IT * corpus_bytes else ""
        return (
            f"a query reads {read / 1e6:,.1f} MB, {100 * read / corpus_bytes:.3g} % of the corpus' "
            f"{corpus_bytes / 1e6:,.1f} MB, and scores {self.work.scored / n:,.0f} of {len(self._n_clips):,}{advice}"
        )

    def _find(self, scored: _Scored, query: list[Floats], usable: np.ndarray, bound: np.ndarray, keep: int) -> None:
        """Score what may be among the best of the `usable` entries, whose scores are at most `bound`, by level 1."""
        closely, left = np.zeros(len(usable), bool), np.arange(len(usable))
        at_a_time = keep
        while len(left):
            known = scored.needed > -np.inf
            unread = left[~closely[left]]
            if len(unread) and (known or len(unread) == len(left)):
                some = unread if known else np.sort(_largest(bound, unread, PROMISING * keep))
                bound[some] = self._bounds(query, usable[some], 1)[0]
                closely[some] = True
            elif known and len(left) > max(len(usable) // A_PASS, at_a_time):
                scored.add_by_a_pass(usable[left])
                return
            else:
                best = _largest(bound, left[closely[left]], at_a_time)
                scored.add(usable[best])
                bound[best] = -np.inf  # it is done with
                at_a_time = SCORED_AT_A_TIME
            left = left[(bound[left] >= scored.needed) & (bound[left] > -np.inf)]

    def _find_together(
        self,
        scored: Sequence[_Scored],
        asked: Sequence[Floats],
        usable: np.ndarray,
        corpus: Corpus,
        queries: torch.Tensor,
        keep: int,
    ) -> None:
        """The same for many queries (Nq, M, D): all of level 1 is read, and entries are scored for many together."""
        bounds = self._bounds(asked, usable, 1)
        most = max(bounds.size // A_PASS_OF_MANY, PROMISING * keep * len(scored))
        while True:
            wanted = [
                _largest(bound, np.flatnonzero(bound > -np.inf), PROMISING * keep)
                if one.needed == -np.inf
                else np.flatnonzero(bound >= one.needed)
                for one, bound in zip(scored, bounds, strict=True)
            ]
            n_wanted = list(map(len, wanted))
            if not any(n_wanted):
                return
            places, query_of_pair = np.concatenate(wanted), np.repeat(np.arange(len(scored)), n_wanted)
            if len(places) > most:
                some, row = np.unique(places, return_inverse=True)
                scores = _scored_by_a_pass(corpus, usable[some], queries)[torch.from_numpy(row), query_of_pair]
            else:
                scores = scores_of_pairs(corpus, usable[places], query_of_pair, queries)
            bounds[query_of_pair, places] = -np.inf  # they are done with
            for one, own, of_query in zip(scored, wanted, scores.unsqueeze(1).split(n_wanted), strict=True):
                one.keep_best(usable[own], of_query)

    def _bounds(self, asked: Sequence[Floats], entries: np.ndarray, level: int) -> npt.NDArray[np.float32]:
        """See `UpperBounds.of`."""
        found, n_bytes = self._above.of(asked, entries, level)
        self.work.index_bytes += n_bytes
        return found


def _scored_by_a_pass(corpus: Corpus, entries: np.ndarray, queries: torch.Tensor) -> torch.Tensor:
    """(n, Nq) scores of entries (n,)."""
    place, found = torch.full((len(corpus),), -1), torch.empty((len(entries), len(queries)))
    place[torch.from_numpy(entries)] = torch.arange(len(entries))
    asked, way = (place >= 0).numpy(), way_on(corpus.device)
    for _, some, scores in scores_by_a_pass(corpus, [queries.to(corpus.dtype)], corpus.block_rows, way, asked):
        found[place[some]] = scores
    return found


def _largest(values: np.ndarray, places: np.ndarray, n: int) -> np.ndarray:
    """Those of some places whose values are largest, `n` at most."""
    return places if len(places) <= n else places[np.argpartition(-values[places], n - 1)[:n]]
