"""A feature store that keeps prepared features packed, and makes whole batches of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from method_tvr.annotations import Query
from method_tvr.feature_cache import packed_rows
from method_tvr.feature_store import FeatureStore
from method_tvr.packed_features import DevicePackedFeatures, PackedFeatures, length_mask, to_device
from utils.basic_utils import InputError


class PackedStore(FeatureStore):
    """Features of a corpus, packed: mapped from caches on disk, or held on a device.

    Args:
        context_paths, query_path, normalize, max_ctx_l, max_desc_l, use_tef, sizes, average: see `FeatureStore`.
        dtype: number type they are kept in, `float32` or `float16`; batches are float32.
        cache_dir: folder for caches, by default one beside each file.
        device: hold what has been required there, and make batches there; None makes them in host memory.
        pin_memory: make host batches in pinned memory.
    """

    def __init__(
        self,
        context_paths: Mapping[str, str | os.PathLike[str]],
        query_path: str | os.PathLike[str] | None,
        normalize: Mapping[str, bool],
        max_ctx_l: int,
        max_desc_l: int,
        use_tef: bool,
        sizes: Mapping[str, int | None],
        average: bool = True,
        dtype: str = "float32",
        cache_dir: str | os.PathLike[str] | None = None,
        device: torch.device | None = None,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(context_paths, query_path, normalize, max_ctx_l, max_desc_l, use_tef, sizes, average)
        self.device = device
        try:
            self._packed = {
                kind: packed_rows(file, self.sizes[kind], self._preparation[kind], dtype, cache_dir)
                for kind, file in self._files.items()
            }
        except BaseException:
            super().close()
            raise
        self._host = {kind: PackedFeatures(packed, pin_memory) for kind, packed in self._packed.items()}
        self._on_device: dict[str, DevicePackedFeatures] = {}
        self._required: dict[str, dict[str, None]] = {kind: {} for kind in self._packed}  # in order, each once

    def close(self) -> None:
        """Close the files, and let go of what is mapped or held of them."""
        super().close()
        for held in (self._packed, self._host, self._on_device):
            held.clear()

    def context(self, vid_name: str, clips: range | None = None) -> dict[str, np.ndarray]:
        """Clip features of all modalities of a video, or of some of its clips: {modality: (L, D)} with one L."""
        self._check_keys([vid_name])
        which = slice(None) if clips is None else slice(clips.start, clips.stop)
        return {m: self._clips(self._prepared(m, vid_name)[which]) for m in self.modalities}

    def clip_counts(self, vid_names: Sequence[str]) -> list[int]:
        """How many clips videos have, before any are averaged."""
        self._check_keys(vid_names)
        some = self.modalities[0]
        return [int(n) for n in self._packed[some].counts[self._host[some].entries(vid_names)]]

    def _prepared(self, kind: str, key: str) -> np.ndarray:
        self._check_usable(kind, [key])
        return np.array(self._packed[kind].of(key), dtype=np.float32)

    def _missing(self, kind: str, keys: Iterable[str]) -> list[str]:
        unknown = [key for key in keys if key not in self._packed[kind].entries]
        return super()._missing(kind, unknown) if unknown else []

    def _check_usable(self, kind: str, keys: Iterable[str]) -> None:
        for key in keys:
            if key not in self._packed[kind].entries:
                self._raw(kind, key)  # says what is wrong with it
                raise InputError(f"{self.paths[kind]}, key {key}: was not usable when it was packed: run again")

    def _check_keys(self, vid_names: Sequence[str]) -> None:
        for m in self.modalities:
            self._check_usable(m, vid_names)
        counts = np.stack([self._packed[m].counts[self._host[m].entries(vid_names)] for m in self.modalities])
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
        for kind in self._required:
            keys = desc_ids if kind == "query" else names
            before = len(self._required[kind])
            self._required[kind].update(dict.fromkeys(keys))
            if len(self._required[kind]) > before:
                self._on_device.pop(kind, None)

    def _features(self, kind: str) -> PackedFeatures:
        if self.device is None:
            return self._host[kind]
        if kind not in self._on_device:
            self._on_device[kind] = DevicePackedFeatures(self._packed[kind], list(self._required[kind]), self.device)
        return self._on_device[kind]

    def query_batch(self, desc_ids: Sequence[int]) -> dict[str, torch.Tensor]:
        """`query_feat` (N, Lq, D) padded to the longest, and `query_mask` (N, Lq) float32."""
        features = self._features("query")
        starts, lengths = features.stretches([str(desc_id) for desc_id in desc_ids])
        longest = int(lengths.max())
        mask = length_mask(to_device(lengths, features.device), longest)
        return {"query_feat": features.padded(starts, lengths, longest), "query_mask": mask}

    def context_batch(
        self, vid_names: Sequence[str], ctx_length: int | None, clips: Sequence[range | None] | None = None
    ) -> dict[str, torch.Tensor]:
        """Clip features of videos that have been required.

        Args:
            vid_names: N videos.
            ctx_length: padded length, None for that of the longest.
            clips: those of each video that are asked for, by default and for None all.

        Returns:
            `{modality}_feat` (N, ctx_length, D) with `ctx_mask` (N, ctx_length) float32, and their numbers of clips
            `ctx_lengths` (N,) int64, which stay on the CPU.
        """
        batch = {}
        for m in self.modalities:
            features = self._features(m)
            starts, lengths = features.stretches(vid_names, clips)
            padded_length = ctx_length or int(lengths.max())
            batch[f"{m}_feat"] = features.padded(starts, lengths, padded_length, self.use_tef)
        return {
            **batch,
            "ctx_mask": length_mask(to_device(lengths, features.device), padded_length),
            "ctx_lengths": torch.from_numpy(lengths),
        }
