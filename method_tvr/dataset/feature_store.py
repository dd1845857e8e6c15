"""Clip and token features as the model takes them: read, checked, sampled, normalised, tef appended.

`FeatureStore` reads each video and query from disk whenever it is asked for; `cached_store` keeps them ready.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from method_tvr.dataset.annotations import Query
from method_tvr.dataset.clip_times import AVERAGE, WINDOWS
from utils.basic_utils import Closing, InputError, first_few
from utils.feature_files.feature_file import FeatureFile
from utils.feature_files.provenance import Property, properties
from utils.tensor_utils import pad_sequences

TEF_SIZE = 2
DIGEST_DIGITS = 32
ALL_ROWS = 1 << 62  # more than any file has
NORM_EPS = 1e-5
SpansOf = Callable[[Sequence[Query], Sequence[int]], np.ndarray]  # of queries, given their videos' numbers of clips


class HeldItems(Protocol):
    """Training items that are on a device, and asked for by their numbers."""

    def batch(self, indices: Sequence[int], ctx_length: int | None) -> dict[str, Any]:
        """What a batch of N items is gathered by: numbers and sizes, with `ctx_lengths` (N,) on the host."""
        ...

    def relabel(self, queries: Sequence[Query], spans: SpansOf) -> None:
        """Give the same items the labels of other moments of their queries."""
        ...

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The tensors of such a batch, those of a host batch, on the device."""
        ...


def uniform_sampling(features: np.ndarray, max_len: int) -> np.ndarray:
    """Average (L, D) rows down to `max_len` evenly spread ones; shorter arrays come back as they are.

    Output i is the mean of rows [bound_i, bound_{i+1}), or row bound_i when that range is empty, with bounds
    round(i / max_len * L) clamped to L - 1 (as in TVRetrieval, which never reads the last row).
    """
    n = len(features)
    if n <= max_len:
        return features
    # np.round rounds half to even, as Python's round
    bounds = np.minimum(np.round(np.arange(max_len + 1) / max_len * n), n - 1).astype(np.int64)
    return np.stack([features[a:b].mean(axis=0) if b > a else features[a] for a, b in itertools.pairwise(bounds)])


def l2_normalize(features: np.ndarray) -> np.ndarray:
    """Divide each row of (L, D) by its L2 norm + 1e-5."""
    return features / (np.linalg.norm(features, axis=-1, keepdims=True) + NORM_EPS)


@lru_cache(maxsize=1024)
def temporal_endpoint_features(n_clips: int) -> np.ndarray:
    """(L, 2) float32: where each clip starts and ends, as fractions of the video (tef)."""
    edges = np.arange(n_clips + 1, dtype=np.float32) / np.float32(n_clips)
    return np.stack([edges[:-1], edges[1:]], axis=1)


def rows_digest(rows: np.ndarray) -> str:
    """32 hex digits that stand for the features (L, D) float32 of a video, as its file gives them."""
    digest = hashlib.sha256(repr(rows.shape).encode())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()[:DIGEST_DIGITS]


