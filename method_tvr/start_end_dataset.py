"""Datasets that give batches: queries with their videos for training, videos and queries apart for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from method_tvr.dataset.annotations import Entry, Query
from method_tvr.dataset.cached_store import pair_labels, span_labels
from method_tvr.dataset.clip_times import ClipTimes
from method_tvr.dataset.feature_store import FeatureStore, HeldItems
from method_tvr.dataset.loading import Batch, prepare_batch_inputs


class StartEndDataset:
    """Training items: one query, with ground truth, with its video and the clips that its moment is labelled with."""

    def __init__(self, queries: Sequence[Query], features: FeatureStore, times: ClipTimes) -> None:
        self.queries, self.features, self.times = list(queries), features, times
        self._held: HeldItems | None = None

    def __len__(self) -> int:
        return len(self.queries)

    def draw_moments(self, generator: torch.Generator) -> None:
        """Label each query that has several moments with one of them, drawn anew; loaders made from now on have it."""
        several = [number for number, query in enumerate(self.queries) if query.moments]
        for number, chance in zip(several, torch.rand(len(several), generator=generator).tolist(), strict=True):
            query = self.queries[number]
            self.queries[number] = replace(query, ts=query.moments[int(chance * len(query.moments))])
        if several and self._held is not None:
            self._held.relabel(self.queries, self._spans)

    def batch(self, indices: Sequence[int], ctx_length: int | None) -> Batch:
        """The batch of N items, for `inputs`.

        Query tokens are padded to the longest of the batch. The reference pads clips to `max_ctx_l` always, and its
        boundary scores depend on it; None pads them to the batch's longest video.

        Returns:
            The queries, and the tensors of `FeatureStore.query_batch` and `context_batch` with `st_ed_indices` (N, 2)
            int64 and `match_labels` (N, ctx_length) int64, and what `pair_labels` says of pairs; where the features are
            on the device, their places there.
        """
        queries = [self.queries[index] for index in indices]
        held = self._on_device()
        if held is not None:
            return queries, held.batch(indices, ctx_length)
        batch = self.features.query_batch([query.desc_id for query in queries])
        batch |= self.features.context_batch([str(query.vid_name) for query in queries], ctx_length)
        st_ed = torch.from_numpy(self._spans(queries, batch["ctx_lengths"].tolist()))
        of_pairs = {name: torch.from_numpy(column) for name, column in pair_labels(queries).items()}
        return queries, batch | span_labels(st_ed, batch["ctx_mask"].shape[1]) | of_pairs

    def inputs(self, batch: Mapping[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
        """The tensors that the model takes, on its device, of a batch from a loader of this dataset."""
        held = self._on_device()
        return prepare_batch_inputs(batch, device, non_blocking=True) if held is None else held.inputs(batch)

    def _on_device(self) -> HeldItems | None:
        """The items as a device that holds the features gathers them, if one does."""
        if self._held is None:
            self._held = self.features.held(self.queries, self._spans)
        return self._held

    def _spans(self, queries: Sequence[Query], n_clips: Sequence[int]) -> np.ndarray:
        """(N, 2) int64 first and last clips of moments, in videos of some numbers of clips."""
        labels = [
            self.times.label(query.ts, query.duration, n)
            for query, n in zip(queries, n_clips, strict=True)
            if query.ts is not None
        ]
        return np.array(labels, dtype=np.int64)


class StartEndEvalDataset:
    """Evaluation items in two passes: entries of the corpus that is searched (`context`), and queries (`query`)."""

    def __init__(
        self, queries: Sequence[Query], videos: Sequence[Entry], features: FeatureStore, data_mode: str = "context"
    ) -> None:
        self.queries, self.videos, self.features = queries, videos, features
        self.set_data_mode(data_mode)

    def set_data_mode(self, data_mode: str) -> None:
        """Switch to the `context` or the `query` pass."""
        if data_mode not in ("context", "query"):
            raise ValueError(f"data_mode {data_mode!r} is neither 'context' nor 'query'")
        self.data_mode = data_mode

    def __len__(self) -> int:
        return len(self.videos if self.data_mode == "context" else self.queries)

    def batch(self, indices: Sequence[int], ctx_length: int | None) -> Batch:
        """Some queries or videos, and the tensors of `FeatureStore.query_batch` or `context_batch`, padded alike."""
        if self.data_mode == "query":
            queries = [self.queries[index] for index in indices]
            return queries, self.features.query_batch([query.desc_id for query in queries])
        videos = [self.videos[index] for index in indices]
        names, clips = [video.vid_name for video in videos], [video.clips for video in videos]
        return videos, self.features.context_batch(names, ctx_length, clips)
