"""Corpus retrieval: encoded videos and queries in, ranked videos and moments out. No files, no dataset, no seconds.

The reference scores every span of every video and sorts them all. The answer is the same, and far sooner, when videos
are scored first, spans only in the videos kept, only in the band of allowed lengths, and only the best k are selected.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from method_tvr.model_components import SpanPredictor, pool_clips
from method_tvr.search.candidates import SearchIndex
from method_tvr.search.corpus import Corpus
from method_tvr.search.records import (
    IMPOSSIBLE,
    NO_ENTRY,
    NOT_GIVEN,
    EncodedQueries,
    Moments,
    RankedVideos,
    SearchSettings,
    Shortlist,
)
from method_tvr.search.scoring import BestEntries, as_among, concatenated, scores_by_a_pass, way_on
from method_tvr.search.sharding import Shard, videos_of_shard
from method_tvr.search.spans.best_spans import SUMS, best_spans
from method_tvr.search.spans.whole_spans import best_through, relative_to_best
from utils.tensor_utils import to_device, to_host

SIMILARITY_BYTES = 1 << 27  # of similarities of queries with clips, that are there at a time, but for those of a block


class Searcher:
    """Answers queries over an encoded corpus.

    Args:
        corpus: what is searched, wherever its rows are; of several processes, the shard of this one.
        predictors: of starts and ends: one, of the mean over modalities, or one of each modality, whose logits are then
            averaged.
        video_of_entry: (Nv,) int64, by which entries of one video are known; None when none has several.
        index: names the entries that are scored, and what it does not name is lost; None: all are. No video may have
            several entries then.
        shard: which part of a larger corpus `corpus` is. All processes ask the same, and get the answers of the whole
            corpus, in its numbers of entries; None: it is all.
    """

    def __init__(
        self,
        corpus: Corpus,
        predictors: Sequence[SpanPredictor],
        settings: SearchSettings,
        video_of_entry: np.ndarray | None = None,
        index: SearchIndex | None = None,
        shard: Shard | None = None,
    ) -> None:
        self.corpus, self.settings, self.index, self._shard = corpus, settings, index, shard
        self._way = way_on(corpus.device)
        self._n_clips = to_device(corpus.n_clips, corpus.device)
        self._videos = video_of_entry
        self._video_of_entry = None if video_of_entry is None else to_device(video_of_entry, corpus.device)
        self._predictors, self._by_sums = predictors, predictors[0].scores_spans

    def exact(self) -> Searcher:
        """The same without an index, for comparison."""
        other = copy.copy(self)
        other.index = None
        return other

    @torch.inference_mode()
    def search(
        self, queries: EncodedQueries, allowed: np.ndarray | None = None, given: Shortlist | None = None
    ) -> Iterator[tuple[Moments, RankedVideos]]:
        """VCMR and VR answers to each of `query_blocks`, with as few passes over the corpus as the settings allow.

        Args:
            allowed: (Nv,) bool, entries to look at, at least one; None: all. A corpus in shards is searched whole.
            given: the videos of each query, found by another system, in its order; None: they are found here.
        """
        for several in self._passes(len(queries)):
            of_pass = queries[several]
            found = self.find(of_pass, allowed) if given is None else given[several]
            for some in self._looked_into_together(*found.entries.shape):
                moments, videos = self._moments_in(of_pass[some], found[some], given is not None)
                for block in self.query_blocks(len(moments.entry)):
                    yield moments[block], videos[block]

    def shortlist(self, queries: EncodedQueries, allowed: np.ndarray | None = None) -> Shortlist:
        """What `search` finds moments in, of any number of queries."""
        return Shortlist.concatenate([self.find(queries[some], allowed) for some in self._passes(len(queries))])

    def _passes(self, n_queries: int) -> Iterator[slice]:
        """Slices of whole blocks, of as many queries as are searched for in one pass over the corpus."""
        blocks = max(1, self.settings.queries_per_pass // self.settings.query_block)
        return _slices(n_queries, blocks * self.settings.query_block)

    def _looked_into_together(self, n_queries: int, n_entries: int) -> Iterator[slice]:
        """Slices of whole blocks of queries, each with so many entries, whose similarities are computed together."""
        block = self.settings.query_block
        if n_queries <= block or self._shard is not None:  # processes take the same, whatever their videos' lengths
            return _slices(n_queries, block)
        of_block = block * n_entries * int(self.corpus.n_rows.max()) * torch.float32.itemsize
        return _slices(n_queries, block * max(1, min(self._way.blocks_at_once, SIMILARITY_BYTES // of_block)))

    def query_blocks(self, n_queries: int) -> Iterator[slice]:
        """Slices of at most `query_block` queries."""
        return _slices(n_queries, self.settings.query_block)

    def _weights(self, scores: torch.Tensor, given: bool = False) -> torch.Tensor:
        """Factors of moments' scores; where scores were given, some may be `NOT_GIVEN`, and rule moments out."""
        weights = torch.exp(self.settings.q2c_alpha * scores)
        return weights.masked_fill_(scores == NOT_GIVEN, IMPOSSIBLE) if given else weights

    def _moments_in(self, queries: EncodedQueries, found: Shortlist, given: bool) -> tuple[Moments, RankedVideos]:
        weights = self._weights(found.video_scores, given)
        looked_at = found.entries, self._weights(found.entry_scores, given)
        if self._shard is not None:
            return self.search_moments(queries, *looked_at), RankedVideos(*to_host(found.videos, weights))
        columns = self._best_moments(queries, *looked_at)
        *of_moments, videos, weights_there = to_host(*columns, found.videos, weights)
        return Moments(*of_moments), RankedVideos(videos, weights_there)

    # ---------------------------------------------------------------- videos

    @torch.inference_mode()
    def find(self, queries: EncodedQueries, allowed: np.ndarray | None = None) -> Shortlist:
        """Best entries and videos of queries, in one pass over the corpus; for `allowed` see `search`.

        At best these are `queries_per_pass` queries: memory grows with their number.
        """
        keep = self.settings.max_vcmr_video
        if self.index is not None and self.index.is_worth_it(len(queries), keep):
            return self.index.find(self.corpus, queries.for_videos, keep, allowed, self._video_of_entry)
        found, of_videos = self._best_entries(queries, allowed)
        if self._shard is not None:
            if allowed is not None:
                raise ValueError("a corpus in shards is searched whole")
            found = self._shard.merged_videos(*found, self.settings.max_vcmr_video)
            if of_videos is not None:
                of_videos = self._shard.merged_videos(*of_videos, self.settings.max_vcmr_video)
        looks = None if self.index is None else torch.ones(len(queries), dtype=torch.int64)  # all videos were scored
        return Shortlist(*found, *(of_videos or found), looks)

    def _best_entries(
        self, queries: EncodedQueries, allowed: np.ndarray | None
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor] | None]:
        """Best entries (Nq, V) and their scores; and the best of each video, where one may have several."""
        keep = self.settings.max_vcmr_video
        blocks = [queries.for_videos[rows].to(self.corpus.dtype) for rows in self.query_blocks(len(queries))]
        best, of_each = [BestEntries(keep) for _ in blocks], []
        if self._videos is not None:
            n_videos = len(np.unique(self._videos if allowed is None else self._videos[allowed]))
            of_each = [BestEntries(keep, self._video_of_entry, n_videos) for _ in blocks]
        max_rows = self.settings.clip_block or self.corpus.block_rows
        alike = [as_among(block, len(queries)) if len(block) == 1 else block for block in blocks]
        for number, entries, scores in scores_by_a_pass(self.corpus, alike, max_rows, self._way, allowed):
            for kept in (best, of_each) if of_each else (best,):
                kept[number].add(entries, scores[:, : len(blocks[number])])
        return concatenated(best), concatenated(of_each) if of_each else None

    @torch.inference_mode()
    def match_scores(self, queries: EncodedQueries, entry: int) -> torch.Tensor:
        """(Nq, M) the parts of an entry's video score: in each modality, the cosine of the query and its best clip."""
        n_clips, n_modalities = int(self.corpus.n_clips[entry]), queries.for_videos.shape[1]
        rows = F.normalize(self.corpus.rows_of(entry)[:n_clips, :n_modalities].float(), dim=-1)
        return pool_clips(torch.einsum("qmd,lmd->qml", queries.for_videos.float(), rows))

    # ---------------------------------------------------------------- moments

    @torch.inference_mode()
    def search_moments(
        self,
        queries: EncodedQueries,
        entries: torch.Tensor,
        video_weights: torch.Tensor | None = None,
        one_video: bool = False,
    ) -> Moments:
        """Best moments of a block of Nq queries in the entries (Nq, V) int64 given for each.

        Args:
            video_weights: (Nq, V) factor of each entry's moments, or None for 1.
            one_video: see `span_probabilities`.
        """
        if self._shard is None:
            return Moments(*to_host(*self._best_moments(queries, entries, video_weights, one_video)))
        weights = torch.ones(entries.shape, device=entries.device) if video_weights is None else video_weights
        own = self._best_moments(queries, *videos_of_shard(entries, weights, self._shard.entries), one_video)
        return self._shard.merged_moments(Moments(*to_host(*own)), self.settings.max_moments)

    def _best_moments(
        self,
        queries: EncodedQueries,
        entries: torch.Tensor,
        video_weights: torch.Tensor | None = None,
        one_video: bool = False,
    ) -> tuple[torch.Tensor, ...]:
        """The columns of `Moments`, on the device, of any number of queries."""
        n_clips, similarities = self._n_clips[entries], self._similarities(queries, entries)
        found = []
        for block in self.query_blocks(len(queries)):
            weights = None if video_weights is None else video_weights[block]
            logits = self._span_logits([one[block] for one in similarities], n_clips[block])
            found.append(self._best_of_block(logits, entries[block], n_clips[block], weights, one_video))
        return found[0] if len(found) == 1 else tuple(map(torch.cat, zip(*found, strict=True)))

    def _best_of_block(
        self,
        logits: torch.Tensor,
        entries: torch.Tensor,
        n_clips: torch.Tensor,
        video_weights: torch.Tensor | None,
        one_video: bool,
    ) -> tuple[torch.Tensor, ...]:
        """See `_best_moments`."""
        if self._by_sums:
            starts, ends = relative_to_best(logits, one_video)
            p_st, p_ed = best_through(starts, ends)
            if video_weights is not None:
                starts = starts + video_weights.clamp(min=0).log().unsqueeze(2)
            score, video, st, ed = best_spans(starts, ends, n_clips, self.settings, SUMS)
            score = score.exp().masked_fill_(score == -torch.inf, IMPOSSIBLE)
        else:
            p_st, p_ed = self._curves(logits, one_video)
            weighted = p_st if video_weights is None else p_st * video_weights.unsqueeze(2)
            score, video, st, ed = best_spans(weighted, p_ed, n_clips, self.settings)
        start = video * p_st.shape[2]  # of each moment's entry, in all of a query's clips
        last = start + p_st.shape[2] - 1  # an impossible span may end past it
        p_start = p_st.flatten(1).gather(1, start + st)
        p_end = p_ed.flatten(1).gather(1, (start + ed).minimum(last))
        return entries.gather(1, video).masked_fill(score < 0, NO_ENTRY), st, ed, score, p_start, p_end

    @torch.inference_mode()
    def span_probabilities(
        self, queries: EncodedQueries, entries: torch.Tensor, one_video: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Start and end probabilities of Nq queries in entries (Nq, V) int64, and each entry's number of clips (Nq, V).

        They are (Nq, V, L) each, a softmax over the clips of each entry, 0 past its end. With `one_video` a query's
        entries are parts of one video, which has one start and one end: it is over the clips of all of them. Of a model
        that scores spans as a whole, see `SpanPredictor`, they are those of `best_through`.
        """
        n_clips = self._n_clips[entries]
        p_st, p_ed = self._curves(self._span_logits(self._similarities(queries, entries), n_clips), one_video)
        return p_st, p_ed, n_clips

    def _curves(self, logits: torch.Tensor, one_video: bool) -> tuple[torch.Tensor, ...]:
        """See `span_probabilities`."""
        if self._by_sums:
            return best_through(*relative_to_best(logits, one_video))
        if one_video:
            of_video = logits.transpose(1, 2).flatten(2).softmax(dim=-1)
            return of_video.view(len(logits), 2, -1, logits.shape[3]).unbind(dim=1)
        return logits.softmax(dim=-1).unbind(dim=2)

    def _similarities(self, queries: EncodedQueries, entries: torch.Tensor) -> list[torch.Tensor]:
        """(Nq, V, L) similarity with the clips of entries (Nq, V) for each predictor, 0 past an entry's rows."""
        n_modalities = queries.for_spans.shape[1]
        span_queries = (queries.for_spans / n_modalities).to(self.corpus.dtype)  # (Nq, M, D): products add up to a mean
        first, each = self.corpus.n_vectors - n_modalities, n_modalities // len(self._predictors)
        found = []
        for number in range(len(self._predictors)):
            # the modalities of a predictor, whose vectors are a row's last
            own = slice(number * each, (number + 1) * each)
            vectors = slice(first + own.start, first + own.stop)
            similarity = self._way.clip_similarity(self.corpus, span_queries[:, own], entries, vectors)
            found.append(similarity.unflatten(0, entries.shape))
        return found

    def _span_logits(self, similarities: Sequence[torch.Tensor], n_clips: torch.Tensor) -> torch.Tensor:
        """(Nq, V, 2, L) start and end logits, -inf past the clips of entries, of which they have (Nq, V)."""
        logits = [
            predictor(similarity.flatten(0, 1), n_clips.flatten())
            for predictor, similarity in zip(self._predictors, similarities, strict=True)
        ]
        together = logits[0] if len(logits) == 1 else torch.stack(logits).sum(dim=0)  # (Nq * V, 2, L)
        missing = torch.arange(together.shape[2], device=together.device) >= n_clips.reshape(-1, 1, 1)
        return together.masked_fill_(missing, -torch.inf).view(*n_clips.shape, 2, -1)


def _slices(n: int, size: int) -> Iterator[slice]:
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))
