"""Items and batches: queries with their videos for training, videos and queries apart for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from method_tvr.annotations import Query, Video
from method_tvr.clip_times import ClipTimes
from method_tvr.feature_store import FeatureStore
from method_tvr.packed_store import PackedStore
from utils.tensor_utils import pad_sequences, to_device

Item = dict[str, Any]


Batch = tuple[list[Any], dict[str, torch.Tensor]]


class StartEndDataset(Dataset[Item]):
    """Training items: one query with its video and the clips of its moment.

    Args:
        queries: with ground truth.
        features: where features come from.
        times: which clips a moment is labelled with.
    """

    def __init__(self, queries: Sequence[Query], features: FeatureStore, times: ClipTimes) -> None:
        self.queries = queries
        self.features = features
        self.times = times

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int) -> Item:
        query = self.queries[index]
        assert query.vid_name is not None
        assert query.ts is not None
        context = self.features.context(query.vid_name)
        n_clips = len(next(iter(context.values())))
        st, ed = self.times.label(query.ts, query.duration, n_clips)
        match_labels = np.zeros(n_clips, dtype=np.int64)
        match_labels[st : ed + 1] = 1
        return {
            "meta": query,
            "query_feat": self.features.query(query.desc_id),
            "st_ed_indices": (st, ed),
            "match_labels": match_labels,
            **{f"{m}_feat": feat for m, feat in context.items()},
        }

    def batch(self, indices: Sequence[int], ctx_length: int | None) -> Batch:
        """Whole batches from packed features: as `start_end_collate` of the items, where the features are."""
        assert isinstance(self.features, PackedStore)
        queries = [self.queries[index] for index in indices]
        batch = self.features.query_batch([query.desc_id for query in queries])
        batch |= self.features.context_batch([str(query.vid_name) for query in queries], ctx_length)
        spans = [
            self.times.label(query.ts, query.duration, n_clips)
            for query, n_clips in zip(queries, batch["ctx_lengths"].tolist(), strict=True)
            if query.ts is not None
        ]
        st_ed = to_device(np.array(spans, dtype=np.int64), batch["ctx_mask"].device)
        clip = torch.arange(batch["ctx_mask"].shape[1], device=st_ed.device)
        inside = (clip >= st_ed[:, :1]) & (clip <= st_ed[:, 1:])
        return queries, batch | {"st_ed_indices": st_ed, "match_labels": inside.long()}


class StartEndEvalDataset(Dataset[Item]):
    """Evaluation items in two passes: the videos of a split (`context`) and its queries (`query`).

    Args:
        queries: in the order of predictions.
        videos: the corpus that is searched.
        features: where features come from.
        data_mode: the pass, see `set_data_mode`.
    """

    def __init__(
        self, queries: Sequence[Query], videos: Sequence[Video], features: FeatureStore, data_mode: str = "context"
    ) -> None:
        self.queries = queries
        self.videos = videos
        self.features = features
        self.set_data_mode(data_mode)

    def set_data_mode(self, data_mode: str) -> None:
        """Switch to the `context` or the `query` pass."""
        if data_mode not in ("context", "query"):
            raise ValueError(f"data_mode {data_mode!r} is neither 'context' nor 'query'")
        self.data_mode = data_mode

    def __len__(self) -> int:
        return len(self.videos if self.data_mode == "context" else self.queries)

    def __getitem__(self, index: int) -> Item:
        if self.data_mode == "query":
            query = self.queries[index]
            return {"meta": query, "query_feat": self.features.query(query.desc_id)}
        video = self.videos[index]
        context = self.features.context(video.vid_name, video.clips)
        return {"meta": video, **{f"{m}_feat": feat for m, feat in context.items()}}

    def batch(self, indices: Sequence[int], ctx_length: int | None) -> Batch:
        """Whole batches from packed features: as `start_end_collate` of the items, where the features are."""
        assert isinstance(self.features, PackedStore)
        if self.data_mode == "query":
            queries = [self.queries[index] for index in indices]
            return queries, self.features.query_batch([query.desc_id for query in queries])
        videos = [self.videos[index] for index in indices]
        names, clips = [video.vid_name for video in videos], [video.clips for video in videos]
        return videos, self.features.context_batch(names, ctx_length, clips)


def start_end_collate(items: Sequence[Item], ctx_length: int | None) -> Batch:
    """Batch items of one kind.

    Query tokens are padded to the longest of the batch. The reference pads clips to `max_ctx_l` always, and its
    boundary scores depend on it.

    Args:
        items: of a dataset.
        ctx_length: padded number of clips, None for that of the batch's longest video.

    Returns:
        What each item is about (queries or videos), and the tensors that the model takes: those of `query_feat`
        (N, Lq, D) with `query_mask`, `{modality}_feat` (N, ctx_length, D) with `ctx_mask` and `ctx_lengths` (N,) int64,
        `st_ed_indices` (N, 2) int64 and `match_labels` (N, ctx_length) int64 that the items have. Masks are float32,
        1 on what exists.
    """
    batch: dict[str, torch.Tensor] = {}
    for key in items[0]:
        if key == "query_feat":
            batch["query_feat"], batch["query_mask"] = pad_sequences([item[key] for item in items])
        elif key.endswith("_feat"):
            batch[key], batch["ctx_mask"] = pad_sequences([item[key] for item in items], ctx_length)
            batch["ctx_lengths"] = torch.tensor([len(item[key]) for item in items], dtype=torch.int64)
        elif key == "match_labels":
            labels, _ = pad_sequences([item[key][:, None] for item in items], ctx_length)
            batch[key] = labels.squeeze(2)
        elif key == "st_ed_indices":
            batch[key] = torch.tensor([item[key] for item in items], dtype=torch.int64)
    return [item["meta"] for item in items], batch


def prepare_batch_inputs(
    batch: Mapping[str, torch.Tensor], device: torch.device, non_blocking: bool = False
) -> dict[str, torch.Tensor]:
    """Move a batch to the device, but for `ctx_lengths`, by which the host plans."""
    return {
        name: tensor if name == "ctx_lengths" else tensor.to(device, non_blocking=non_blocking)
        for name, tensor in batch.items()
    }
