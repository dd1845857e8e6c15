"""A trained model and a split -> prediction files and metrics."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from easydict import EasyDict

from method_tvr.annotations import Query, Video
from method_tvr.checkpoint import Checkpoint, load_checkpoint
from method_tvr.config import dataset_of, find_path, parse_inference_options
from method_tvr.corpus import EvalSplit, ensure_dataset, load_eval_split, open_features
from method_tvr.corpus_store import CorpusStore, Recipe
from method_tvr.feature_store import TEF_SIZE, FeatureStore
from method_tvr.launch import launch, processes_to_launch, started
from method_tvr.loading import Batch, BatchLoader
from method_tvr.model import ModelConfig, ReLoCLNet
from method_tvr.options import OFF, TASKS
from method_tvr.packing import Corpus
from method_tvr.predictions import MAX_PREDICTIONS, CorpusTimes, RankedRows, write_predictions
from method_tvr.ranks import ALONE, Ranks
from method_tvr.retrieval import CorpusSearch, EncodedCorpus, EncodedQueries, Searcher, SearchSettings
from method_tvr.sharding import ShardedSearcher
from method_tvr.start_end_dataset import StartEndEvalDataset, prepare_batch_inputs
from method_tvr.stored_corpus import StoredCorpus
from standalone_eval.eval import metrics_table
from standalone_eval.metrics import Rule, hits_at_k, recalls, recalls_by_type
from utils.basic_utils import InputError, command_line, progress, write_json
from utils.model_utils import choose_device

CPU = torch.device("cpu")
RETRIEVAL_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@torch.inference_mode()
def encode_videos(
    model: ReLoCLNet, batches: Iterable[Batch], device: torch.device, trim_padding: bool = False
) -> Iterator[tuple[int, torch.Tensor]]:
    """Encode videos: h3 of all modalities, with the padded rows that boundary scores need.

    Args:
        model: in evaluation mode, on `device`.
        batches: of videos.
        device: where encodings stay.
        trim_padding: see `ReLoCLNet.encode_videos`; no padded row is kept then.

    Yields:
        For each video, in their order, its number of clips L and its rows (R, M, D) float32.
    """
    reach = 0 if trim_padding else model.config.conv_kernel_size // 2
    for _, batch in batches:
        inputs, lengths = prepare_batch_inputs(batch, device), batch["ctx_lengths"].tolist()
        encoded: dict[int, torch.Tensor] = {}
        for videos in model.encode_videos(inputs, trim_padding):
            h3 = torch.stack([videos.h3[m] for m in model.modalities], dim=2)  # (n, L, M, D)
            numbers = torch.arange(len(lengths))[videos.rows]
            encoded |= {i: entry[: lengths[i] + reach].clone() for i, entry in zip(numbers.tolist(), h3, strict=True)}
        for i, length in enumerate(lengths):
            yield length, encoded[i]


@torch.inference_mode()
def encode_corpus(
    model: ReLoCLNet,
    batches: Iterable[Batch],
    device: torch.device,
    trim_padding: bool = False,
    dtype: torch.dtype = torch.float32,
) -> EncodedCorpus:
    """Encode videos once and keep them in memory.

    Args:
        model, batches, device, trim_padding: see `encode_videos`.
        dtype: of the encoded corpus.
    """
    rows, n_clips = [], []
    for length, encoded in encode_videos(model, batches, device, trim_padding):
        rows.append(encoded.to(dtype))
        n_clips.append(length)
    return EncodedCorpus(rows, n_clips, dtype)


@torch.inference_mode()
def encode_queries(model: ReLoCLNet, batch: dict[str, torch.Tensor]) -> EncodedQueries:
    """Encode a batch of queries as a corpus is searched with them."""
    query = model.encode_query(batch["query_feat"], batch["query_mask"])
    return EncodedQueries.build(query, model.span_queries(query), model.modalities)


def search_settings(opt: EasyDict) -> SearchSettings:
    """What the options say about the search."""
    return SearchSettings(
        q2c_alpha=opt.q2c_alpha,
        max_vcmr_video=opt.max_vcmr_video,
        max_moments=opt.max_before_nms,
        min_pred_l=opt.min_pred_l,
        max_pred_l=opt.max_pred_l,
        query_block=opt.retrieval_bsz,
    )


def predict(
    model: ReLoCLNet,
    split: EvalSplit,
    features: FeatureStore,
    opt: EasyDict,
    tasks: Sequence[str],
    device: torch.device,
    store: CorpusStore | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, RankedRows]:
    """Answer all queries of a split, of whose videos and queries each process encodes its share.

    Args:
        model: in evaluation mode, on `device`.
        split, features: queries, videos and where their features come from.
        opt: search and loading options.
        tasks: of VCMR, SVMR and VR. SVMR alone encodes only the videos that queries are about.
        store: has the videos encoded already; their features are not looked at then.
        ranks: the processes that search together; all return the same.

    Returns:
        {task: RankedRows}, up to `max_before_nms` rows a query, in the order of `tasks`.
    """
    videos = split.videos
    if set(tasks) == {"SVMR"}:
        asked = {query.vid_name for query in split.queries}
        videos = [video for video in videos if video.vid_name in asked]
    shard = range(len(videos))[ranks.slice_of(len(videos))]
    own = videos[shard.start : shard.stop] or videos[:1]  # a process without a share takes part like any
    own_queries = split.queries[ranks.slice_of(len(split.queries))]
    dataset = StartEndEvalDataset(own_queries, own, features, "context")
    corpus: Corpus
    if store is not None:
        corpus = StoredCorpus(store, [video.vid_name for video in own], device)
    else:
        context_batches = progress(BatchLoader(dataset, opt.eval_context_bsz, opt), "encoding videos")
        dtype = RETRIEVAL_DTYPES[opt.retrieval_dtype]
        corpus = encode_corpus(model, context_batches, device, opt.trim_padding, dtype)
    dataset.set_data_mode("query")
    query_batches = progress(BatchLoader(dataset, opt.eval_query_bsz, opt), "encoding queries")
    encoded = [encode_queries(model, prepare_batch_inputs(batch, device)).to(CPU) for _, batch in query_batches]
    everyones = [queries for share in ranks.all_gather(encoded) for queries in share]
    queries = EncodedQueries.concatenate(everyones).to(device)
    kernels = model.merged_st_predictor.weight, model.merged_ed_predictor.weight
    searcher: CorpusSearch = Searcher(corpus, *kernels, search_settings(opt))
    if ranks.size > 1:
        searcher = ShardedSearcher(searcher, shard, len(videos), ranks)
    return search_tasks(searcher, queries, split.queries, videos, opt.clip_length, tasks)


def search_tasks(
    searcher: CorpusSearch,
    queries: EncodedQueries,
    asked: Sequence[Query],
    videos: Sequence[Video],
    clip_length: float,
    tasks: Sequence[str],
) -> dict[str, RankedRows]:
    """Answer encoded queries over an encoded corpus.

    Args:
        searcher: over the corpus of `videos`, one entry each in their order.
        queries, asked: Nq queries, encoded and as annotated.
        videos, clip_length: what entries and clips mean.
        tasks: see `predict`.

    Returns:
        {task: RankedRows}.
    """
    times = CorpusTimes.whole_videos(videos, clip_length)
    entry_of = {video.vid_name: entry for entry, video in enumerate(videos)}
    blocks = list(searcher.query_blocks(len(queries)))
    parts: dict[str, list[RankedRows]] = {task: [] for task in tasks}
    if "VCMR" in parts or "VR" in parts:
        for moments, ranked in progress(searcher.search_all(queries), "answering queries", total=len(blocks)):
            if "VCMR" in parts:
                parts["VCMR"].append(times.moment_rows(moments))
            if "VR" in parts:
                parts["VR"].append(times.video_rows(ranked))
    if "SVMR" in parts:
        for block in progress(blocks, "answering queries in their own videos"):
            own = torch.tensor([[entry_of[query.vid_name]] for query in asked[block] if query.vid_name])
            svmr = searcher.search_moments(queries[block], own.to(queries.video.device))
            parts["SVMR"].append(times.moment_rows(svmr))
    return {task: RankedRows.concatenate(rows) for task, rows in parts.items()}


def evaluate_rows(rows_by_task: dict[str, RankedRows], split: EvalSplit, opt: EasyDict) -> dict[str, dict[str, Any]]:
    """Recalls of predictions still in memory: those that `standalone_eval` computes from the written file.

    Returns:
        {task: {"{iou_thd}-r{k}": percentage}}, and for datasets with query types {"{task}_by_type": …}.
    """
    dataset = dataset_of(opt)
    rule = Rule(dataset.iou_thds, dataset.recall_ks)
    idx_of = {video.vid_name: video.idx for video in split.videos}
    video_idx = np.array([idx_of[query.vid_name] for query in split.queries if query.vid_name], dtype=np.float64)
    spans = np.array([query.ts for query in split.queries])[:, None]  # (Nq, 1, 2)
    types = [query.type for query in split.queries if query.type is not None]
    metrics, by_type = {}, {}
    for task, rows in rows_by_task.items():
        hits = hits_at_k(task, rows.best().padded(), video_idx, spans, rule)
        metrics[task] = recalls(hits)
        if dataset.query_types and len(types) == len(split.queries):
            by_type[f"{task}_by_type"] = recalls_by_type(hits, types)
    return metrics | by_type


def evaluate_split(
    model: ReLoCLNet,
    split: EvalSplit,
    features: FeatureStore,
    opt: EasyDict,
    tasks: Sequence[str],
    device: torch.device,
    path: Path,
    store: CorpusStore | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, dict[str, Any]]:
    """Predict, write the prediction file and, with ground truth, its metrics; both again after NMS if asked for.

    Args:
        model, split, features, opt, tasks, device, store, ranks: see `predict`; the main process writes the files.
        path: prediction file; the others are named after it: `…_metrics.json`, `…_nms_thd_{thd}.json` and so on.

    Returns:
        Metrics without NMS; empty when the split has no ground truth, and on other processes than the main one.
    """
    rows = predict(model, split, features, opt, tasks, device, store, ranks)
    if not ranks.is_main:
        return {}
    metrics = _write(rows, split, opt, path)
    if opt.nms_thd != OFF:
        max_before_nms = opt.max_before_nms if opt.nms_from_all else MAX_PREDICTIONS
        after = {task: rows[task].after_nms(opt.nms_thd, max_before_nms) for task in tasks if task != "VR"}
        if after:
            _write(after, split, opt, path.with_name(f"{path.stem}_nms_thd_{opt.nms_thd:g}.json"))
    return metrics


def _write(rows: dict[str, RankedRows], split: EvalSplit, opt: EasyDict, path: Path) -> dict[str, dict[str, Any]]:
    write_predictions(path, split.videos, split.queries, {task: ranked.best() for task, ranked in rows.items()})
    if not split.has_ground_truth:
        return {}
    metrics = evaluate_rows(rows, split, opt)
    write_json(metrics, path.with_name(f"{path.stem}_metrics.json"), indent=True)
    return metrics


def check_model_fits(config: ModelConfig, features: FeatureStore, model_dir: str) -> None:
    """Refuse features of other sizes than the model was trained on, and more of them than it has positions for.

    Raises:
        InputError: naming the feature file or the option.
    """
    tef = TEF_SIZE if features.use_tef else 0
    trained_on = {"query": config.query_input_size, **{m: config.input_sizes[m] - tef for m in config.modalities}}
    for kind, size in features.sizes.items():
        if size != trained_on[kind]:
            raise InputError(
                f"{features.paths[kind]}: features are {size} wide, but the model in {model_dir} was "
                f"trained on {trained_on[kind]}: give the features it was trained on"
            )
    for name in ("max_ctx_l", "max_desc_l"):
        if getattr(features, name) > getattr(config, name):
            raise InputError(
                f"--{name} {getattr(features, name)}: the model in {model_dir} was trained with "
                f"{getattr(config, name)}: give at most that"
            )


def open_store(opt: EasyDict, checkpoint: Checkpoint) -> CorpusStore:
    """The encoded corpus that the options name, which must be what encoding with them would give.

    Raises:
        InputError: it is another model's, was made with other options, or is damaged.
    """
    store = CorpusStore(find_path(opt.encoded_corpus))
    store.recipe.check_same(Recipe.of(checkpoint, opt, store.recipe.dtype), store.folder)
    return store


def open_query_features(opt: EasyDict) -> FeatureStore:
    """Features of queries alone, for videos that are encoded already. Each is needed once, and read from its file."""
    return FeatureStore(
        {},
        find_path(opt.desc_bert_path),
        normalize={"query": not opt.no_norm_tfeat},
        max_ctx_l=opt.max_ctx_l,
        max_desc_l=opt.max_desc_l,
        use_tef=False,
        sizes={"query": opt.q_feat_size},
    )


def run_inference(opt: EasyDict, ranks: Ranks = ALONE, device: torch.device | None = None) -> dict[str, dict[str, Any]]:
    """Inference as the command line does it.

    Args:
        opt: from `parse_inference_options`.
        ranks: the processes that do it together.
        device: where this one computes, by default where the options say.

    Returns:
        Metrics as `evaluate_split` returns them.
    """
    checkpoint = load_checkpoint(Path(opt.model_dir) / "model.ckpt")
    checkpoint.note_if_unknown()
    if ranks.is_main:
        ensure_dataset(opt)
    ranks.barrier()
    device = choose_device(opt.device) if device is None else device
    store = open_store(opt, checkpoint) if opt.encoded_corpus is not None else None
    features = open_features(opt, device) if store is None else open_query_features(opt)
    features.note_unknown_files()
    check_model_fits(checkpoint.config, features, opt.model_dir)
    split = load_eval_split(opt, features)
    if store is not None:
        store.require(split.videos)
        others = len(store) - len(split.videos)
        if others:
            print(
                f"note: {store.folder}: {others} of its videos are not in {split.name}: not searched", file=sys.stderr
            )
    tasks = _tasks(opt, split)
    model = checkpoint.build_model(device)
    name = f"inference_{opt.dset_name}_{opt.eval_split_name}_{opt.eval_id}_predictions_{'_'.join(tasks)}.json"
    path = Path(opt.model_dir) / name
    metrics = evaluate_split(model, split, features, opt, tasks, device, path, store, ranks)
    print(f"{len(split.queries)} queries over {len(split.videos)} videos: {path}")
    if metrics:
        print(metrics_table(metrics))
    return metrics


def _tasks(opt: EasyDict, split: EvalSplit) -> list[str]:
    if split.has_ground_truth:
        return list(opt.tasks or TASKS)
    if "SVMR" in (opt.tasks or ()):
        raise InputError(
            f"{opt.eval_path}: SVMR looks for the moment in a given video, but the queries of {split.name} name none: "
            "leave SVMR out of --tasks"
        )
    return list(opt.tasks or [task for task in TASKS if task != "SVMR"])


@command_line
def main() -> None:
    """Command line of inference."""
    opt = parse_inference_options()
    n = processes_to_launch(opt.device_ids)
    if n > 1:
        launch(sys.argv, n)
    with started(opt.device, opt.device_ids) as (ranks, device):
        run_inference(opt, ranks, device)


if __name__ == "__main__":
    main()
