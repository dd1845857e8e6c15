"""Items and batches: queries with their videos for training, videos and queries apart for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from method_tvr.dataset.annotations import Entry, Query
from method_tvr.dataset.clip_times import ClipTimes
from method_tvr.dataset.feature_store import FeatureStore
from method_tvr.dataset.packed_features import length_mask, tef_of
from method_tvr.dataset.packed_store import PackedStore
from utils.tensor_utils import pad_sequences, to_device

Item = dict[str, Any]
# what each item is about, and tensors; with features on the device also sizes that tensors will be made of
Batch = tuple[list[Any], dict[str, Any]]


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
        self._items: _ItemsOnDevice | None = None

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
        """Whole batches from packed features: as `start_end_collate` of the items.

        Where the features are on the device, of the items' numbers alone: `inputs` gathers them there.
        """
        assert isinstance(self.features, PackedStore)
        queries = [self.queries[index] for index in indices]
        if self.features.device is not None:
            return queries, self._on_device().batch(indices, ctx_length)
        batch = self.features.query_batch([query.desc_id for query in queries])
        batch |= self.features.context_batch([str(query.vid_name) for query in queries], ctx_length)
        st_ed = torch.from_numpy(self._spans(queries, batch["ctx_lengths"].tolist()))
        return queries, batch | _span_labels(st_ed, batch["ctx_mask"].shape[1])

    def inputs(self, batch: Mapping[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
        """The tensors that the model takes, on its device, of a batch from a loader of this dataset."""
        if "items" in batch:
            return self._on_device().inputs(batch)
        return prepare_batch_inputs(batch, device, non_blocking=True)

    def _on_device(self) -> _ItemsOnDevice:
        if self._items is None:
            assert isinstance(self.features, PackedStore)
            self._items = _ItemsOnDevice(self.queries, self.features, self._spans)
        return self._items

    def _spans(self, queries: Sequence[Query], n_clips: Sequence[int]) -> np.ndarray:
        """(N, 2) int64 first and last clips of moments, in videos of some numbers of clips."""
        labels = [
            self.times.label(query.ts, query.duration, n)
            for query, n in zip(queries, n_clips, strict=True)
            if query.ts is not None
        ]
        return np.array(labels, dtype=np.int64)


class _ItemsOnDevice:
    """Training items as numbers: where each one's features lie on the device, and what its labels are.

    Args:
        queries: the items.
        features: on a device.
        spans: labels of queries, given their videos' numbers of clips.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        features: PackedStore,
        spans: Callable[[Sequence[Query], Sequence[int]], np.ndarray],
    ) -> None:
        self._features = features
        desc_ids, names = [str(query.desc_id) for query in queries], [str(query.vid_name) for query in queries]
        self._query, *self._context = (features.on_device(kind) for kind in ("query", *features.modalities))
        of_query, self._n_tokens = self._query.stretches(desc_ids)
        # of all modalities: each holds as many rows of the same videos, in the same order
        of_video, self._n_clips = self._context[0].stretches(names)
        columns = [of_query, self._n_tokens, of_video, self._n_clips, *spans(queries, self._n_clips.tolist()).T]
        self._table = to_device(np.stack(columns, axis=1), self._query.device)  # (items, 6)
        self._clip_tables: dict[int, torch.Tensor] = {}

    def batch(self, indices: Sequence[int], ctx_length: int | None) -> dict[str, Any]:
        """`items` (N,) on the device, the padded lengths, and on the host `ctx_lengths` (N,)."""
        items = np.array(indices, dtype=np.int64)
        n_clips = self._n_clips[items]
        return {
            "items": to_device(items, self._table.device),
            "desc_length": self._features.desc_length(self._n_tokens[items]),
            "ctx_length": ctx_length or self._features.ctx_length(n_clips),
            "ctx_lengths": torch.from_numpy(n_clips),
        }

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The tensors of `start_end_collate`, gathered on the device: a kernel for each file, and some small ones."""
        length = batch["ctx_length"]
        of_item = self._table.index_select(0, batch["items"])  # (N, 6)
        of_query, n_tokens, of_video, n_clips = of_item[:, :4].unbind(dim=1)
        tokens = self._query.rows_of(of_query, n_tokens, batch["desc_length"])
        clips = self._context[0].rows_of(of_video, n_clips, length)
        of_clips = self._of_clip_counts(length).index_select(0, n_clips)  # (N, length, 3)
        inputs = {
            "query_feat": self._query.gathered(tokens, n_tokens),
            "query_mask": length_mask(n_tokens, batch["desc_length"]),
            "ctx_mask": of_clips[..., 2].contiguous(),
            **_span_labels(of_item[:, 4:], length),
        }
        for m, rows in zip(self._features.modalities, self._context, strict=True):
            inputs[f"{m}_feat"] = rows.gathered(clips, n_clips, of_clips[..., :2])
        return inputs | {name: batch[name] for name in ("ctx_lengths",) if name in batch}

    def _of_clip_counts(self, length: int) -> torch.Tensor:
        """(most clips + 1, length, 3) tef and mask of videos by their number of clips."""
        if length not in self._clip_tables:
            counts = torch.arange(int(self._n_clips.max()) + 1, device=self._table.device)
            parts = [tef_of(counts, length), length_mask(counts, length).unsqueeze(2)]
            self._clip_tables[length] = torch.cat(parts, dim=2)
        return self._clip_tables[length]


def _span_labels(st_ed: torch.Tensor, length: int) -> dict[str, torch.Tensor]:
    """`st_ed_indices` (N, 2) and the `match_labels` (N, length) that go with them, int64."""
    clip = torch.arange(length, device=st_ed.device)
    inside = (clip >= st_ed[:, :1]) & (clip <= st_ed[:, 1:])
    return {"st_ed_indices": st_ed, "match_labels": inside.long()}


class StartEndEvalDataset(Dataset[Item]):
    """Evaluation items in two passes: the videos of a split (`context`) and its queries (`query`).

    Args:
        queries: in the order of predictions.
        videos: entries of the corpus that is searched.
        features: where features come from.
        data_mode: the pass, see `set_data_mode`.
    """

    def __init__(
        self, queries: Sequence[Query], videos: Sequence[Entry], features: FeatureStore, data_mode: str = "context"
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


def prepare_batch_inputs(batch: Mapping[str, Any], device: torch.device, non_blocking: bool = False) -> dict[str, Any]:
    """Move a batch to the device, but for `ctx_lengths`, by which the host plans, and sizes."""
    return {
        name: x.to(device, non_blocking=non_blocking) if name != "ctx_lengths" and isinstance(x, torch.Tensor) else x
        for name, x in batch.items()
    }