@dataclass(frozen=True)
class Preparation:
    """What is done to the rows of one video or query before the model sees them."""

    max_rows: int
    average: bool  # more rows are averaged down (clips), rather than cut off (tokens)
    normalize: bool  # divide each row by its L2 norm

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Prepare (L, D) float32."""
        rows = uniform_sampling(features, self.max_rows) if self.average else features[: self.max_rows]
        return l2_normalize(rows) if self.normalize else rows


class FeatureStore(Closing):
    """All features of a corpus, read from disk whenever they are asked for, until it is closed.

    Rows of features give whole batches (`query_batch`, `context_batch`), the same ones wherever they lie.

    Args:
        context_paths: {modality: h5 file of `{vid_name: (L, D)}`}.
        query_path: h5 file of `{desc_id: (Lq, D)}`, None when no query's features are asked for.
        normalize: {modality or "query": whether rows are L2-normalised}.
        max_ctx_l, max_desc_l: most clips of a video and tokens of a query; of more tokens, the others are cut off.
        use_tef: append temporal endpoint features to each modality.
        sizes: {modality or "query": feature size without tef}, checked against the files; may be left out.
        long_videos: of `LONG_VIDEOS`, what becomes of videos of more clips: they are averaged down, or cut off; or they
            stay as they are, and are to be asked for `max_ctx_l` clips or fewer at a time.
        num_workers: processes that a loader makes batches of files with; 0 for none.
        pin_memory: host batches are to lie in pinned memory, for copies to CUDA.

    Raises:
        InputError: (any method) a file, key or array is missing or not as it should be.
    """

    device: torch.device | None = None  # where batches are made, None in host memory

    def __init__(
        self,
        context_paths: Mapping[str, str | os.PathLike[str]],
        query_path: str | os.PathLike[str] | None,
        normalize: Mapping[str, bool],
        max_ctx_l: int,
        max_desc_l: int,
        use_tef: bool,
        sizes: Mapping[str, int | None],
        long_videos: str = AVERAGE,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.modalities, self.use_tef = tuple(context_paths), use_tef
        self.max_ctx_l, self.max_desc_l = max_ctx_l, max_desc_l
        self.num_workers, self.pin_memory = num_workers, pin_memory
        max_rows, average = ALL_ROWS if long_videos == WINDOWS else max_ctx_l, long_videos == AVERAGE
        self._preparation = {m: Preparation(max_rows, average, normalize[m]) for m in self.modalities}
        paths = dict(context_paths)
        if query_path is not None:
            self._preparation["query"] = Preparation(max_desc_l, False, normalize["query"])
            paths["query"] = query_path
        with ExitStack() as opened:
            self._files = {kind: opened.enter_context(FeatureFile(path)) for kind, path in paths.items()}
            self.sizes = {kind: file.width() for kind, file in self._files.items()}
            for kind, size in self.sizes.items():
                if sizes.get(kind) not in (None, size):
                    raise InputError(
                        f"{self.paths[kind]}: features are {size} wide, but the options say {sizes[kind]}: leave the "
                        "size out, or give another file"
                    )
            opened.pop_all()  # all is well: `close` closes them

    def close(self) -> None:
        """Close the files; only their paths and sizes are known after that."""
        for file in self._files.values():
            file.close()

    @property
    def paths(self) -> dict[str, Path]:
        """{modality or "query": the file it is read from}."""
        return {kind: file.path for kind, file in self._files.items()}

    @property
    def made_by(self) -> Literal["workers", "thread", "caller"]:
        """Who is to make batches: worker processes of a loader, one thread of it, or whoever asks for them."""
        return "workers"

    def query_batch(self, desc_ids: Sequence[int]) -> dict[str, torch.Tensor]:
        """`query_feat` (N, Lq, D), padded to the longest, and `query_mask` (N, Lq), both float32."""
        feat, mask = pad_sequences([self.query(desc_id) for desc_id in desc_ids])
        return {"query_feat": feat, "query_mask": mask}

    def context_batch(
        self, vid_names: Sequence[str], ctx_length: int | None, clips: Sequence[range | None] | None = None
    ) -> dict[str, torch.Tensor]:
        """Clip features of N videos.

        Args:
            ctx_length: padded length, None for that of the longest.
            clips: those of each video that are asked for, by default and for None all.

        Returns:
            `{modality}_feat` (N, ctx_length, D) with `ctx_mask` (N, ctx_length), float32, and their numbers of clips
            `ctx_lengths` (N,) int64, which stay on the CPU. Masks are 1 on what exists.
        """
        videos = [self.context(*one) for one in zip(vid_names, clips or [None] * len(vid_names), strict=True)]
        batch = {}
        for m in self.modalities:
            batch[f"{m}_feat"], batch["ctx_mask"] = pad_sequences([video[m] for video in videos], ctx_length)
        batch["ctx_lengths"] = torch.tensor([len(video[self.modalities[0]]) for video in videos], dtype=torch.int64)
        return batch

    def query(self, desc_id: int) -> np.ndarray:
        """Token features of a query: (Lq <= max_desc_l, D) float32."""
        return self._prepared("query", str(desc_id))

    def context(self, vid_name: str, clips: range | None = None) -> dict[str, np.ndarray]:
        """Clip features of all modalities of a video, or of some of its clips: {modality: (L, D)} with one L."""
        raw = {m: self._raw(m, vid_name, clips) for m in self.modalities}
        self._check_clip_counts(vid_name, {m: len(features) for m, features in raw.items()})
        return {m: self._clips(self._preparation[m](features)) for m, features in raw.items()}

    def n_clips(self, vid_name: str) -> int:
        """How many clips of a video the model sees."""
        return len(next(iter(self.context(vid_name).values())))

    def _clips(self, prepared: np.ndarray) -> np.ndarray:
        if not self.use_tef:
            return prepared
        return np.concatenate([prepared, temporal_endpoint_features(len(prepared))], axis=1)

    def _check_clip_counts(self, vid_name: str, counts: Mapping[str, int]) -> None:
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} in {self.paths[m]}" for m, count in counts.items())
            raise InputError(f"{vid_name}: its modalities differ in their number of clips: {listed}: align the files")

    def clip_counts(self, vid_names: Sequence[str]) -> list[int]:
        """How many clips videos have, before any are averaged, in the files of all modalities."""
        counts = []
        for vid_name in vid_names:
            of_each = {m: self._files[m].form(vid_name, self.sizes[m])[0] for m in self.modalities}
            self._check_clip_counts(vid_name, of_each)
            counts.append(of_each[self.modalities[0]])
        return counts

    def digests(self, vid_name: str) -> dict[str, str]:
        """{modality: `rows_digest` of a video}."""
        return {m: rows_digest(self._raw(m, vid_name)) for m in self.modalities}

    @property
    def context_stamps(self) -> dict[str, dict[str, int]]:
        """{modality: the `file_identity` of its file when it was opened}."""
        return {m: self._files[m].stamp for m in self.modalities}

    def _raw(self, kind: str, key: str, rows: range | None = None) -> np.ndarray:
        return self._files[kind].read(key, self.sizes[kind], rows)

    def _prepared(self, kind: str, key: str) -> np.ndarray:
        return self._preparation[kind](self._raw(kind, key))

    def _missing(self, kind: str, keys: Iterable[str]) -> list[str]:
        return self._files[kind].missing(keys)

    def require(
        self, queries: Sequence[Query], vid_names: Iterable[str], annotation_path: str | os.PathLike[str]
    ) -> None:
        """Check that every query and video has features before any work begins, without reading them."""
        lacking = set(self._missing("query", (str(query.desc_id) for query in queries)) if queries else ())
        missing = [query for query in queries if str(query.desc_id) in lacking]
        if missing:
            first = missing[0]
            others = f", and none for {len(missing) - 1} more" if len(missing) > 1 else ""
            raise InputError(
                f"{self.paths['query']}: has no features for desc_id {first.desc_id} (used by line {first.line} of "
                f"{Path(annotation_path).name}){others}: was it extracted with another split?"
            )
        names = list(dict.fromkeys(vid_names))
        for m in self.modalities:
            absent = self._missing(m, names)
            if absent:
                raise InputError(
                    f"{self.paths[m]}: has no features for {len(absent)} of {len(names)} videos: {first_few(absent)}: "
                    "was it extracted with another split?"
                )

    def held(self, queries: Sequence[Query], spans: SpansOf) -> HeldItems | None:
        """Items of queries that have been required, where a device gathers them; `spans` are those of their moments."""
        return None

    def settle(self, needed: int = 0) -> str | None:
        """Decide where the required features are, if that was left open; on disk it never is.

        `needed` are bytes of the device that others will need. Returns what was decided and why, in a line.
        """
        return None

    @property
    def records(self) -> dict[str, dict[str, Property]]:
        """{modality or "query": the decisive properties that its file says it was made with}."""
        return {kind: properties(file.made_by()) for kind, file in self._files.items()}

    @property
    def unrecorded(self) -> list[str]:
        """The modalities, or "query", whose files do not say what made them."""
        return [kind for kind, file in self._files.items() if "made_by" not in file.made_by()]

    def note_unknown_files(self) -> None:
        """Say which feature files carry no record of what made them."""
        unknown = [str(self.paths[kind]) for kind in self.unrecorded]
        if unknown:
            print(f"note: no record of what made these features: {', '.join(unknown)}", file=sys.stderr)
