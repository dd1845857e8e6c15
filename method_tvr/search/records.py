"""What a search takes and gives: settings, encoded queries, shortlisted videos, moments. In clips, not in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from utils.tensor_utils import to_device

NO_ENTRY = -1  # entry of a row that holds no moment
UNPROVED = 0  # looks of an index, where an answer may lack something
NOT_GIVEN = float("-inf")  # score of a video where another system has named fewer
IMPOSSIBLE = -1.0  # score of a span that ends past its video


@dataclass(frozen=True)
class SearchSettings:
    """What is searched for."""

    q2c_alpha: float = 30.0  # a video's score s weighs exp(q2c_alpha * s)
    max_vcmr_video: int = 100  # videos kept per query
    max_moments: int = 200  # moments kept per query
    min_pred_l: int = 2  # clips from start to end boundary, min <= ed - st < max; any band works
    max_pred_l: int = 16
    query_block: int = 256  # queries answered at a time; memory grows with it (2 MB each), not with their total
    queries_per_pass: int = 1 << 12  # that one pass over the corpus serves, about; memory grows with it (20 KB each)
    clip_block: int | None = None  # about how many clips are scored at a time; None: as suits the corpus and its device


@dataclass
class EncodedQueries:
    """Nq queries as the corpus is compared with them, in each of M modalities."""

    for_videos: torch.Tensor  # (Nq, M, D) modular queries, unit length, for video scores
    for_spans: torch.Tensor  # (Nq, M, D) projected queries, for clip similarity

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

    def __getitem__(self, rows: slice | torch.Tensor) -> EncodedQueries:
        return EncodedQueries(self.for_videos[rows], self.for_spans[rows])

    def of(self, numbers: np.ndarray) -> EncodedQueries:
        """Some queries, in the order given."""
        return self[to_device(numbers, self.for_videos.device)]


@dataclass
class Shortlist:
    """The best of a corpus for Nq queries, best first; V and U are at most max_vcmr_video.

    Where no video has several entries, entries and videos are the same.
    """

    entries: torch.Tensor  # (Nq, V) int64: moments are looked for in these
    entry_scores: torch.Tensor  # (Nq, V) scores s
    videos: torch.Tensor  # (Nq, U) int64, the best entry of each of the best videos
    video_scores: torch.Tensor  # (Nq, U)
    looks: torch.Tensor | None = None  # (Nq,) int64, after how many it was proved complete, 1: at once; or `UNPROVED`

    @classmethod
    def concatenate(cls, parts: Sequence[Shortlist]) -> Shortlist:
        """Those of several groups of queries, at least one; proofs are known where they are of all."""
        names = ["entries", "entry_scores", "videos", "video_scores"]
        if all(part.looks is not None for part in parts):
            names.append("looks")
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def __getitem__(self, rows: slice) -> Shortlist:
        looks = None if self.looks is None else self.looks[rows]
        return Shortlist(self.entries[rows], self.entry_scores[rows], self.videos[rows], self.video_scores[rows], looks)


class Proofs(NamedTuple):
    """How many of some queries' answers are proved complete: an exact search would have found the same."""

    n_queries: int = 0
    at_once: int = 0
    by_widening: int = 0  # proved only after the index had looked further

    @classmethod
    def of(cls, looks: torch.Tensor) -> Proofs:
        """Of `Shortlist.looks`."""
        return cls(len(looks), int((looks == 1).sum()), int((looks > 1).sum()))

    def and_those(self, other: Proofs) -> Proofs:
        """Of these queries and others."""
        return Proofs(*(one + another for one, another in zip(self, other, strict=True)))

    @property
    def all_proved(self) -> bool:
        return self.at_once + self.by_widening == self.n_queries

    def __str__(self) -> str:
        further = f", {self.by_widening} of them by looking further" if self.by_widening else ""
        return f"{self.at_once + self.by_widening} of {self.n_queries} answers are proved complete{further}"


@dataclass
class RankedVideos:
    """Best videos of each query. Where a video has several entries, it is named by the best of them."""

    entry: np.ndarray  # (Nq, V) int64
    score: np.ndarray  # (Nq, V) float32, exp(q2c_alpha * s)

    def __getitem__(self, rows: slice) -> RankedVideos:
        return RankedVideos(self.entry[rows], self.score[rows])


@dataclass
class Moments:
    """Ranked moments (Nq, K), best first; rows past a query's last one have entry `NO_ENTRY`."""

    entry: np.ndarray  # int64, entry of the corpus
    st: np.ndarray  # int64, start boundary in clips of the entry
    ed: np.ndarray
    score: np.ndarray  # float32, exp(q2c_alpha * the entry's score) * p_start * p_end
    p_start: np.ndarray  # float32, probability that a moment starts there, if it is in this entry
    p_end: np.ndarray

    def __getitem__(self, rows: slice) -> Moments:
        return Moments(*(column[rows] for column in vars(self).values()))
