"""The exact answer, proved, from few bytes: `--index certified`.

A query's search goes through the corpus in two levels (`bounds` has the mathematics). The first reads some bytes of
every clip, and so knows what each video's score cannot be above. Of the most promising videos the second reads more,
and the best of these are scored as an exact search scores them: the answer needs at least what the worst of them has.
Videos that cannot reach it are left out. Of those that may, the second level is read, and what may reach it still is
scored exactly, too: so the answer is that of an exact search. Where little can be left out, one pass over the corpus
scores the rest, and the search takes longer than one without an index.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from method_tvr.search.candidates import SearchIndex
from method_tvr.search.corpus import Corpus
from method_tvr.search.index.certified.bounds import (
    Asked,
    Basis,
    Floats,
    Layout,
    Scales,
    Weights,
    products,
    side_by_side,
    weights,
)
from method_tvr.search.records import Shortlist
from method_tvr.search.scoring import BestEntries, as_among, scores_as_among, scores_by_a_pass, way_on
from utils.storage.array_file import ArrayFile

ROWS_AT_A_TIME = 1 << 16  # whose bounds are computed at a time: they stay in the caches
NUMBERS_AT_A_TIME = 1 << 22  # of bounds, for several queries
AHEAD = 2  # blocks that are read from disk meanwhile, each by a thread
GAP = 32  # rows that are read along rather than left out
PROMISING = 3  # times as many videos as are kept are looked at closely before any is left out
SCORED_AT_A_TIME = 64  # videos, after which it is known better what the answer needs
FEW, CLIPS_A_QUERY = 4, 60_000  # an exact search serves many by one pass: more than 22 of 1.1 million clips
A_PASS = 8  # as soon as more than a share of 1/8 of all entries is left, a pass over the corpus is faster
WORTH_IT = 0.8  # of the corpus' bytes, beyond which an exact search is faster
ONE_LOOK = torch.ones(1, dtype=torch.int64)  # and an answer is proved
BOUNDS_AT_A_TIME = 1 << 25  # of entries and queries: 128 MB


class Level(NamedTuple):
    """What is kept of the rows of a part at one level: of each modality by itself, or of all of them side by side.

    The first level is read from end to end, the next one here and there.
    """

    scales: Sequence[Scales]  # of each modality
    rows: ArrayFile | np.ndarray  # (M, R, W) or (1, R, M * W) int8, on disk or in memory


@dataclass
class Work:
    """What searches have read of index and corpus, and how many entries they scored exactly, to be reported."""

    queries: int = 0
    index_bytes: int = 0
    row_bytes: int = 0
    scored: int = 0


class Block(NamedTuple):
    """Entries of a part that are looked at together: their rows are read one stretch after another."""

    entries: slice  # of those that were asked for
    stretches: list[slice]  # of the part's rows
    edges: np.ndarray  # where the clips of each entry begin and end in what is read, one after another


class Wanted(NamedTuple):
    """Rows of a block that are to be multiplied."""

    kept: ArrayFile | np.ndarray  # see `Level`
    number: int  # of the kept ones, the modality or 0
    block: Block
    of: Weights


PartBlocks = tuple[int, list[Block]]  # number of a part, and blocks of its entries


def blocks_of(first: np.ndarray, n_clips: np.ndarray, most: int, number: int) -> Iterator[Block]:
    """Entries, in the order of their rows, in blocks of about `most` rows; the first of them has a number."""
    end = first + n_clips
    apart = np.append(True, first[1:] - end[:-1] > GAP)  # a stretch begins
    skipped = np.cumsum(np.where(apart, first - np.append(0, end[:-1]), 0))
    place = (first - skipped) // most
    begins = np.flatnonzero(np.append(True, place[1:] != place[:-1])).tolist()
    for a, b in zip(begins, [*begins[1:], len(first)], strict=True):
        new = np.append(True, apart[a + 1 : b])
        firsts = first[a:b][new]
        ends = np.append(end[a : b - 1][new[1:]], end[b - 1])
        before = np.cumsum(ends - firsts) - (ends - firsts)
        shift = (before - firsts)[np.cumsum(new) - 1]
        edges = np.stack([first[a:b] + shift, end[a:b] + shift], axis=1).ravel()
        yield Block(slice(number + a, number + b), list(map(slice, firsts.tolist(), ends.tolist())), edges)


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
        self._best = BestEntries(keep)
        n_videos, self._of_videos = len(usable), self._best
        if video_of_entry is not None:
            n_videos = len(video_of_entry[torch.from_numpy(usable)].unique())
            self._of_videos = BestEntries(keep, video_of_entry, n_videos)
        self._keep = min(keep, n_videos)
        self.needed = -np.inf  # the score that the answer needs at least, as far as is known
        self.n_entries = self.n_clips = 0

    def add(self, entries: np.ndarray) -> None:
        """Score entries that have not been."""
        self._keep_best(entries, scores_as_among(self._corpus, entries, self._query, self._n_queries))

    def _keep_best(self, entries: np.ndarray, scores: torch.Tensor) -> None:
        self.n_entries += len(entries)
        self.n_clips += int(self._corpus.n_clips[entries].sum())
        for best in {id(self._best): self._best, id(self._of_videos): self._of_videos}.values():
            best.add(torch.from_numpy(entries), scores)
        of_videos = self._of_videos.result()[1][0]
        if len(of_videos) >= self._keep:
            self.needed = float(of_videos[self._keep - 1])

    def add_by_a_pass(self, entries: np.ndarray) -> None:
        """The same for so many that one pass over the corpus is faster."""
        asked = np.zeros(len(self._corpus), bool)
        asked[entries] = True
        query = as_among(self._query, self._n_queries).to(self._corpus.dtype)
        way, max_rows = way_on(self._corpus.device), self._corpus.block_rows
        for _, some, scores in scores_by_a_pass(self._corpus, [query], max_rows, way, asked):
            self._keep_best(some.numpy(), scores[:, :1])

    def result(self) -> tuple[torch.Tensor, ...]:
        """Columns of a `Shortlist`."""
        return *self._best.result(), *self._of_videos.result()


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
        self._bases, self._layouts, self._level = bases, layouts, level
        self._part, self._first, self._n_clips, self._row_bytes = part, first_row, n_clips, row_bytes
        self._in_order = np.lexsort((first_row, part))
        self._whole: tuple[int, list[PartBlocks]] = (0, [])  # blocks of that many rows, of all entries
        self._rooms = [np.empty(0, np.int8) for _ in range(AHEAD + 1)]
        self.most_at_once = FEW + int(n_clips.sum()) // CLIPS_A_QUERY
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
        usable = self._in_order if allowed is None else self._in_order[allowed[self._in_order]]
        self.work.queries += len(queries)
        found = []
        for some in queries.split(max(1, BOUNDS_AT_A_TIME // len(usable))):
            asked = [basis.coordinates(of.numpy()) for basis, of in zip(self._bases, some.unbind(1), strict=True)]
            bounds = self._bounds(asked, usable, 0) if len(usable) > keep else None
            for number, query in enumerate(some.split(1)):
                scored = _Scored(corpus, query, len(queries), keep, usable, video_of_entry)
                if bounds is None:
                    scored.add(usable)
                else:
                    alone = [of_modality[number : number + 1] for of_modality in asked]
                    self._find(scored, alone, usable, bounds[number], keep)
                self.work.scored += scored.n_entries
                self.work.row_bytes += scored.n_clips * self._row_bytes
                found.append((*scored.result(), ONE_LOOK))
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

    def _bounds(self, queries: Sequence[Floats], entries: np.ndarray, level: int) -> npt.NDArray[np.float32]:
        """(Nq, n) what scores of entries (n,), in the order in which they lie, are not above.

        Queries are given by their coordinates (Nq, D) in each modality.
        """
        n, layout = len(queries[0]), self._layouts[level]
        found = np.zeros((n, len(entries)), np.float32)
        asked = [Asked.of(coordinates, layout) for coordinates in queries]
        most = max(1 << 12, min(ROWS_AT_A_TIME, NUMBERS_AT_A_TIME // n))

        def wanted() -> Iterator[Wanted]:
            for part, blocks in self._blocks(entries, most):
                there = self._level(part, level)
                of = [weights(one, layout, own, level > 0) for one, own in zip(asked, there.scales, strict=True)]
                if len(there.rows) < len(of):
                    of = [side_by_side(of)]
                yield from (Wanted(there.rows, number, block, own) for block in blocks for number, own in enumerate(of))

        for (_, _, block, of), rows in self._read_ahead(wanted()):
            self.work.index_bytes += rows.nbytes
            above = _best(rows, block, of) * of.step + of.constant
            found[:, block.entries] += above.reshape(len(above), -1, n).sum(axis=1).T
        return np.divide(found, len(queries), out=found)

    def _blocks(self, entries: np.ndarray, most: int) -> list[PartBlocks]:
        """Entries, in the order in which they lie, part by part; those of all are kept for the next query."""
        if entries is self._in_order and self._whole[0] == most:
            return self._whole[1]
        of_part, found = self._part[entries], []
        begins = np.flatnonzero(np.append(True, of_part[1:] != of_part[:-1])).tolist()
        for a, b in zip(begins, [*begins[1:], len(entries)], strict=True):
            some = entries[a:b]
            found.append((int(of_part[a]), list(blocks_of(self._first[some], self._n_clips[some], most, a))))
        if entries is self._in_order:
            self._whole = most, found
        return found

    def _read_ahead(self, wanted: Iterator[Wanted]) -> Iterator[tuple[Wanted, np.ndarray]]:
        """The rows of blocks, until the next are asked for; on disk, some are read while another is computed with."""
        waiting = deque[tuple[Wanted, Future[np.ndarray]]]()
        with ThreadPoolExecutor(AHEAD) as pool:
            for number, this in enumerate(wanted):
                if isinstance(this.kept, np.ndarray):
                    yield this, self._read(this, 0)
                    continue
                waiting.append((this, pool.submit(self._read, this, number % len(self._rooms))))
                if len(waiting) > AHEAD:
                    before, read = waiting.popleft()
                    yield before, read.result()
            for before, read in waiting:
                yield before, read.result()

    def _read(self, wanted: Wanted, room: int) -> np.ndarray:
        """(n, W) int8 rows of a block, one stretch after another, until the room is used again."""
        kept, number, block, _ = wanted
        if isinstance(kept, np.ndarray) and len(block.stretches) == 1:
            return np.asarray(kept[number, block.stretches[0]])
        n, width = sum(stretch.stop - stretch.start for stretch in block.stretches), kept.shape[2]
        if len(self._rooms[room]) < n * width:
            self._rooms[room] = np.empty(n * width, np.int8)
        found = self._rooms[room][: n * width].reshape(n, width)
        if isinstance(kept, np.ndarray):
            return np.concatenate([kept[number, stretch] for stretch in block.stretches], out=found)
        kept.read_stretches(found, block.stretches, number)
        return found


def _best(rows: np.ndarray, block: Block, of: Weights) -> npt.NDArray[np.int32]:
    """(n, Nq) the largest product of the clips of each entry of a block, of as many queries as have weights."""
    found = F.pad(products(torch.from_numpy(rows), of), (0, 0, 0, 1)).numpy()  # to where the last entry's clips end
    flat = found if found.shape[1] > 1 else found[:, 0]
    best: npt.NDArray[np.int32] = np.maximum.reduceat(flat, block.edges, axis=0)[::2]
    return best.reshape(-1, found.shape[1])


def _largest(values: np.ndarray, places: np.ndarray, n: int) -> np.ndarray:
    """Those of some places whose values are largest, `n` at most."""
    return places if len(places) <= n else places[np.argpartition(-values[places], n - 1)[:n]]
