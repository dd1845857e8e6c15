"""Corpus retrieval: encoded videos and queries in, ranked videos and moments out. No files, no dataset, no seconds.

The reference scores every span of every video and sorts them all. The answer is the same, and far sooner, when videos
are scored first, spans only in the videos kept, only in the band of allowed lengths, and only the best k are selected.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F

from method_tvr.model_components import pool_clips
from method_tvr.search.best_entries import BestEntries, concatenated
from method_tvr.search.corpus import Block, Corpus, Packing, row_norms
from method_tvr.search.scoring import ON_CPU, ON_GPU, video_scores
from utils.tensor_utils import to_device, to_host

NO_ENTRY = -1  # entry of a row that holds no moment
IMPOSSIBLE = -1.0  # score of a span that ends past its video
DEVICE_BLOCK_ROWS = 1 << 18  # on a GPU: 0.8 GB of float32 rows in TVR's size, and 0.3 GB of scores for 256 queries
NORM_ROWS = 1 << 18  # whose lengths are computed at a time


@dataclass(frozen=True)
class SearchSettings:
    """What is searched for.

    Attributes:
        q2c_alpha: a video's score s weighs exp(q2c_alpha * s).
        max_vcmr_video: videos kept per query.
        max_moments: moments kept per query.
        min_pred_l, max_pred_l: clips from start to end boundary, min <= ed - st < max. Any band works.
        query_block: queries answered at a time; memory grows with it (about 2 MB each), not with their total.
        queries_per_pass: queries that one pass over the corpus serves, about; memory grows with it (20 KB each).
        clip_block: about how many clips of the corpus are scored at a time; None: as suits the corpus and its device.
    """

    q2c_alpha: float = 30.0
    max_vcmr_video: int = 100
    max_moments: int = 200
    min_pred_l: int = 2
    max_pred_l: int = 16
    query_block: int = 256
    queries_per_pass: int = 1 << 12
    clip_block: int | None = None


@dataclass
class Moments:
    """Ranked moments, best first; rows past a query's last one have entry `NO_ENTRY`.

    Attributes:
        entry: (Nq, K) int64, entry of the corpus.
        st, ed: (Nq, K) int64, start and end boundary in clips of the entry.
        score: (Nq, K) float32.
    """

    entry: np.ndarray
    st: np.ndarray
    ed: np.ndarray
    score: np.ndarray


@dataclass
class RankedVideos:
    """Best videos of each query: entry (Nq, V) int64 and score (Nq, V) float32, exp(q2c_alpha * s).

    Where a video has several entries, it is named by the best of them.
    """

    entry: np.ndarray
    score: np.ndarray


@dataclass
class EncodedQueries:
    """Queries as the corpus is compared with them.

    Attributes:
        video: (Nq, M, D) modular queries, unit length, for video scores.
        span: (Nq, M, D) projected queries, for clip similarity.
    """

    video: torch.Tensor
    span: torch.Tensor

    @classmethod
    def build(
        cls, query: Mapping[str, torch.Tensor], span_query: Mapping[str, torch.Tensor], modalities: Sequence[str]
    ) -> EncodedQueries:
        """From the model's `encode_query` and `span_queries`."""
        video = torch.stack([query[m] for m in modalities], dim=1)
        return cls(F.normalize(video, dim=-1), torch.stack([span_query[m] for m in modalities], dim=1))

    @classmethod
    def concatenate(cls, parts: Sequence[EncodedQueries]) -> EncodedQueries:
        """Several batches, one after another."""
        return cls(torch.cat([part.video for part in parts]), torch.cat([part.span for part in parts]))

    def to(self, device: torch.device) -> EncodedQueries:
        """The same on a device."""
        return EncodedQueries(self.video.to(device), self.span.to(device))

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, rows: slice) -> EncodedQueries:
        return EncodedQueries(self.video[rows], self.span[rows])

    def of(self, numbers: np.ndarray) -> EncodedQueries:
        """Some queries, in the order given."""
        rows = to_device(numbers, self.video.device)
        return EncodedQueries(self.video[rows], self.span[rows])


