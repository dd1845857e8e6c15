"""Queries compared with the rows of a corpus, as a CPU and as a GPU are quickest at it; and the best of what goes by.

A CPU computes what is asked for and no more, in many small products whose results stay in its caches. A GPU is through
with a large product before the host has asked for a second one, and idle whenever the host waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from method_tvr.model import MASKED
from method_tvr.model_components import pool_clips
from method_tvr.search.corpus import Block, Corpus, Run, Runs, UnreadBlock
from utils.cores import on_each_core
from utils.tensor_utils import to_device

ROWS_A_STEP, COLUMNS_A_STEP = 64, 16  # a multiple of what a CPU's matrix product takes at a time
ENTRIES_AT_A_TIME = 40  # of those that are named: their clips stay in the caches
MOST_PADDED = 4  # times as many rows as there are, where entries are padded; TVR's take 2.3 times as many
PRODUCT_BYTES = 1 << 30  # of rows that one product on a GPU compares with queries, about


class Way(NamedTuple):
    """What is done in one way on a CPU and in another on a GPU."""

    products: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """Rows (R, D) and queries (Nq, D) -> (R, Nq) products."""

    pooled: Callable[[torch.Tensor, Runs], torch.Tensor]
    """(R, Nq) cosines of the rows of runs -> (n, Nq), each entry's `pool_clips`."""

    clip_similarity: Callable[[Corpus, torch.Tensor, torch.Tensor, slice], torch.Tensor]
    """A corpus, queries (Nq, S, D), entries (Nq, V) int64, those that each query looks at, and which S of a row's
    vectors count -> (Nq * V, L) products with the rows of each entry, 0 past them; L at least as many as the longest of
    them has."""

    blocks_at_once: int
    """Blocks of queries whose `clip_similarity` is computed together."""

    each: Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
    """What is computed of pieces, in their order."""


def video_scores(video_queries: torch.Tensor, block: Block, way: Way) -> torch.Tensor:
    """(n, Nq) score of each of the block's entries, in the order of its runs, for each query (Nq, M, D)."""
    of_modality = []
    for m in range(video_queries.shape[1]):  # the first vectors of a row
        # clips first: the product is faster that way, and so is the maximum over them
        cosine = way.products(block.rows[:, m], video_queries[:, m]).float().div_(block.norms[m].unsqueeze(1))
        of_modality.append(way.pooled(cosine, block.runs))  # of (R, Nq)
    return torch.stack(of_modality).mean(dim=0)


def scores_of_entries(corpus: Corpus, entries: np.ndarray, video_queries: torch.Tensor) -> torch.Tensor:
    """(n, Nq) scores of some entries (n,), for queries (Nq, M, D): on a CPU, bit by bit those of a search of them all.

    So they are there because `products_alike` does not let a product depend on what else is computed with it, but for
    whether the query is alone; and because one core computes each, however many there are.
    """
    corpus.expect(entries)
    queries = video_queries.to(corpus.dtype)
    n_clips = corpus.n_clips[entries]
    order = np.argsort(n_clips, kind="stable")  # those of one length are pooled together
    scores, way = torch.empty((len(entries), len(queries)), device=corpus.device), way_on(corpus.device)

    def score(places: np.ndarray) -> None:
        rows, norms = corpus.clips_of(entries[places])
        lengths, counts = np.unique(n_clips[places], return_counts=True)
        ends = np.cumsum(lengths * counts).tolist()
        stretches = map(slice, [0, *ends[:-1]], ends)
        of_length = np.split(entries[places], np.cumsum(counts)[:-1])
        runs = Runs(map(Run, of_length, lengths.tolist(), stretches))
        scores[to_device(places, corpus.device)] = video_scores(queries, Block(rows, norms, runs), way)

    at_a_time = (order[first : first + ENTRIES_AT_A_TIME] for first in range(0, len(order), ENTRIES_AT_A_TIME))
    for _ in way.each(score, at_a_time):
        pass
    return scores


