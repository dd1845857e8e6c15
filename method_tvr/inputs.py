"""What a run reads: a split's queries and videos with their features, checked before any work begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from easydict import EasyDict

from method_tvr.config import dataset_of, find_path
from method_tvr.dataset.annotations import Query, Video, load_queries, load_videos, outside_split
from method_tvr.dataset.cached_store import CachedStore
from method_tvr.dataset.clip_times import ClipTimes
from method_tvr.dataset.feature_store import FeatureStore
from method_tvr.model import MODALITIES
from utils.basic_utils import InputError, first_few

DEBUG_BATCHES = 3


def open_features(opt: EasyDict, device: torch.device, with_queries: bool = True, average: bool = True) -> FeatureStore:
    """The feature store that the options describe.

    Args:
        opt: the options.
        device: the model's.
        with_queries: False leaves the file of query features alone.
        average: see `FeatureStore`.
    """
    paths = {"video": opt.vid_feat_path, "sub": opt.sub_bert_path}  # None where --ctx_mode leaves a modality out
    sizes = {"video": opt.vid_feat_size, "sub": opt.sub_feat_size, "query": opt.q_feat_size}
    parts = opt.ctx_mode.split("_")
    on_gpu = device.type == "cuda"
    described: dict[str, Any] = {
        "context_paths": {m: find_path(paths[m]) for m in MODALITIES if m in parts},
        "query_path": find_path(opt.desc_bert_path) if with_queries else None,
        "normalize": {"video": not opt.no_norm_vfeat, "sub": not opt.no_norm_tfeat, "query": not opt.no_norm_tfeat},
        "max_ctx_l": opt.max_ctx_l,
        "max_desc_l": opt.max_desc_l,
        "use_tef": "tef" in parts,
        "sizes": sizes,
        "average": average,
        "num_workers": opt.num_workers,
        "pin_memory": on_gpu and not opt.no_pin_memory,
    }
    if opt.feature_cache == "disk":
        return FeatureStore(**described)
    return CachedStore(
        **described,
        dtype=opt.cache_dtype,
        cache_dir=opt.feature_cache_dir,
        device=device if opt.feature_cache == "device" else None,
        few_sizes=on_gpu,
        may_hold=device if on_gpu and opt.feature_cache == "auto" else None,
    )


def clip_times(opt: EasyDict) -> ClipTimes:
    """The clips of a run's videos, in seconds."""
    return ClipTimes(opt.clip_length, opt.label_rule)


@dataclass
class EvalSplit:
    """A split to evaluate on: queries in jsonl order, and the corpus of videos in video2dur order."""

    name: str
    queries: list[Query]
    videos: list[Video]

    @property
    def has_ground_truth(self) -> bool:
        return self.queries[0].has_moment


def load_train_queries(opt: EasyDict, features: FeatureStore) -> list[Query]:
    """Training queries, all with a moment and with features.

    Raises:
        InputError: naming file, line and key.
    """
    videos = load_videos(find_path(opt.video_duration_idx_path))
    path = find_path(opt.train_path)
    queries = load_queries(path, videos)
    if not queries[0].has_moment:
        raise InputError(f"{path}: has no ground truth (vid_name and ts) to train on: give the training split")
    queries = queries[: max(1, round(len(queries) * opt.data_ratio))]
    if opt.debug:
        queries = queries[: DEBUG_BATCHES * opt.bsz]
    features.require(queries, (query.vid_name for query in queries if query.vid_name), path)
    return queries


def listed_videos(opt: EasyDict) -> list[Video]:
    """The videos of the split named by the options, in file order.

    Raises:
        InputError: there are none.
    """
    path = find_path(opt.video_duration_idx_path)
    splits = load_videos(path)
    videos = list(splits.get(opt.eval_split_name, {}).values())
    if not videos:
        raise InputError(f"{path}: has no videos of split {opt.eval_split_name}: it has {', '.join(splits)}")
    return videos[: DEBUG_BATCHES * opt.eval_context_bsz] if opt.debug else videos


def load_eval_split(opt: EasyDict, features: FeatureStore) -> EvalSplit:
    """Queries and videos of the split named by the options, all with features.

    Raises:
        InputError: naming file, line and key.
    """
    duration_path = find_path(opt.video_duration_idx_path)
    splits = load_videos(duration_path)
    name = opt.eval_split_name
    if not splits.get(name):
        raise InputError(f"{duration_path}: has no videos of split {name}: it has {', '.join(splits)}")
    if opt.eval_path is None:
        raise InputError(f"--eval_path is missing: {opt.dset_name} has no queries of its own for split {name}")
    path = find_path(opt.eval_path)
    queries = load_queries(path, splits)
    videos = list(splits[name].values())
    outside = outside_split(queries, splits[name])
    if outside:
        raise InputError(
            f"{path}, line {outside[0].line}: video {outside[0].vid_name} is not in split {name} of {duration_path} "
            f"(nor those of {len(outside) - 1} other lines): desc_id {first_few([q.desc_id for q in outside])}"
        )
    if opt.debug:
        queries = queries[: DEBUG_BATCHES * opt.eval_query_bsz]
        wanted = {query.vid_name for query in queries}
        few = DEBUG_BATCHES * opt.eval_context_bsz
        videos = [video for number, video in enumerate(videos) if number < few or video.vid_name in wanted]
    features.require(queries, (video.vid_name for video in videos), path)
    return EvalSplit(name, queries, videos)


def ensure_dataset(opt: EasyDict) -> None:
    """Generate the dataset on first use when it is one that can be generated."""
    dataset_of(opt).ensure()