class EncodedCorpus(Corpus):
    """Encoded videos in memory, packed in order of length; entries are numbered as they were given.

    Args:
        rows: per entry (R_i, M, D) encodings of its clips and of the padding after them.
        n_clips: (Nv,) the L_i.
        dtype: what rows are multiplied in. Less than float32 changes scores a little.
        n_rows: (Nv,) the R_i, where `rows` are made one after another.
        kept: what rows are kept in, by default `dtype`; of another type, those in use are converted.
        device: where they are kept, by default where they are.
    """

    def __init__(
        self,
        rows: Iterable[torch.Tensor],
        n_clips: Sequence[int] | np.ndarray,
        dtype: torch.dtype = torch.float32,
        n_rows: np.ndarray | None = None,
        kept: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.n_clips = np.asarray(n_clips, dtype=np.int64)
        if n_rows is None:
            rows = list(rows)
            n_rows = np.array([len(of_entry) for of_entry in rows], dtype=np.int64)
        self.n_rows = n_rows
        self._packing = Packing(self.n_clips, self.n_rows)
        bounds = self._packing.bounds
        self._first_row = np.empty_like(self.n_rows)
        self._first_row[self._packing.order] = bounds[:-1]
        rows = iter(rows)
        some = next(rows)
        self.dtype, self.device = dtype, some.device if device is None else device
        if self.device.type != "cpu":
            self.block_rows = DEVICE_BLOCK_ROWS
        shape = int(bounds[-1]), *some.shape[1:]
        self.rows = torch.empty(shape, dtype=dtype if kept is None else kept, device=self.device)  # (all rows, M, D)
        for entry, of_entry in enumerate(chain([some], rows)):
            self._kept_rows(entry).copy_(of_entry)
        norms = [row_norms(self.rows[first : first + NORM_ROWS]).t() for first in range(0, shape[0], NORM_ROWS)]
        self._norms = torch.cat(norms, dim=1)  # (M, all rows)
        self._places = [to_device(of_entry, self.device) for of_entry in (self._first_row, self.n_rows)]

    def _kept_rows(self, entry: int) -> torch.Tensor:
        first = self._first_row[entry]
        return self.rows[first : first + self.n_rows[entry]]

    def rows_of(self, entry: int) -> torch.Tensor:
        """(R_i, M, D) rows of an entry, a view if they are kept as they are multiplied."""
        return self._kept_rows(entry).to(self.dtype)

    def rows_with(self, entries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All rows, or copies of those of the entries where these are fewer; see `Corpus.rows_with`."""
        (first, n_rows), longest = (where[entries] for where in self._places), int(self.n_rows.max())
        if entries.numel() * longest >= len(self.rows):
            return self.rows.to(self.dtype), first, n_rows
        each = first.view(-1, 1) + torch.arange(longest, device=self.device)  # a shorter entry's are followed by others
        rows = self.rows[each.flatten().clamp_(max=len(self.rows) - 1)].to(self.dtype)
        return rows, torch.arange(0, len(rows), longest, device=self.device).view(entries.shape), n_rows

    def clips_of(self, entries: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of rows and norms; see `Corpus.clips_of`."""
        first, n_clips = self._first_row[entries], self.n_clips[entries]
        stretches = [slice(a, b) for a, b in zip(first.tolist(), (first + n_clips).tolist(), strict=True)]
        rows = torch.cat([self.rows[s] for s in stretches]).to(self.dtype)
        return rows, torch.cat([self._norms[:, s] for s in stretches], dim=1)

    def blocks(self, max_rows: int) -> Iterator[Block]:
        """The whole corpus, some entries at a time; see `Corpus.blocks`."""
        bounds = self._packing.bounds
        for positions, runs in self._packing.blocks(max_rows):
            rows = slice(int(bounds[positions.start]), int(bounds[positions.stop]))
            yield Block(self.rows[rows].to(self.dtype), self._norms[:, rows], runs)


@dataclass
class Found:
    """The best of a corpus for Nq queries, best first.

    Attributes:
        entries, entry_scores: (Nq, V) int64 and scores s, V <= max_vcmr_video: moments are looked for in these.
        videos, video_scores: (Nq, U), U <= max_vcmr_video: the best entry of each of the best videos. The same, where
            no video has several entries.
    """

    entries: torch.Tensor
    entry_scores: torch.Tensor
    videos: torch.Tensor
    video_scores: torch.Tensor

    def __getitem__(self, rows: slice) -> Found:
        return Found(self.entries[rows], self.entry_scores[rows], self.videos[rows], self.video_scores[rows])


class CorpusSearch(ABC):
    """Answers queries over a corpus, wherever its videos are.

    Attributes:
        settings: what is searched for.
    """

    settings: SearchSettings

    @abstractmethod
    def find(self, queries: EncodedQueries, allowed: np.ndarray | None = None) -> Found:
        """Best entries and videos of queries, in one pass over the corpus.

        Args:
            queries: Nq queries, at best `queries_per_pass` of them: memory grows with their number.
            allowed: (Nv,) bool, entries to look at, at least one; None: all.
        """

    @abstractmethod
    def search_moments(
        self,
        queries: EncodedQueries,
        entries: torch.Tensor,
        video_weights: torch.Tensor | None = None,
        one_video: bool = False,
    ) -> Moments:
        """Best moments of a block of queries in the entries given for each.

        Args:
            queries: Nq queries.
            entries: (Nq, V) int64.
            video_weights: (Nq, V) factor of each entry's moments, or None for 1.
            one_video: see `Searcher.span_probabilities`.
        """

    def search_videos(self, queries: EncodedQueries) -> tuple[torch.Tensor, torch.Tensor]:
        """Best videos of queries: the `videos` and `video_scores` of `find`."""
        found = self.find(queries)
        return found.videos, found.video_scores

    @torch.inference_mode()
    def search(self, queries: EncodedQueries) -> tuple[Moments, RankedVideos]:
        """VCMR and VR of one block of queries."""
        return self._moments_in(queries, self.find(queries))

    @torch.inference_mode()
    def search_all(
        self, queries: EncodedQueries, allowed: np.ndarray | None = None
    ) -> Iterator[tuple[Moments, RankedVideos]]:
        """VCMR and VR of any number of queries, with as few passes over the corpus as the settings allow.

        Args:
            queries: what is asked.
            allowed: see `find`.

        Yields:
            The answers to each of `query_blocks`.
        """
        blocks_per_pass = max(1, self.settings.queries_per_pass // self.settings.query_block)
        for several in _slices(len(queries), blocks_per_pass * self.settings.query_block):
            of_pass = queries[several]
            found = self.find(of_pass, allowed)
            for block in self.query_blocks(len(of_pass)):
                yield self._moments_in(of_pass[block], found[block])

    def _moments_in(self, queries: EncodedQueries, found: Found) -> tuple[Moments, RankedVideos]:
        moments = self.search_moments(queries, found.entries, self._weights(found.entry_scores))
        return moments, RankedVideos(*to_host(found.videos, self._weights(found.video_scores)))

    def _weights(self, scores: torch.Tensor) -> torch.Tensor:
        return torch.exp(self.settings.q2c_alpha * scores)

    def query_blocks(self, n_queries: int) -> Iterator[slice]:
        """Slices of at most `query_block` queries."""
        return _slices(n_queries, self.settings.query_block)


class Searcher(CorpusSearch):
    """Answers queries over an encoded corpus, exactly.

    Args:
        corpus: what is searched.
        st_kernel, ed_kernel: (kernel,) weights of the start and end predictors.
        settings: what is searched for.
        video_of_entry: (Nv,) int64, by which entries of one video are known; None when none has several.
    """

    def __init__(
        self,
        corpus: Corpus,
        st_kernel: torch.Tensor,
        ed_kernel: torch.Tensor,
        settings: SearchSettings,
        video_of_entry: np.ndarray | None = None,
    ) -> None:
        self.corpus = corpus
        self.settings = settings
        self._way = ON_CPU if corpus.device.type == "cpu" else ON_GPU
        self._n_clips = to_device(corpus.n_clips, corpus.device)
        self._videos = video_of_entry
        self._video_of_entry = None if video_of_entry is None else to_device(video_of_entry, corpus.device)
        longest = int(corpus.n_rows.max())
        self._predictors = torch.stack(
            [_convolution_matrix(k.flatten(), longest) for k in (st_kernel, ed_kernel)], dim=1
        )

    @torch.inference_mode()
    def find(self, queries: EncodedQueries, allowed: np.ndarray | None = None) -> Found:
        keep = self.settings.max_vcmr_video
        blocks = [queries.video[rows].to(self.corpus.dtype) for rows in self.query_blocks(len(queries))]
        best = [BestEntries(keep) for _ in blocks]
        of_each = None
        if self._videos is not None:
            n_videos = len(np.unique(self._videos if allowed is None else self._videos[allowed]))
            of_each = [BestEntries(keep, self._video_of_entry, n_videos) for _ in blocks]
        for block in self.corpus.blocks(self.settings.clip_block or self.corpus.block_rows):
            entries = block.runs.on(self.corpus.device).entries
            chosen: slice | torch.Tensor = slice(None)
            if allowed is not None:
                inside = np.flatnonzero(allowed[block.runs.entries])
                if not len(inside):
                    continue
                chosen = to_device(inside, self.corpus.device)
            for number, video_queries in enumerate(blocks):
                scores = video_scores(video_queries, block, self._way.pooled)[chosen]
                best[number].add(entries[chosen], scores)
                if of_each is not None:
                    of_each[number].add(entries[chosen], scores)
        found = concatenated([queries_best.result() for queries_best in best])
        if of_each is None:
            return Found(*found, *found)
        return Found(*found, *concatenated([queries_best.result() for queries_best in of_each]))

    @torch.inference_mode()
    def match_scores(self, queries: EncodedQueries, entry: int) -> torch.Tensor:
        """(Nq, M) the parts of an entry's video score: in each modality, the cosine of the query and its best clip."""
        rows = F.normalize(self.corpus.rows_of(entry)[: int(self.corpus.n_clips[entry])].float(), dim=-1)
        return pool_clips(torch.einsum("qmd,lmd->qml", queries.video.float(), rows))

    @torch.inference_mode()
    def span_probabilities(
        self, queries: EncodedQueries, entries: torch.Tensor, one_video: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Start and end probabilities of queries in entries.

        Args:
            queries: Nq queries.
            entries: (Nq, V) int64, those looked at for each.
            one_video: a query's entries are parts of one video, which has one start and one end.

        Returns:
            P_st, P_ed: (Nq, V, L) softmax over the clips of each entry, or of the whole video, 0 past an entry's end;
            and each entry's number of clips (Nq, V).
        """
        similarity = self._clip_similarity(queries, entries)  # (Nq * V, L)
        n_clips = self._n_clips[entries]
        length = similarity.shape[1]
        predictors = self._predictors[:length, :, :length].flatten(1)  # (L, 2 * L)
        logits = (similarity @ predictors).view(len(similarity), 2, length)
        missing = torch.arange(length, device=logits.device) >= n_clips.reshape(-1, 1, 1)
        logits = logits.masked_fill_(missing, -torch.inf).view(*entries.shape, 2, length)
        if one_video:
            probabilities = logits.transpose(1, 2).flatten(2).softmax(dim=-1).view(len(entries), 2, -1, length)
            p_st, p_ed = probabilities.unbind(dim=1)
        else:
            p_st, p_ed = logits.softmax(dim=-1).unbind(dim=2)
        return p_st, p_ed, n_clips

    def _clip_similarity(self, queries: EncodedQueries, entries: torch.Tensor) -> torch.Tensor:
        """(Nq * V, L) similarity of each query with the rows of its entries, mean over modalities, 0 past them."""
        span_queries = (queries.span / queries.span.shape[1]).flatten(1).to(self.corpus.dtype)  # (Nq, M * D)
        return self._way.clip_similarity(self.corpus, span_queries, entries)

    @torch.inference_mode()
    def search_moments(
        self,
        queries: EncodedQueries,
        entries: torch.Tensor,
        video_weights: torch.Tensor | None = None,
        one_video: bool = False,
    ) -> Moments:
        return Moments(*to_host(*self._best_moments(queries, entries, video_weights, one_video)))

    def _moments_in(self, queries: EncodedQueries, found: Found) -> tuple[Moments, RankedVideos]:
        moments = self._best_moments(queries, found.entries, self._weights(found.entry_scores))
        *columns, videos, weights = to_host(*moments, found.videos, self._weights(found.video_scores))
        return Moments(*columns), RankedVideos(videos, weights)

    def _best_moments(
        self,
        queries: EncodedQueries,
        entries: torch.Tensor,
        video_weights: torch.Tensor | None = None,
        one_video: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `search_moments` returns, on the device."""
        p_st, p_ed, n_clips = self.span_probabilities(queries, entries, one_video)
        if video_weights is not None:
            p_st = p_st * video_weights.unsqueeze(2)
        score, video, st, ed = best_spans(p_st, p_ed, n_clips, self.settings)
        return entries.gather(1, video).masked_fill(score < 0, NO_ENTRY), st, ed, score


def _slices(n: int, size: int) -> Iterator[slice]:
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def _convolution_matrix(kernel: torch.Tensor, length: int) -> torch.Tensor:
    """(length, length): x @ it is the convolution of x with `kernel` as Conv1d pads and computes it.

    As one product, for the wide batches of a search that is several times faster than a convolution.
    """
    matrix = kernel.new_zeros((length, length))
    for i, weight in enumerate(kernel.detach()):
        offset = len(kernel) // 2 - i
        if abs(offset) < length:
            matrix.diagonal(offset).fill_(weight)
    return matrix


def best_spans(
    p_st: torch.Tensor, p_ed: torch.Tensor, n_clips: torch.Tensor, settings: SearchSettings
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best spans of each query over its videos: score = p_st[i] * p_ed[j], min_pred_l <= j - i < max_pred_l.

    The best K spans start at the K starts whose best spans are best, so these starts are selected first, and only
    their spans are looked at one by one.

    Args:
        p_st, p_ed: (Nq, V, L), anything past a video's clips is not read.
        n_clips: (Nq, V).
        settings: the band and `max_moments`.

    Returns:
        score, video (index into V), i, j: (Nq, K), best first; score -1 where a query has fewer than K possible spans.
    """
    length = p_st.shape[2]
    band = range(settings.min_pred_l, min(settings.max_pred_l, length))
    if not band:
        empty = torch.zeros((len(p_st), 0), dtype=torch.int64, device=p_st.device)
        return empty.to(p_st.dtype), empty, empty, empty

    missing = torch.arange(length, device=p_st.device) >= n_clips.unsqueeze(2)
    ends = F.pad(p_ed.masked_fill(missing, IMPOSSIBLE), (0, band[-1]), value=IMPOSSIBLE)  # (Nq, V, L + longest)
    best_end = _sliding_max(ends[:, :, band[0] :], len(band))  # (Nq, V, L)
    best_span = torch.where(best_end < 0, IMPOSSIBLE, p_st * best_end).flatten(1)  # (Nq, V * L), of each start
    start = best_span.topk(min(settings.max_moments, best_span.shape[1]), dim=1).indices  # (Nq, S)
    video, st = start // length, start % length

    span_st = p_st.flatten(1).gather(1, start).unsqueeze(2)  # (Nq, S, 1)
    lengths = torch.arange(band.start, band.stop, device=p_st.device)
    end = (video * ends.shape[2] + st).unsqueeze(2) + lengths  # (Nq, S, band), positions in `ends`
    span_ed = ends.flatten(1).gather(1, end.flatten(1)).view(end.shape)
    spans = torch.where(span_ed < 0, IMPOSSIBLE, span_st * span_ed).flatten(1)  # (Nq, S * band)
    score, index = spans.topk(min(settings.max_moments, spans.shape[1]), dim=1)
    chosen = index // len(band)
    st = st.gather(1, chosen)
    return score, video.gather(1, chosen), st, st + lengths[index % len(band)]


def _sliding_max(x: torch.Tensor, width: int) -> torch.Tensor:
    """Maximum over the windows [i, i + width) of the last axis: (…, n) -> (…, n - width + 1)."""
    covered = 1
    while covered < width:
        step = min(covered, width - covered)
        x = torch.maximum(x[..., : x.shape[-1] - step], x[..., step:])
        covered += step
    return x
