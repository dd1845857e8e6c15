"""A feature store that keeps prepared features: mapped from caches on disk, or held on a device."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from method_tvr.dataset.annotations import Query
from method_tvr.dataset.feature_cache import packed_rows
from method_tvr.dataset.feature_rows import DeviceRows, FeatureRows, length_mask, tef_of
from method_tvr.dataset.feature_store import TEF_SIZE, FeatureStore, SpansOf
from utils.basic_utils import InputError
from utils.tensor_utils import to_device

SIZE_STEP = 16  # clips, between the sizes of trimmed batches where there are to be few


class CachedStore(FeatureStore):
    """Features of a corpus, prepared once: mapped from caches on disk, or held on a device.

    Args:
        dtype: number type they are kept in, `float32` or `float16`; batches are float32.
        cache_dir: folder for caches, by default one beside each file.
        device: hold what has been required there, and make batches there; None makes them in host memory.
        may_hold: a CUDA device that `settle` may choose for `device`.
        few_sizes: pad batches to few different sizes, so that each can have a CUDA graph of its own.
        described: all else, as of a `FeatureStore`.
    """

    def __init__(
        self,
        *,
        dtype: str = "float32",
        cache_dir: str | os.PathLike[str] | None = None,
        device: torch.device | None = None,
        few_sizes: bool = False,
        may_hold: torch.device | None = None,
        **described: Any,
    ) -> None:
        super().__init__(**described)
        self.device, self._may_hold = device, may_hold
        self._few_sizes, self._dtype = few_sizes, dtype
        try:
            self._rows = {
                kind: packed_rows(file, self.sizes[kind], self._preparation[kind], dtype, cache_dir)
                for kind, file in self._files.items()
            }
        except BaseException:
            super().close()
            raise
        self._on_device: dict[str, DeviceRows] = {}
        self._required: dict[str, dict[str, None]] = {kind: {} for kind in self._rows}  # in order, each once

    @property
    def made_by(self) -> Literal["thread", "caller"]:
        return "thread" if self.device is None else "caller"

    def close(self) -> None:
        """Close the files, and let go of what is mapped or held of them."""
        super().close()
        self._rows.clear()
        self._on_device.clear()

    def context(self, vid_name: str, clips: range | None = None) -> dict[str, np.ndarray]:
        self._check_keys([vid_name])
        which = slice(None) if clips is None else slice(clips.start, clips.stop)
        return {m: self._clips(self._prepared(m, vid_name)[which]) for m in self.modalities}

    def clip_counts(self, vid_names: Sequence[str]) -> list[int]:
        self._check_keys(vid_names)
        rows = self._rows[self.modalities[0]]
        return rows.counts[rows.numbers_of(vid_names)].tolist()

    def _prepared(self, kind: str, key: str) -> np.ndarray:
        self._check_usable(kind, [key])
        return np.array(self._rows[kind].of(key), dtype=np.float32)

    def _missing(self, kind: str, keys: Iterable[str]) -> list[str]:
        unknown = [key for key in keys if key not in self._rows[kind].numbers]
        return super()._missing(kind, unknown) if unknown else []

    def _check_usable(self, kind: str, keys: Iterable[str]) -> None:
        for key in keys:
            if key not in self._rows[kind].numbers:
                self._raw(kind, key)  # says what is wrong with it
                raise InputError(f"{self.paths[kind]}, key {key}: was not usable when it was packed: run again")

    def _check_keys(self, vid_names: Sequence[str]) -> None:
        for m in self.modalities:
            self._check_usable(m, vid_names)
        rows_of_each = [self._rows[m] for m in self.modalities]
        counts = np.stack([rows.counts[rows.numbers_of(vid_names)] for rows in rows_of_each])
        for odd in np.flatnonzero((counts != counts[0]).any(axis=0)).tolist():
            self._check_clip_counts(vid_names[odd], dict(zip(self.modalities, counts[:, odd].tolist(), strict=True)))

    def require(
        self, queries: Sequence[Query], vid_names: Iterable[str], annotation_path: str | os.PathLike[str]
    ) -> None:
        """Check all features of queries and videos, and have them on the device, if there is one, from now on."""
        names = list(dict.fromkeys(vid_names))
        super().require(queries, names, annotation_path)
        desc_ids = [str(query.desc_id) for query in queries]
        self._check_usable("query", desc_ids)
        self._check_keys(names)
        for kind, required in self._required.items():
            before = len(required)
            required.update(dict.fromkeys(desc_ids if kind == "query" else names))
            if len(required) > before:
                self._on_device.pop(kind, None)

    def _rows_for_batches(self, kind: str) -> FeatureRows:
        return self._rows[kind] if self.device is None else self.on_device(kind)

    def on_device(self, kind: str) -> DeviceRows:
        """Where the device has the required features of a modality or of queries."""
        assert self.device is not None
        if kind not in self._on_device:
            keys, use_tef = list(self._required[kind]), self.use_tef and kind != "query"
            self._on_device[kind] = DeviceRows(self._rows[kind], keys, self.device, use_tef)
        return self._on_device[kind]

    def settle(self, needed: int = 0) -> str | None:
        """Hold the required features on the device if they fit beside `needed` bytes; see `FeatureStore.settle`."""
        if self._may_hold is None or self.device is not None:
            return None
        free, total = torch.cuda.mem_get_info(self._may_hold)
        room = max(0, free - needed - total // 10)  # a tenth is for the evaluation and what others leave unused
        takes, halved = self.required_bytes(self._dtype), self.required_bytes("float16")
        sizes = f"{takes / 2**30:.2f} GiB of {self._dtype}, room for {room / 2**30:.2f} GiB"
        if takes <= room:
            self.device = self._may_hold
            return f"features: on {self._may_hold} ({sizes})"
        offer = f"; --cache_dtype float16 would fit ({halved / 2**30:.2f} GiB)" if halved <= room else ""
        return f"features: in host memory, they do not fit on {self._may_hold} ({sizes}){offer}"

    def required_bytes(self, dtype: str) -> int:
        """What the required features take in a number type, tef included."""
        total = 0
        for kind, keys in self._required.items():
            rows = self._rows[kind]
            width = self.sizes[kind] + TEF_SIZE * (self.use_tef and kind != "query")
            total += int(rows.lengths[rows.numbers_of(keys)].sum()) * width * np.dtype(dtype).itemsize
        return total

    def desc_length(self, lengths: np.ndarray) -> int:
        """Padded number of tokens of a batch of queries."""
        return self.max_desc_l if self._few_sizes else int(lengths.max())

    def ctx_length(self, lengths: np.ndarray) -> int:
        """Padded number of clips of a batch of videos that is trimmed to the longest of them."""
        longest = int(lengths.max())
        return min(-(-longest // SIZE_STEP) * SIZE_STEP, self.max_ctx_l) if self._few_sizes else longest

    def query_batch(self, desc_ids: Sequence[int]) -> dict[str, torch.Tensor]:
        """As of the files, padded by `desc_length`, where the features are."""
        rows = self._rows_for_batches("query")
        starts, lengths = rows.stretches([str(desc_id) for desc_id in desc_ids])
        longest = self.desc_length(lengths)
        feat = rows.padded(starts, lengths, longest, pin_memory=self.pin_memory)
        return {"query_feat": feat, "query_mask": length_mask(to_device(lengths, rows.device), longest)}

    def context_batch(
        self, vid_names: Sequence[str], ctx_length: int | None, clips: Sequence[range | None] | None = None
    ) -> dict[str, torch.Tensor]:
        """As of the files, of videos that have been required, by default padded by `ctx_length`."""
        batch = {}
        for m in self.modalities:
            rows = self._rows_for_batches(m)
            starts, lengths = rows.stretches(vid_names, clips)
            padded_length = ctx_length or self.ctx_length(lengths)
            batch[f"{m}_feat"] = rows.padded(starts, lengths, padded_length, self.use_tef, self.pin_memory)
        return {
            **batch,
            "ctx_mask": length_mask(to_device(lengths, rows.device), padded_length),
            "ctx_lengths": torch.from_numpy(lengths),
        }

    def held(self, queries: Sequence[Query], spans: SpansOf) -> DeviceItems | None:
        return None if self.device is None else DeviceItems(self, queries, spans)


class DeviceItems:
    """Training items as numbers: where each one's features lie on the device, and what its labels are.

    Args:
        features: on a device.
        queries: the items, of queries and videos that have been required.
        spans: (N, 2) int64 first and last clips of queries' moments, given their videos' numbers of clips.
    """

    def __init__(self, features: CachedStore, queries: Sequence[Query], spans: SpansOf) -> None:
        self._features = features
        desc_ids, names = [str(query.desc_id) for query in queries], [str(query.vid_name) for query in queries]
        self._query, *self._context = (features.on_device(kind) for kind in ("query", *features.modalities))
        of_query, self._n_tokens = self._query.stretches(desc_ids)
        # of all modalities: each holds as many rows of the same videos, in the same order
        of_video, self._n_clips = self._context[0].stretches(names)
        columns = [of_query, self._n_tokens, of_video, self._n_clips, *spans(queries, self._n_clips.tolist()).T]
        self._table = to_device(np.stack(columns, axis=1), self._query.device)  # (items, 6)
        of_pairs = pair_labels(queries).items()
        self._of_pairs = {name: to_device(column, self._query.device) for name, column in of_pairs}  # (items, 1)
        self._clip_tables: dict[int, torch.Tensor] = {}

    def relabel(self, queries: Sequence[Query], spans: SpansOf) -> None:
        """Give the same items the labels of other moments: in place, as captured CUDA graphs read this table."""
        self._table[:, 4:] = to_device(spans(queries, self._n_clips.tolist()), self._table.device)

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
        """The tensors of a host batch, gathered on the device: a kernel for each file, and some small ones."""
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
            **span_labels(of_item[:, 4:], length),
        }
        for m, rows in zip(self._features.modalities, self._context, strict=True):
            inputs[f"{m}_feat"] = rows.gathered(clips, n_clips, of_clips[..., :2])
        inputs |= {name: column.index_select(0, batch["items"]) for name, column in self._of_pairs.items()}
        return inputs | {name: batch[name] for name in ("ctx_lengths",) if name in batch}

    def _of_clip_counts(self, length: int) -> torch.Tensor:
        """(most clips + 1, length, 3) tef and mask of videos by their number of clips."""
        if length not in self._clip_tables:
            counts = torch.arange(int(self._n_clips.max()) + 1, device=self._table.device)
            parts = [tef_of(counts, length), length_mask(counts, length).unsqueeze(2)]
            self._clip_tables[length] = torch.cat(parts, dim=2)
        return self._clip_tables[length]


def span_labels(st_ed: torch.Tensor, length: int) -> dict[str, torch.Tensor]:
    """`st_ed_indices` (N, 2) and the `match_labels` (N, length) that go with them, int64."""
    clip = torch.arange(length, device=st_ed.device)
    inside = (clip >= st_ed[:, :1]) & (clip <= st_ed[:, 1:])
    return {"st_ed_indices": st_ed, "match_labels": inside.long()}


def pair_labels(queries: Sequence[Query]) -> dict[str, np.ndarray]:
    """Of pairs of a query and a moment `item_weights` (N, 1) float32 and `query_ids` (N, 1) int64; of others none."""
    if not queries or queries[0].item_weight is None:
        return {}
    return {
        "item_weights": np.array([[query.item_weight] for query in queries], dtype=np.float32),
        "query_ids": np.array([[query.desc_id] for query in queries], dtype=np.int64),
    }
