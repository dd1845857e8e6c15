"""Items and batches: queries with their videos for training, videos and queries apart for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from method_tvr.annotations import Query, Video
from method_tvr.feature_store import FeatureStore
from utils.tensor_utils import pad_sequences

Item = dict[str, Any]


def moment_to_clips(ts: tuple[float, float], n_clips: int, clip_length: float) -> tuple[int, int]:
    """First and last clip of a moment, both inclusive: floor of its start, ceil of its end, at most the last clip."""
    st = min(int(np.floor(ts[0] / clip_length)), n_clips - 1)
    ed = min(int(np.ceil(ts[1] / clip_length)), n_clips - 1)
    return st, ed


class StartEndDataset(Dataset[Item]):
    """Training items: one query with its video and the clips of its moment.

    Args:
        queries: with ground truth.
        features: where features come from.
        clip_length: seconds.
    """

    def __init__(self, queries: Sequence[Query], features: FeatureStore, clip_length: float) -> None:
        self.queries = queries
        self.features = features
        self.clip_length = clip_length

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int) -> Item:
        query = self.queries[index]
        assert query.vid_name is not None
        assert query.ts is not None
        context = self.features.context(query.vid_name)
        n_clips = len(next(iter(context.values())))
        st, ed = moment_to_clips(query.ts, n_clips, self.clip_length)
        match_labels = np.zeros(n_clips, dtype=np.int64)
        match_labels[st : ed + 1] = 1
        return {
            "meta": query,
            "query_feat": self.features.query(query.desc_id),
            "st_ed_indices": (st, ed),
            "match_labels": match_labels,
            **{f"{m}_feat": feat for m, feat in context.items()},
        }


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
        context = self.features.context(video.vid_name)
        return {"meta": video, **{f"{m}_feat": feat for m, feat in context.items()}}


def start_end_collate(items: Sequence[Item], max_ctx_l: int) -> tuple[list[Query | Video], dict[str, torch.Tensor]]:
    """Batch items of one kind.

    Clips are padded to `max_ctx_l` always, as in the reference, since boundary scores depend on it; query tokens to
    the longest of the batch.

    Returns:
        What each item is about (queries or videos), and the tensors that the model takes: those of `query_feat`
        (N, Lq, D) with `query_mask`, `{modality}_feat` (N, max_ctx_l, D) with `ctx_mask`, `st_ed_indices` (N, 2) int64
        and `match_labels` (N, max_ctx_l) int64 that the items have. Masks are float32, 1 on what exists.
    """
    batch: dict[str, torch.Tensor] = {}
    for key in items[0]:
        if key == "query_feat":
            batch["query_feat"], batch["query_mask"] = pad_sequences([item[key] for item in items])
        elif key.endswith("_feat"):
            batch[key], batch["ctx_mask"] = pad_sequences([item[key] for item in items], max_ctx_l)
        elif key == "match_labels":
            labels, _ = pad_sequences([item[key][:, None] for item in items], max_ctx_l)
            batch[key] = labels.squeeze(2)
        elif key == "st_ed_indices":
            batch[key] = torch.tensor([item[key] for item in items], dtype=torch.int64)
    return [item["meta"] for item in items], batch


def prepare_batch_inputs(
    batch: Mapping[str, torch.Tensor], device: torch.device, non_blocking: bool = False
) -> dict[str, torch.Tensor]:
    """Move a batch to the device."""
    return {name: tensor.to(device, non_blocking=non_blocking) for name, tensor in batch.items()}
