"""What a search takes and gives: settings, encoded queries, shortlisted videos, moments. In clips, not in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from utils.tensor_utils import to_device

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
class EncodedQueries:
    """Queries as the corpus is compared with them.

    Attributes:
        for_videos: (Nq, M, D) modular queries, unit length, for video scores; in each of M modalities.
        for_spans: (Nq, M, D) projected queries, for clip similarity.
    """

    for_videos: torch.Tensor
    for_spans: torch.Tensor

    @classmethod
    def build(
        cls, query: Mapping[str, torch.Tensor], span_query: Mapping[str, torch.Tensor], modalities: Sequence[str]
    ) -> EncodedQueries:
        """From the model's `encode_query` and `span_queries`."""
        for_videos = torch.stack([query[m] for m in modalities], dim=1)
        return cls(F.normalize(for_videos, dim=-1), torch.stack([span_query[m] for m in modalities], dim=1))

    @classmethod
    def concatenate(cls, parts: Sequence[EncodedQueries]) -> EncodedQueries:
        """Several batches, one after another."""
        return cls(torch.cat([part.for_videos for part in parts]), torch.cat([part.for_spans for part in parts]))

    def to(self, device: torch.device) -> EncodedQueries:
        """The same on a device."""
        return EncodedQueries(self.for_videos.to(device), self.for_spans.to(device))

    def __len__(self) -> int:
        return len(self.for_videos)

    def __getitem__(self, rows: slice) -> EncodedQueries:
        return EncodedQueries(self.for_videos[rows], self.for_spans[rows])

    def of(self, numbers: np.ndarray) -> EncodedQueries:
        """Some queries, in the order given."""
        rows = to_device(numbers, self.for_videos.device)
        return EncodedQueries(self.for_videos[rows], self.for_spans[rows])


@dataclass
class Shortlist:
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

    def __getitem__(self, rows: slice) -> Shortlist:
        return Shortlist(self.entries[rows], self.entry_scores[rows], self.videos[rows], self.video_scores[rows])


@dataclass
class RankedVideos:
    """Best videos of each query: entry (Nq, V) int64 and score (Nq, V) float32, exp(q2c_alpha * s).

    Where a video has several entries, it is named by the best of them.
    """

    entry: np.ndarray
    score: np.ndarray


@dataclass
class Moments:
    """Ranked moments, best first; rows past a query's last one have entry `NO_ENTRY`.

    Attributes:
        entry: (Nq, K) int64, entry of the corpus.
        st, ed: (Nq, K) int64, start and end boundary in clips of the entry.
        score: (Nq, K) float32, exp(q2c_alpha * the entry's score) * p_start * p_end.
        p_start, p_end: (Nq, K) float32, probability that a moment starts and ends there, if it is in this entry.
    """

    entry: np.ndarray
    st: np.ndarray
    ed: np.ndarray
    score: np.ndarray
    p_start: np.ndarray
    p_end: np.ndarray