def scores_of_pairs(
    corpus: Corpus, entries: np.ndarray, query_of_pair: np.ndarray, video_queries: torch.Tensor
) -> torch.Tensor:
    """(P,) scores of entries (P,), each for one of several queries (Nq, M, D), whose numbers are `query_of_pair` (P,).

    On a CPU, bit by bit those of a search; see `scores_of_entries`. Clips are multiplied with the queries that ask for
    their entry, and with few others: where few ask, several entries make up one product.
    """
    columns = [of_modality.contiguous() for of_modality in video_queries.to(corpus.dtype).unbind(1)]
    order = np.argsort(entries, kind="stable")
    entries, asked = entries[order], query_of_pair[order]
    found = np.empty((len(columns), len(entries)), np.float32)

    def score(products: list[slice]) -> None:
        here, place = np.unique(entries[products[0].start : products[-1].stop], return_inverse=True)
        corpus.expect(here)
        rows, norms = corpus.clips_of(here)
        ends = np.cumsum(corpus.n_clips[here])
        starts = ends - corpus.n_clips[here]
        for pairs in products:
            own = place[pairs.start - products[0].start : pairs.stop - products[0].start]
            first, end = int(starts[own[0]]), int(ends[own[-1]])
            more = min(first - (first - end) // ROWS_A_STEP * ROWS_A_STEP, len(rows))  # to a whole step, if there are
            numbers = F.pad(torch.from_numpy(asked[pairs]), (0, -len(own) % COLUMNS_A_STEP))
            for m, queries in enumerate(columns):
                cosine = products_alike(rows[first:more, m], queries.index_select(0, numbers))[: end - first]
                cosine.div_(norms[m, first:end].unsqueeze(1))
                best = np.maximum.reduceat(cosine.numpy(), starts[own[0] : own[-1] + 1] - first, axis=0)
                found[m, pairs] = best[own - own[0], np.arange(len(own))]

    for _ in on_each_core(score, _products_of_pairs(entries)):
        pass
    scores = torch.empty(len(entries))
    scores[torch.from_numpy(order)] = torch.from_numpy(found).mean(dim=0)
    return scores


def _products_of_pairs(entries: np.ndarray) -> Iterator[list[slice]]:
    """Stretches of pairs with entries in order, for each product one, all pairs of an entry in it; some at a time."""
    begins = np.flatnonzero(np.append(True, entries[1:] != entries[:-1]))
    products, n, first = [], 0, 0
    for begin, end in pairwise([*begins.tolist(), len(entries)]):
        if begin > first and end - first > COLUMNS_A_STEP:
            products.append(slice(first, begin))
            first = begin
            if n >= ENTRIES_AT_A_TIME:
                yield products
                products, n = [], 0
        n += 1
    yield [*products, slice(first, len(entries))]


def scores_as_among(corpus: Corpus, entries: np.ndarray, query: torch.Tensor, n_queries: int) -> torch.Tensor:
    """(n, 1) scores of some entries (n,), bit by bit those that a query (1, M, D) gets in a search of so many at once.

    One alone is multiplied otherwise than several, whose products do not depend on what the others are.
    """
    return scores_of_entries(corpus, entries, as_among(query, n_queries))[:, :1]


def as_among(query: torch.Tensor, n_queries: int) -> torch.Tensor:
    """A query (1, M, D), repeated so that its products are those in a search of so many; see `scores_as_among`."""
    return query.expand(min(n_queries, 2), -1, -1)


def scores_by_a_pass(
    corpus: Corpus, queries: Sequence[torch.Tensor], max_rows: int, way: Way, allowed: np.ndarray | None = None
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Number of some queries (Nq, M, D), entries (n,), and their scores (n, Nq), as the whole corpus goes by.

    `allowed` (Nv,) bool: entries that are asked for; None: all.
    """

    def scored(unread: UnreadBlock) -> list[tuple[torch.Tensor, torch.Tensor]]:
        chosen: slice | torch.Tensor = slice(None)
        if allowed is not None:
            inside = np.flatnonzero(allowed[unread.runs.entries])
            if not len(inside):
                return []
            chosen = to_device(inside, corpus.device)
        block, entries = unread.read(), unread.runs.on(corpus.device).entries[chosen]
        return [(entries, video_scores(of_these, block, way)[chosen]) for of_these in queries]

    for of_block in way.each(scored, corpus.unread_blocks(max_rows)):
        for number, found in enumerate(of_block):
            yield number, *found


def products_alike(rows: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """See `Way.products`; each product has the same bits whatever the other rows are, and the other queries if any.

    A matrix product adds up in another order where few rows or columns are left over for its last steps. So that there
    are none, rows and queries are filled up to whole steps. A query alone is multiplied otherwise, which is faster.
    """
    n_rows, n_queries = len(rows), len(queries)
    more = -n_queries % COLUMNS_A_STEP if n_queries > 1 else 0
    columns = F.pad(queries, (0, 0, 0, more)).t() if more else queries.t()
    whole = n_rows - n_rows % ROWS_A_STEP
    if whole == n_rows:
        return (rows @ columns)[:, :n_queries]
    found = rows.new_empty((whole + ROWS_A_STEP, columns.shape[1]))
    torch.mm(rows[:whole], columns, out=found[:whole])
    torch.mm(F.pad(rows[whole:], (0, 0, 0, ROWS_A_STEP - n_rows % ROWS_A_STEP)), columns, out=found[whole:])
    return found[:n_rows, :n_queries]


def products_at_once(rows: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """See `Way.products`."""
    return rows @ queries.t()


def pooled_run_by_run(cosine: torch.Tensor, runs: Runs) -> torch.Tensor:
    """See `Way.pooled`."""
    for_each = (cosine[run.rows].unflatten(0, (len(run.entries), -1))[:, : run.n_clips] for run in runs)
    return torch.cat([pool_clips(similarity.transpose(1, 2)) for similarity in for_each])


def pooled_at_once(cosine: torch.Tensor, runs: Runs) -> torch.Tensor:
    """See `Way.pooled`; entries are padded to the longest of the block, which are all of similar length as a rule."""
    there, pooled = runs.on(cosine.device), []
    for some, longest in _padded_together(runs, MOST_PADDED * len(cosine)):
        clip = torch.arange(longest, device=cosine.device)
        places = (there.first_row[some].unsqueeze(1) + clip).clamp_(max=len(cosine) - 1)
        missing = clip >= there.n_clips[some].unsqueeze(1)  # (n, L)
        pooled.append(pool_clips(cosine[places].masked_fill_(missing.unsqueeze(2), MASKED).transpose(1, 2)))
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled)


def _padded_together(runs: Runs, most: int) -> Iterator[tuple[slice, int]]:
    """Entries of one run after another, that take `most` rows at most once padded, and the clips of their longest."""
    first = end = longest = 0
    for run in runs:
        n, length = len(run.entries), max(longest, run.n_clips)
        if end > first and (end + n - first) * length > most:
            yield slice(first, end), longest
            first, length = end, run.n_clips
        end, longest = end + n, length
    yield slice(first, end), longest


def similarity_video_by_video(
    corpus: Corpus, span_queries: torch.Tensor, entries: torch.Tensor, vectors: slice
) -> torch.Tensor:
    """See `Way.clip_similarity`; each video's rows meet all queries that look at it in one matrix product.

    The more queries there are, the fewer times a video's rows are read, which takes longer than multiplying them.
    """
    flat, queries = entries.numpy().ravel(), span_queries.flatten(1)  # (Nq, S * D)
    by_entry = np.argsort(flat, kind="stable")
    present, firsts = np.unique(flat[by_entry], return_index=True)
    lasts = np.append(firsts[1:], len(flat))

    pairs, query_of_pair = torch.from_numpy(by_entry), torch.from_numpy(by_entry // entries.shape[1])
    similarity = torch.zeros((len(flat), int(corpus.n_rows[present].max())))
    for entry, first, last in zip(present.tolist(), firsts.tolist(), lasts.tolist(), strict=True):
        rows = corpus.rows_of(entry)[:, vectors].flatten(1)  # (R, S * D)
        products = queries[query_of_pair[first:last]] @ rows.t()
        similarity[:, : len(rows)].index_copy_(0, pairs[first:last], products.float())
    return similarity


def similarity_at_once(
    corpus: Corpus, span_queries: torch.Tensor, entries: torch.Tensor, vectors: slice
) -> torch.Tensor:
    """See `Way.clip_similarity`; few products, of queries with all rows or with copies of all their entries' rows.

    Most of such a product is not asked for, but it costs no more than the corpus' video scores do. For 256 queries over
    TVR's 2,179 val videos it is 47 GFLOP, 1 ms of an H200 in float32; copies of the rows of each query's 100 videos
    would be 10 GB, written and read in 5 ms.
    """
    longest = int(corpus.n_rows.max())
    clip = torch.arange(longest, device=entries.device)
    flat = span_queries.flatten(1)
    most = PRODUCT_BYTES // (flat.shape[1] * corpus.dtype.itemsize)  # rows
    size = len(entries) if corpus.n_rows.sum() <= most else max(1, most // (entries.shape[1] * longest))
    found = []
    for first in range(0, len(entries), size):
        some = slice(first, first + size)
        rows, first_rows, n_rows = corpus.rows_with(entries[some])
        products = flat[some] @ rows[:, vectors].flatten(1).t()  # (n, R)
        places = first_rows.unsqueeze(2) + clip  # (n, V, L)
        similarity = products.gather(1, places.flatten(1).clamp_(max=len(rows) - 1)).float().view(places.shape)
        found.append(similarity.masked_fill_(clip >= n_rows.unsqueeze(2), 0))
    return torch.cat(found).flatten(0, 1)


ON_CPU = Way(products_alike, pooled_run_by_run, similarity_video_by_video, 4, on_each_core)
ON_GPU = Way(products_at_once, pooled_at_once, similarity_at_once, 1, map)


def way_on(device: torch.device) -> Way:
    """How things are done on a device."""
    return ON_CPU if device.type == "cpu" else ON_GPU


class BestEntries:
    """The best `keep` entries for a block of queries, while a corpus goes by.

    Args:
        video_of_entry: (Nv,) int64; of the entries of one video only the best is kept. None keeps any.
        n_videos: how many videos the entries that will be added are of, by default as many as there are.
    """

    def __init__(self, keep: int, video_of_entry: torch.Tensor | None = None, n_videos: int | None = None) -> None:
        if video_of_entry is not None:
            keep = min(keep, len(video_of_entry.unique()) if n_videos is None else n_videos)
        self._keep = keep
        self._video_of_entry = video_of_entry
        self._entries: list[torch.Tensor] = []
        self._scores: list[torch.Tensor] = []
        self._waiting = 0

    def add(self, entries: torch.Tensor, scores: torch.Tensor) -> None:
        """More entries (n,) and their scores (n, Nq)."""
        self._entries.append(entries.expand(scores.shape[1], -1))
        self._scores.append(scores.t())
        self._waiting += len(entries)
        if self._waiting > 32 * self._keep:  # keeps memory independent of the size of the corpus
            self._drop_others()

    def result(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Entries (Nq, V) and scores (Nq, V), best first, V <= keep."""
        self._drop_others()
        return self._entries[0], self._scores[0]

    def _drop_others(self) -> None:
        entries, scores = torch.cat(self._entries, dim=1), torch.cat(self._scores, dim=1)
        keep = min(self._keep, entries.shape[1])
        if self._video_of_entry is not None:  # what is out of the running is dropped when there are enough videos
            entries, scores = _best_of_each(entries, scores, self._video_of_entry[entries])
        order = _order(entries, scores)
        values, best = order.topk(keep, dim=1)
        self._entries = [entries.gather(1, best)]
        self._scores = [values if order is scores else scores.gather(1, best)]
        self._waiting = keep


def _order(entries: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Numbers, the larger the better an entry: by its score, and on a CPU, of equal ones, by its own number.

    A GPU would take ten calls more for that.
    """
    if scores.device.type != "cpu":
        return scores
    bits = (scores + 0.0).view(torch.int32)  # + 0.0: there is one zero
    ascending = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).long()  # as the scores do
    return (ascending << 32) - entries


def _best_of_each(
    entries: torch.Tensor, scores: torch.Tensor, videos: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Entries and scores (Nq, n) in another order, scores -inf where there is a better entry of the video."""
    in_order = _order(entries, scores).argsort(dim=1, descending=True, stable=True)
    in_order = in_order.gather(1, videos.gather(1, in_order).argsort(dim=1, stable=True))
    videos = videos.gather(1, in_order)
    repeated = videos[:, 1:] == videos[:, :-1]
    scores = scores.gather(1, in_order)
    scores[:, 1:].masked_fill_(repeated, -torch.inf)
    return entries.gather(1, in_order), scores


def concatenated(best: Sequence[BestEntries]) -> tuple[torch.Tensor, torch.Tensor]:
    """The results for several blocks of queries."""
    entries, scores = zip(*(of_block.result() for of_block in best), strict=True)
    return torch.cat(entries), torch.cat(scores)
