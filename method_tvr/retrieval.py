"""Corpus retrieval: encoded videos and queries in, ranked videos and moments out. No files, no dataset, no seconds.

The reference scores every span of every video and sorts them all. The answer is the same, and far sooner, when videos
are scored first, spans only in the videos kept, only in the band of allowed lengths, and only the best k are selected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from method_tvr.model_components import pool_clips

NO_ENTRY = -1  # entry of a row that holds no moment
IMPOSSIBLE = -1.0  # score of a span that ends past its video


@dataclass(frozen=True)
class SearchSettings:
    """What is searched for.

    Attributes:
        q2c_alpha: a video's score s weighs exp(q2c_alpha * s).
        max_vcmr_video: videos kept per query.
        max_moments: moments kept per query.
        min_pred_l, max_pred_l: clips from start to end boundary, min <= ed - st < max. Any band works.
        query_block: queries answered at a time; memory grows with it (about 2 MB each), not with their total.
        clip_block: about how many clips of the corpus are scored at a time.
    """

    q2c_alpha: float = 30.0
    max_vcmr_video: int = 100
    max_moments: int = 200
    min_pred_l: int = 2
    max_pred_l: int = 16
    query_block: int = 256
    clip_block: int = 1 << 16


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
    """Best videos of each query: entry (Nq, V) int64 and score (Nq, V) float32, exp(q2c_alpha * s)."""

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

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, rows: slice) -> EncodedQueries:
        return EncodedQueries(self.video[rows], self.span[rows])


class EncodedCorpus:
    """Encoded videos, packed: entry i keeps min(L_i + kernel // 2, max_ctx_l) rows.

    The rows past its L_i clips are encodings of padding. No search returns them, but the boundary clips' scores need
    them, because the convolutions see past the end. Inside, entries lie in order of length, so that those of one length
    are scored by one matrix product; entries are numbered as they were given.

    Args:
        rows: per entry (R_i, M, D) encodings of its clips and of the padding after them.
        n_clips: (Nv,) the L_i.
        dtype: what rows are kept in and multiplied in; results are float32. Less than float32 changes scores a little.
    """

    def __init__(
        self, rows: Sequence[torch.Tensor], n_clips: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> None:
        self.n_clips = np.asarray(n_clips, dtype=np.int64)
        n_rows = np.array([len(entry) for entry in rows], dtype=np.int64)
        self._order = np.lexsort((n_rows, self.n_clips))  # position -> entry
        self.rows = torch.cat([rows[entry].to(dtype) for entry in self._order])  # (all rows, M, D)
        self.n_rows = n_rows
        self._first_row = np.empty_like(n_rows)
        self._first_row[self._order] = np.cumsum(n_rows[self._order]) - n_rows[self._order]
        # lengths of all clips' vectors, (M, all rows): turns dot products into cosines
        norms = torch.linalg.vector_norm(self.rows, dim=-1, dtype=torch.float32)
        self._norms = norms.clamp_min(1e-12).t().contiguous()

    def __len__(self) -> int:
        return len(self.n_clips)

    def rows_of(self, entry: int) -> torch.Tensor:
        """(R_i, M, D) rows of an entry, a view."""
        first = self._first_row[entry]
        return self.rows[first : first + self.n_rows[entry]]

    def blocks(self, max_rows: int) -> Iterator[tuple[np.ndarray, int, torch.Tensor, torch.Tensor]]:
        """Runs of entries with one number of clips and rows.

        Yields:
            (entries (n,), L, rows (n * R, M, D), norms (M, n * R)), about `max_rows` rows at a time.
        """
        position = 0
        while position < len(self):
            entry = self._order[position]
            shape = self.n_clips[entry], self.n_rows[entry]
            most = max(1, max_rows // int(shape[1]))
            end = position
            while end < len(self) and end - position < most:
                following = self._order[end]
                if (self.n_clips[following], self.n_rows[following]) != shape:
                    break
                end += 1
            first = self._first_row[entry]
            rows = slice(first, first + (end - position) * int(shape[1]))
            yield self._order[position:end], int(shape[0]), self.rows[rows], self._norms[:, rows]
            position = end


class Searcher:
    """Answers queries over an encoded corpus, exactly.

    Args:
        corpus: what is searched.
        st_kernel, ed_kernel: (kernel,) weights of the start and end predictors.
        settings: what is searched for.
    """

    def __init__(
        self, corpus: EncodedCorpus, st_kernel: torch.Tensor, ed_kernel: torch.Tensor, settings: SearchSettings
    ) -> None:
        self.corpus = corpus
        self.settings = settings
        self._kernels = torch.stack([st_kernel.flatten(), ed_kernel.flatten()]).unsqueeze(1)  # (2, 1, kernel)

    @torch.inference_mode()
    def search_videos(self, queries: EncodedQueries) -> tuple[torch.Tensor, torch.Tensor]:
        """Best videos of a block of queries: entries (Nq, V) int64 and scores s (Nq, V), V <= max_vcmr_video."""
        keep = min(self.settings.max_vcmr_video, len(self.corpus))
        scores = queries.video.new_empty((len(queries), 0))
        entries = torch.empty((len(queries), 0), dtype=torch.int64, device=scores.device)
        for block_entries, block_scores in self._score_blocks(queries):
            scores = torch.cat([scores, block_scores], dim=1)
            entries = torch.cat([entries, block_entries.expand(len(queries), -1)], dim=1)
            if scores.shape[1] > 32 * keep:  # keeps memory independent of the size of the corpus
                scores, best = scores.topk(keep, dim=1)
                entries = entries.gather(1, best)
        scores, best = scores.topk(keep, dim=1)
        return entries.gather(1, best), scores

    def _score_blocks(self, queries: EncodedQueries) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        video_queries = queries.video.to(self.corpus.rows.dtype)
        for entries, n_clips, rows, norms in self.corpus.blocks(self.settings.clip_block):
            total = torch.zeros((len(queries), len(entries)), device=rows.device)
            for m in range(rows.shape[1]):
                cosine = (video_queries[:, m] @ rows[:, m].t()).float() / norms[m]
                total += pool_clips(cosine.view(len(queries), len(entries), -1)[:, :, :n_clips])
            yield torch.from_numpy(entries).to(rows.device), total / rows.shape[1]

    @torch.inference_mode()
    def span_probabilities(
        self, queries: EncodedQueries, entries: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Start and end probabilities of queries in videos.

        Args:
            queries: Nq queries.
            entries: (Nq, V) int64, the videos looked at for each.

        Returns:
            P_st, P_ed: (Nq, V, L) softmax over each video's clips, 0 past its end; and its number of clips (Nq, V).
        """
        similarity = self._clip_similarity(queries, entries.cpu().numpy())  # (Nq * V, L)
        n_clips = torch.from_numpy(self.corpus.n_clips).to(entries.device)[entries]
        kernel = self._kernels.shape[-1]
        logits = F.conv1d(similarity.unsqueeze(1), self._kernels, padding=kernel // 2)  # (Nq * V, 2, L)
        missing = torch.arange(logits.shape[-1], device=logits.device) >= n_clips.reshape(-1, 1, 1)
        probabilities = logits.masked_fill_(missing, -torch.inf).softmax(dim=-1)
        p_st, p_ed = probabilities.view(*entries.shape, 2, -1).unbind(dim=2)
        return p_st, p_ed, n_clips

    def _clip_similarity(self, queries: EncodedQueries, entries: np.ndarray) -> torch.Tensor:
        """(Nq * V, longest) similarity of each query with the rows of its videos, 0 past them.

        Pairs are taken video by video: each video's rows meet all queries that look at it in one matrix product.
        """
        flat = entries.ravel()
        query_of_pair = np.repeat(np.arange(len(entries)), entries.shape[1])
        by_entry = np.argsort(flat, kind="stable")
        present, firsts = np.unique(flat[by_entry], return_index=True)
        lasts = np.append(firsts[1:], len(flat))

        device = queries.span.device
        mean_over_modalities = queries.span / queries.span.shape[1]
        span_queries = mean_over_modalities.flatten(1).to(self.corpus.rows.dtype)  # (Nq, M * D)
        gathered = span_queries[torch.from_numpy(query_of_pair[by_entry]).to(device)]  # (Nq * V, M * D)
        longest = int(self.corpus.n_rows[present].max())
        similarity = torch.zeros((len(flat), longest), device=device)
        for entry, first, last in zip(present.tolist(), firsts.tolist(), lasts.tolist(), strict=True):
            rows = self.corpus.rows_of(entry).flatten(1)  # (R, M * D)
            similarity[first:last, : len(rows)] = gathered[first:last] @ rows.t()
        in_order = torch.empty_like(similarity)
        in_order[torch.from_numpy(by_entry).to(device)] = similarity
        return in_order

    @torch.inference_mode()
    def search_moments(
        self, queries: EncodedQueries, entries: torch.Tensor, video_weights: torch.Tensor | None = None
    ) -> Moments:
        """Best moments of a block of queries in the videos given for each.

        Args:
            queries: Nq queries.
            entries: (Nq, V) int64.
            video_weights: (Nq, V) factor of each video's moments, or None for 1.
        """
        p_st, p_ed, n_clips = self.span_probabilities(queries, entries)
        if video_weights is not None:
            p_st = p_st * video_weights.unsqueeze(2)
        score, video, st, ed = best_spans(p_st, p_ed, n_clips, self.settings)
        entry = entries.gather(1, video).masked_fill(score < 0, NO_ENTRY)
        return Moments(entry.cpu().numpy(), st.cpu().numpy(), ed.cpu().numpy(), score.cpu().numpy())

    @torch.inference_mode()
    def search(self, queries: EncodedQueries) -> tuple[Moments, RankedVideos]:
        """VCMR and VR of one block of queries."""
        entries, s = self.search_videos(queries)
        weights = torch.exp(self.settings.q2c_alpha * s)
        moments = self.search_moments(queries, entries, weights)
        return moments, RankedVideos(entries.cpu().numpy(), weights.cpu().numpy())

    def query_blocks(self, n_queries: int) -> Iterator[slice]:
        """Slices of at most `query_block` queries."""
        for first in range(0, n_queries, self.settings.query_block):
            yield slice(first, min(first + self.settings.query_block, n_queries))


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
    lengths = torch.tensor(band, device=p_st.device)
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
