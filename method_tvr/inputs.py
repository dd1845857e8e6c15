"""What a run reads: a split's queries and videos with their features, checked before any work begins."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from method_tvr.dataset.annotations import Query, Video, load_videos, outside_split
from method_tvr.dataset.cached_store import CachedStore
from method_tvr.dataset.clip_times import ClipTimes
from method_tvr.dataset.feature_cache import NoRoomError
from method_tvr.dataset.feature_records import seconds_of_a_row
from method_tvr.dataset.feature_store import FeatureStore
from method_tvr.dataset.ranked_pairs import load_asked_queries, load_training_queries
from method_tvr.dataset.split_facts import Fact, Reach, Split, check_durations, facts
from method_tvr.model import MODALITIES
from method_tvr.options.saved import find_path
from standalone_eval.ranking.ndcg import NDCG, RankedTruth
from utils.basic_utils import InputError, first_few

DEBUG_BATCHES = 3


@dataclass
class EvalSplit:
    """A split to evaluate on: queries in jsonl order, and the corpus of videos in video2dur order."""

    name: str
    queries: list[Query]
    videos: list[Video]
    graded: RankedTruth | None = None  # the graded moments of its queries, where they are ranked rather than right

    @property
    def has_ground_truth(self) -> bool:
        return self.queries[0].has_moment


@dataclass(frozen=True)
class Inputs:
    """Where the annotations and features of a run lie, and how they are read: the options of these names."""

    dset_name: str
    eval_split_name: str
    train_path: str | None
    eval_path: str | None
    video_duration_idx_path: str
    desc_bert_path: str
    sub_bert_path: str | None  # of a modality that ctx_mode leaves out: None
    vid_feat_path: str | None
    sub_feat_size: int | None
    q_feat_size: int | None
    vid_feat_size: int | None
    ctx_mode: str
    max_desc_l: int
    max_ctx_l: int
    long_videos: str
    no_norm_vfeat: bool
    no_norm_tfeat: bool
    clip_length: float | str
    label_rule: str
    feature_cache: str
    cache_dtype: str
    feature_cache_dir: str | None
    num_workers: int
    no_pin_memory: bool
    data_ratio: float
    debug: bool
    bsz: int
    eval_query_bsz: int
    eval_context_bsz: int

    @property
    def clip_times(self) -> ClipTimes:
        """The clips of the videos, in seconds."""
        return ClipTimes(self.clip_length, self.label_rule)

    @property
    def context_paths(self) -> dict[str, Path]:
        """{modality: the feature file of its videos}, whether it is there or not."""
        parts, paths = self.ctx_mode.split("_"), {"video": self.vid_feat_path, "sub": self.sub_bert_path}
        return {m: find_path(str(paths[m])) for m in MODALITIES if m in parts}

    def open_features(self, device: torch.device, with_queries: bool = True, with_context: bool = True) -> FeatureStore:
        """The features of queries and videos, for a model on a device; False leaves the files of either alone.

        Those of queries alone are each needed once, and read from their file.
        """
        on_gpu, text = device.type == "cuda", not self.no_norm_tfeat
        described: dict[str, Any] = {
            "context_paths": self.context_paths if with_context else {},
            "query_path": find_path(self.desc_bert_path) if with_queries else None,
            "normalize": {"video": not self.no_norm_vfeat, "sub": text, "query": text},
            "max_ctx_l": self.max_ctx_l,
            "max_desc_l": self.max_desc_l,
            "use_tef": "tef" in self.ctx_mode.split("_"),
            "sizes": {"video": self.vid_feat_size, "sub": self.sub_feat_size, "query": self.q_feat_size},
            "long_videos": self.long_videos,
            "num_workers": self.num_workers,
            "pin_memory": on_gpu and not self.no_pin_memory,
        }
        if self.feature_cache == "disk" or not with_context:
            return FeatureStore(**described)
        try:
            return CachedStore(
                **described,
                dtype=self.cache_dtype,
                cache_dir=self.feature_cache_dir,
                device=device if self.feature_cache == "device" else None,
                few_sizes=on_gpu,
                may_hold=device if on_gpu and self.feature_cache == "auto" else None,
            )
        except NoRoomError as err:
            if self.feature_cache != "auto":
                raise
            print(f"note: {err}, as is done now: features are read item by item", file=sys.stderr)
            return FeatureStore(**described)

    def train_queries(self, features: FeatureStore) -> list[Query]:
        """Training queries, all with a moment and with features; an `InputError` names file, line and key."""
        path = find_path(str(self.train_path))
        queries = load_training_queries(path, load_videos(find_path(self.video_duration_idx_path)))
        if not queries[0].has_moment:
            raise InputError(f"{path}: has no ground truth (vid_name and ts) to train on: give the training split")
        queries = queries[: max(1, round(len(queries) * self.data_ratio))]
        if self.debug:
            queries = queries[: DEBUG_BATCHES * self.bsz]
        features.require(queries, (query.vid_name for query in queries if query.vid_name), path)
        return queries

    def listed_videos(self) -> list[Video]:
        """The videos of the split, in file order; an `InputError` where there are none."""
        videos = list(self._videos_of_splits()[self.eval_split_name].values())
        return videos[: DEBUG_BATCHES * self.eval_context_bsz] if self.debug else videos

    def eval_split(self, features: FeatureStore) -> EvalSplit:
        """Queries and videos of the split, all with features; an `InputError` names file, line and key."""
        splits, name = self._videos_of_splits(), self.eval_split_name
        if self.eval_path is None:
            raise InputError(f"--eval_path is missing: {self.dset_name} has no queries of its own for split {name}")
        path = find_path(self.eval_path)
        queries, graded = load_asked_queries(path, splits)
        videos = list(splits[name].values())
        outside = outside_split(queries, splits[name])
        if outside:
            raise InputError(
                f"{path}, line {outside[0].line}: video {outside[0].vid_name} is not in split {name} of "
                f"{find_path(self.video_duration_idx_path)} (nor those of {len(outside) - 1} other lines): "
                f"desc_id {first_few([q.desc_id for q in outside])}"
            )
        if self.debug:
            queries = queries[: DEBUG_BATCHES * self.eval_query_bsz]
            wanted = {query.vid_name for query in queries}
            few = DEBUG_BATCHES * self.eval_context_bsz
            videos = [video for number, video in enumerate(videos) if number < few or video.vid_name in wanted]
            graded = graded and graded.some(np.arange(len(graded.query_ids)) < len(queries))
        features.require(queries, (video.vid_name for video in videos), path)
        return EvalSplit(name, queries, videos, graded)

    def judged_split(self, features: FeatureStore, stop_task: str) -> EvalSplit | None:
        """The split that epochs are evaluated on, if any; an `InputError` where it does not say what is right."""
        split = None if self.eval_path is None else self.eval_split(features)
        if split is not None and not split.has_ground_truth and split.graded is None:
            raise InputError(f"{self.eval_path}: has no ground truth (vid_name and ts): evaluate on another split")
        if split is not None and (split.graded is not None) != (stop_task == NDCG):
            graded = "has no graded moments" if split.graded is None else "has graded moments, for NDCG alone"
            remedy = f"--stop_task {'VCMR' if split.graded is None else NDCG}"
            raise InputError(f"{self.eval_path}: {graded}: give {remedy}")
        return split

    def facts(self, splits: Sequence[Split], features: FeatureStore, reach: Reach) -> list[Fact]:
        """What is wrong with splits whose numbers of clips are these features'; an `InputError` beyond repair."""
        path, seconds = str(features.paths[features.modalities[0]]), seconds_of_a_row(features, self.clip_times)
        odd = [check_durations(split, seconds, self.clip_times.is_auto, path) for split in splits]
        return [fact for fact in odd if fact is not None] + facts(splits, reach)

    def facts_in_training(
        self, queries: Sequence[Query], split: EvalSplit | None, features: FeatureStore, reach: Reach
    ) -> list[Fact]:
        """The same of training queries and of the split that epochs are evaluated on, if there is one."""
        splits = [Split.asked(Path(str(self.train_path)).name, queries, features.clip_counts)]
        if split is not None:
            counts = features.clip_counts([video.vid_name for video in split.videos])
            splits.append(Split.of(Path(str(self.eval_path)).name, split.videos, counts, split.queries))
        return self.facts(splits, features, reach)

    def _videos_of_splits(self) -> dict[str, dict[str, Video]]:
        """{split: {vid_name: video}}; the split that is evaluated is there."""
        path = find_path(self.video_duration_idx_path)
        splits = load_videos(path)
        if not splits.get(self.eval_split_name):
            raise InputError(f"{path}: has no videos of split {self.eval_split_name}: it has {', '.join(splits)}")
        return splits
